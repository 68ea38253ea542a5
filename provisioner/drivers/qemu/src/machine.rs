//! The virtual machine, as QEMU's command line. Pure: paths and numbers in, words out.

use std::ffi::OsString;
use std::path::Path;

use driver_local::WorkerRecord;

use crate::accelerator::Accelerator;

/// The program; Debian's package is qemu-system-x86.
pub const EMULATOR: &str = "qemu-system-x86_64";

/// The worker's disk, in its directory.
pub const DISK: &str = "disk.qcow2";

/// QEMU's control socket, in the worker's directory.
pub const QMP: &str = "qmp.sock";

/// Machines run as a user of their own, from here on; nothing on the host belongs to these.
const FIRST_UID: u32 = 2_000_000_000;

/// Translated code is kept in memory of the host: per machine, in MiB.
const TRANSLATION_CACHE_MIB: u32 = 256;

fn words(list: &[&str]) -> Vec<OsString> {
    list.iter().map(OsString::from).collect()
}

/// What every machine has: no devices but those named, no display, and an end instead of a reboot.
fn common(accelerator: Accelerator, image: &Path, kernel_arguments: &str) -> Vec<OsString> {
    let mut all = match accelerator {
        Accelerator::Kvm => words(&["-accel", "kvm", "-cpu", "host"]),
        Accelerator::Tcg { threads } => {
            let accelerator =
                format!("tcg,thread={},tb-size={TRANSLATION_CACHE_MIB}", threads.name());
            words(&["-accel", &accelerator, "-cpu", "max"])
        }
    };
    let clock = match accelerator {
        Accelerator::Kvm => "",
        // The emulated clocks agree by construction; comparing them takes half a second of boot.
        Accelerator::Tcg { .. } => "tsc=reliable no_timer_check ",
    };
    all.extend(words(&["-machine", "q35", "-nodefaults", "-no-user-config", "-display", "none"]));
    all.extend(words(&["-no-reboot", "-serial", "stdio"]));
    all.extend(["-kernel".into(), image.join("vmlinuz").into_os_string()]);
    all.extend(["-initrd".into(), image.join("initrd.img").into_os_string()]);
    // A panic ends the machine: its node group replaces it.
    let arguments = format!("console=ttyS0 quiet panic=-1 {clock}{kernel_arguments}");
    all.extend(words(&["-append", &arguments]));
    all
}

/// A machine that only says whether guests run with KVM.
pub fn probe_arguments(image: &Path) -> Vec<OsString> {
    let mut all = common(Accelerator::Kvm, image, "marina.probe");
    all.extend(words(&["-m", "256", "-smp", "1"]));
    all
}

/// The machine of one worker. File names without directory are in the worker's directory, where
/// QEMU is started: QEMU splits its options at commas, and paths may contain some.
pub fn arguments(record: &WorkerRecord, accelerator: Accelerator, tap: &str) -> Vec<OsString> {
    let mut all = common(accelerator, &record.image_dir, "root=/dev/vda");
    let uid = uid(tap);
    let card = format!("virtio-net-pci,netdev=n0,romfile=,mac={}", record.mac);
    all.extend(words(&[
        "-name",
        &format!("marina-{}", record.worker_id),
        "-smp",
        &record.vcpus.to_string(),
        "-m",
        &record.memory_mib.to_string(),
        "-drive",
        &format!(
            "file={DISK},format=qcow2,if=none,id=d0,cache=unsafe,discard=unmap,\
             detect-zeroes=unmap"
        ),
        "-device",
        "virtio-blk-pci,drive=d0",
        "-netdev",
        &format!("tap,id=n0,ifname={tap},script=no,downscript=no"),
        "-device",
        &card,
        "-device",
        "virtio-rng-pci",
        "-fw_cfg",
        "name=opt/marina/user-data,file=user-data.json",
        "-qmp",
        &format!("unix:{QMP},server=on,wait=off"),
        "-runas",
        &format!("{uid}:{uid}"),
        "-sandbox",
        // Changing the user stays allowed, because `-runas` does it after the filter is set.
        "on,obsolete=deny,spawn=deny,resourcecontrol=deny",
    ]));
    all
}

/// A user id of the machine's own. Two machines with the same one are possible and only share what
/// the host's permissions protect from each other.
fn uid(tap: &str) -> u32 {
    let digits = &tap[tap.len().saturating_sub(6)..];
    FIRST_UID + u32::from_str_radix(digits, 16).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::accelerator::Threads;

    fn record() -> WorkerRecord {
        WorkerRecord {
            worker_id: "w1".into(),
            cluster_id: "c1".into(),
            netns: "marina-c1".into(),
            bridge: "br0".into(),
            mac: "52:54:00:00:00:05".into(),
            vcpus: 2,
            memory_mib: 1024,
            disk_gib: 8,
            image_dir: "/a,b/image".into(),
        }
    }

    #[test]
    fn the_machine_has_what_was_asked_for() {
        let accelerator = Accelerator::Tcg { threads: Threads::Multi };
        let all = arguments(&record(), accelerator, "mt0123456789ab");
        let after = |flag: &str| {
            let at = all.iter().position(|w| w == flag).unwrap();
            all[at + 1].to_string_lossy().into_owned()
        };
        assert_eq!(after("-m"), "1024");
        assert_eq!(after("-smp"), "2");
        assert!(after("-netdev").contains("ifname=mt0123456789ab,"));
        assert!(after("-accel").starts_with("tcg,thread=multi"));
        let uid = FIRST_UID + 0x6789ab;
        assert_eq!(after("-runas"), format!("{uid}:{uid}"));
        // Paths of the host appear only where a comma is not special.
        let split: Vec<_> = all.iter().filter(|w| w.to_string_lossy().contains("a,b")).collect();
        assert_eq!(split.len(), 2);
    }
}
