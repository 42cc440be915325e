//! Imported tool lists: a bad tool costs that tool.

use policies::action::Effect;
use policies::json::{Json, Limits};
use policies::manifest::{Imported, NameMap, PASSED, Prefix, RawTouched, ServerWords, ToolWords, import};
use policies::names::Name;
use policies::permission::Access;
use std::collections::BTreeSet;
use std::sync::Arc;

fn list(text: &str) -> Vec<Json> {
    Json::parse(text.as_bytes(), Limits::default()).unwrap().as_array().unwrap().to_vec()
}
fn name(text: &str) -> Name {
    Name::try_from(text).unwrap()
}
fn imported(words: &ServerWords, text: &str) -> Imported {
    import(&name("s"), words, &list(text))
}

#[test]
fn a_bad_tool_costs_that_tool() {
    let out = imported(
        &ServerWords::default(),
        r##"[{"name":"good","inputSchema":{"type":"object"}},
            {"name":"twice","inputSchema":{"type":"object"}},
            {"name":"twice","inputSchema":{"type":"object"}},
            {"name":"schema","inputSchema":{"type":"object","properties":{"a":{"type":"nonsense"}}}},
            {"name":"remote","inputSchema":{"type":"object","properties":{"a":{"$ref":"http://example.com/s.json"}}}},
            {"name":"null","inputSchema":null},
            {"name":"no schema"},
            {"inputSchema":{"type":"object"}},
            {"name":"сyrillic","inputSchema":{"type":"object"}},
            7,
            {"name":"also_good","x-unknown":[1.0],"inputSchema":{"type":"object"}}]"##,
    );
    let good: Vec<&str> = out.tools.iter().map(|t| t.name.as_str()).collect();
    assert_eq!(good, ["s__good", "s__also_good"]);
    assert_eq!(out.rejected.len(), 9, "{:#?}", out.rejected);
    assert!(out.tools[1].outside_definition().to_text().contains(r#""x-unknown":[1.0]"#));
}

#[test]
fn classes_follow_operator_then_default_then_trusted_hints() {
    let tools = r#"[{"name":"r","inputSchema":{"type":"object"},"annotations":{"readOnlyHint":true}},
                    {"name":"d","inputSchema":{"type":"object"},"annotations":{"destructiveHint":true}},
                    {"name":"n","inputSchema":{"type":"object"}}]"#;
    let classes = |words: &ServerWords| imported(words, tools).tools.iter().map(|t| t.access).collect::<Vec<_>>();
    use Access::*;
    let plain = ServerWords::default();
    assert_eq!(classes(&plain), [Destructive, Destructive, Destructive], "hints do not grant");
    let trusted = ServerWords { trust_annotations: true, ..plain.clone() };
    assert_eq!(classes(&trusted), [ReadOnly, Destructive, Destructive]);
    let default = ServerWords { default_access: Some((ReadOnly, None)), ..plain.clone() };
    assert_eq!(classes(&default), [ReadOnly, Destructive, ReadOnly], "a hint raises the default");
    let mut word = default.clone();
    word.tools.insert("d".into(), ToolWords { access: Some((ReadWrite, None)), ..ToolWords::default() });
    assert_eq!(classes(&word)[1], ReadWrite, "the operator's word beats the server's");
}

#[test]
fn effects_follow_the_operator_then_the_class_then_believed_hints() {
    let tools = r#"[{"name":"read","inputSchema":{"type":"object"},"annotations":{"readOnlyHint":true}},
                    {"name":"put","inputSchema":{"type":"object"},"annotations":{"idempotentHint":true}},
                    {"name":"send","inputSchema":{"type":"object"}}]"#;
    let effects = |words: &ServerWords| imported(words, tools).tools.iter().map(|t| t.effect).collect::<Vec<_>>();
    use Effect::*;
    let plain = ServerWords::default();
    assert_eq!(effects(&plain), [Once, Once, Once], "hints nobody trusts repeat nothing");
    let trusted = ServerWords { trust_annotations: true, ..plain.clone() };
    assert_eq!(effects(&trusted), [Pure, Idempotent, Once]);
    let builtin = ServerWords { builtin: true, ..plain.clone() };
    assert_eq!(effects(&builtin), [Pure, Idempotent, Once], "our own server is believed");
    let mut words = plain.clone();
    let word = |access, effect| ToolWords { access, effect, ..ToolWords::default() };
    words.tools.insert("read".into(), word(Some((Access::ReadOnly, None)), None));
    words.tools.insert("put".into(), word(None, Some(Pure)));
    words.tools.insert("send".into(), word(Some((Access::ReadOnly, None)), Some(Once)));
    assert_eq!(effects(&words), [Pure, Pure, Once], "the operator's word beats the class");
}

