//! What a push notification says: each change of a task, in order, as a `StreamResponse` (1.0) or as
//! the task as it stands after it (0.3); and what it proves itself with.
//!
//! ```text
//!  X-A2A-Notification-Token, A2A-Notification-Token   the token of the configuration
//!  Authorization    SCHEME CREDENTIALS as given; for Bearer without, the token below
//!  Pleach-Signature t=…,v1=…: for HMAC-SHA256, whose credentials are not sent
//!  Pleach-Token     always: a JWT by the key of /.well-known/jwks.json, of this very body
//! ```

use super::super::codec::Version;
use super::super::ops::Op;
use super::super::tale::Tale;
use super::super::{Door, JWKS, updates};
use super::{HMAC, PROOF};
use crate::guard::A2A;
use crate::webhook::{self, Letter, Letters, Said, Voice};
use adapters::store::{Due, PushConfig, clock};
use async_trait::async_trait;
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use policies::json::Json;
use policies::names::Name;
use ring::digest;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use subagents::event::{Event, Record};
use subagents::ports::{Gate, Journal, RunRow};
use url::Url;

/// A token of ours is good for so long, seconds: as long as clocks may differ, and a try takes.
const GOOD_FOR: u64 = 300;
/// Events read at a time.
const BATCH: u32 = 512;
/// Tasks that are not read from the start again when they go on.
const KNOWN: usize = 64;

/// Speaks for the configurations of A2A clients.
struct Teller {
    door: Door,
    tales: Mutex<Tales>,
}

#[derive(Default)]
struct Tales {
    /// Of a configuration, as far as it was told.
    told: BTreeMap<(String, String), Tale>,
    /// Of a message under way, as it is when that was heard.
    under_way: BTreeMap<u64, Tale>,
}

impl Door {
    /// Who speaks for it to webhooks.
    pub(crate) fn voice(&self) -> Arc<dyn Voice> {
        Arc::new(Teller { door: self.clone(), tales: Mutex::default() })
    }
}

#[async_trait]
impl Voice for Teller {
    async fn begin(&self) {
        match self.door.0.store.has_pushes().await {
            Ok(any) => drop(self.door.0.pushes.fetch_or(any, Ordering::AcqRel)),
            // Looked for more often than need be, and nothing worse.
            Err(_) => self.door.0.pushes.store(true, Ordering::Release),
        }
    }
    async fn say(&self, due: &Due) -> Result<Said, String> {
        let store = &self.door.0.store;
        let all = store.pushes(&due.root).await.map_err(|e| e.to_string())?;
        let config = all.into_iter().find(|config| Some(&config.id) == due.config.as_ref());
        let row = store.row(&due.root).await.map_err(|e| e.to_string())?;
        let (Some(config), Some(row)) = (config, row) else {
            return Ok(Said::Gone("its configuration is gone".into()));
        };
        let may = Name::try_from(row.agent.as_str());
        if !may.is_ok_and(|agent| self.door.0.guard.may_start(&config.principal, A2A, &agent)) {
            return Ok(Said::Gone(format!("{} may not see agent {} any more", config.principal, row.agent)));
        }
        let said = self.said(due, &config, &row).await?;
        if said.is_empty() {
            return Ok(Said::Nothing);
        }
        let url = Url::parse(&config.url).map_err(|e| e.to_string())?;
        let one = said.len() == 1;
        let letters = said.iter().enumerate().map(|(i, body)| {
            let id = if one { format!("p-{}", due.id) } else { format!("p-{}.{}", due.id, i + 1) };
            self.letter(&config, &id, body.to_string())
        });
        let letters = letters.collect::<Result<_, _>>()?;
        Ok(Said::Letters(Letters { principal: config.principal, place: A2A, url, letters }))
    }
    fn settled(&self, due: &Due, over: bool) {
        let mut tales = self.tales.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(tale) = tales.under_way.remove(&due.id) else { return };
        if !over {
            return;
        }
        let of = (due.root.to_string(), due.config.clone().unwrap_or_default());
        if tale.state.is_terminal() {
            tales.told.remove(&of);
            return;
        }
        if tales.told.len() >= KNOWN {
            tales.told.clear();
        }
        tales.told.insert(of, tale);
    }
    fn cares(&self, record: &Record) -> bool {
        let may = matches!(
            record.event,
            Event::ModelRequested { .. }
                | Event::ModelReplied { .. }
                | Event::Waiting(_)
                | Event::Answered { .. }
                | Event::TimedOut { .. }
                | Event::MessageReceived { .. }
                | Event::ArtifactEmitted { .. }
                | Event::Finished { .. }
        );
        may && self.door.0.pushes.load(Ordering::Acquire)
    }
}

