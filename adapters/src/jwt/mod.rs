//! Signed tokens, through `jsonwebtoken` with ring beneath it: whether one is what it says, and
//! signing our own. What a good one may be used for is decided elsewhere.

mod own;
mod provider;

pub use own::OwnKey;

use base64::Engine;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, JwkSet, KeyAlgorithm, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation, decode, decode_header, encode};
use policies::json::Json;
use policies::resolve::Secret;
use std::time::{SystemTime, UNIX_EPOCH};

/// What a token may be signed with: public keys only, and nothing of SHA-1.
const ALGORITHMS: [Algorithm; 4] = [Algorithm::RS256, Algorithm::PS256, Algorithm::ES256, Algorithm::EdDSA];
/// What clocks may differ by, in seconds.
pub const LEEWAY: u64 = 60;
/// A token may have this many bytes.
const MAX_TOKEN: usize = 16 << 10;

/// Why a token is not believed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Flaw {
    /// None of the keys is the one it names: they may be old.
    #[error("it is signed with a key the issuer does not publish")]
    UnknownKey,
    /// Its time is over.
    #[error("it is expired")]
    Expired,
    /// Everything else, for the log; its bearer is told no more than that.
    #[error("{0}")]
    Bad(String),
}

/// The public keys of an issuer.
pub struct Keys(Vec<Jwk>);

impl Keys {
    /// Reads a JWK set (RFC 7517). Keys of kinds that are not used here are passed over.
    ///
    /// # Errors
    /// When it is none.
    pub fn read(document: &[u8]) -> Result<Self, String> {
        let set: JwkSet = serde_json::from_slice(document).map_err(|e| format!("no JWK set: {e}"))?;
        Ok(Self(set.keys.into_iter().filter(usable).collect()))
    }
    /// How many can be used.
    pub fn len(&self) -> usize {
        self.0.len()
    }
    /// Whether none can be used.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The keys a token may be signed with: the one it names, or all of its kind.
    fn candidates<'a>(&'a self, header: &'a Header) -> impl Iterator<Item = &'a Jwk> {
        self.0.iter().filter(move |key| {
            let named = match (&header.kid, &key.common.key_id) {
                (Some(wanted), Some(id)) => wanted == id,
                (Some(_), None) => self.0.len() == 1,
                (None, _) => true,
            };
            let stated = key.common.key_algorithm.is_none_or(|stated| stated == KeyAlgorithm::from(header.alg));
            named && stated && fits(header.alg, key)
        })
    }
}

/// The issuer a token claims to be of, believed by nobody yet: it only says whose keys to try.
pub fn claimed_issuer(token: &str) -> Option<String> {
    if token.len() > MAX_TOKEN {
        return None;
    }
    let claims: serde_json::Value = jsonwebtoken::dangerous::insecure_decode_claims(token).ok()?;
    claims.get("iss")?.as_str().map(str::to_owned)
}

/// Checks an access token of `issuer` that is meant for one of `audiences`, and gives its claims.
///
/// # Errors
/// See [`Flaw`].
pub fn verify(token: &str, keys: &Keys, issuer: &str, audiences: &[&str]) -> Result<Json, Flaw> {
    provider::install();
    let bad = |why: &str| Flaw::Bad(why.to_owned());
    if token.len() > MAX_TOKEN {
        return Err(bad("it is too long"));
    }
    let header = decode_header(token).map_err(|e| Flaw::Bad(e.to_string()))?;
    if !ALGORITHMS.contains(&header.alg) {
        return Err(bad("its algorithm is not accepted"));
    }
    // What must be understood is not.
    if header.crit.is_some() {
        return Err(bad("it has critical headers"));
    }
    // An access token or an unmarked one: not a logout token, a proof or a signed request.
    let kind = header.typ.as_deref().unwrap_or("JWT").to_ascii_lowercase();
    if !["jwt", "at+jwt"].contains(&kind.strip_prefix("application/").unwrap_or(&kind)) {
        return Err(bad("it is no access token (typ)"));
    }
    let mut validation = Validation::new(header.alg);
    validation.leeway = LEEWAY;
    validation.validate_nbf = true;
    validation.set_issuer(&[issuer]);
    validation.set_audience(audiences);
    validation.set_required_spec_claims(&["exp", "iss", "aud"]);
    let mut flaw = Flaw::UnknownKey;
    for key in keys.candidates(&header) {
        let Ok(key) = DecodingKey::from_jwk(key) else { continue };
        match decode::<serde_json::Value>(token, &key, &validation) {
            Ok(data) => return checked(data.claims.into(), issuer),
            Err(e) => match e.kind() {
                // It names no key: the right one may be another, or not known yet.
                ErrorKind::InvalidSignature if header.kid.is_none() => {}
                ErrorKind::InvalidSignature => flaw = bad("its signature is wrong"),
                ErrorKind::ExpiredSignature => return Err(Flaw::Expired),
                _ => flaw = Flaw::Bad(e.to_string()),
            },
        }
    }
    Err(flaw)
}

