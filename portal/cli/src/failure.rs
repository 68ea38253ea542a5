//! What can go wrong, and the exit code for it.

use std::fmt;

use serde_json::Value;

/// Why a command failed.
#[derive(Debug)]
pub enum Failure {
    /// The API refused; the problem as it sent it.
    Refused { status: u16, problem: Value },
    /// Not signed in to this server, if one is known.
    NotSignedIn(Option<String>),
    /// It took longer than allowed; what it was doing.
    TimedOut(String),
    /// Anything else.
    Other(anyhow::Error),
}

impl Failure {
    /// The exit code that `--help` documents.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Refused { status: 404, .. } => 3,
            Self::Refused { status: 401 | 403, .. } | Self::NotSignedIn(_) => 4,
            Self::TimedOut(_) => 5,
            Self::Refused { .. } | Self::Other(_) => 1,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotSignedIn(None) => {
                f.write_str("not signed in; run `marina login --server URL`")
            }
            Self::NotSignedIn(Some(server)) => {
                write!(f, "not signed in to {server}; run `marina login --server {server}`")
            }
            Self::TimedOut(what) => write!(f, "time is over: {what}"),
            Self::Other(error) => write!(f, "{error:#}"),
            Self::Refused { status, problem } => {
                let errors = problem["errors"].as_array().into_iter().flatten();
                let fields: Vec<_> = errors
                    .map(|error| {
                        let text = |key: &str| error[key].as_str().unwrap_or_default().to_owned();
                        format!("  {}: {}", text("field"), text("message"))
                    })
                    .collect();
                match (fields.is_empty(), problem["detail"].as_str()) {
                    (false, _) => write!(f, "the request is not valid\n{}", fields.join("\n")),
                    (true, Some(detail)) => f.write_str(detail),
                    (true, None) => write!(f, "the portal answered with status {status}"),
                }
            }
        }
    }
}

impl<E: Into<anyhow::Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::Other(error.into())
    }
}
