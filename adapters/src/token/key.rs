//! The key grants are signed with: Ed25519, made at the first start, kept in the state folder.

use super::{Flaw, MAX, Says, code};
use biscuit_auth::{Biscuit, KeyPair, PrivateKey, PublicKey};
use std::collections::HashMap;
use std::io::Error;
use std::path::Path;
use std::str::FromStr;
use std::time::SystemTime;

/// Gives grants.
pub struct Granter {
    pair: KeyPair,
    public: String,
}

/// Whether a text is a public key, as [`Granter::public`] writes it.
pub fn is_key(text: &str) -> bool {
    text.starts_with("ed25519/") && PublicKey::from_str(text).is_ok()
}

impl Granter {
    /// The key of a file, made if there is none: one line, `ed25519-private/` and hexadecimal.
    ///
    /// # Errors
    /// When it can be neither read nor written, or is no such key.
    pub fn load(path: &Path) -> std::io::Result<Self> {
        let fresh = || Ok(KeyPair::new().private().to_prefixed_string().into_bytes());
        let kept = crate::kept::made_once(path, fresh)?;
        let unfit = || Error::other(format!("{} is no Ed25519 key (ed25519-private/…); remove it", path.display()));
        let text = std::str::from_utf8(&kept).map_err(|_| unfit())?;
        let private = PrivateKey::from_str(text.trim()).map_err(|_| unfit())?;
        let pair = KeyPair::from(&private);
        let public = pair.public().to_string();
        if is_key(&public) { Ok(Self { pair, public }) } else { Err(unfit()) }
    }
    /// Its public half, for the policy files of those who are shown its grants: `ed25519/…`.
    pub fn public(&self) -> &str {
        &self.public
    }
    /// A token that is good until then.
    ///
    /// # Errors
    /// When it would be too long to be shown.
    pub fn mint(&self, says: &Says<'_>, until: SystemTime) -> Result<String, Flaw> {
        let (code, params) = code(says, until);
        let token = Biscuit::builder()
            .code_with_params(code, params, HashMap::new())
            .and_then(|builder| builder.build(&self.pair))
            .and_then(|token| token.to_base64())
            .map_err(Flaw::form)?;
        if token.len() > MAX { Err(Flaw::Length(token.len())) } else { Ok(token) }
    }
}
