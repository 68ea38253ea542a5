//! A region of a test's own: `up` at the start, `down` at the end, whatever happens between.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use crate::{eventually, setting};

/// The password that replaces the one-time password.
pub const PASSWORD: &str = "correct horse battery staple";

/// A running Marina with a data directory below /tmp.
pub struct Region {
    dir: tempfile::TempDir,
    up: Child,
    /// Address of the portal: `http://127.0.0.1:port`.
    pub portal: String,
    /// `host:port` of the gateway.
    pub gateway: String,
    ports: [u16; 3],
}

impl Region {
    /// Starts a region and waits until it greets. Nobody has signed in yet.
    pub fn start() -> Self {
        let dir = tempfile::Builder::new().prefix("marina-e2e-").tempdir_in("/tmp").unwrap();
        let ports = free_ports();
        let up = spawn_up(dir.path(), ports);
        let region = Self {
            dir,
            up,
            portal: format!("http://127.0.0.1:{}", ports[0]),
            gateway: format!("127.0.0.1:{}", ports[1]),
            ports,
        };
        region.wait_until_up();
        region
    }

    fn wait_until_up(&self) {
        eventually("`xtask up` greets", Duration::from_secs(90), || {
            let log = std::fs::read_to_string(self.dir.path().join("up.log")).unwrap_or_default();
            if log.contains("Marina runs.") { Ok(()) } else { Err(log) }
        });
    }

    /// Ctrl-C, then a second start on the same data.
    pub fn restart(&mut self) {
        self.stop();
        std::fs::remove_file(self.dir.path().join("up.log")).unwrap();
        self.up = spawn_up(self.dir.path(), self.ports);
        self.wait_until_up();
    }

    fn stop(&mut self) {
        signal(self.up.id(), libc::SIGTERM);
        let _ = self.up.wait();
    }

    /// The directory that `up` keeps its things in.
    pub fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// A path for a test's own file.
    pub fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The administrator's one-time password.
    pub fn one_time_password(&self) -> String {
        let text = std::fs::read_to_string(self.data().join("admin-password")).unwrap();
        text.trim().to_owned()
    }

    /// Signs the command line in for the first time.
    pub fn sign_in(&self) {
        let passwords = format!("{}\n{PASSWORD}\n", self.one_time_password());
        let mut command = self.marina_command(&["login", "--server", &self.portal]);
        command.arg("--password-stdin");
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().expect("marina starts");
        std::io::Write::write_all(&mut child.stdin.take().unwrap(), passwords.as_bytes()).unwrap();
        assert!(child.wait().unwrap().success(), "marina login failed");
    }

    fn marina_command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(Path::new(&setting("MARINA_BIN_DIR")).join("marina"));
        command.args(args).env("MARINA_CONFIG", self.file("marina.json"));
        command
    }

    /// Runs `marina` and returns everything about it.
    pub fn try_marina(&self, args: &[&str]) -> Output {
        self.marina_command(args).output().expect("marina starts")
    }

    /// Runs `marina`, which must succeed, and returns its standard output.
    pub fn marina(&self, args: &[&str]) -> String {
        let output = self.try_marina(args);
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "marina {args:?}: {error}\n{}", self.logs());
        String::from_utf8(output.stdout).unwrap()
    }

    /// `marina … -o json`, parsed.
    pub fn marina_json(&self, args: &[&str]) -> serde_json::Value {
        serde_json::from_str(&self.marina(&[args, &["-o", "json"]].concat())).unwrap()
    }

    /// Process ids whose command line contains all of `words` and belongs to this region.
    pub fn processes(&self, words: &[&str]) -> Vec<u32> {
        let own = self.dir.path().to_string_lossy().into_owned();
        let processes = std::fs::read_dir("/proc").unwrap().filter_map(Result::ok);
        let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
        pids.filter(|pid| {
            let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let line = String::from_utf8_lossy(&line).replace('\0', " ");
            let has = |word: &&str| line.contains(*word);
            // A tenant's process sees its files below a fixed path: its mounts tell whose it is. A
            // virtual machine names its files relative to its directory.
            let ours = || {
                line.contains(&own)
                    || std::fs::read_link(format!("/proc/{pid}/cwd"))
                        .is_ok_and(|dir| dir.starts_with(&own))
                    || std::fs::read_to_string(format!("/proc/{pid}/mountinfo"))
                        .is_ok_and(|mounts| mounts.contains(&*own))
            };
            words.iter().all(has) && !line.is_empty() && ours()
        })
        .collect()
    }

    /// kill -9 of every process that [`Region::processes`] finds; there must be one.
    pub fn kill(&self, words: &[&str]) {
        let pids = self.processes(words);
        assert!(!pids.is_empty(), "no process {words:?}");
        for pid in pids {
            signal(pid, libc::SIGKILL);
        }
    }

    /// kill -9 of the first process that [`Region::processes`] finds.
    pub fn kill_one(&self, words: &[&str]) {
        let pids = self.processes(words);
        signal(*pids.first().unwrap_or_else(|| panic!("no process {words:?}")), libc::SIGKILL);
    }

    /// The ends of all logs, for a failed test.
    pub fn logs(&self) -> String {
        let logs = std::fs::read_dir(self.data().join("logs")).into_iter().flatten().flatten();
        let mut text = String::new();
        for log in logs {
            let content = std::fs::read_to_string(log.path()).unwrap_or_default();
            let lines: Vec<_> = content.lines().rev().take(12).collect();
            let lines: Vec<_> = lines.into_iter().rev().collect();
            text += &format!("--- {}\n{}\n", log.path().display(), lines.join("\n"));
        }
        text
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.logs());
        }
        self.stop();
        let down = xtask().arg("down").arg("--data-dir").arg(self.data()).output();
        if let Ok(down) = down
            && !down.status.success()
        {
            eprintln!("down failed: {}", String::from_utf8_lossy(&down.stderr));
        }
    }
}

fn xtask() -> Command {
    Command::new(Path::new(&setting("MARINA_BIN_DIR")).join("xtask"))
}

fn spawn_up(dir: &Path, [listen, gateway, agent]: [u16; 3]) -> Child {
    let log = std::fs::File::create(dir.join("up.log")).unwrap();
    // Members get a range that no other region of this machine uses and the kernel gives to no
    // client: below the ephemeral ports, chosen by the portal's port.
    let first = 10_000 + u32::from(listen) % 200 * 100;
    xtask()
        .args(["up", "--no-build", "--data-dir"])
        .arg(dir.join("data"))
        .args(["--listen", &format!("127.0.0.1:{listen}")])
        .args(["--gateway-listen", &format!("127.0.0.1:{gateway}")])
        .args(["--agent-listen", &format!("127.0.0.1:{agent}")])
        .args(["--port-range", &format!("{first}-{}", first + 99)])
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn()
        .expect("xtask starts")
}

fn free_ports() -> [u16; 3] {
    let listeners = [(); 3].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    listeners.map(|listener| listener.local_addr().unwrap().port())
}

#[allow(unsafe_code)]
fn signal(pid: u32, signal: i32) {
    let pid = i32::try_from(pid).expect("process ids fit");
    // SAFETY: kill() touches no memory of ours.
    unsafe { libc::kill(pid, signal) };
}
