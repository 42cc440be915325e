//! The messages of `lf.a2a.v1` (A2A 1.0.1, `specification/a2a.proto`) and of `google.rpc` that goes
//! with errors: their fields by the names ProtoJSON has for them, with their numbers and kinds.
//!
//! A field is `name=number kind`. Kinds: `s` a string, `y` bytes, `b` a truth value, `i` an int32, `t` a
//! `google.protobuf.Timestamp`, `struct` and `value` of `google.protobuf`, a name in capitals an enum,
//! any other name a message. `*kind` is a list, `%kind` a map from strings.

use std::collections::BTreeMap;
use std::sync::OnceLock;

const MESSAGES: &[(&str, &str)] = &[
    (
        "SendMessageRequest",
        "tenant=1 s, message=2 Message, configuration=3 SendMessageConfiguration, metadata=4 struct",
    ),
    (
        "SendMessageConfiguration",
        "acceptedOutputModes=1 *s, taskPushNotificationConfig=2 TaskPushNotificationConfig, historyLength=3 i, \
         returnImmediately=4 b",
    ),
    (
        "Task",
        "id=1 s, contextId=2 s, status=3 TaskStatus, artifacts=4 *Artifact, history=5 *Message, metadata=6 struct",
    ),
    ("TaskStatus", "state=1 STATE, message=2 Message, timestamp=3 t"),
    ("Part", "text=1 s, raw=2 y, url=3 s, data=4 value, metadata=5 struct, filename=6 s, mediaType=7 s"),
    (
        "Message",
        "messageId=1 s, contextId=2 s, taskId=3 s, role=4 ROLE, parts=5 *Part, metadata=6 struct, extensions=7 *s, \
         referenceTaskIds=8 *s",
    ),
    ("Artifact", "artifactId=1 s, name=2 s, description=3 s, parts=4 *Part, metadata=5 struct, extensions=6 *s"),
    ("TaskStatusUpdateEvent", "taskId=1 s, contextId=2 s, status=3 TaskStatus, metadata=4 struct"),
    (
        "TaskArtifactUpdateEvent",
        "taskId=1 s, contextId=2 s, artifact=3 Artifact, append=4 b, lastChunk=5 b, metadata=6 struct",
    ),
    ("AuthenticationInfo", "scheme=1 s, credentials=2 s"),
    ("AgentInterface", "url=1 s, protocolBinding=2 s, tenant=3 s, protocolVersion=4 s"),
    (
        "AgentCard",
        "name=1 s, description=2 s, supportedInterfaces=3 *AgentInterface, provider=4 AgentProvider, version=5 s, \
         documentationUrl=6 s, capabilities=7 AgentCapabilities, securitySchemes=8 %SecurityScheme, \
         securityRequirements=9 *SecurityRequirement, defaultInputModes=10 *s, defaultOutputModes=11 *s, \
         skills=12 *AgentSkill, signatures=13 *AgentCardSignature, iconUrl=14 s",
    ),
    ("AgentProvider", "url=1 s, organization=2 s"),
    ("AgentCapabilities", "streaming=1 b, pushNotifications=2 b, extensions=3 *AgentExtension, extendedAgentCard=4 b"),
    ("AgentExtension", "uri=1 s, description=2 s, required=3 b, params=4 struct"),
    (
        "AgentSkill",
        "id=1 s, name=2 s, description=3 s, tags=4 *s, examples=5 *s, inputModes=6 *s, outputModes=7 *s, \
         securityRequirements=8 *SecurityRequirement",
    ),
    ("AgentCardSignature", "protected=1 s, signature=2 s, header=3 struct"),
    (
        "TaskPushNotificationConfig",
        "tenant=1 s, id=2 s, taskId=3 s, url=4 s, token=5 s, authentication=6 AuthenticationInfo",
    ),
    ("StringList", "list=1 *s"),
    ("SecurityRequirement", "schemes=1 %StringList"),
    (
        "SecurityScheme",
        "apiKeySecurityScheme=1 APIKeySecurityScheme, httpAuthSecurityScheme=2 HTTPAuthSecurityScheme, \
         oauth2SecurityScheme=3 OAuth2SecurityScheme, openIdConnectSecurityScheme=4 OpenIdConnectSecurityScheme, \
         mtlsSecurityScheme=5 MutualTlsSecurityScheme",
    ),
    ("APIKeySecurityScheme", "description=1 s, location=2 s, name=3 s"),
    ("HTTPAuthSecurityScheme", "description=1 s, scheme=2 s, bearerFormat=3 s"),
    ("OAuth2SecurityScheme", "description=1 s, flows=2 OAuthFlows, oauth2MetadataUrl=3 s"),
    ("OpenIdConnectSecurityScheme", "description=1 s, openIdConnectUrl=2 s"),
    ("MutualTlsSecurityScheme", "description=1 s"),
    (
        "OAuthFlows",
        "authorizationCode=1 AuthorizationCodeOAuthFlow, clientCredentials=2 ClientCredentialsOAuthFlow, \
         implicit=3 ImplicitOAuthFlow, password=4 PasswordOAuthFlow, deviceCode=5 DeviceCodeOAuthFlow",
    ),
    ("AuthorizationCodeOAuthFlow", "authorizationUrl=1 s, tokenUrl=2 s, refreshUrl=3 s, scopes=4 %s, pkceRequired=5 b"),
    ("ClientCredentialsOAuthFlow", "tokenUrl=1 s, refreshUrl=2 s, scopes=3 %s"),
    ("ImplicitOAuthFlow", "authorizationUrl=1 s, refreshUrl=2 s, scopes=3 %s"),
    ("PasswordOAuthFlow", "tokenUrl=1 s, refreshUrl=2 s, scopes=3 %s"),
    ("DeviceCodeOAuthFlow", "deviceAuthorizationUrl=1 s, tokenUrl=2 s, refreshUrl=3 s, scopes=4 %s"),
    ("GetTaskRequest", "tenant=1 s, id=2 s, historyLength=3 i"),
    (
        "ListTasksRequest",
        "tenant=1 s, contextId=2 s, status=3 STATE, pageSize=4 i, pageToken=5 s, historyLength=6 i, \
         statusTimestampAfter=7 t, includeArtifacts=8 b",
    ),
    ("ListTasksResponse", "tasks=1 *Task, nextPageToken=2 s, pageSize=3 i, totalSize=4 i"),
    ("CancelTaskRequest", "tenant=1 s, id=2 s, metadata=3 struct"),
    ("GetTaskPushNotificationConfigRequest", "tenant=1 s, taskId=2 s, id=3 s"),
    ("DeleteTaskPushNotificationConfigRequest", "tenant=1 s, taskId=2 s, id=3 s"),
    ("SubscribeToTaskRequest", "tenant=1 s, id=2 s"),
    ("ListTaskPushNotificationConfigsRequest", "taskId=1 s, pageSize=2 i, pageToken=3 s, tenant=4 s"),
    ("GetExtendedAgentCardRequest", "tenant=1 s"),
    ("SendMessageResponse", "task=1 Task, message=2 Message"),
    (
        "StreamResponse",
        "task=1 Task, message=2 Message, statusUpdate=3 TaskStatusUpdateEvent, \
         artifactUpdate=4 TaskArtifactUpdateEvent",
    ),
    ("ListTaskPushNotificationConfigsResponse", "configs=1 *TaskPushNotificationConfig, nextPageToken=2 s"),
    ("Empty", ""),
    ("Status", "code=1 i, message=2 s, details=3 *Any"),
    ("Any", "typeUrl=1 s, value=2 y"),
    ("ErrorInfo", "reason=1 s, domain=2 s, metadata=3 %s"),
    ("BadRequest", "fieldViolations=1 *FieldViolation"),
    ("FieldViolation", "field=1 s, description=2 s"),
];

