//! The two generations of the protocol. 1.0 is what we think in; 0.3 is translated at the edge.
//!
//! `A2A-Version` decides, and where it is missing 0.3 is meant (A2A 1.0, section 3.6.2).

pub(super) mod v0_3;
mod v1;

use super::fault::{Fault, Kind};
use super::ops::Op;
use http::HeaderMap;
use serde_json::Value;

/// A generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Version {
    V1,
    V0_3,
}

impl Version {
    /// As it is written on the wire.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Version::V1 => "1.0",
            Version::V0_3 => "0.3",
        }
    }
    /// Whether it is the older one.
    pub(super) fn is_old(self) -> bool {
        self == Version::V0_3
    }
    /// What a request asks for: the header, else the query parameter, else 0.3.
    ///
    /// # Errors
    /// For a version that is not spoken here.
    pub(super) fn of(headers: &HeaderMap, query: &[(String, String)]) -> Result<Self, Fault> {
        let header = headers.get("a2a-version").map(|value| value.to_str().unwrap_or("?").trim().to_owned());
        let given = header.filter(|v| !v.is_empty()).or_else(|| {
            query.iter().find(|(name, _)| name.eq_ignore_ascii_case("a2a-version")).map(|(_, value)| value.clone())
        });
        match given.as_deref() {
            None | Some("" | "0.3") => Ok(Version::V0_3),
            Some("1.0") => Ok(Version::V1),
            Some(other) => {
                let why = format!("A2A-Version {other:?} is not spoken here; 1.0 and 0.3 are");
                Err(Fault::new(Kind::VersionNotSupported, why))
            }
        }
    }
    /// The operation of a JSON-RPC method.
    pub(super) fn op(self, method: &str) -> Option<Op> {
        let methods: &[(&str, Op)] = match self {
            Version::V1 => &[
                ("SendMessage", Op::Send),
                ("SendStreamingMessage", Op::Stream),
                ("GetTask", Op::Get),
                ("ListTasks", Op::List),
                ("CancelTask", Op::Cancel),
                ("SubscribeToTask", Op::Subscribe),
                ("CreateTaskPushNotificationConfig", Op::SetPush),
                ("GetTaskPushNotificationConfig", Op::GetPush),
                ("ListTaskPushNotificationConfigs", Op::ListPush),
                ("DeleteTaskPushNotificationConfig", Op::DeletePush),
                ("GetExtendedAgentCard", Op::Card),
            ],
            Version::V0_3 => &[
                ("message/send", Op::Send),
                ("message/stream", Op::Stream),
                ("tasks/get", Op::Get),
                ("tasks/cancel", Op::Cancel),
                ("tasks/resubscribe", Op::Subscribe),
                ("tasks/pushNotificationConfig/set", Op::SetPush),
                ("tasks/pushNotificationConfig/get", Op::GetPush),
                ("tasks/pushNotificationConfig/list", Op::ListPush),
                ("tasks/pushNotificationConfig/delete", Op::DeletePush),
                ("agent/getAuthenticatedExtendedCard", Op::Card),
            ],
        };
        methods.iter().find(|(name, _)| *name == method).map(|(_, op)| *op)
    }
    /// Parameters of a request, in the words of 1.0.
    pub(super) fn params(self, op: Op, params: Value) -> Value {
        match self {
            Version::V1 => v1::params(params),
            Version::V0_3 => v0_3::params(op, params),
        }
    }
    /// An answer, in the words of whoever asked.
    pub(super) fn answer(self, op: Op, answer: Value) -> Value {
        match self {
            Version::V1 => answer,
            Version::V0_3 => v0_3::answer(op, answer),
        }
    }
    /// What a stream tells, in the words of whoever listens.
    pub(super) fn update(self, update: Value) -> Value {
        match self {
            Version::V1 => update,
            Version::V0_3 => v0_3::update(update),
        }
    }
}
