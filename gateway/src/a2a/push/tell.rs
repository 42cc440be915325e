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
use super::super::tale::{Change, Tale};
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

/// A configuration: its task and its name there.
type Of = (String, String);

/// Tasks as far as they were told. One is in one place at a time: whoever goes on with it takes it
/// out, and what is not heard is read again from the start.
#[derive(Default)]
struct Tales {
    /// Of a configuration, and the generation it was told in.
    told: BTreeMap<Of, (String, Tale)>,
    /// Of a message under way, as it is when that was heard.
    under_way: BTreeMap<u64, (String, Tale)>,
}

impl Tales {
    /// As far as a configuration was told in a generation. One that was set to another since needs
    /// what the other let go of.
    fn take(&mut self, of: &Of, version: &str) -> Option<Tale> {
        self.told.remove(of).filter(|(told, _)| told == version).map(|(_, tale)| tale)
    }
    /// A message says how it stands in this generation. In 1.0 only what changes is told: what was
    /// said and made before is needed no more.
    fn say(&mut self, id: u64, mut tale: Tale, version: &str) {
        if version == Version::V1.as_str() {
            tale.forget();
        }
        self.under_way.insert(id, (version.to_owned(), tale));
    }
    /// A message was said, and is over with or comes again.
    fn settled(&mut self, id: u64, of: Of, over: bool) {
        let Some((version, tale)) = self.under_way.remove(&id) else { return };
        if !over || tale.state.is_terminal() {
            return;
        }
        if self.told.len() >= KNOWN {
            self.told.clear();
        }
        self.told.insert(of, (version, tale));
    }
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
            // It was deleted meanwhile.
            return Ok(Said::Nothing);
        };
        let proof = self.door.0.seal.open(PROOF, &config.principal, &config.proof);
        let proof = proof.ok_or("its proof was sealed with another key (state folder lost?)")?;
        if let Some(why) = self.ended(&config, &row, &proof) {
            return Ok(Said::Gone(why));
        }
        let said = self.said(due, &config, &row).await?;
        if said.is_empty() {
            return Ok(Said::Nothing);
        }
        let url = Url::parse(&config.url).map_err(|e| e.to_string())?;
        let one = said.len() == 1;
        let letters = said.iter().enumerate().map(|(i, body)| {
            let id = if one { format!("p-{}", due.id) } else { format!("p-{}.{}", due.id, i + 1) };
            self.letter(&config, &proof, &id, body.to_string())
        });
        let letters = letters.collect::<Result<_, _>>()?;
        Ok(Said::Letters(Letters { principal: config.principal, place: A2A, url, letters }))
    }
    fn settled(&self, due: &Due, over: bool) {
        let of = (due.root.to_string(), due.config.clone().unwrap_or_default());
        self.tales().settled(due.id, of, over);
    }
    async fn woken(&self) {
        self.door.0.asked_to_tell.notified().await;
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
    fn tales(&self) -> std::sync::MutexGuard<'_, Tales> {
        self.tales.lock().unwrap_or_else(PoisonError::into_inner)
    }
    /// Why a configuration is nobody's any more: under the policy as it is its client is gone, is
    /// known by something else than when it asked, or does not see the task.
    fn ended(&self, config: &PushConfig, row: &RunRow, proof: &Json) -> Option<String> {
        let Door(door) = &self.door;
        let who = &config.principal;
        let policy = door.live.now().policy.clone();
        if let Some(clients) = &policy.clients {
            let Some(client) = clients.get(who.as_str()) else { return Some(format!("client {who} is gone")) };
            if proof.get("mark").and_then(Json::as_str).is_some_and(|mark| mark != client.proof.mark()) {
                return Some(format!("client {who} is known by another token than when it asked to be told"));
            }
        }
        let may = Name::try_from(row.agent.as_str());
        let may = may.is_ok_and(|agent| door.guard.may_start(who, A2A, &agent));
        (!may).then(|| format!("{who} may not see agent {} any more", row.agent))
    }
    /// Reads a task on to an event, and says what that changed; `None` where it does not come.
    async fn read_to(&self, mut tale: Tale, due: &Due) -> Result<Option<(Tale, Vec<Change>)>, String> {
        loop {
            let batch = self.door.0.store.since(&due.root, tale.n, BATCH).await.map_err(|e| e.to_string())?;
            if batch.is_empty() {
                return Ok(None);
            }
            for (n, record) in batch {
                let changes = tale.take(n, &record);
                if record.run == due.record.run && record.seq == due.record.seq {
                    return Ok(Some((tale, changes)));
                }
            }
        }
    }
    /// What came of an event, in the words of whoever is told.
    async fn said(&self, due: &Due, config: &PushConfig, row: &RunRow) -> Result<Vec<Value>, String> {
        let store = &self.door.0.store;
        let known = self.tales().take(&(due.root.to_string(), config.id.clone()), &config.version);
        let found = match known {
            Some(tale) => self.read_to(tale, due).await?,
            None => None,
        };
        let (tale, changes) = match found {
            Some(found) => found,
            // Told before already, by a try that counts no more: from the start.
            None => self.read_to(Tale::new(row), due).await?.ok_or("its event is not in the journal")?,
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
        self.tales().say(due.id, tale, &config.version);
        Ok(said)
    }

    fn letter(&self, config: &PushConfig, proof: &Json, id: &str, body: String) -> Result<Letter, String> {
        let door = &self.door.0;
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

#[cfg(test)]
mod tests {
    use super::*;
    use subagents::run::RunId;

    fn chunk(n: u64, more: bool) -> Record {
        let event = Event::ArtifactEmitted {
            name: "a".into(),
            media_type: "text/plain".into(),
            text: Some("x".repeat(1_000)),
            blob: None,
            url: None,
            encoding: None,
            more,
        };
        Record { run: RunId::known("r-a"), seq: n, at: 0, event }
    }
    fn fresh() -> Tale {
        let (run, text) = (RunId::known("r-a"), String::new);
        Tale::new(&RunRow {
            root: run.clone(),
            run,
            parent: None,
            depth: 0,
            agent: text(),
            principal: text(),
            door: None,
            state: text(),
            waiting: None,
            turns: 0,
            tool_calls: 0,
            tokens: 0,
            usd: None,
            started: 0,
            ended: None,
        })
    }

    /// A task is kept once; of one that is told change by change no more than the next change takes.
    #[test]
    fn no_more_is_kept_than_is_told() {
        for (version, kept) in [(Version::V1, 0), (Version::V0_3, 1)] {
            let (mut tales, of) = (Tales::default(), ("r-a".to_owned(), "c".to_owned()));
            let mut tale = fresh();
            tale.take(1, &chunk(1, true));
            tales.say(7, tale, version.as_str());
            tales.settled(7, of.clone(), true);
            let mut tale = tales.take(&of, version.as_str()).expect("it was told");
            assert!(tales.take(&of, version.as_str()).is_none() && tales.under_way.is_empty(), "there is one of it");
            assert_eq!((tale.n, tale.artifacts[0].pieces.len()), (1, kept), "{}", version.as_str());
            let goes_on = tale.take(2, &chunk(2, false));
            assert!(matches!(&goes_on[..], [Change::Artifact(made, true)] if made.pieces.len() == 1), "{goes_on:?}");
            // What was not heard is read again.
            tales.say(8, tale.clone(), version.as_str());
            tales.settled(8, of.clone(), false);
            assert!(tales.take(&of, version.as_str()).is_none() && tales.under_way.is_empty());
            // Nor does one generation go on where the other left off.
            tales.say(9, tale, version.as_str());
            tales.settled(9, of.clone(), true);
            assert!(tales.take(&of, if version.is_old() { "1.0" } else { "0.3" }).is_none());
        }
    }
}
