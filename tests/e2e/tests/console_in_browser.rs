//! The first cluster in a real browser, from the one-time password to the deletion.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use e2e::browser::Browser;
use e2e::region::PASSWORD;
use e2e::{Region, check, eventually, setting};

const SOON: Duration = Duration::from_secs(60);

#[test]
fn the_first_cluster_in_the_console() {
    let region = Region::start();
    let browser = Browser::start();
    browser.open(&region.portal);
    browser.fill("login", "admin");
    browser.fill("password", "not the password");
    browser.click("sign-in");
    browser.wait_for_text("door-error", "wrong", SOON);
    browser.fill("login", "admin");
    browser.fill("password", &region.one_time_password());
    browser.click("sign-in");
    browser.fill("old-password", &region.one_time_password());
    browser.fill("new-password", PASSWORD);
    browser.click("change-password");

    browser.click("new-cluster");
    browser.fill("name", "demo");
    browser.click("ha");
    browser.click("driver-sandbox");
    browser.click("create");
    // A mark in the page that a reload would wipe out: what follows is live.
    eventually("the cluster's page", SOON, || {
        check(
            browser.url().contains("/clusters/") && !browser.url().ends_with("/new"),
            browser.url(),
        )
    });
    browser.run("window.sameDocument = true");
    browser.wait_for_text("phase", "ready", SOON);
    assert_eq!(browser.run("return window.sameDocument"), true, "became ready without a reload");

    browser.click("add-group");
    browser.fill("group-name", "workers");
    browser.fill("group-count", "2");
    browser.click("create-group");
    eventually("both nodes ready", SOON, || {
        let ready = browser.count("[data-testid=node][data-phase=ready]");
        check(ready == 2, format!("{ready} are"))
    });

    let script = "const r = await fetch(document.querySelector('[data-testid=kubeconfig]').href); \
                  return await r.text();";
    let kubeconfig = browser.run(script);
    let file = region.file("downloaded");
    std::fs::write(&file, kubeconfig.as_str().unwrap()).unwrap();
    let kubectl = |args: &[&str]| {
        let mut command = std::process::Command::new(setting("KUBECTL"));
        command.arg("--kubeconfig").arg(&file).args(args).output().expect("kubectl starts")
    };
    let nodes = String::from_utf8(kubectl(&["get", "nodes"]).stdout).unwrap();
    assert_eq!(nodes.matches(" Ready ").count(), 2, "{nodes}");

    browser.fill("confirm", "demo");
    browser.click("delete");
    eventually("the list without the cluster", SOON, || {
        let url = browser.url();
        check(url.ends_with("/clusters") && browser.count("a.name") == 0, url)
    });
    assert!(!kubectl(&["get", "nodes", "--request-timeout=5s"]).status.success());
}
