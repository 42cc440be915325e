//! Where tokens towards servers are kept: one sealed file for each server and principal, in the
//! state folder, which no sandbox shows. What one issuer gave stands beside what another gave
//! and is never shown to it.

use crate::mcp::seal::Seal;
use adapters::oauth::{Credential, Registration};
use policies::json::Json;
use policies::names::Name;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{Error, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

/// All of a state folder.
pub(crate) struct Vault {
    state: PathBuf,
    seal: OnceLock<Seal>,
}

/// What is kept for one server and principal. Holds secrets: no `Debug`.
#[derive(Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    /// The issuer whose tokens are used.
    pub(crate) issuer: Option<String>,
    /// What each issuer gave.
    issuers: BTreeMap<String, Given>,
    /// What a person is wanted for.
    pub(crate) wanted: Option<Wanted>,
}

/// What one issuer gave.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Given {
    pub(crate) registration: Registration,
    pub(crate) credential: Option<Credential>,
}

/// The refusal that a login is to answer.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Wanted {
    /// Its `WWW-Authenticate`.
    pub(crate) challenge: Option<String>,
    /// The scopes it names.
    pub(crate) scopes: Vec<String>,
    /// Whether there is a token already, which is not enough.
    pub(crate) step_up: bool,
}

impl Record {
    /// What an issuer gave.
    pub(crate) fn at(&self, issuer: &str) -> Option<&Given> {
        self.issuers.get(issuer)
    }
    /// The tokens in use.
    pub(crate) fn credential(&self) -> Option<&Credential> {
        self.at(self.issuer.as_deref()?)?.credential.as_ref()
    }
    /// Takes new tokens into use; those of other issuers are let go.
    pub(crate) fn keep(&mut self, issuer: &str, registration: Registration, credential: Credential) {
        for (other, given) in &mut self.issuers {
            if other != issuer {
                given.credential = None;
            }
        }
        self.issuers.insert(issuer.to_owned(), Given { registration, credential: Some(credential) });
        self.issuer = Some(issuer.to_owned());
        self.wanted = None;
    }
}

impl Vault {
    pub(crate) fn new(state: PathBuf) -> Arc<Self> {
        Arc::new(Self { state, seal: OnceLock::new() })
    }
    /// The place of a server and a principal.
    pub(crate) fn entry(self: &Arc<Self>, server: &Name, principal: &str) -> Entry {
        Entry { vault: self.clone(), server: server.clone(), principal: principal.to_owned() }
    }
    /// Opens what was sealed with the key of the same state folder.
    ///
    /// # Errors
    /// When the key cannot be read.
    pub(crate) fn open(&self, purpose: &str, principal: &str, sealed: &str) -> std::io::Result<Option<Json>> {
        Ok(self.seal()?.open(purpose, principal, sealed))
    }
    fn seal(&self) -> std::io::Result<&Seal> {
        if let Some(seal) = self.seal.get() {
            return Ok(seal);
        }
        let fresh = Seal::load(&self.state)?;
        Ok(self.seal.get_or_init(|| fresh))
    }
}

/// One file. A writer holds its lock from reading to writing; readers need none.
#[derive(Clone)]
pub(crate) struct Entry {
    vault: Arc<Vault>,
    server: Name,
    principal: String,
}

/// What changes when the file does.
pub(crate) type Stamp = Option<(SystemTime, u64)>;

impl Entry {
    fn folder(&self) -> PathBuf {
        self.vault.state.join("tokens").join(self.server.as_str())
    }
    fn path(&self) -> std::io::Result<PathBuf> {
        // A principal is the name of a client, or "local"; nothing else becomes a path.
        let name = Name::try_from(self.principal.as_str()).map_err(|e| Error::other(e.to_string()))?;
        Ok(self.folder().join(name.as_str()))
    }
    fn purpose(&self) -> String {
        format!("tokens for {}", self.server)
    }

    /// Whether it is the file that was read before.
    pub(crate) fn stamp(&self) -> Stamp {
        let metadata = std::fs::metadata(self.path().ok()?).ok()?;
        Some((metadata.modified().ok()?, metadata.len()))
    }

