//! Passwords: hashing, checking, and what slows down guessing.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use argon2::Argon2;
use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher, PasswordVerifier};
use rand::Rng;
use tokio::sync::Semaphore;

use crate::problem::{FieldError, Problem};

/// Shortest password that a person may choose (NIST SP 800-63B asks for at least 8).
pub const MIN_LENGTH: usize = 10;
/// Longest password: longer ones only cost time.
pub const MAX_LENGTH: usize = 256;
/// Hashes at the same time: each needs 19 MiB (argon2id defaults).
static HASHERS: Semaphore = Semaphore::const_new(2);

/// A random password that is easy to type: 4 groups of 5 letters and digits, 100 bits.
pub fn one_time() -> String {
    const ALPHABET: &[u8] = b"abcdefghijkmnpqrstuvwxyz23456789";
    let mut random = rand::rng();
    let mut group = || -> String {
        (0..5).map(|_| char::from(ALPHABET[random.random_range(0..ALPHABET.len())])).collect()
    };
    [group(), group(), group(), group()].join("-")
}

/// A random API token or session token, 256 bits, with a prefix that secret scanners recognise.
pub fn token(prefix: &str) -> String {
    format!("{prefix}_{}", marina_db::ids::random_hex(32))
}

/// Refuses passwords that are too short or too long.
///
/// # Errors
/// 422 that names the field.
pub fn check_strength(field: &str, password: &str) -> Result<(), Problem> {
    let length = password.chars().count();
    if (MIN_LENGTH..=MAX_LENGTH).contains(&length) {
        return Ok(());
    }
    let message = format!("must have {MIN_LENGTH} to {MAX_LENGTH} characters, has {length}.");
    Err(Problem::invalid(vec![FieldError::new(field, message)]))
}

/// Hashes a password with argon2id.
///
/// # Errors
/// 500 when hashing fails.
pub async fn hash(password: String) -> Result<String, Problem> {
    let _permit = HASHERS.acquire().await.map_err(|e| Problem::internal(&e))?;
    let hashed = tokio::task::spawn_blocking(move || {
        Argon2::default().hash_password(password.as_bytes()).map(|hash| hash.to_string())
    });
    hashed
        .await
        .map_err(|e| Problem::internal(&e))?
        .map_err(|e| Problem::internal(&std::io::Error::other(e.to_string())))
}

/// True when the password belongs to the hash. Takes as long for a missing hash.
///
/// # Errors
/// 500 when hashing fails.
pub async fn verify(password: String, hash: Option<String>) -> Result<bool, Problem> {
    // The hash of a password that nobody knows, with the default parameters.
    const NOBODY: &str = "$argon2id$v=19$m=19456,t=2,p=1$c29tZXNhbHRzb21lc2FsdA$\
        CTFhFdXPJO1aFaMaO6Mm5c8y7cJHApz8ArZRb2GRPPc";
    let _permit = HASHERS.acquire().await.map_err(|e| Problem::internal(&e))?;
    let verified = tokio::task::spawn_blocking(move || {
        let known = hash.is_some();
        let hash = hash.unwrap_or_else(|| NOBODY.to_owned());
        let right = PasswordHash::new(&hash).is_ok_and(|hash| {
            Argon2::default().verify_password(password.as_bytes(), &hash).is_ok()
        });
        known && right
    });
    verified.await.map_err(|e| Problem::internal(&e))
}

/// Limits sign-in attempts per account and per address of origin.
#[derive(Default)]
pub struct LoginLimiter {
    attempts: Mutex<HashMap<String, Vec<Instant>>>,
}

impl LoginLimiter {
    /// Attempts per key and [`Self::WINDOW`].
    const LIMIT: usize = 10;
    /// Time over which attempts count.
    const WINDOW: Duration = Duration::from_secs(60);
    /// Keys remembered at the most.
    const KEYS: usize = 100_000;

    /// Counts an attempt.
    ///
    /// # Errors
    /// 429 when there were too many.
    pub fn attempt(&self, key: &str) -> Result<(), Problem> {
        let now = Instant::now();
        let mut attempts = self.attempts.lock().expect("no code panics while it holds this lock");
        if attempts.len() > Self::KEYS {
            attempts.retain(|_, times| times.iter().any(|t| now - *t < Self::WINDOW));
        }
        let times = attempts.entry(key.to_owned()).or_default();
        times.retain(|time| now - *time < Self::WINDOW);
        if times.len() >= Self::LIMIT {
            return Err(Problem::too_many_requests(
                "Too many sign-in attempts. Wait a minute and try again.",
            ));
        }
        times.push(now);
        Ok(())
    }

    /// Forgets the attempts of a key, after a success.
    pub fn forget(&self, key: &str) {
        self.attempts.lock().expect("no code panics while it holds this lock").remove(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_password_fits_its_own_hash_only() {
        let hashed = hash("correct horse".into()).await.expect("hashed");
        assert!(hashed.starts_with("$argon2id$"), "{hashed}");
        assert!(verify("correct horse".into(), Some(hashed.clone())).await.expect("verified"));
        assert!(!verify("wrong horse".into(), Some(hashed)).await.expect("verified"));
        assert!(!verify("anything".into(), None).await.expect("verified"));
    }

    #[test]
    fn the_eleventh_attempt_in_a_minute_is_refused() {
        let limiter = LoginLimiter::default();
        for _ in 0..10 {
            limiter.attempt("ada").expect("allowed");
        }
        assert_eq!(limiter.attempt("ada").expect_err("refused").status, 429);
        limiter.attempt("bob").expect("another key");
        limiter.forget("ada");
        limiter.attempt("ada").expect("allowed again");
    }
}
