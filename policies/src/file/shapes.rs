//! The policy file described: every key of the design, what may stand there, and whether this
//! version serves it. `pleach schema` prints this; `check` enforces it.

use super::shape::{Flaw, Key, Shape};
use crate::domain::Domains;
use crate::tools::Glob;

const fn key(name: &'static str, doc: &'static str, shape: Shape) -> Key {
    Key { name, doc, shape, served: true }
}
const fn later(name: &'static str, doc: &'static str) -> Key {
    Key { name, doc, shape: Shape::Anything, served: false }
}

const ANY: Shape = Shape::Text(|_| Ok(()));
const KEYS: Shape = Shape::TextOrList(|text| match text.trim().is_empty() {
    true => Err(Flaw::Wrong("it is empty".into())),
    false => Ok(()),
});
const FILLED: Shape = Shape::Text(|text| match text.trim().is_empty() {
    true => Err(Flaw::Wrong("it is empty".into())),
    false => Ok(()),
});
const NAME: Shape = Shape::Text(|text| {
    crate::names::Name::try_from(text).map(drop).map_err(|e| Flaw::Wrong(format!("{text:?} is no name: {e}")))
});
const DOMAIN: Shape = Shape::Text(|text| Domains::parse([text]).map(drop).map_err(|e| Flaw::Wrong(e.to_string())));
const NETWORK: Shape = Shape::Text(|text| match text.parse::<ipnet::IpNet>() {
    Ok(_) => Ok(()),
    Err(_) if text.parse::<std::net::IpAddr>().is_ok() => Err(Flaw::Wrong(format!(
        "{text:?} is an address; write the network {text}/{}",
        if text.contains(':') { 128 } else { 32 }
    ))),
    Err(_) => Err(Flaw::Wrong(format!("{text:?} is no network; write CIDR, such as 10.1.0.0/16"))),
});
const GLOB: Shape =
    Shape::Text(|text| Glob::try_from(text).map(drop).map_err(|e| Flaw::Wrong(format!("{text:?}: {e}"))));
const PATH: Shape = Shape::Text(|text| match text {
    "" => Err(Flaw::Wrong("a path is not empty".into())),
    t if t.contains('\0') => Err(Flaw::Wrong("a path cannot hold NUL".into())),
    t if t.contains('*') => {
        Err(Flaw::Wrong(format!("{t:?}: folders and files, no patterns; a folder covers all beneath it")))
    }
    _ => Ok(()),
});
const POINTER: Shape = Shape::Text(|text| match text.starts_with('/') {
    true => Ok(()),
    false => Err(Flaw::Wrong(format!("{text:?} is no JSON pointer; write \"/{text}\""))),
});
const STORE: Shape = Shape::Text(|text| match text {
    t if t.starts_with("sqlite:") && t.len() > "sqlite:".len() => Ok(()),
    t if t.starts_with("postgres:") || t.starts_with("postgresql:") => Err(Flaw::NotYet(format!("{t:?}"))),
    t => Err(Flaw::Wrong(format!("{t:?} is no store; write \"sqlite:pleach.db\""))),
});
const LISTEN: Shape = Shape::Text(|text| match text.parse::<std::net::SocketAddr>() {
    Ok(_) => Ok(()),
    Err(_) => Err(Flaw::Wrong(format!("{text:?} is no address and port, such as \"127.0.0.1:7420\""))),
});
const DURATION: Shape = Shape::Text(|text| crate::budget::duration(text).map(drop).map_err(Flaw::Wrong));
const SCHEMA: Shape = Shape::TableOr(|text| match text {
    t if t.ends_with(".json") && !t.contains('\0') => Ok(()),
    t => Err(Flaw::Wrong(format!("{t:?} is no .json file; a schema is a table or such a file"))),
});
const TIMEOUT_MS: Shape = Shape::Int(1, 86_400_000);
const TOKENS: Shape = Shape::Int(1, 1_000_000_000);
const DATE: Shape = Shape::Text(|text| {
    let form = text.bytes().enumerate().all(|(i, b)| if i == 4 || i == 7 { b == b'-' } else { b.is_ascii_digit() });
    match form && text.len() == 10 {
        true => Ok(()),
        false => Err(Flaw::Wrong(format!("{text:?} is no day; write it like \"2026-11-20\""))),
    }
});
/// RFC 6749, section 3.3.
const SCOPE: Shape = Shape::Text(|text| {
    let ok = |b: u8| (0x21..=0x7e).contains(&b) && b != b'"' && b != b'\\';
    match !text.is_empty() && text.bytes().all(ok) {
        true => Ok(()),
        false => Err(Flaw::Wrong(format!("{text:?} is no scope; each is one word, several are a list"))),
    }
});

