//! Typed ids: a cluster's id cannot be passed where a host's is wanted.

use std::fmt;

use ring::rand::{SecureRandom, SystemRandom};

/// Declares an id type. To add a noun, add one line at the end of this file.
macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $bytes:expr) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, sqlx::Type)]
        #[derive(serde::Serialize, serde::Deserialize)]
        #[sqlx(transparent)]
        #[serde(transparent)]
        pub struct $name(String);

        impl $name {
            /// A new random id.
            pub fn random() -> Self {
                Self(random_hex($bytes))
            }

            /// The id as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl From<&str> for $name {
            fn from(text: &str) -> Self {
                Self(text.to_owned())
            }
        }

        impl From<String> for $name {
            fn from(text: String) -> Self {
                Self(text)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

/// `bytes` random bytes as lower-case hex.
pub fn random_hex(bytes: usize) -> String {
    let mut raw = vec![0u8; bytes];
    SystemRandom::new().fill(&mut raw).expect("the kernel's random source does not fail");
    raw.iter().map(|byte| format!("{byte:02x}")).collect()
}

id!(
    /// A cluster: 8 hex digits, short enough for the name of a network namespace and a DNS label.
    ClusterId, 4
);
id!(
    /// A person with a local account.
    UserId, 8
);
id!(
    /// A signed-in browser.
    SessionId, 8
);
id!(
    /// An API token.
    TokenId, 8
);
id!(
    /// An organization.
    OrgId, 8
);
id!(
    /// A management host.
    HostId, 8
);
id!(
    /// One process of a control plane.
    MemberId, 8
);
id!(
    /// A node group.
    NodeGroupId, 8
);
id!(
    /// A worker.
    NodeId, 8
);
