//! An issuer of OAuth tokens on loopback.
#![allow(clippy::unwrap_used)]

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

/// An issuer on loopback: metadata and keys, nothing else.
pub struct Issuer {
    /// Its name, and where it is.
    pub url: String,
    /// What it signs with.
    pub pair: EcdsaKeyPair,
    /// What it publishes.
    pub keys: Arc<Mutex<Value>>,
    /// It takes connections and answers none.
    pub hangs: Arc<AtomicBool>,
    /// How often somebody came.
    pub asked: Arc<AtomicUsize>,
}

/// A part of a token.
pub fn part(bytes: &[u8]) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(bytes)
}
/// A key.
///
/// # Panics
/// When none can be made.
pub fn pair() -> EcdsaKeyPair {
    let random = SystemRandom::new();
    let der = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
    EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, der.as_ref(), &random).unwrap()
}
/// Its public half.
pub fn jwk(pair: &EcdsaKeyPair, kid: &str) -> Value {
    let point = pair.public_key().as_ref();
    json!({ "kty": "EC", "crv": "P-256", "kid": kid, "x": part(&point[1..33]), "y": part(&point[33..]) })
}
/// Seconds since 1970.
///
/// # Panics
/// Before that.
pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

impl Issuer {
    /// Listens.
    ///
    /// # Panics
    /// When it cannot.
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/tenant", listener.local_addr().unwrap());
        let pair = pair();
        let keys = Arc::new(Mutex::new(json!({ "keys": [jwk(&pair, "one")] })));
        let (hangs, asked) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let (shown, issuer, hang, count) = (keys.clone(), url.clone(), hangs.clone(), asked.clone());
        // Ends with the test process.
        std::thread::spawn(move || {
            let mut held = Vec::new();
            for stream in listener.incoming() {
                let Ok(mut stream) = stream else { continue };
                count.fetch_add(1, Ordering::SeqCst);
                if hang.load(Ordering::SeqCst) {
                    held.push(stream);
                    continue;
                }
                let mut head = [0u8; 8192];
                let n = stream.read(&mut head).unwrap_or(0);
                let head = String::from_utf8_lossy(&head[..n]).into_owned();
                let (status, body) = match head.split(' ').nth(1).unwrap_or("") {
                    "/tenant/.well-known/openid-configuration" => {
                        ("200 OK", json!({ "issuer": issuer, "jwks_uri": format!("{issuer}/keys") }).to_string())
                    }
                    "/tenant/keys" => ("200 OK", shown.lock().unwrap().to_string()),
                    _ => ("404 Not Found", String::new()),
                };
                let length = body.len();
                let _ = stream.write_all(
                    format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}")
                        .as_bytes(),
                );
            }
        });
        Self { url, pair, keys, hangs, asked }
    }
    /// What a good token says, and more.
    pub fn claims(&self, more: Value) -> Value {
        let mut claims = json!({
            "iss": self.url, "aud": "us", "sub": "ada", "groups": ["agents-prod"], "scope": "mcp:read",
            "iat": now(), "exp": now() + 300,
        });
        for (key, value) in more.as_object().cloned().unwrap_or_default() {
            claims[key] = value;
        }
        claims
    }
    /// A token of these claims, signed with a key.
    ///
    /// # Panics
    /// When it cannot be signed.
    pub fn sign(&self, pair: &EcdsaKeyPair, kid: &str, claims: &Value) -> String {
        let header = json!({ "alg": "ES256", "typ": "at+jwt", "kid": kid });
        let message = format!("{}.{}", part(header.to_string().as_bytes()), part(claims.to_string().as_bytes()));
        let signature = pair.sign(&SystemRandom::new(), message.as_bytes()).unwrap();
        format!("{message}.{}", part(signature.as_ref()))
    }
    /// A good token, but for what is said otherwise.
    pub fn token(&self, more: Value) -> String {
        self.sign(&self.pair, "one", &self.claims(more))
    }
}
