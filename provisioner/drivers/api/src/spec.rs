//! The checks on a worker that all drivers share.
//!
//! Ids become names of files, cgroups and interfaces, so nothing outside the small alphabet below
//! may reach a driver's own code.

use crate::pb::WorkerSpec;

/// A field of a [`WorkerSpec`] that no driver accepts.
#[derive(Debug, PartialEq, Eq)]
pub struct SpecError {
    /// The field's name in the protocol.
    pub field: &'static str,
    /// What is allowed.
    pub allowed: &'static str,
}

impl std::fmt::Display for SpecError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: must be {}", self.field, self.allowed)
    }
}

impl std::error::Error for SpecError {}

impl From<SpecError> for tonic::Status {
    fn from(e: SpecError) -> Self {
        tonic::Status::invalid_argument(e.to_string())
    }
}

const ID: &str = "1 to 63 of a-z, 0-9 and '-', beginning and ending with a letter or digit";
const NAME: &str = "a name of letters, digits, '-', '_' and '.', not beginning with '.'";

/// Checks one worker id.
///
/// # Errors
/// The id is not a DNS label.
pub fn validate_id(id: &str) -> Result<(), SpecError> {
    let label = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let ok = (1..=63).contains(&id.len())
        && id.bytes().all(|b| label(b) || b == b'-')
        && id.bytes().next().is_some_and(label)
        && id.bytes().last().is_some_and(label);
    if ok { Ok(()) } else { Err(SpecError { field: "worker_id", allowed: ID }) }
}

/// Checks everything about a specification that can be checked without touching the host.
///
/// # Errors
/// The first field that is out of range, with what is allowed.
pub fn validate_spec(spec: &WorkerSpec) -> Result<(), SpecError> {
    validate_id(&spec.worker_id)?;
    check(name_ok(&spec.netns), "netns", NAME)?;
    check(
        name_ok(&spec.bridge) && spec.bridge.len() <= 15,
        "bridge",
        "an interface name of at most 15 characters",
    )?;
    check(mac_ok(&spec.mac), "mac", "a unicast address such as 52:54:00:12:34:56")?;
    check((1..=256).contains(&spec.vcpus), "vcpus", "1 to 256")?;
    check((256..=16 << 20).contains(&spec.memory_mib), "memory_mib", "256 to 16777216")?;
    check((1..=65536).contains(&spec.disk_gib), "disk_gib", "1 to 65536")?;
    check(spec.image_dir.starts_with('/'), "image_dir", "an absolute path")?;
    // QEMU takes it on its command line's file, the kernel's fw_cfg in one read.
    check(
        (2..=256 * 1024).contains(&spec.user_data.len()),
        "user_data",
        "a JSON document of at most 256 KiB",
    )
}

fn check(ok: bool, field: &'static str, allowed: &'static str) -> Result<(), SpecError> {
    if ok { Ok(()) } else { Err(SpecError { field, allowed }) }
}

fn name_ok(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 64
        && !name.starts_with('.')
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
}

fn mac_ok(mac: &str) -> bool {
    let pairs: Vec<&str> = mac.split(':').collect();
    let Some(Ok(first)) = pairs.first().map(|p| u8::from_str_radix(p, 16)) else { return false };
    pairs.len() == 6
        && pairs.iter().all(|p| p.len() == 2 && p.bytes().all(|b| b.is_ascii_hexdigit()))
        && first & 1 == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec() -> WorkerSpec {
        WorkerSpec {
            worker_id: "w-1".into(),
            cluster_id: "c1".into(),
            netns: "marina-c1".into(),
            bridge: "br0".into(),
            mac: "52:54:00:00:00:05".into(),
            vcpus: 2,
            memory_mib: 2048,
            disk_gib: 10,
            image_dir: "/img".into(),
            user_data: b"{}".to_vec(),
        }
    }

    #[test]
    fn a_plain_worker_is_accepted() {
        assert_eq!(validate_spec(&spec()), Ok(()));
    }

    #[test]
    fn names_that_could_leave_their_directory_are_refused() {
        for bad in ["", "../x", "a/b", "A", "-a", "a-", "a b", &"a".repeat(64)] {
            assert_eq!(validate_id(bad).map_err(|e| e.field), Err("worker_id"), "{bad:?}");
        }
        for bad in ["", "..", "a/b", ".x"] {
            let s = WorkerSpec { netns: bad.into(), ..spec() };
            assert_eq!(validate_spec(&s).map_err(|e| e.field), Err("netns"), "{bad:?}");
        }
    }

    #[test]
    fn numbers_and_addresses_are_checked() {
        let bad = [
            ("mac", WorkerSpec { mac: "01:00:00:00:00:01".into(), ..spec() }),
            ("mac", WorkerSpec { mac: "52:54:00,x=y".into(), ..spec() }),
            ("vcpus", WorkerSpec { vcpus: 0, ..spec() }),
            ("memory_mib", WorkerSpec { memory_mib: 1, ..spec() }),
            ("disk_gib", WorkerSpec { disk_gib: 0, ..spec() }),
            ("image_dir", WorkerSpec { image_dir: "rel".into(), ..spec() }),
            ("user_data", WorkerSpec { user_data: vec![], ..spec() }),
            ("bridge", WorkerSpec { bridge: "a-very-long-bridge".into(), ..spec() }),
        ];
        for (field, s) in bad {
            assert_eq!(validate_spec(&s).map_err(|e| e.field), Err(field));
        }
    }
}
