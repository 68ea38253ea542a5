//! Sealing of secrets with a key that the database does not hold.

use std::{
    fs,
    io::Write,
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::Path,
};

use base64::{Engine, engine::general_purpose::STANDARD};
use ring::{
    aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey},
    digest::{SHA256, digest},
    rand::{SecureRandom, SystemRandom},
};

use crate::error::{DbError, Result};

const KEY_LEN: usize = 32;

/// Seals and opens secrets with AES-256-GCM. The owner and name are authenticated with the
/// content: a sealed value copied to another row does not open.
pub struct Sealer {
    key: LessSafeKey,
}

impl std::fmt::Debug for Sealer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Sealer")
    }
}

impl Sealer {
    /// Reads the key file: base64 of 32 bytes, not readable by group or others.
    pub fn load(path: &Path) -> Result<Self> {
        let wrong = |reason: &str| DbError::KeyFile {
            path: path.display().to_string(),
            reason: reason.to_owned(),
        };
        let meta = fs::metadata(path).map_err(|error| wrong(&error.to_string()))?;
        if meta.mode() & 0o077 != 0 {
            return Err(wrong("is accessible to others; its mode must be 0600"));
        }
        let text = fs::read_to_string(path).map_err(|error| wrong(&error.to_string()))?;
        let raw = STANDARD.decode(text.trim()).map_err(|_| wrong("is not base64"))?;
        let key = UnboundKey::new(&AES_256_GCM, &raw)
            .map_err(|_| wrong(&format!("holds {} bytes; a key has {KEY_LEN}", raw.len())))?;
        Ok(Self { key: LessSafeKey::new(key) })
    }

    /// Writes a new random key file (mode 0600) unless one exists.
    pub fn create_key_file(path: &Path) -> Result<()> {
        let mut raw = [0u8; KEY_LEN];
        SystemRandom::new().fill(&mut raw).expect("the kernel's random source does not fail");
        let opened = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
        match opened {
            Ok(mut file) => {
                writeln!(file, "{}", STANDARD.encode(raw))?;
                file.sync_all()?;
                Ok(())
            }
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    pub(crate) fn seal(&self, owner: &str, name: &str, plain: &[u8]) -> String {
        let mut nonce = [0u8; NONCE_LEN];
        SystemRandom::new().fill(&mut nonce).expect("the kernel's random source does not fail");
        let mut sealed = plain.to_vec();
        let nonce_used = Nonce::assume_unique_for_key(nonce);
        self.key
            .seal_in_place_append_tag(nonce_used, context(owner, name), &mut sealed)
            .expect("secrets are far shorter than AES-GCM's limit of 64 GiB");
        STANDARD.encode([&nonce[..], &sealed].concat())
    }

    pub(crate) fn open(&self, owner: &str, name: &str, sealed: &str) -> Result<Vec<u8>> {
        let wrong = || DbError::Sealed { owner: owner.to_owned(), name: name.to_owned() };
        let raw = STANDARD.decode(sealed).map_err(|_| wrong())?;
        let (nonce, rest) = raw.split_at_checked(NONCE_LEN).ok_or_else(wrong)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| wrong())?;
        let mut buffer = rest.to_vec();
        let plain = self
            .key
            .open_in_place(nonce, context(owner, name), &mut buffer)
            .map_err(|_| wrong())?;
        Ok(plain.to_vec())
    }
}

fn context(owner: &str, name: &str) -> Aad<Vec<u8>> {
    // The length keeps ("ab", "c") apart from ("a", "bc").
    Aad::from(format!("{}:{owner}/{name}", owner.len()).into_bytes())
}

/// SHA-256 of a bearer token as hex. Tokens are random, so a plain hash is enough: there is
/// nothing to guess.
pub fn hash_token(token: &str) -> String {
    digest(&SHA256, token.as_bytes()).as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_opens_only_where_it_was_sealed_and_with_its_key() {
        let dir = std::env::temp_dir().join(format!("marina-seal-{}", crate::ids::random_hex(6)));
        fs::create_dir(&dir).unwrap();
        let (first, second) = (dir.join("a.key"), dir.join("b.key"));
        Sealer::create_key_file(&first).unwrap();
        let before = fs::read(&first).unwrap();
        Sealer::create_key_file(&first).unwrap();
        assert_eq!(before, fs::read(&first).unwrap(), "an existing key is kept");
        Sealer::create_key_file(&second).unwrap();

        let sealer = Sealer::load(&first).unwrap();
        let sealed = sealer.seal("cluster", "ca", b"private");
        assert_eq!(sealer.open("cluster", "ca", &sealed).unwrap(), b"private");
        assert!(sealer.open("cluster", "cb", &sealed).is_err());
        assert!(Sealer::load(&second).unwrap().open("cluster", "ca", &sealed).is_err());
        assert!(sealer.open("cluster", "ca", "AAAA").is_err());
        fs::remove_dir_all(dir).unwrap();
    }
}
