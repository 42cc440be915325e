//! What somebody brought along: a grant of a token, which narrows all that is done with it.
//!
//! A door remembers it as part of its own word for where a caller stands ([`Carried::at`]): that
//! word is in the journal of a run and is what its authority is worked out from, each time anew
//! ([`Carried::split`], in `guard/ports.rs`). So a run that began with a grant never holds more,
//! after a restart as little as after a change of the policy; and where the key that signed it is
//! nobody's any more, there is no door to stand at.

use adapters::token::Presented;
use policies::authority::{Authority, Link};
use policies::claims::{self, ClaimsError};
use policies::grant::Narrowing;
use policies::json::digest;
use policies::resolve::Limits;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// A grant that came with a token, once it was believed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Carried {
    /// The key that signed it.
    pub(crate) by: String,
    /// From whom it comes down, for people.
    chain: String,
    /// All that was granted, to be met: as it was written.
    grants: Vec<String>,
    /// What came along to call back with, if anything did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    callback: Option<Came>,
    /// What was granted, read.
    #[serde(skip)]
    asks: Vec<(Arc<Narrowing>, Limits)>,
    /// What it goes with, and where. Not remembered: it has come.
    #[serde(skip)]
    pub(crate) message: Option<String>,
    #[serde(skip)]
    pub(crate) audience: String,
    /// When its token is good no more, seconds since 1970.
    #[serde(skip)]
    pub(crate) until: u64,
}

/// What came along with a task to call back with: where that is, and where it is kept. The token
/// itself stands nowhere in clear.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Came {
    /// The name it is kept under.
    pub(crate) id: String,
    /// The endpoint it is good at.
    pub(crate) url: String,
}

impl Came {
    /// What came along with the task of whoever stands at a place. Asked often, so nothing else of
    /// the place is read.
    pub(crate) fn at(place: &str) -> Option<Self> {
        #[derive(Deserialize)]
        struct Only {
            callback: Option<Came>,
        }
        let (_, carried) = place.split_once(' ')?;
        serde_json::from_str::<Only>(carried).ok()?.callback
    }
}

/// How much of a chain is shown.
const SHOWN: usize = 400;

impl Carried {
    /// What a token said.
    ///
    /// # Errors
    /// When one of its grants is none.
    pub(crate) fn of(said: Presented) -> Result<Self, ClaimsError> {
        let chain = cut(&policies::manifest::visible(&said.chain));
        let Presented { by, mut grants, message, audience, until, .. } = said;
        grants.sort();
        grants.dedup();
        Self { by, chain, grants, callback: None, asks: Vec::new(), message, audience, until }.read()
    }
    /// The same with what came along beside it.
    pub(crate) fn with(&self, callback: Came) -> Self {
        Self { callback: Some(callback), ..self.clone() }
    }
    fn read(mut self) -> Result<Self, ClaimsError> {
        let read = |text: &String| claims::read(text).map(|(asks, limits)| (Arc::new(asks), limits));
        self.asks = self.grants.iter().map(read).collect::<Result<_, _>>()?;
        Ok(self)
    }
    /// A door's word for where its bearer stands.
    pub(crate) fn at(&self, door: &str) -> String {
        // It is text all through, so it is always written.
        format!("{door} {}", serde_json::to_string(self).unwrap_or_default())
    }
    /// A door, and what is remembered of who stands there; `None` where that cannot be read: then
    /// nobody does.
    pub(crate) fn split(place: &str) -> Option<(&str, Option<Self>)> {
        match place.split_once(' ') {
            None => Some((place, None)),
            Some((door, carried)) => {
                let carried: Self = serde_json::from_str(carried).ok()?;
                Some((door, Some(carried.read().ok()?)))
            }
        }
    }
    /// The counted limits of all that was granted.
    pub(crate) fn limits(&self) -> Limits {
        self.asks.iter().fold(Limits::NONE, |limits, (_, counted)| limits.meet(*counted))
    }
    /// An authority and its limits, met with what was carried.
    pub(crate) fn narrows(&self, who: &str, held: (Authority, Limits)) -> (Authority, Limits) {
        // What people say yes to is bound to a chain: another grant is another one.
        let mark = &digest(&self.grants.join("\n"))[..8];
        let who: Arc<str> = format!("grant of {who} ({}) #{mark}", self.chain).into();
        self.asks.iter().fold(held, |(authority, limits), (asks, counted)| {
            let link = Link { who: who.clone(), asks: asks.clone(), sources: Arc::default() };
            (authority.narrowed(link), limits.meet(*counted))
        })
    }
}

/// A chain as far as it is shown: its beginning, and who is nearest.
fn cut(chain: &str) -> String {
    let count = chain.chars().count();
    if count <= SHOWN {
        return chain.to_owned();
    }
    let part = |skip: usize| chain.chars().skip(skip).take(SHOWN / 2).collect::<String>();
    format!("{} … {}", part(0), part(count - SHOWN / 2))
}

/// The name of a door, without what it remembers of who stands there.
pub(crate) fn door_of(place: &str) -> &str {
    place.split(' ').next().unwrap_or(place)
}