/// Checks a detached signature (RFC 7515, appendix F): its protected header and the signature as
/// they are written, and what is signed.
///
/// # Errors
/// See [`Flaw`].
pub fn detached(protected: &str, payload: &[u8], signature: &str, keys: &Keys) -> Result<(), Flaw> {
    provider::install();
    let bad = |why: &str| Flaw::Bad(why.to_owned());
    if protected.len() + signature.len() > MAX_TOKEN {
        return Err(bad("it is too long"));
    }
    let header = BASE64_URL_SAFE_NO_PAD.decode(protected).ok();
    let header: Option<Header> = header.and_then(|header| serde_json::from_slice(&header).ok());
    let header = header.ok_or_else(|| bad("its header cannot be read"))?;
    if !ALGORITHMS.contains(&header.alg) {
        return Err(bad("its algorithm is not accepted"));
    }
    if header.crit.is_some() {
        return Err(bad("it has critical headers"));
    }
    let message = format!("{protected}.{}", BASE64_URL_SAFE_NO_PAD.encode(payload));
    let mut flaw = Flaw::Bad("it is made with a key that is not trusted".to_owned());
    for key in keys.candidates(&header) {
        let Ok(key) = DecodingKey::from_jwk(key) else { continue };
        if jsonwebtoken::crypto::verify(signature, message.as_bytes(), &key, header.alg).unwrap_or(false) {
            return Ok(());
        }
        flaw = bad("it does not fit what it signs");
    }
    Err(flaw)
}

/// What the library leaves open.
fn checked(claims: Json, issuer: &str) -> Result<Json, Flaw> {
    let bad = |why: &str| Err(Flaw::Bad(why.to_owned()));
    // One issuer, not a list that holds it.
    if claims.get("iss").and_then(Json::as_str) != Some(issuer) {
        return bad("its issuer is another");
    }
    // Bound to a key of its bearer, which nobody proves here (RFC 7800).
    if claims.get("cnf").is_some() {
        return bad("it is bound to a key and no bearer token (cnf)");
    }
    match claims.get("iat").map(Json::as_f64) {
        Some(Some(at)) if at > (now() + LEEWAY) as f64 => bad("it was issued in the future (iat)"),
        Some(None) => bad("its iat is no time"),
        _ => Ok(claims),
    }
}

fn usable(key: &Jwk) -> bool {
    let signs = key.common.public_key_use.as_ref().is_none_or(|u| *u == PublicKeyUse::Signature);
    signs && ALGORITHMS.iter().any(|algorithm| fits(*algorithm, key))
}

fn fits(algorithm: Algorithm, key: &Jwk) -> bool {
    match (&key.algorithm, algorithm) {
        (AlgorithmParameters::RSA(_), Algorithm::RS256 | Algorithm::PS256) => true,
        (AlgorithmParameters::EllipticCurve(ec), Algorithm::ES256) => ec.curve == EllipticCurve::P256,
        (AlgorithmParameters::OctetKeyPair(ed), Algorithm::EdDSA) => ed.curve == EllipticCurve::Ed25519,
        _ => false,
    }
}

/// Signs claims with a private key: PKCS#8 in PEM, of whichever kind it is.
///
/// # Errors
/// When it is no such key.
pub fn sign(claims: &serde_json::Value, kind: &str, key: &Secret) -> Result<String, String> {
    provider::install();
    let der = pkcs8(key.expose()).ok_or("the private key is no PKCS#8 in PEM (-----BEGIN PRIVATE KEY-----)")?;
    let kinds = [
        (Algorithm::ES256, EncodingKey::from_ec_der(&der)),
        (Algorithm::EdDSA, EncodingKey::from_ed_der(&der)),
        (Algorithm::RS256, EncodingKey::from_rsa_der(&der)),
    ];
    for (algorithm, key) in kinds {
        let mut header = Header::new(algorithm);
        header.typ = Some(kind.to_owned());
        if let Ok(token) = encode(&header, claims, &key) {
            return Ok(token);
        }
    }
    Err("the private key is neither P-256, Ed25519 nor RSA of 2048 bits and more".into())
}