pub(super) const ROLES: &[&str] = &["ROLE_UNSPECIFIED", "ROLE_USER", "ROLE_AGENT"];
pub(super) const STATES: &[&str] = &[
    "TASK_STATE_UNSPECIFIED",
    "TASK_STATE_SUBMITTED",
    "TASK_STATE_WORKING",
    "TASK_STATE_COMPLETED",
    "TASK_STATE_FAILED",
    "TASK_STATE_CANCELED",
    "TASK_STATE_INPUT_REQUIRED",
    "TASK_STATE_REJECTED",
    "TASK_STATE_AUTH_REQUIRED",
];

/// What a field holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Text,
    Bytes,
    Bool,
    Int,
    Time,
    Struct,
    Value,
    Enum(&'static [&'static str]),
    Message(&'static str),
}

/// How often it holds one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Many {
    One,
    List,
    Map,
}

/// A field.
#[derive(Debug, Clone, Copy)]
pub(super) struct Field {
    pub(super) name: &'static str,
    pub(super) number: u32,
    pub(super) kind: Kind,
    pub(super) many: Many,
}

/// The fields of a message; of none that is not known.
pub(super) fn fields(message: &str) -> &'static [Field] {
    static ALL: OnceLock<BTreeMap<&'static str, Vec<Field>>> = OnceLock::new();
    let all = ALL.get_or_init(|| MESSAGES.iter().map(|(name, fields)| (*name, read(fields))).collect());
    all.get(message).map_or(&[], Vec::as_slice)
}

fn read(fields: &'static str) -> Vec<Field> {
    let one = |field: &'static str| {
        let (name, rest) = field.trim().split_once('=')?;
        let (number, kind) = rest.split_once(' ')?;
        let (many, kind) = match kind.split_at_checked(1) {
            Some(("*", kind)) => (Many::List, kind),
            Some(("%", kind)) => (Many::Map, kind),
            _ => (Many::One, kind),
        };
        let kind = match kind {
            "s" => Kind::Text,
            "y" => Kind::Bytes,
            "b" => Kind::Bool,
            "i" => Kind::Int,
            "t" => Kind::Time,
            "struct" => Kind::Struct,
            "value" => Kind::Value,
            "ROLE" => Kind::Enum(ROLES),
            "STATE" => Kind::Enum(STATES),
            message => Kind::Message(message),
        };
        Some(Field { name, number: number.parse().ok()?, kind, many })
    };
    fields.split(',').filter_map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whatever a field names is there, and no name or number means two things.
    #[test]
    fn the_table_is_whole() {
        for (message, written) in MESSAGES {
            let fields = fields(message);
            assert_eq!(fields.len(), written.split(',').filter(|f| !f.trim().is_empty()).count(), "{message}");
            let names: std::collections::BTreeSet<_> = fields.iter().map(|field| field.name).collect();
            let numbers: std::collections::BTreeSet<_> = fields.iter().map(|field| field.number).collect();
            assert_eq!((names.len(), numbers.len()), (fields.len(), fields.len()), "{message}");
            for field in fields {
                if let Kind::Message(name) = field.kind {
                    assert!(MESSAGES.iter().any(|(known, _)| *known == name), "{message}.{}: {name}", field.name);
                }
            }
        }
    }
}
