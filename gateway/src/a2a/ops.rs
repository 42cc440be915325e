//! The operations, whatever the binding and the generation (A2A 1.0, section 3.1). Who asks is
//! known and may ask; whose a task is, is asked on every path before anything else is.

use super::codec::Version;
use super::fault::{Fault, Kind};
use super::updates::{self, Many, Until, Updates};
use super::{Door, card, list, peer, push, send};
use crate::auth::Came;
use crate::guard::A2A;
use crate::hosted::Who;
use adapters::mcp::Callback;
use policies::names::Name;
use serde_json::Value;
use subagents::host::Done;
use subagents::ports::RunRow;
use subagents::run::RunId;

/// What can be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Op {
    Send,
    Stream,
    Get,
    List,
    Cancel,
    Subscribe,
    /// Configurations of push notifications.
    SetPush,
    GetPush,
    ListPush,
    DeletePush,
    /// The extended card.
    Card,
}

/// A request: who asks what of which agent, in the words of 1.0.
pub(super) struct Asked {
    pub(super) door: Door,
    pub(super) who: Who,
    pub(super) agent: Name,
    pub(super) version: Version,
    pub(super) params: Value,
    /// `Idempotency-Key`.
    pub(super) key: Option<String>,
    /// What came along to call back with.
    pub(super) came: Option<(Came, Callback)>,
}

/// What it comes to, in the words of 1.0.
pub(super) enum Answer {
    One(Value),
    Many(Many),
}

impl Asked {
    pub(super) fn text(&self, key: &str) -> Option<&str> {
        self.params.get(key).and_then(Value::as_str).filter(|text| !text.is_empty())
    }
    /// How much of the history is wanted: `historyLength`, of the parameters or of their configuration.
    ///
    /// # Errors
    /// When it is no number from 0.
    pub(super) fn history(&self) -> Result<Option<usize>, Fault> {
        let given = self.params.get("historyLength").or_else(|| self.params.pointer("/configuration/historyLength"));
        match given {
            None | Some(Value::Null) => Ok(None),
            Some(given) => {
                let length = given.as_u64().and_then(|n| usize::try_from(n).ok());
                length.map(Some).ok_or_else(|| Fault::field("historyLength", "it is a number from 0"))
            }
        }
    }
    /// Whether it came with a grant.
    pub(super) fn is_granted(&self) -> bool {
        self.who.identity.as_ref().is_some_and(|identity| identity.carried.is_some())
    }
    /// A task of whoever asks, with this agent.
    ///
    /// # Errors
    /// The same for one that is absent and one of somebody else.
    pub(super) async fn own(&self, id: &str) -> Result<RunRow, Fault> {
        let found = self.door.0.store.run_of(self.who.principal(), id).await?;
        let row = found.map(|listed| listed.row);
        row.filter(|row| row.parent.is_none() && row.agent == self.agent.as_str()).ok_or_else(|| Fault::no_task(id))
    }
    /// Waits until whoever asks is nobody any more, or may not start the agent.
    pub(super) async fn gone(&self) {
        match &self.who.identity {
            Some(identity) => identity.gone(&self.door.0.live).await,
            None => std::future::pending().await,
        }
    }
    async fn named(&self) -> Result<RunRow, Fault> {
        let id = self.text("id").ok_or_else(|| Fault::field("id", "it is missing"))?;
        self.own(id).await
    }
}

/// A grant goes with the one message it names, as it was said to this agent, or with one question about
/// one task: so whoever sees it can have that done again, which is nothing, and no more.
fn fits(op: Op, asked: &mut Asked) -> Result<(), Fault> {
    let Some(carried) = asked.who.identity.as_ref().and_then(|identity| identity.carried.as_ref()) else {
        return Ok(());
    };
    let refused = |why: String| Err(Fault::new(Kind::Forbidden, why));
    let here = format!("{}/a2a/{}", asked.door.0.doorman.base(), asked.agent);
    if carried.audience != here && carried.audience != format!("{here}/rest") {
        return refused(format!("the grant is good at {}, and this is {here}", carried.audience));
    }
    let about = |what: &str| asked.text("id").map(|id| format!("{what} {id}"));
    let goes_with = match op {
        Op::Send | Op::Stream => Some(adapters::a2a::bound(&asked.params)),
        Op::Get => about("GetTask"),
        Op::Cancel => about("CancelTask"),
        Op::Subscribe => about("SubscribeToTask"),
        _ => None,
    };
    if goes_with.is_none() || carried.message != goes_with {
        let bound = carried.message.as_deref().unwrap_or("nothing");
        return refused(format!("the grant goes with {bound}, as it was said, and nothing else"));
    }
    if asked.params.pointer("/configuration/taskPushNotificationConfig").is_some_and(|config| !config.is_null()) {
        return refused("a gateway follows its tasks itself; leave taskPushNotificationConfig out".into());
    }
    // The message is its own key: another beside it would make it another message.
    asked.key = None;
    if !matches!(op, Op::Send | Op::Stream)
        && let Some(identity) = &asked.who.identity
    {
        // A question grants nothing, and asks about what a message began: whether that is still allowed
        // is looked at by what the gateway may have done here at all.
        asked.who.caller = identity.bare().caller(A2A);
    }
    asked.came = came(asked)?;
    if let (Some((came, _)), Some(identity)) = (&asked.came, &asked.who.identity)
        && let Some(carried) = &identity.carried
    {
        // A door's word for where its caller stands has it, and so has whatever is begun there.
        let carried = carried.with(came.clone());
        asked.who = Who::of(identity.clone().with(carried), A2A);
    }
    Ok(())
}

