//! Whether KVM works here: found out by booting, remembered until the machine is rebooted.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError, mpsc};
use std::time::Duration;

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};

use crate::machine::{self, EMULATOR};

/// A guest reaches its init within about two seconds even when emulated; hanging ones never do.
const PATIENCE: Duration = Duration::from_secs(10);

/// What node-init says when it is started with `marina.probe`.
const ANSWER: &str = "marina: probe ok";

/// What executes the guest's instructions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Accelerator {
    /// The processor.
    Kvm,
    /// QEMU's translator.
    Tcg {
        /// How it runs several virtual processors.
        threads: Threads,
    },
}

impl Accelerator {
    /// QEMU's name for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Kvm => "kvm",
            Self::Tcg { .. } => "tcg",
        }
    }
}

/// How the translator runs several virtual processors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Threads {
    /// In turns, in one thread of the host.
    Single,
    /// Each in a thread of its own.
    Multi,
}

impl Threads {
    /// QEMU's name for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Single => "single",
            Self::Multi => "multi",
        }
    }

    /// What is safe with a QEMU that answers `text` to `--version`. Before 8.1 one processor may
    /// translate an instruction while another patches it, and go on using the old one; Linux
    /// patches itself all the time, and about one boot in thirty ended in an int3 oops.
    fn of_version(text: &str) -> Self {
        let number = text.split_whitespace().skip_while(|w| *w != "version").nth(1).unwrap_or("");
        let mut parts = number.split('.').map(|p| p.parse::<u32>().unwrap_or(0));
        let version = (parts.next().unwrap_or(0), parts.next().unwrap_or(0));
        if version >= (8, 1) { Self::Multi } else { Self::Single }
    }
}

/// What was found out, and on which boot of the machine.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Verdict {
    boot_id: String,
    /// What to use.
    pub accelerator: Accelerator,
    /// One sentence for people.
    pub reason: String,
}

/// Finds out once, and remembers in a file.
pub struct Prober {
    file: PathBuf,
    one_at_a_time: Mutex<()>,
}

impl Prober {
    /// A prober that remembers in `file`.
    pub fn new(file: PathBuf) -> Self {
        Self { file, one_at_a_time: Mutex::new(()) }
    }

    /// What is known without booting anything.
    pub fn known(&self) -> Option<Verdict> {
        let boot_id = driver_local::process::boot_id().ok()?;
        match usable_device() {
            Err(reason) => Some(Verdict { boot_id, accelerator: emulation(), reason }),
            Ok(()) => {
                let bytes = fs::read(&self.file).ok()?;
                let verdict: Verdict = serde_json::from_slice(&bytes).ok()?;
                (verdict.boot_id == boot_id).then_some(verdict)
            }
        }
    }

    /// What to use; boots the image's kernel once if that is not known yet.
    pub fn verdict(&self, image: &Path) -> anyhow::Result<Verdict> {
        let _turn = self.one_at_a_time.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(verdict) = self.known() {
            return Ok(verdict);
        }
        let (accelerator, reason) = match boot_with_kvm(image) {
            Ok(()) => (Accelerator::Kvm, "KVM works: a guest booted with it".to_owned()),
            Err(e) => (
                emulation(),
                format!(
                    "/dev/kvm exists, but a guest does not boot with it ({e:#}); workers are \
                     emulated, which is several times slower"
                ),
            ),
        };
        let boot_id = driver_local::process::boot_id()?;
        let verdict = Verdict { boot_id, accelerator, reason };
        tracing::info!(accelerator = accelerator.name(), reason = %verdict.reason, "accelerator");
        fs::write(&self.file, serde_json::to_vec_pretty(&verdict)?)?;
        Ok(verdict)
    }
}

fn emulation() -> Accelerator {
    let version = Command::new(EMULATOR).arg("--version").stdin(Stdio::null()).output();
    let text = version.map(|o| String::from_utf8_lossy(&o.stdout).into_owned()).unwrap_or_default();
    Accelerator::Tcg { threads: Threads::of_version(&text) }
}

fn usable_device() -> Result<(), String> {
    match File::options().read(true).write(true).open("/dev/kvm") {
        Ok(_) => Ok(()),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            Err("this host has no /dev/kvm (enable virtualisation in the firmware, or nested \
             virtualisation if it is itself a virtual machine); workers are emulated, which is \
             several times slower"
                .into())
        }
        Err(e) => Err(format!("/dev/kvm cannot be opened: {e}; workers are emulated")),
    }
}

/// Boots kernel and RAM disk with KVM and waits for the init to answer.
fn boot_with_kvm(image: &Path) -> anyhow::Result<()> {
    let mut child = Command::new(EMULATOR)
        .args(machine::probe_arguments(image))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let console = child.stdout.take().context("QEMU has no output")?;
    let (sender, receiver) = mpsc::channel();
    let reader = std::thread::spawn(move || sender.send(says_answer(console)));
    let result = receiver.recv_timeout(PATIENCE);
    child.kill()?;
    let output = child.wait_with_output()?;
    // Its pipe is closed now, so the reader has ended or is about to.
    let _ = reader.join();
    match result {
        Ok(true) => Ok(()),
        Ok(false) => {
            let said = String::from_utf8_lossy(&output.stderr);
            bail!("QEMU ended: {}", said.lines().next().unwrap_or("without a word"))
        }
        Err(_) => bail!("it hung for {} s", PATIENCE.as_secs()),
    }
}

/// Reads a console until the init answers or the machine ends.
fn says_answer(mut console: impl Read) -> bool {
    let mut seen = Vec::new();
    let mut buffer = [0; 1024];
    while let Ok(length @ 1..) = console.read(&mut buffer) {
        seen.extend_from_slice(&buffer[..length]);
        if String::from_utf8_lossy(&seen).contains(ANSWER) {
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_emulators_run_processors_in_turns() {
        let of = |number: &str| Threads::of_version(&format!("QEMU emulator version {number}\nC"));
        assert_eq!(of("7.2.22 (Debian 1:7.2+dfsg-7)"), Threads::Single);
        assert_eq!(of("8.0.5"), Threads::Single);
        assert_eq!(of("8.1.0"), Threads::Multi);
        assert_eq!(of("10.0.2 (Debian 1:10.0.2)"), Threads::Multi);
        assert_eq!(Threads::of_version("nonsense"), Threads::Single);
    }

    #[test]
    fn only_the_answer_counts() {
        assert!(says_answer(&b"SeaBIOS\r\nmarina: probe ok 1.9s\r\n"[..]));
        assert!(!says_answer(&b"SeaBIOS\r\nKernel panic"[..]));
    }

    #[test]
    fn a_verdict_of_another_boot_is_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let prober = Prober::new(dir.path().join("kvm.json"));
        let mut verdict = Verdict {
            boot_id: driver_local::process::boot_id().unwrap(),
            accelerator: Accelerator::Kvm,
            reason: "tried".into(),
        };
        fs::write(&prober.file, serde_json::to_vec(&verdict).unwrap()).unwrap();
        // A machine without /dev/kvm knows its answer anyway.
        if usable_device().is_ok() {
            assert_eq!(prober.known().unwrap().reason, "tried");
            verdict.boot_id = "earlier".into();
            fs::write(&prober.file, serde_json::to_vec(&verdict).unwrap()).unwrap();
            assert!(prober.known().is_none());
        } else {
            assert_eq!(prober.known().unwrap().accelerator.name(), "tcg");
        }
    }
}
