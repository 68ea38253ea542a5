//! Chromium, driven as a person would, through chromedriver (W3C WebDriver).

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use crate::{check, eventually};

/// Key under which WebDriver names an element.
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";
/// How long a page may take to show what a test looks for.
const SOON: Duration = Duration::from_secs(20);

/// A browser with an empty profile.
pub struct Browser {
    driver: Child,
    session: String,
    _profile: tempfile::TempDir,
}

impl Browser {
    /// Starts chromedriver and Chromium.
    pub fn start() -> Self {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let driver = Command::new("chromedriver")
            .arg(format!("--port={port}"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("chromedriver starts: install chromium-driver");
        let profile = tempfile::tempdir().unwrap();
        let data = format!("--user-data-dir={}", profile.path().display());
        let args = [
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--disable-dev-shm-usage",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--window-size=1360,1000",
            &data,
        ];
        let wanted = json!({"capabilities": {"alwaysMatch": {
            "browserName": "chrome", "goog:chromeOptions": {"args": args}}}});
        let base = format!("http://127.0.0.1:{port}/session");
        let answer = eventually("chromedriver answers", SOON, || call("POST", &base, &wanted));
        let id = answer["sessionId"].as_str().expect("a session").to_owned();
        Self { driver, session: format!("{base}/{id}"), _profile: profile }
    }

    fn command(&self, method: &str, path: &str, body: &Value) -> Result<Value, String> {
        call(method, &format!("{}{path}", self.session), body)
    }

    /// Opens an address.
    pub fn open(&self, url: &str) {
        self.command("POST", "/url", &json!({ "url": url })).unwrap();
    }

    /// The address that is shown.
    pub fn url(&self) -> String {
        self.command("GET", "/url", &Value::Null).unwrap().as_str().unwrap_or_default().to_owned()
    }

    fn find(&self, mark: &str) -> Result<String, String> {
        let using = json!({"using": "css selector", "value": format!("[data-testid={mark}]")});
        let found = self.command("POST", "/element", &using)?;
        Ok(found[ELEMENT].as_str().unwrap_or_default().to_owned())
    }

    /// Text of the element with this mark.
    pub fn text(&self, mark: &str) -> Result<String, String> {
        let element = self.find(mark)?;
        let text = self.command("GET", &format!("/element/{element}/text"), &Value::Null)?;
        Ok(text.as_str().unwrap_or_default().to_owned())
    }

    /// How many elements match a CSS selector.
    pub fn count(&self, selector: &str) -> usize {
        let using = json!({"using": "css selector", "value": selector});
        let found = self.command("POST", "/elements", &using).unwrap();
        found.as_array().map_or(0, Vec::len)
    }

    /// Clicks the element with this mark, as soon as it is there.
    pub fn click(&self, mark: &str) {
        eventually(&format!("click {mark}"), SOON, || {
            let element = self.find(mark)?;
            self.command("POST", &format!("/element/{element}/click"), &json!({})).map(drop)
        });
    }

    /// Replaces what stands in an input field.
    pub fn fill(&self, mark: &str, text: &str) {
        eventually(&format!("fill {mark}"), SOON, || {
            let element = self.find(mark)?;
            self.command("POST", &format!("/element/{element}/clear"), &json!({}))?;
            let keys = json!({ "text": text });
            self.command("POST", &format!("/element/{element}/value"), &keys).map(drop)
        });
    }

    /// Waits until the element with this mark shows this text.
    pub fn wait_for_text(&self, mark: &str, text: &str, within: Duration) {
        eventually(&format!("{mark} says {text}"), within, || {
            let now = self.text(mark)?;
            check(now.contains(text), format!("it says {now:?} at {}", self.url()))
        });
    }

    /// Runs JavaScript in the page; the result of the promise that it returns.
    pub fn run(&self, script: &str) -> Value {
        self.command("POST", "/execute/sync", &json!({"script": script, "args": []})).unwrap()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.command("DELETE", "", &Value::Null);
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}

fn call(method: &str, url: &str, body: &Value) -> Result<Value, String> {
    let text = if body.is_null() { String::new() } else { body.to_string() };
    let request = ureq::http::Request::builder()
        .method(method)
        .uri(url)
        .header("content-type", "application/json")
        .body(text)
        .map_err(|error| error.to_string())?;
    let config = ureq::Agent::config_builder().http_status_as_error(false).build();
    let agent: ureq::Agent = config.into();
    let mut answer = agent.run(request).map_err(|error| error.to_string())?;
    let status = answer.status().as_u16();
    let answer: Value = answer.body_mut().read_json().map_err(|error| error.to_string())?;
    let value = answer["value"].clone();
    if status == 200 { Ok(value) } else { Err(value["message"].to_string()) }
}
