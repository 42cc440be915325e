//! The key Pleach signs with itself: cards and notifications. P-256 (ES256), which everybody can
//! check; made at the first start, and published as a JWK set.

use super::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD, pkcs8};
use base64::Engine;
use ring::digest;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use serde_json::{Value, json};
use std::io::Error;
use std::path::Path;

/// A signing key of our own.
pub struct OwnKey {
    pair: EcdsaKeyPair,
    random: SystemRandom,
    kid: String,
    jwk: Value,
}

fn text(bytes: impl AsRef<[u8]>) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(bytes)
}

impl OwnKey {
    /// The key of a file, made if there is none. It is PKCS#8 in PEM, so that an operator may put
    /// one of his own there.
    ///
    /// # Errors
    /// When it can be neither read nor written, or is no such key.
    pub fn load(path: &Path) -> std::io::Result<Self> {
        let pem = crate::kept::made_once(path, fresh)?;
        let unfit = || Error::other(format!("{} is no P-256 key, PKCS#8 in PEM; remove it", path.display()));
        let der = std::str::from_utf8(&pem).ok().and_then(pkcs8).ok_or_else(unfit)?;
        Self::of(&der).ok_or_else(unfit)
    }
    fn of(der: &[u8]) -> Option<Self> {
        let random = SystemRandom::new();
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, der, &random).ok()?;
        // Uncompressed: 4, x, y.
        let point = pair.public_key().as_ref().get(1..65)?;
        let (x, y) = (text(&point[..32]), text(&point[32..]));
        // RFC 7638: the members that make the key, in order.
        let thumb = digest::digest(&digest::SHA256, json_of_key(&x, &y).as_bytes());
        let kid = text(thumb);
        let jwk = json!({ "kty": "EC", "crv": "P-256", "x": x, "y": y, "use": "sig", "alg": "ES256", "kid": kid });
        Some(Self { pair, random, kid, jwk })
    }
    /// What it is called: its thumbprint (RFC 7638).
    pub fn kid(&self) -> &str {
        &self.kid
    }
    /// Its public half, as a JWK set.
    pub fn jwks(&self) -> Value {
        json!({ "keys": [self.jwk] })
    }
    /// A detached signature (RFC 7515, appendix F): the protected header and the signature as they
    /// are written. `jku` is where [`Self::jwks`] is published.
    ///
    /// # Errors
    /// When the machine has no randomness.
    pub fn detached(&self, payload: &[u8], jku: &str) -> std::io::Result<(String, String)> {
        let header = json!({ "alg": "ES256", "kid": self.kid, "typ": "JOSE", "jku": jku });
        let protected = text(header.to_string());
        let signature = self.sign(&format!("{protected}.{}", text(payload)))?;
        Ok((protected, signature))
    }
    /// A token with these claims.
    ///
    /// # Errors
    /// When the machine has no randomness.
    pub fn token(&self, claims: &Value) -> std::io::Result<String> {
        let header = json!({ "alg": "ES256", "kid": self.kid, "typ": "JWT" });
        let message = format!("{}.{}", text(header.to_string()), text(claims.to_string()));
        let signature = self.sign(&message)?;
        Ok(format!("{message}.{signature}"))
    }
    fn sign(&self, message: &str) -> std::io::Result<String> {
        let signed = self.pair.sign(&self.random, message.as_bytes());
        signed.map(text).map_err(|_| Error::other("no randomness to sign with"))
    }
}

fn json_of_key(x: &str, y: &str) -> String {
    format!("{{\"crv\":\"P-256\",\"kty\":\"EC\",\"x\":\"{x}\",\"y\":\"{y}\"}}")
}

fn fresh() -> std::io::Result<Vec<u8>> {
    let der = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new());
    let der = der.map_err(|_| Error::other("no randomness to make a key with"))?;
    let body = BASE64_STANDARD.encode(der);
    let lines: Vec<&str> = body.as_bytes().chunks(64).filter_map(|line| std::str::from_utf8(line).ok()).collect();
    Ok(format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n", lines.join("\n")).into_bytes())
}

#[cfg(test)]
mod tests {
    use super::super::{Keys, detached, verify};
    use super::*;

    #[test]
    fn what_it_signs_others_can_check() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("signing.key");
        let key = OwnKey::load(&path).unwrap();
        let keys = Keys::read(key.jwks().to_string().as_bytes()).unwrap();
        let (protected, signature) = key.detached(b"{}", "https://x.example/keys").unwrap();
        assert_eq!(detached(&protected, b"{}", &signature, &keys), Ok(()));
        assert!(detached(&protected, b"{ }", &signature, &keys).is_err());
        let claims = json!({ "iss": "us", "aud": "them", "exp": 4_000_000_000_u64 });
        let token = key.token(&claims).unwrap();
        assert!(verify(&token, &keys, "us", &["them"]).is_ok());
        // It is the same one after a restart, and another in another folder.
        assert_eq!(OwnKey::load(&path).unwrap().kid(), key.kid());
        let other = OwnKey::load(&folder.path().join("other.key")).unwrap();
        let others = Keys::read(other.jwks().to_string().as_bytes()).unwrap();
        assert!(detached(&protected, b"{}", &signature, &others).is_err());
        std::fs::write(&path, "nothing").unwrap();
        assert!(OwnKey::load(&path).is_err_and(|e| e.to_string().contains("signing.key")));
    }
}