#[test]
fn what_cannot_be_verified_counts_as_once() {
    let tools = r#"[{"name":"pay","inputSchema":{"type":"object"}},{"name":"send","inputSchema":{"type":"object"}},
                    {"name":"mail","inputSchema":{"type":"object"}},{"name":"log","inputSchema":{"type":"object"}}]"#;
    let verified = |by: &str| ToolWords {
        effect: Some(Effect::Verifiable),
        verify_with: Some(by.to_owned()),
        ..ToolWords::default()
    };
    let mut words = ServerWords::default();
    words.tools.insert("pay".into(), verified("log"));
    words.tools.insert("send".into(), verified("outbox"));
    words.tools.insert("mail".into(), verified("send"));
    words.tools.insert("log".into(), ToolWords { access: Some((Access::ReadOnly, None)), ..ToolWords::default() });
    let out = imported(&words, tools);
    let effects: Vec<Effect> = out.tools.iter().map(|t| t.effect).collect();
    assert_eq!(effects, [Effect::Verifiable, Effect::Once, Effect::Once, Effect::Pure]);
    assert_eq!(out.tools[0].verify_with.as_deref(), Some("log"));
    assert_eq!(out.tools[1].verify_with, None);
    let notes: Vec<&str> = out.notes.iter().map(|(tool, _)| tool.as_str()).collect();
    assert_eq!(notes, ["send", "mail"], "{:?}", out.notes);
    assert!(out.notes[0].1.contains("does not offer"), "{:?}", out.notes);
}

