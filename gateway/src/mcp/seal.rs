//! Values we hand out and get back (cursors, task ids, request states): encrypted and
//! authenticated, bound to what they are for and to the principal they were given to. A
//! stranger's, a changed one and one that never was look the same.
//!
//! The nonce is derived from the value, so that one value has one spelling: clients compare
//! task ids. The key lies in the state folder, so that values outlive a restart.

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use policies::json::{Json, Limits};
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::{hkdf, hmac};
use std::io::Error;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The file of the key, and its length.
const KEY: &str = "seal.key";
const LENGTH: usize = 32;

/// Seals and opens.
pub(crate) struct Seal {
    key: LessSafeKey,
    nonces: hmac::Key,
}

impl Seal {
    /// With the key of the state folder, made if there is none.
    ///
    /// # Errors
    /// When it can be neither read nor written.
    pub(crate) fn load(state: &Path) -> std::io::Result<Self> {
        let path = state.join(KEY);
        let secret = adapters::kept::made_once(&path, || Ok(random()?.to_vec()))?;
        if secret.len() != LENGTH {
            return Err(Error::other(format!("{} is damaged; remove it", path.display())));
        }
        Self::with(&secret).ok_or_else(|| Error::other("the key cannot be used"))
    }

    fn with(secret: &[u8]) -> Option<Self> {
        let root = hkdf::Salt::new(hkdf::HKDF_SHA256, b"pleach seal 1").extract(secret);
        let key = UnboundKey::from(root.expand(&[b"seal"], &CHACHA20_POLY1305).ok()?);
        let nonces = hmac::Key::from(root.expand(&[b"nonce"], hmac::HMAC_SHA256).ok()?);
        Some(Self { key: LessSafeKey::new(key), nonces })
    }

    /// Seals a value for a purpose and a principal.
    pub(crate) fn seal(&self, purpose: &str, principal: &str, value: &Json) -> String {
        let mut text = value.to_text().into_bytes();
        let bound = format!("{purpose}\0{principal}");
        let tag = hmac::sign(&self.nonces, &[bound.as_bytes(), b"\0", &text].concat());
        let mut nonce = [0u8; NONCE_LEN];
        nonce.copy_from_slice(&tag.as_ref()[..NONCE_LEN]);
        let sealed = self.key.seal_in_place_append_tag(
            Nonce::assume_unique_for_key(nonce),
            Aad::from(bound.as_bytes()),
            &mut text,
        );
        // Fails for lengths no message of ours can have.
        if sealed.is_err() {
            return String::new();
        }
        BASE64_URL_SAFE_NO_PAD.encode([&nonce[..], &text].concat())
    }

    /// Opens what was sealed for this purpose and principal.
    pub(crate) fn open(&self, purpose: &str, principal: &str, sealed: &str) -> Option<Json> {
        let mut bytes = BASE64_URL_SAFE_NO_PAD.decode(sealed).ok()?;
        let (nonce, text) = bytes.split_at_mut_checked(NONCE_LEN)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let bound = format!("{purpose}\0{principal}");
        let text = self.key.open_in_place(nonce, Aad::from(bound.as_bytes()), text).ok()?;
        Json::parse(text, Limits { bytes: 16 << 20, ..Limits::default() }).ok()
    }
}

fn random() -> std::io::Result<[u8; LENGTH]> {
    let mut bytes = [0u8; LENGTH];
    getrandom::fill(&mut bytes).map_err(|e| Error::other(e.to_string()))?;
    Ok(bytes)
}

/// Milliseconds since 1970, `later` from now.
pub(super) fn expiry(later: Duration) -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from((now + later).as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_for_whom_and_what_it_was_sealed() {
        let seal = Seal::with(&[7; 32]).unwrap();
        let value = Json::object([("s", "files".into()), ("n", 1u64.into())]);
        let text = seal.seal("task", "ci", &value);
        assert_eq!(text, seal.seal("task", "ci", &value), "one value, one spelling");
        assert_eq!(seal.open("task", "ci", &text), Some(value.clone()));
        assert_eq!(seal.open("task", "other", &text), None);
        assert_eq!(seal.open("cursor", "ci", &text), None);
        assert_eq!(Seal::with(&[8; 32]).unwrap().open("task", "ci", &text), None);
        for at in 0..text.len() {
            let mut bytes = text.clone().into_bytes();
            bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
            assert_eq!(seal.open("task", "ci", &String::from_utf8(bytes).unwrap()), None, "{at}");
        }
        for bad in ["", "A", "====", "AAAAAAAAAAAAAAAAAAAA"] {
            assert_eq!(seal.open("task", "ci", bad), None);
        }
    }

    #[test]
    fn the_key_outlives_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let sealed = Seal::load(folder.path()).unwrap().seal("x", "p", &"v".into());
        assert_eq!(Seal::load(folder.path()).unwrap().open("x", "p", &sealed), Some("v".into()));
        std::fs::write(folder.path().join("seal.key"), b"short").unwrap();
        assert!(Seal::load(folder.path()).is_err());
    }
}