fn pkcs8(pem: &str) -> Option<Vec<u8>> {
    let (_, rest) = pem.split_once("-----BEGIN PRIVATE KEY-----")?;
    let (body, _) = rest.split_once("-----END PRIVATE KEY-----")?;
    let body: String = body.split_whitespace().collect();
    BASE64_STANDARD.decode(body).ok()
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

#[cfg(test)]
mod tests {
    use super::*;
    use ring::rand::SystemRandom;
    use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair};
    use serde_json::{Value, json};

    const ISSUER: &str = "https://login.example";

    fn pem(der: &[u8]) -> Secret {
        let body = BASE64_STANDARD.encode(der);
        Secret::new(format!("-----BEGIN PRIVATE KEY-----\n{body}\n-----END PRIVATE KEY-----\n"))
    }
    /// A P-256 key, and its public half as a JWK.
    fn p256(kid: Option<&str>) -> (Secret, Value) {
        let random = SystemRandom::new();
        let der = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, der.as_ref(), &random).unwrap();
        let point = pair.public_key().as_ref();
        let part = |bytes: &[u8]| BASE64_URL_SAFE_NO_PAD.encode(bytes);
        let mut jwk = json!({ "kty": "EC", "crv": "P-256", "x": part(&point[1..33]), "y": part(&point[33..]) });
        if let Some(kid) = kid {
            jwk["kid"] = kid.into();
        }
        (pem(der.as_ref()), jwk)
    }
    fn keys(jwks: &[&Value]) -> Keys {
        Keys::read(json!({ "keys": jwks }).to_string().as_bytes()).unwrap()
    }
    fn claims() -> Value {
        json!({ "iss": ISSUER, "aud": ["other", "us"], "sub": "ada", "iat": now(), "exp": now() + 300 })
    }
    fn with(key: &str, value: Value) -> Value {
        let mut claims = claims();
        claims[key] = value;
        claims
    }

    #[test]
    fn a_good_token_gives_its_claims() {
        let (key, jwk) = p256(None);
        let token = sign(&claims(), "at+jwt", &key).unwrap();
        let found = verify(&token, &keys(&[&jwk]), ISSUER, &["us"]).unwrap();
        assert_eq!(found.get("sub").and_then(Json::as_str), Some("ada"));
        assert_eq!(claimed_issuer(&token).as_deref(), Some(ISSUER));

        let der = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
        let pair = Ed25519KeyPair::from_pkcs8(der.as_ref()).unwrap();
        let x = BASE64_URL_SAFE_NO_PAD.encode(pair.public_key().as_ref());
        let token = sign(&claims(), "JWT", &pem(der.as_ref())).unwrap();
        let ed = json!({ "kty": "OKP", "crv": "Ed25519", "x": x, "use": "sig" });
        assert!(verify(&token, &keys(&[&jwk, &ed]), ISSUER, &["us"]).is_ok());
    }

    #[test]
    fn each_flaw_is_found() {
        let (key, jwk) = p256(None);
        let keys = keys(&[&jwk]);
        let check = |claims: &Value, kind: &str| verify(&sign(claims, kind, &key).unwrap(), &keys, ISSUER, &["us"]);
        assert!(check(&claims(), "JWT").is_ok());
        assert_eq!(check(&with("exp", (now() - 120).into()), "JWT"), Err(Flaw::Expired));
        for bad in [
            with("iss", "https://login.example/".into()),
            with("iss", json!([ISSUER])),
            with("aud", "them".into()),
            with("aud", Value::Null),
            with("exp", Value::Null),
            with("exp", "soon".into()),
            with("nbf", (now() + 600).into()),
            with("iat", (now() + 600).into()),
            with("cnf", json!({ "jkt": "x" })),
        ] {
            assert!(check(&bad, "JWT").is_err(), "{bad}");
        }
        for kind in ["logout+jwt", "dpop+jwt", "secevent+jwt", ""] {
            assert!(check(&claims(), kind).is_err(), "{kind}");
        }
    }

    #[test]
    fn only_published_keys_of_accepted_kinds() {
        let ((key, jwk), (_, other)) = (p256(Some("a")), p256(Some("b")));
        let token = sign(&claims(), "JWT", &key).unwrap();
        assert!(verify(&token, &keys(&[&other, &jwk]), ISSUER, &["us"]).is_ok(), "it names no key: all are tried");
        assert_eq!(verify(&token, &keys(&[&other]), ISSUER, &["us"]), Err(Flaw::UnknownKey));
        // Neither unsigned nor signed with what everybody knows.
        let part = |json: Value| BASE64_URL_SAFE_NO_PAD.encode(json.to_string());
        let unsigned = format!("{}.{}.", part(json!({ "alg": "none" })), part(claims()));
        let hmac = format!("{}.{}.AAAA", part(json!({ "alg": "HS256" })), part(claims()));
        let critical = json!({ "alg": "ES256", "crit": ["b64"], "b64": false });
        let (_, rest) = token.split_once('.').unwrap();
        for bad in [
            unsigned,
            hmac,
            format!("{}.{rest}", part(critical)),
            "a.b".into(),
            String::new(),
            "x".repeat(MAX_TOKEN + 1),
        ] {
            assert!(matches!(verify(&bad, &keys(&[&jwk]), ISSUER, &["us"]), Err(Flaw::Bad(_))), "{bad:.40}");
        }
        let secret = json!({ "kty": "oct", "k": "c2VjcmV0" });
        let coded = json!({ "kty": "EC", "crv": "P-256", "x": jwk["x"], "y": jwk["y"], "use": "enc" });
        assert!(keys(&[&secret, &coded, &json!({ "kty": "new", "v": 1 })]).is_empty());
    }
}
