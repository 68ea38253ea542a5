//! Puts container images into the containerd store that every worker starts with, unpacked, so
//! that the first pod of a new worker neither pulls nor extracts anything.
//!
//! The image's own containerd does it, on this machine's kernel: with a private socket, a private
//! mount namespace and nothing but the content, snapshot and image services. It is ended by its
//! process id when the last image is in.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use crate::command::run;
use crate::elf;

/// The namespace that containerd's CRI plugin reads.
const NAMESPACE: &str = "k8s.io";

/// An OCI archive and the images that are wanted from it.
#[derive(Clone, Debug)]
pub struct Archive {
    /// The tar file.
    pub file: PathBuf,
    /// The full references of the images, as in its index.
    pub references: Vec<String>,
}

/// Imports archives into the containerd root at `target`, which is new or was left by a containerd
/// that is not newer than the one in `rootfs`.
///
/// # Errors
/// containerd does not start or refuses an archive; its log is in the error.
pub fn import(rootfs: &Path, archives: &[Archive], target: &Path) -> anyhow::Result<()> {
    // Unix socket paths end at 107 bytes, and the cache may be deep.
    let run_dir = tempfile::Builder::new().prefix("marina-bake-").tempdir_in("/tmp")?;
    let daemon = Daemon::start(rootfs, run_dir.path(), target)?;
    for Archive { file, references } in archives {
        daemon
            .ctr(&["images", "import", "--local", "--snapshotter=overlayfs"], &[file])
            .with_context(|| format!("importing {}", references.join(", ")))?;
        for reference in references {
            daemon.keep(reference)?;
        }
    }
    daemon.stop()?;
    // Work of the bake itself; and the identity of this containerd, which is not the workers'.
    for dir in ["tmpmounts", "io.containerd.runtime.v2.task", "io.containerd.grpc.v1.introspection"]
    {
        crate::tree::remove(&target.join(dir))?;
    }
    Ok(())
}

struct Daemon<'a> {
    child: Child,
    rootfs: &'a Path,
    socket: PathBuf,
    log: PathBuf,
}

impl<'a> Daemon<'a> {
    fn start(rootfs: &'a Path, run_dir: &Path, root: &Path) -> anyhow::Result<Self> {
        let socket = run_dir.join("containerd.sock");
        let config = run_dir.join("config.toml");
        let log = run_dir.join("log");
        std::fs::write(&config, configuration(root, &run_dir.join("state"), &socket))?;
        let mut containerd = elf::program(rootfs, "usr/bin/containerd");
        containerd.arg("--config").arg(&config);
        let output = std::fs::File::create(&log)?;
        let mut command = Command::new("unshare");
        // What containerd mounts while it unpacks stays in its own mount namespace.
        command.args(["--mount", "--propagation", "private", "--"]);
        command.arg(containerd.get_program()).args(containerd.get_args());
        let child = command
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .spawn()
            .context("starting containerd")?;
        let mut daemon = Self { child, rootfs, socket, log };
        daemon.wait_ready()?;
        Ok(daemon)
    }

    fn wait_ready(&mut self) -> anyhow::Result<()> {
        let deadline = Instant::now() + Duration::from_secs(30);
        while self.ctr(&["version"], &[]).is_err() {
            if let Some(status) = self.child.try_wait()? {
                bail!("containerd ended with {status}:\n{}", self.log_tail());
            }
            if Instant::now() > deadline {
                bail!("containerd does not answer after 30 s:\n{}", self.log_tail());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    fn ctr(&self, args: &[&str], paths: &[&PathBuf]) -> anyhow::Result<Vec<u8>> {
        let mut command = elf::program(self.rootfs, "usr/bin/ctr");
        command.arg("--address").arg(&self.socket).args(["--namespace", NAMESPACE]);
        run(command.args(args).args(paths))
    }

    /// What cannot be pulled again must not be collected by the kubelet; `managed` is how
    /// containerd's CRI plugin marks the images that it answers for.
    fn keep(&self, reference: &str) -> anyhow::Result<()> {
        let labels = ["io.cri-containerd.image=managed", "io.cri-containerd.pinned=pinned"];
        self.ctr(&["images", "label", reference, labels[0], labels[1]], &[])?;
        Ok(())
    }

    fn log_tail(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(15)..].join("\n")
    }

    /// Ends containerd and waits, so that its database is closed properly.
    fn stop(mut self) -> anyhow::Result<()> {
        self.terminate()?;
        let deadline = Instant::now() + Duration::from_secs(20);
        while self.child.try_wait()?.is_none() {
            if Instant::now() > deadline {
                bail!("containerd does not stop:\n{}", self.log_tail());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    fn terminate(&self) -> anyhow::Result<()> {
        let pid = nix::unistd::Pid::from_raw(i32::try_from(self.child.id())?);
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM)
            .context("stopping containerd")
    }
}

impl Drop for Daemon<'_> {
    fn drop(&mut self) {
        // Reached with a living process only after an error; the scratch directory goes next.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn configuration(root: &Path, state: &Path, socket: &Path) -> String {
    let quote = |path: &Path| serde_json::Value::from(path.to_string_lossy()).to_string();
    format!(
        "version = 2\nroot = {}\nstate = {}\n\
         disabled_plugins = [\"io.containerd.grpc.v1.cri\", \"io.containerd.nri.v1.nri\", \
         \"io.containerd.internal.v1.opt\", \"io.containerd.snapshotter.v1.devmapper\", \
         \"io.containerd.snapshotter.v1.btrfs\", \"io.containerd.snapshotter.v1.zfs\", \
         \"io.containerd.snapshotter.v1.aufs\", \"io.containerd.snapshotter.v1.native\", \
         \"io.containerd.snapshotter.v1.blockfile\"]\n\
         [grpc]\naddress = {}\n[ttrpc]\naddress = {}\n",
        quote(root),
        quote(state),
        quote(socket),
        quote(&socket.with_extension("ttrpc")),
    )
}