/// `filesystem`, in every grant.
const FILESYSTEM: Shape = Shape::Table(&[
    key("read", "Folders or files that may be read.", Shape::List(&PATH)),
    key("read_write", "Folders or files that may be read and written.", Shape::List(&PATH)),
    key("deny", "Nothing beneath these, even inside a granted folder.", Shape::List(&PATH)),
]);
const TOOLS: Shape = Shape::Table(&[
    key("allow", "Tools that may be called; `*` stands for any characters.", Shape::List(&GLOB)),
    key("ask", "Tools a person is asked about each time.", Shape::List(&GLOB)),
    key("deny", "Tools never called; beats allow and ask.", Shape::List(&GLOB)),
]);
const SPAWN: Shape = Shape::Table(&[
    key("max_depth", "How deep the tree may grow; the root run lies at 0.", Shape::Int(0, 16)),
    key("max_concurrent", "Children of one run alive at a time.", Shape::Int(0, 1_000)),
    key("max_total", "Runs of one tree over its whole life.", Shape::Int(1, 100_000)),
]);
/// A budget, in every grant and in a spawn request.
pub const BUDGET: Shape = Shape::Table(&[
    key("usd", "US dollars for model calls.", Shape::Number(9_000_000.0)),
    key("tokens", "Tokens read and written.", Shape::Int(0, 1_000_000_000_000)),
    key("turns", "Model calls.", Shape::Int(1, 1_000_000)),
    key("tool_calls", "Tool calls.", Shape::Int(0, 1_000_000)),
    key("wall", "Wall time, such as \"30m\", \"45s\", \"2h\".", DURATION),
]);
/// A grant: the root `[policy]` and every narrowing table.
pub const GRANT: Shape = Shape::Table(&[
    key("max_access", "The ceiling on access classes.", Shape::Word(&["read-only", "read-write", "destructive"], &[])),
    key("filesystem", "Files.", FILESYSTEM),
    key(
        "domains",
        "Hosts by name.",
        Shape::Table(&[key("allow", "`host`, `*.d`, `**.d`, each with an optional `:port`.", Shape::List(&DOMAIN))]),
    ),
    key(
        "networks",
        "Literal addresses and private ranges.",
        Shape::Table(&[key("allow", "CIDR blocks.", Shape::List(&NETWORK))]),
    ),
    key("tools", "Tools by name.", TOOLS),
    key("models", "Models of this file that may be used.", Shape::List(&NAME)),
    key("spawn", "Limits of the tree.", SPAWN),
    key("budget", "Limits of a run and all beneath it.", BUDGET),
    key(
        "sandbox",
        "What the kernel must enforce.",
        Shape::Table(&[key("profile", "The set of layers.", Shape::Word(&["full", "no-namespaces", "off"], &[]))]),
    ),
]);

/// Dollars for a million tokens of each kind.
const INPUT: Key = key("input", "Dollars per million tokens read.", Shape::Number(1_000_000_000.0));
const OUTPUT: Key = key("output", "Dollars per million tokens written.", Shape::Number(1_000_000_000.0));
const CACHE_READ: Key =
    key("cache_read", "Dollars per million tokens read from the provider's cache.", Shape::Number(1_000_000_000.0));
const CACHE_WRITE: Key =
    key("cache_write", "Dollars per million tokens read and cached for minutes.", Shape::Number(1_000_000_000.0));
const CACHE_LONG: Key =
    key("cache_write_long", "Dollars per million tokens read and cached an hour.", Shape::Number(1_000_000_000.0));
