//! The paths that a member of a control plane sees.
//!
//! The agent's launcher gives each member a private mount namespace in which a small read-only
//! file system lies over `/mnt`; what the member may use is bound below it. A member therefore
//! has the same arguments wherever the data directory is, and reaches it even when a directory
//! above is closed to its uid.

/// Where everything is bound: a directory that every Linux system has (FHS 3.0, 3.12).
pub const ROOT: &str = "/mnt";

/// The member's files (`Member.files`), read-only.
pub const CONFIG: &str = "/mnt/config";

/// The member's own data, writable.
pub const DATA: &str = "/mnt/data";

/// The release's binaries, read-only.
pub const RELEASE: &str = "/mnt/release";

/// The directory of the cluster's egress socket.
pub const EGRESS: &str = "/mnt/egress";

/// The socket on which the agent answers HTTP CONNECT for the API server.
pub const EGRESS_SOCKET: &str = "/mnt/egress/egress.sock";
