//! ServiceAccount tokens: JSON Web Tokens (RFC 7519) that the API server signs and checks itself.

pub mod claims;
mod der;
mod issuer;
mod jwt;
mod keys;

pub use claims::{BoundObject, Claims};
pub use issuer::{Issuer, IssuerConfig};
pub(crate) use jwt::unverified_issuer;
pub use jwt::{read, verify, write};
pub use keys::{KeySet, SigningKey, VerifyingKey};