const PRICE: Shape = Shape::Table(&[
    INPUT,
    OUTPUT,
    CACHE_READ,
    CACHE_WRITE,
    CACHE_LONG,
    key("as_of", "The day these were read, such as 2026-11-20.", DATE),
    key(
        "above",
        "Another price for requests that read more tokens than `tokens`; it holds for all of theirs.",
        Shape::Table(&[
            key("tokens", "Tokens up to which the ordinary price holds.", TOKENS),
            INPUT,
            OUTPUT,
            CACHE_READ,
            CACHE_WRITE,
            CACHE_LONG,
        ]),
    ),
]);
/// How hard a model can be told to think.
pub const EFFORTS: [&str; 5] = ["low", "medium", "high", "xhigh", "max"];
const EFFORT: Shape = Shape::Word(&EFFORTS, &[]);
const MODEL: Shape = Shape::Table(&[
    key(
        "provider",
        "Who answers; sampling: the model of the MCP client that started the run.",
        Shape::Word(&["anthropic", "openai", "scripted", "sampling"], &[]),
    ),
    key("script", "The file of replies of a scripted model.", PATH),
    key("model", "The provider's name for it.", FILLED),
    key("api_key", "The provider's key.", FILLED),
    key("base_url", "Where the provider answers; absent: at its own address.", FILLED),
    key("version", "The provider's API version; anthropic: 2026-10-21.", DATE),
    key("effort", "How hard it thinks; absent: as the provider likes.", EFFORT),
    key("context", "Tokens of its window; absent: as known, or 128000.", TOKENS),
    key("max_output", "Tokens it can write at most; absent: as known, or 8192.", TOKENS),
    key("price", "What it costs; absent: as known, or unknown.", PRICE),
    key("fallback", "Models to use, in this order, when this one cannot answer.", Shape::List(&NAME)),
    key("compact_with", "The model that sums up conversations too long for this one; absent: itself.", NAME),
]);
const TOOL: Shape = Shape::Table(&[
    key(
        "access",
        "The operator's word for the tool's class.",
        Shape::Word(&["read-only", "read-write", "destructive"], &[]),
    ),
    key("path_args", "JSON pointers of the arguments that are paths.", Shape::List(&POINTER)),
    key("url_args", "JSON pointers of the arguments that are URLs.", Shape::List(&POINTER)),
    key(
        "effect",
        "What a repetition would do; default: pure for read-only tools, else once.",
        Shape::Word(&["pure", "idempotent", "verifiable", "once"], &[]),
    ),
    key("verify_with", "The tool of this server that tells whether a lost call happened.", FILLED),
    key("rename", "Its name outside, after the prefix.", GLOB),
]);
/// Who Pleach is at a server; the tokens themselves come by `pleach login`.
const AUTH: Shape = Shape::Table(&[
    key(
        "flow",
        "A person consents once (code, the default), Pleach acts for itself (client-credentials), or a run shows the token \
         that came along with its task from another Pleach (grant).",
        Shape::Word(&["code", "client-credentials", "grant"], &[]),
    ),
    key("issuer", "The one authorization server that may be used; absent: the one the server names.", FILLED),
    key("client_id", "The id Pleach was registered under there; absent: it registers itself.", FILLED),
    key("client_secret", "The secret that belongs to it.", FILLED),
    key("private_key_file", "The key, PKCS#8 in PEM, that signs in the secret's place.", PATH),
    key("client_metadata_url", "An https document that says who Pleach is, and is its id (CIMD).", FILLED),
    key("scopes", "What is asked for; absent: what the server says it needs.", Shape::List(&SCOPE)),
    key("redirect_port", "The loopback port of `pleach login`; absent: a free one.", Shape::Int(1, 65_535)),
]);
const SERVER: Shape = Shape::Table(&[
    key("builtin", "A server that ships with Pleach.", Shape::Word(&["workspace", "web"], &[])),
    key("type", "The transport, as .mcp.json names it.", Shape::Word(&["stdio", "http", "streamable-http"], &["sse"])),
    key("command", "The program of a stdio server.", FILLED),
    key("args", "Its arguments; never seen by a shell.", Shape::List(&ANY)),
    key("env", "Its environment, besides PATH, HOME, TMPDIR, LANG and TZ.", Shape::Texts),
    key("cwd", "Its working folder; default: the policy file's folder.", PATH),
    key("url", "The address of an HTTP server.", FILLED),
    key("headers", "Headers sent to it.", Shape::Texts),
    key("auth", "Who Pleach is there, where the server asks for OAuth.", AUTH),
    key("timeout", "Milliseconds a call may take; default 60000.", TIMEOUT_MS),
    key(
        "default_access",
        "The class of tools without one of their own.",
        Shape::Word(&["read-only", "read-write", "destructive"], &[]),
    ),
    key(
        "annotations",
        "Whether the server's hints may grant (trust) or only restrict.",
        Shape::Word(&["restrict", "trust"], &[]),
    ),
    key("prefix", "How its tools are named outside.", Shape::Word(&["always", "auto", "none"], &[])),
    key("runtime_paths", "More folders its own program needs, read-only, in no grant.", Shape::List(&PATH)),
    key("tools", "The operator's words for single tools.", Shape::Tools(&TOOL)),
]);
/// The keys a peer's card may be signed with: a table, or a file of the same.
const JWKS: Shape = Shape::TableOr(|text| match text {
    t if t.ends_with(".json") && !t.contains('\0') => Ok(()),
    t => Err(Flaw::Wrong(format!("{t:?} is no .json file; keys are a JWK set, as a table or such a file"))),
});
const PEER: Shape = Shape::Table(&[
    key("card", "The address of its agent card.", FILLED),
    key("url", "Where it answers, where that is not the origin of its card.", FILLED),
    key("headers", "Headers sent to it: to the origin of url, or of card where there is no url.", Shape::Texts),
    key("keys", "The JWK set that signs its card, as a table or a .json file; then an unsigned card is refused.", JWKS),
    key(
        "delegate",
        "It is a Pleach: each message goes with a grant of what its sender may give, and with nothing else that says who we are.",
        Shape::Bool,
    ),
    key(
        "callback",
        "With delegate: what a run has done over there may use the tools here as the run might, at our /mcp, until it is done.",
        Shape::Bool,
    ),
    key("expose", "Whether A2A clients see it, at /a2a/NAME, as far as they may use its skills.", Shape::Bool),
    key("timeout", "Milliseconds a call may take; default 60000.", TIMEOUT_MS),
    key(
        "default_access",
        "The class of its skills without one of their own.",
        Shape::Word(&["read-only", "read-write", "destructive"], &[]),
    ),
    key("tools", "The operator's words for single skills.", Shape::Tools(&TOOL)),
]);
/// Where a value comes from that nobody may read here; one of the three.
const SECRET: Shape = Shape::Table(&[
    key("file", "A file that holds it; in no grant, and read by its owner only.", PATH),
    key("command", "A program and its arguments, run outside the sandbox, that prints it.", Shape::List(&FILLED)),
    key("env", "A variable of pleach's own environment.", FILLED),
]);
const CLIENT: Shape = Shape::Table(&[
    key("token", "The bearer token that names this client.", FILLED),
    key("token_sha256", "The SHA-256 of that token, in hexadecimal, as `pleach client add` writes it.", FILLED),
    key(
        "oauth",
        "The issuer whose tokens name this client.",
        Shape::Table(&[
            key("issuer", "The issuer, exactly as its tokens write it.", FILLED),
            key("audience", "What its tokens must be meant for: this gateway.", FILLED),
            key("jwks_url", "Its keys; absent: where its metadata says.", FILLED),
            key("scopes", "Scopes a token must carry.", Shape::List(&SCOPE)),
        ]),
    ),
    key(
        "grant_key",
        "The key of another Pleach (`pleach token key` there), or a list of them while it changes its key: it comes with \
         grants of its own, and holds each of them met with this table.",
        KEYS,
    ),
    key("match", "Claims a token must carry: a name, or a JSON pointer, and its value.", Shape::Texts),
    key("may_start", "Agents it may start; absent: those exposed.", Shape::List(&NAME)),
    key("can_approve", "Whether it may answer approvals and questions; default: false.", Shape::Bool),
    key("policy", "Caps everything this client starts.", GRANT),
]);
/// What an A2A card says of one thing an agent does.
const SKILL: Shape = Shape::Table(&[
    key("id", "What it is called among the skills of its agent.", NAME),
    key("name", "The same for people; absent: the id.", FILLED),
    key("description", "What it does.", FILLED),
    key("tags", "Words it is found by.", Shape::List(&FILLED)),
    key("examples", "What could be asked.", Shape::List(&FILLED)),
]);
const AGENT: Shape = Shape::Table(&[
    key("description", "What it is for; shown to whoever may start it.", FILLED),
    key("prompt", "Its system prompt.", ANY),
    key("prompt_file", "The file that holds it.", PATH),
    key("initial_prompt", "What `pleach run` asks without an argument.", FILLED),
    key("model", "The model it uses; absent: \"default\".", NAME),
    key("effort", "How hard that thinks for this agent; absent: as the model's own key says.", EFFORT),
    key("compact_with", "The model that sums up its conversations; absent: as its model says.", NAME),
    key("tools", "Short for policy.tools.allow.", Shape::List(&GLOB)),
    key("subagents", "Whom it, and anything beneath it, may start; absent: nobody.", Shape::List(&NAME)),
    key("expose", "Whether clients see it.", Shape::Bool),
    key("skills", "What its card offers; absent: itself, with its description.", Shape::List(&SKILL)),
    key("output_schema", "The form of its answer: a JSON Schema as a table, or a .json file.", SCHEMA),
    key("policy", "What it may do.", GRANT),
    key("subagent_policy", "What it may give, where that differs.", GRANT),
]);
const GATEWAY: Shape = Shape::Table(&[
    key("listen", "The address and port of `pleach serve`.", LISTEN),
    key("public_url", "What cards and metadata advertise.", FILLED),
    key("allowed_hosts", "Host headers accepted besides loopback.", Shape::List(&FILLED)),
    key("allowed_origins", "Origins accepted besides loopback.", Shape::List(&FILLED)),
    later("tls", "Certificate and key."),
    key("default_agent", "The agent that runs when none is named.", NAME),
    key("framework_tools", "Whether /mcp offers pleach__Agent and its like.", Shape::Bool),
]);

