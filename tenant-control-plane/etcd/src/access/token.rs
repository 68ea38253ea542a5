//! Tokens that stand for a user for as long as they are used.
//!
//! A token is made when a login is applied, so that every member knows it. It is kept in memory
//! only: after a restart of a member its clients sign in again, as with upstream's `simple`
//! tokens. It ends with the log index at which it was made: a member that has not yet applied that
//! entry waits before it says that it does not know the token.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use rand::Rng;
use rand::distr::Alphabetic;

const PREFIX: usize = 16;

/// What nobody can guess.
pub fn prefix() -> String {
    rand::rng().sample_iter(Alphabetic).take(PREFIX).map(char::from).collect()
}

/// The token of a login that was applied at a log index.
pub fn name(prefix: &str, index: u64) -> String {
    format!("{prefix}.{index}")
}

/// The log index that has to be applied before a token can be known.
pub fn index_of(token: &str) -> Option<u64> {
    token.split_once('.')?.1.parse().ok()
}

/// The tokens of one member.
#[derive(Debug, Default)]
pub struct Tokens {
    known: Mutex<HashMap<String, Known>>,
}

#[derive(Debug)]
struct Known {
    user: String,
    used: Instant,
}

impl Tokens {
    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, Known>> {
        self.known.lock().expect("no panic while held")
    }

    /// From now on a token stands for a user.
    pub fn assign(&self, token: String, user: String) {
        self.lock().insert(token, Known { user, used: Instant::now() });
    }

    /// Whom a token stands for, which keeps it for another while.
    pub fn user_of(&self, token: &str, ttl: Duration) -> Option<String> {
        let mut known = self.lock();
        let found = known.get_mut(token).filter(|found| found.used.elapsed() < ttl)?;
        found.used = Instant::now();
        Some(found.user.clone())
    }

    /// Forgets what has not been used for so long.
    pub fn sweep(&self, ttl: Duration) {
        self.lock().retain(|_, token| token.used.elapsed() < ttl);
    }

    /// Ends the tokens of a user.
    pub fn forget_user(&self, user: &str) {
        self.lock().retain(|_, token| token.user != user);
    }

    /// Ends all tokens.
    pub fn forget_all(&self) {
        self.lock().clear();
    }
}