impl Teller {
    /// What came of an event, in the words of whoever is told.
    async fn said(&self, due: &Due, config: &PushConfig, row: &RunRow) -> Result<Vec<Value>, String> {
        let store = &self.door.0.store;
        let known = {
            let tales = self.tales.lock().unwrap_or_else(PoisonError::into_inner);
            tales.told.get(&(due.root.to_string(), config.id.clone())).cloned()
        };
        let mut tale = known.unwrap_or_else(|| Tale::new(row));
        let changes = loop {
            let batch = store.since(&due.root, tale.n, BATCH).await.map_err(|e| e.to_string())?;
            if batch.is_empty() {
                return Err("its event is not in the journal".into());
            }
            let found = batch.into_iter().find_map(|(n, record)| {
                let changes = tale.take(n, &record);
                (record.run == due.record.run && record.seq == due.record.seq).then_some(changes)
            });
            if let Some(changes) = found {
                break changes;
            }
        };
        let failed = |fault: super::Fault| fault.to_string();
        let mut said = Vec::new();
        if config.version == Version::V1.as_str() {
            for change in &changes {
                said.extend(updates::told(store, &tale, change).await.map_err(failed)?);
            }
        } else if !changes.is_empty() {
            let task = updates::shown(store, &tale, None, true).await.map_err(failed)?;
            said.push(Version::V0_3.answer(Op::Get, task));
        }
        self.tales.lock().unwrap_or_else(PoisonError::into_inner).under_way.insert(due.id, tale);
        Ok(said)
    }

    fn letter(&self, config: &PushConfig, id: &str, body: String) -> Result<Letter, String> {
        let door = &self.door.0;
        let proof = door.seal.open(PROOF, &config.principal, &config.proof);
        let proof = proof.ok_or("its proof was sealed with another key (state folder lost?)")?;
        let given = |key: &str| proof.get(key).and_then(Json::as_str);
        let seconds = clock() / 1_000;
        let digest = BASE64_URL_SAFE_NO_PAD.encode(digest::digest(&digest::SHA256, body.as_bytes()));
        let claims = json!({
            "iss": door.doorman.base(), "aud": config.url, "iat": seconds, "exp": seconds + GOOD_FOR, "jti": id,
            "taskId": config.root.as_str(), "body_sha256": digest,
        });
        let token = door.key.token(&claims).map_err(|e| e.to_string())?;
        let mut headers = vec![
            ("content-type", "application/json".to_owned()),
            ("a2a-version", config.version.clone()),
            ("pleach-delivery", id.to_owned()),
            ("pleach-keys", format!("{}{JWKS}", door.doorman.base())),
        ];
        if let Some(given) = given("token") {
            headers.push(("x-a2a-notification-token", given.to_owned()));
            headers.push(("a2a-notification-token", given.to_owned()));
        }
        match (given("scheme"), given("credentials")) {
            (Some(scheme), Some(secret)) if scheme.eq_ignore_ascii_case(HMAC) => {
                headers.push(("pleach-signature", webhook::signature(secret, seconds, &body)));
            }
            (Some(scheme), Some(credentials)) => headers.push(("authorization", format!("{scheme} {credentials}"))),
            (Some(scheme), None) => headers.push(("authorization", format!("{scheme} {token}"))),
            (None, _) => {}
        }
        headers.push(("pleach-token", token));
        Ok(Letter { headers, body })
    }
}