fn touches(words: &ServerWords, schema: &str, arguments: &str) -> Vec<String> {
    let out = imported(words, &format!(r#"[{{"name":"t","inputSchema":{schema}}}]"#));
    let arguments = Json::parse(arguments.as_bytes(), Limits::default()).unwrap();
    let show = |t: policies::manifest::RawTouch| match t.what {
        RawTouched::Path(p) => format!("{} path {p}", t.pointer),
        RawTouched::Host(h, p) => format!("{} host {h}:{p}", t.pointer),
        RawTouched::Unclear(_) => format!("{} unclear", t.pointer),
    };
    out.tools[0].touches(&arguments).into_iter().map(show).collect()
}

#[test]
fn paths_and_hosts_are_found_wherever_they_hide() {
    let plain = ServerWords::default();
    let open = r#"{"type":"object"}"#;
    let cases = [
        (r#"{"path":"docs/a.md"}"#, vec!["/path path docs/a.md"]),
        (r#"{"x":{"y":["/etc/passwd"]}}"#, vec!["/x/y/0 path /etc/passwd"]),
        (r#"{"x":"file:///etc/passwd"}"#, vec!["/x path /etc/passwd"]),
        (r#"{"x":"FILE:/etc/%70asswd"}"#, vec!["/x path /etc/passwd"]),
        (r#"{"x":"file://host/etc/passwd"}"#, vec!["/x unclear"]),
        (r#"{"x":" /etc/passwd\n"}"#, vec!["/x path /etc/passwd"]),
        (r#"{"x":"https://EXAMPLE.com./a"}"#, vec!["/x host example.com:443"]),
        (r#"{"x":"http://0x7f.1:8080/"}"#, vec!["/x host 127.0.0.1:8080"]),
        (r#"{"x":"http://a.com@evil.com/"}"#, vec!["/x unclear"]),
        (r#"{"url":"example.com/x"}"#, vec!["/url host example.com:80"]),
        (r#"{"url":"/local/file"}"#, vec!["/url path /local/file"]),
        (r#"{"x":"../up"}"#, vec!["/x path ../up"]),
        (r#"{"x":"plain words, a/b"}"#, vec![]),
        (r#"{"/etc/shadow":1}"#, vec!["/~1etc~1shadow path /etc/shadow"]),
        (r#"{"path":"a\u0000b"}"#, vec!["/path unclear"]),
        (r#"{"x":"fi\tle:///etc/passwd"}"#, vec!["/x unclear"]),
        (r#"{"x":"ht\ttp://evil.com/"}"#, vec!["/x unclear"]),
        (r#"{"x":"\u0001http://evil.com/"}"#, vec!["/x unclear"]),
        (r#"{"x":"http://good.com\\@evil.com/"}"#, vec!["/x unclear"]),
        (r#"{"x":"file:///granted/x?/../../etc/passwd"}"#, vec!["/x unclear"]),
    ];
    for (arguments, expected) in cases {
        assert_eq!(touches(&plain, open, arguments), expected, "{arguments}");
    }
    let format = r#"{"type":"object","properties":{"where":{"type":"string","format":"uri"}}}"#;
    assert_eq!(touches(&plain, format, r#"{"where":"example.com"}"#), ["/where host example.com:80"]);
}

#[test]
fn declared_pointers_are_complete() {
    let mut words = ServerWords::default();
    let declared = ToolWords { path_args: Some(vec!["/file".into()]), url_args: Some(vec![]), ..ToolWords::default() };
    words.tools.insert("t".into(), declared);
    let found = touches(&words, r#"{"type":"object"}"#, r#"{"file":"a","text":"/not/a/path","x":"http://b.com"}"#);
    assert_eq!(found, ["/file path a"]);
    // Paths declared, URLs not: a URL-named argument that is a path is judged all the same.
    let mut words = ServerWords::default();
    let declared = ToolWords { path_args: Some(vec!["/file".into()]), ..ToolWords::default() };
    words.tools.insert("t".into(), declared);
    let found = touches(&words, r#"{"type":"object"}"#, r#"{"url":"file:///etc/passwd"}"#);
    assert_eq!(found, ["/url path /etc/passwd"]);
}

#[test]
fn a_bare_name_cannot_look_like_another_servers() {
    let words = ServerWords { prefix: Prefix::None, ..ServerWords::default() };
    let out = imported(&words, r#"[{"name":"files__Spy","inputSchema":{"type":"object"}}]"#);
    assert!(out.tools.is_empty() && out.rejected.len() == 1);
}

#[test]
fn names_nobody_owns_twice() {
    let words = |prefix| ServerWords { prefix, ..ServerWords::default() };
    let one = r#"[{"name":"x","inputSchema":{"type":"object"}},{"name":"Agent","inputSchema":{"type":"object"}}]"#;
    let tools = |server: &str, prefix| -> Vec<Arc<_>> {
        import(&name(server), &words(prefix), &list(one)).tools.into_iter().map(Arc::new).collect()
    };
    let mut all = tools("a", Prefix::None);
    all.extend(tools("b", Prefix::None));
    let map = NameMap::build(all, &BTreeSet::new());
    assert!(map.tools.is_empty());
    assert!(map.refused["x"].contains("servers a and b both offer it"));
    assert!(map.refused["Agent"].contains("belongs to Pleach"));

    let mut all = tools("a", Prefix::Auto);
    all.extend(tools("b", Prefix::Auto));
    let map = NameMap::build(all, &BTreeSet::from([name("a"), name("b")]));
    assert_eq!(map.tools.keys().collect::<Vec<_>>(), ["a__Agent", "a__x", "b__Agent", "b__x"]);
}

#[test]
fn the_hash_ignores_key_order_and_sees_everything_else() {
    let hash = |text: &str| imported(&ServerWords::default(), &format!("[{text}]")).tools[0].hash.clone();
    let a = hash(r#"{"name":"t","description":"d","inputSchema":{"type":"object"}}"#);
    assert_eq!(a, hash(r#"{"inputSchema":{"type":"object"},"description":"d","name":"t"}"#));
    assert_ne!(a, hash(r#"{"inputSchema":{"type":"object"},"description":"D","name":"t"}"#));
}

/// A message for a peer stands beside the arguments of its skill, and is looked at like them; what
/// is a mere name in it is none of a file here. No other tool takes one.
#[test]
fn a_message_is_passed_to_peers_only() {
    let tools = r#"[{"name":"t","inputSchema":{"type":"object","properties":{"message":{"type":"string"}},
                     "required":["message"],"additionalProperties":false}}]"#;
    let tool = |peer| imported(&ServerWords { peer, ..ServerWords::default() }, tools).tools.remove(0);
    let of = |text: &str| Json::parse(text.as_bytes(), Limits::default()).unwrap();
    let passed = of(
        r#"{"message":"go","a2a":{"message":{"extensions":["https://e.example/x"],"parts":[{"raw":"Yg==","filename":"a.txt"},
            {"url":"https://files.example/a"},{"data":{"path":"/etc/passwd"}},{"text":"/etc/shadow"}]}}}"#,
    );
    assert_eq!(PASSED, "a2a");
    assert_eq!(tool(true).check_arguments(&passed), Ok(()));
    assert!(tool(false).check_arguments(&passed).unwrap_err().contains("a2a"));
    assert!(tool(true).check_arguments(&of(r#"{"a2a":{}}"#)).is_err(), "the skill's own are checked all the same");
    let at = |peer: bool| tool(peer).touches(&passed).into_iter().map(|touch| touch.written).collect::<BTreeSet<_>>();
    let judged = ["/etc/passwd", "/etc/shadow", "https://files.example/a"].map(str::to_owned);
    assert_eq!(at(true), judged.clone().into());
    assert!(at(false).contains("a.txt") && at(false).is_superset(&judged.into()));
}