    /// Reads it; an empty record when there is none.
    ///
    /// # Errors
    /// When it cannot be opened with the key of this state folder.
    pub(crate) fn load(&self) -> std::io::Result<Record> {
        let path = self.path()?;
        let sealed = match std::fs::read_to_string(&path) {
            Ok(sealed) => sealed,
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Record::default()),
            Err(e) => return Err(e),
        };
        let opened = self.vault.seal()?.open(&self.purpose(), &self.principal, sealed.trim());
        let record = opened.and_then(|json| serde_json::from_value(json.to_serde()).ok());
        record.ok_or_else(|| {
            let shown = path.display();
            Error::other(format!("{shown} is damaged or of another key; remove it and log in again"))
        })
    }

    /// Writes it: a reader sees the old or the new one. Call with the lock held.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(crate) fn save(&self, record: &Record) -> std::io::Result<()> {
        let path = self.path()?;
        let json = Json::from(serde_json::to_value(record)?);
        let sealed = self.vault.seal()?.seal(&self.purpose(), &self.principal, &json);
        let beside = path.with_extension(format!("new-{}", std::process::id()));
        let written = (|| {
            let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
            file.write_all(sealed.as_bytes())?;
            file.sync_all()?;
            std::fs::rename(&beside, &path)
        })();
        if written.is_err() {
            let _ = std::fs::remove_file(&beside);
        }
        written
    }

    /// Removes it; whether there was one.
    ///
    /// # Errors
    /// When it cannot be removed.
    pub(crate) fn forget(&self) -> std::io::Result<bool> {
        match std::fs::remove_file(self.path()?) {
            Ok(()) => Ok(true),
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(false),
            Err(e) => Err(e),
        }
    }

    /// Waits for the right to write, against other processes too; dropping the file ends it.
    ///
    /// # Errors
    /// When the folder cannot be written.
    pub(crate) async fn lock(&self) -> std::io::Result<File> {
        let (folder, path) = (self.folder(), self.path()?.with_extension("lock"));
        let locked = tokio::task::spawn_blocking(move || -> std::io::Result<File> {
            std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
            let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path)?;
            file.lock()?;
            Ok(file)
        });
        locked.await.map_err(Error::other)?
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn credential(access: &str) -> Credential {
        let (scopes, asked) = (vec!["a".into()], vec!["a".into()]);
        Credential { access: access.into(), refresh: None, expires_at: None, scopes, asked }
    }
    fn registration(client_id: &str) -> Registration {
        let redirect = "http://127.0.0.1:1/callback".into();
        Registration { client_id: client_id.into(), client_secret: None, method: None, redirect }
    }

    #[tokio::test]
    async fn kept_sealed_for_one_server_and_principal() {
        let folder = tempfile::tempdir().unwrap();
        let vault = Vault::new(folder.path().to_owned());
        let server = Name::try_from("search").unwrap();
        let entry = vault.entry(&server, "local");
        assert!(entry.load().unwrap().credential().is_none());
        let lock = entry.lock().await.unwrap();
        let mut record = entry.load().unwrap();
        record.keep("https://one", registration("c1"), credential("hunter2"));
        entry.save(&record).unwrap();
        drop(lock);
        assert_eq!(entry.load().unwrap().credential().unwrap().access, "hunter2");
        let path = folder.path().join("tokens/search/local");
        assert!(!std::fs::read_to_string(&path).unwrap().contains("hunter2"));
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);

        let other = vault.entry(&server, "ci");
        std::fs::copy(&path, folder.path().join("tokens/search/ci")).unwrap();
        assert!(other.load().is_err(), "what is sealed for one principal is nobody else's");
        assert!(vault.entry(&server, "../local").load().is_err());
        assert!(entry.forget().unwrap() && !entry.forget().unwrap());
    }

    #[test]
    fn what_one_issuer_gave_is_not_the_others() {
        let mut record = Record::default();
        record.keep("https://one", registration("c1"), credential("t1"));
        record.keep("https://two", registration("c2"), credential("t2"));
        assert_eq!(record.credential().unwrap().access, "t2");
        let one = record.at("https://one").unwrap();
        assert!(one.credential.is_none() && one.registration.client_id == "c1");
    }
}
