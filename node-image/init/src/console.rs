//! The lines that people and the driver read while a node comes up.

use std::time::{Duration, Instant};

use nix::time::{ClockId, clock_gettime};

/// Prints progress with the seconds since the node began to start.
pub struct Console {
    origin: Origin,
}

enum Origin {
    /// The kernel's own start.
    Boot,
    /// The start of this process; the kernel is the host's.
    Process(Instant),
}

impl Console {
    /// For a machine with its own kernel.
    pub fn virtual_machine() -> Self {
        Self { origin: Origin::Boot }
    }

    /// For a node in namespaces.
    pub fn sandbox() -> Self {
        Self { origin: Origin::Process(Instant::now()) }
    }

    /// Time since the start.
    pub fn elapsed(&self) -> Duration {
        match self.origin {
            Origin::Process(start) => start.elapsed(),
            Origin::Boot => {
                clock_gettime(ClockId::CLOCK_BOOTTIME).map(Duration::from).unwrap_or_default()
            }
        }
    }

    /// One finished step.
    pub fn step(&self, what: &str) {
        // One write per line: kernel messages share the console.
        self.write(&format!("marina: {what} {:.1}s\n", self.elapsed().as_secs_f64()));
    }

    fn write(&self, line: &str) {
        use std::io::Write;
        // A console that cannot be written must not stop the node.
        let _ = std::io::stdout().lock().write_all(line.as_bytes());
        let _ = std::io::stdout().lock().flush();
    }
}