const AUDIT: Shape = Shape::Table(&[
    key("folder", "Where it is kept; absent: beside the store.", PATH),
    key("segment_mb", "Megabytes of one of its files before the next is begun; default: 64.", Shape::Int(1, 4_096)),
    key("keep", "How many of its files are kept; absent: all.", Shape::Int(2, 100_000)),
]);

const APPROVALS: Shape = Shape::Table(&[
    key("wait", "How long a client's own call waits for a person before it is denied; default: 45s.", DURATION),
    key("expire", "How long what is asked stays open; default: 24h.", DURATION),
    key(
        "per_tree",
        "Approvals open at once for one tree of runs, or for a client's own calls; more is denied. Default: 16.",
        Shape::Int(1, 10_000),
    ),
    key("per_client", "The same for all of one client; default: 256.", Shape::Int(1, 1_000_000)),
]);

/// The whole file.
pub const FILE: Shape = Shape::Table(&[
    key("version", "The file format; 1.", Shape::Int(1, 1)),
    key(
        "import",
        "Configurations of other tools: .mcp.json, .claude/agents, .claude/settings.json.",
        Shape::List(&PATH),
    ),
    key("gateway", "The doors.", GATEWAY),
    key("store", "Where runs are kept.", Shape::Table(&[key("url", "sqlite:FILE", STORE)])),
    key("audit", "The record of every decision.", AUDIT),
    key("approvals", "What `ask` means in time and number.", APPROVALS),
    later("bus", "How several machines wake each other."),
    key("models", "Models by name.", Shape::Map("a model", &MODEL)),
    key("servers", "MCP servers by name.", Shape::Map("a server", &SERVER)),
    key("peers", "A2A peers by name; their skills are tools.", Shape::Map("a peer", &PEER)),
    key(
        "secrets",
        "Values from elsewhere by name, given as ${secret:NAME} by env, headers, api_key, client_secret or token.",
        Shape::Map("a secret", &SECRET),
    ),
    key("clients", "Who may call.", Shape::Map("a client", &CLIENT)),
    key("policy", "The root grant; everything else only narrows it.", GRANT),
    key("agents", "Agents by name.", Shape::Map("an agent", &AGENT)),
]);

/// What a key is for, in one line: `["agents", "*", "model"]`, where `*` stands for any name.
pub fn doc(path: &[&str]) -> Option<&'static str> {
    let (mut shape, mut doc) = (&FILE, None);
    for part in path {
        match shape {
            Shape::Table(keys) => {
                let key = keys.iter().find(|k| k.name == *part)?;
                (shape, doc) = (&key.shape, Some(key.doc));
            }
            Shape::Map(_, inner) | Shape::Tools(inner) => (shape, doc) = (inner, None),
            _ => return None,
        }
    }
    doc
}

/// The JSON Schema of the file.
pub fn schema() -> serde_json::Value {
    let mut schema = FILE.schema();
    if let serde_json::Value::Object(object) = &mut schema {
        object.insert("$schema".into(), "https://json-schema.org/draft/2020-12/schema".into());
        object.insert("title".into(), "pleach.toml".into());
        object.insert("required".into(), serde_json::json!(["version"]));
    }
    schema
}