/// What came along with a message to call back with: what the grant is bound to is believed.
fn came(asked: &Asked) -> Result<Option<(Came, Callback)>, Fault> {
    let Some(along) = adapters::a2a::along(&asked.params).filter(|along| along.get("callback").is_some()) else {
        return Ok(None);
    };
    let unfit = || Fault::field("metadata", "callback has url, token and until, seconds since 1970");
    let callback = Callback::read(along).ok_or_else(unfit)?;
    if callback.token.expose().len() > adapters::token::MAX {
        return Err(Fault::field("metadata", "the token of callback is longer than any that is read"));
    }
    let url = url::Url::parse(&callback.url).map_err(|_| unfit())?;
    // The same for the same message, however often it is said.
    let carried = asked.who.identity.as_ref().and_then(|identity| identity.carried.as_ref());
    let message = adapters::a2a::bound(&serde_json::json!({ "message": asked.params["message"] }));
    let by = carried.map(|carried| carried.by.as_str()).unwrap_or_default();
    let id = policies::json::digest(&format!("{by} {} {message}", asked.agent));
    Ok(Some((Came { id, url: url.into() }, callback)))
}

/// Does it.
pub(super) async fn perform(op: Op, mut asked: Asked) -> Result<Answer, Fault> {
    fits(op, &mut asked)?;
    let asked = match Box::pin(peer::perform(op, asked)).await? {
        Ok(answer) => return Ok(answer),
        Err(asked) => asked,
    };
    match op {
        Op::Send => send::send(&asked).await.map(Answer::One),
        Op::Stream => send::stream(&asked).await.map(many),
        Op::Get => get(&asked).await.map(Answer::One),
        Op::List => list::list(&asked).await.map(Answer::One),
        Op::Cancel => cancel(&asked).await.map(Answer::One),
        Op::Subscribe => subscribe(&asked).await.map(many),
        Op::SetPush => push::set(&asked).await.map(Answer::One),
        Op::GetPush => push::get(&asked).await.map(Answer::One),
        Op::ListPush => push::list(&asked).await.map(Answer::One),
        Op::DeletePush => push::delete(&asked).await.map(Answer::One),
        Op::Card => card::extended(&asked).map(Answer::One),
    }
}

fn many(updates: Updates) -> Answer {
    Answer::Many(Many::Own(Box::new(updates)))
}

async fn get(asked: &Asked) -> Result<Value, Fault> {
    let history = asked.history()?;
    let row = asked.named().await?;
    let tale = updates::read(&asked.door.0.store, &row).await?;
    updates::shown(&asked.door.0.store, &tale, history, true).await
}

async fn cancel(asked: &Asked) -> Result<Value, Fault> {
    let row = asked.named().await?;
    let host = &asked.door.0.host;
    let ended = |state: &str| Fault::new(Kind::TaskNotCancelable, format!("it is {state} already"));
    if row.ended.is_some() {
        return Err(ended(&row.state));
    }
    let place = asked.door.watching(&asked.who)?;
    let mut watched = Updates::new(&asked.door, &row, (Until::End, None), Some(place)).await?;
    let done = host.cancel(&RunId::known(row.run.as_str()), asked.who.principal()).await;
    done.map(|_: Done| ()).map_err(|e| Fault::of_host(e, Kind::TaskNotCancelable))?;
    // What is under way is cut off, so this is short.
    watched.settled(None).await
}

async fn subscribe(asked: &Asked) -> Result<Updates, Fault> {
    let row = asked.named().await?;
    let place = asked.door.watching(&asked.who)?;
    // In 0.3 what is final ends a stream, and a question is.
    let until = if asked.version == Version::V0_3 { Until::Turn } else { Until::End };
    let updates = Updates::new(&asked.door, &row, (until, None), Some(place)).await?;
    if updates.tale.state.is_terminal() {
        return Err(Fault::new(Kind::UnsupportedOperation, "the task has ended; get it to see how"));
    }
    updates.with_snapshot(asked.history()?).await
}
