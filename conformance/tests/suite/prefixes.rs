//! `prefix = "auto"` and `prefix = "none"` for prompts and resources: what is whose outside, what
//! becomes of names that two servers claim, and the way back.

use conformance::pleach::Folder;
use conformance::served::Served;
use serde_json::{Value, json};

/// Says who it is and by which name it was reached. Some of what it lists every such server lists.
const SERVER: &str = r#"
import json, sys
me = sys.argv[1]
lists = {
    "prompts/list": {"prompts": [{"name": n} for n in ["shared", "only_" + me, "odd__" + me]]},
    "resources/list": {"resources": [{"uri": u, "name": "n"} for u in
        ["note://shared", "note://" + me, "ui://shared/x", "ui://always/" + me, "pleach:always/note://forged"]]},
    "resources/templates/list": {"resourceTemplates": [{"uriTemplate": u, "name": "n"} for u in ["same://{id}", me + "://{id}"]]},
    "tools/list": {"tools": []},
    "initialize": {"protocolVersion": "2025-11-25", "capabilities": {"tools": {}, "prompts": {}, "resources": {}},
                   "serverInfo": {"name": me, "version": "1"}},
}
for line in sys.stdin:
    m = json.loads(line)
    if "id" not in m: continue
    method, params = m["method"], m.get("params", {})
    result = lists.get(method)
    if method == "prompts/get":
        content = {"type": "text", "text": me + " " + params["name"]}
        result = {"messages": [{"role": "user", "content": content}]}
    if method == "resources/read":
        result = {"contents": [{"uri": params["uri"], "text": me + " " + params["uri"]}]}
    out = {"error": {"code": -32601, "message": "no"}} if result is None else {"result": result}
    print(json.dumps({"jsonrpc": "2.0", "id": m["id"], **out}), flush=True)
"#;

/// Servers with their prefixes, in this order.
fn folder(servers: &[(&str, &str)]) -> Folder {
    let one = |(name, prefix): &(&str, &str)| {
        format!(
            "[servers.{name}]\ncommand = \"python3\"\nargs = [\"server.py\", {name:?}]\nprefix = {prefix:?}\ndefault_access = \"read-only\"\n"
        )
    };
    let servers: String = servers.iter().map(one).collect();
    let folder =
        Folder::new(&format!("version = 1\n{servers}[policy]\nfilesystem.read = [\".\"]\ntools.allow = [\"*\"]\n"));
    folder.write("server.py", SERVER);
    folder
}

async fn get(served: &Served, method: &str, params: Value) -> Value {
    served.modern("/mcp", method, params, &[]).await.json()
}

/// All that is listed: prompts, resources, templates.
async fn listed(served: &Served) -> [Vec<String>; 3] {
    let mut all = [const { Vec::new() }; 3];
    let lists = [
        ("prompts/list", "prompts", "name"),
        ("resources/list", "resources", "uri"),
        ("resources/templates/list", "resourceTemplates", "uriTemplate"),
    ];
    for (out, (method, list, key)) in all.iter_mut().zip(lists) {
        let answer = get(served, method, json!({})).await;
        let items = answer["result"][list].as_array().unwrap_or_else(|| panic!("{answer}"));
        *out = items.iter().map(|i| i[key].as_str().unwrap().to_owned()).collect();
        out.sort();
    }
    all
}

/// Each leads to a server and to its own name there; or to nobody.
async fn prompts(served: &Served, wanted: &[(&str, Option<&str>)]) {
    for (name, text) in wanted {
        let answer = get(served, "prompts/get", json!({ "name": name })).await;
        match text {
            Some(text) => assert_eq!(answer["result"]["messages"][0]["content"]["text"], *text, "{name}"),
            None => assert_eq!(answer["error"]["code"], -32602, "{name}: {answer}"),
        }
    }
}
async fn resources(served: &Served, wanted: &[(&str, Option<&str>)]) {
    for (uri, text) in wanted {
        let answer = get(served, "resources/read", json!({ "uri": uri })).await;
        match text {
            // The address comes back as it was asked for.
            Some(text) => {
                let found = &answer["result"]["contents"][0];
                assert_eq!((&found["text"], &found["uri"]), (&json!(text), &json!(uri)), "{answer}");
            }
            None => {
                let found = (&answer["error"]["code"], &answer["error"]["data"]["uri"]);
                assert_eq!(found, (&json!(-32602), &json!(uri)), "{answer}");
            }
        }
    }
}

#[tokio::test]
async fn auto_leaves_names_alone_until_two_servers_claim_one() {
    let folder = folder(&[("a", "auto"), ("b", "auto"), ("always", "always")]);
    let served = Served::start(&folder);
    let [names, uris, _] = listed(&served).await;
    let own = ["a__odd__a", "a__shared", "b__odd__b", "b__shared", "only_a", "only_b"];
    assert!(own.iter().all(|n| names.contains(&(*n).to_owned())), "{names:?}");
    assert_eq!(names.len(), own.len() + 3, "{names:?}");
    for uri in ["note://a", "note://b", "pleach:a/note://shared", "pleach:b/note://shared", "ui://a/shared/x"] {
        assert!(uris.contains(&uri.to_owned()), "{uri}: {uris:?}");
    }
    prompts(
        &served,
        &[
            ("only_a", Some("a only_a")),
            ("a__shared", Some("a shared")),
            ("b__shared", Some("b shared")),
            ("a__odd__a", Some("a odd__a")),
            // A name has one spelling.
            ("shared", None),
            ("a__only_a", None),
            ("odd__a", None),
        ],
    )
    .await;
    resources(
        &served,
        &[
            ("note://a", Some("a note://a")),
            ("pleach:a/note://shared", Some("a note://shared")),
            ("pleach:b/note://shared", Some("b note://shared")),
            ("ui://b/shared/x", Some("b ui://shared/x")),
            ("b://7", Some("b b://7")),
            ("note://shared", None),
            ("pleach:a/note://a", None),
            ("ui://shared/x", None),
            // Whose it is cannot be known.
            ("same://7", None),
            ("note://unlisted", None),
        ],
    )
    .await;
}

/// A template that two servers list is spelled with the prefix; so is what is made of it.
#[tokio::test]
async fn a_template_two_servers_list_can_be_used() {
    let folder = folder(&[("a", "auto"), ("b", "auto")]);
    let served = Served::start(&folder);
    let [.., templates] = listed(&served).await;
    for template in ["a://{id}", "b://{id}", "pleach:a/same://{id}", "pleach:b/same://{id}"] {
        assert!(templates.contains(&template.to_owned()), "{template}: {templates:?}");
    }
    resources(
        &served,
        &[("a://7", Some("a a://7")), ("pleach:a/a://7", None), ("pleach:c/same://7", None), ("same://7", None)],
    )
    .await;
    let made = [("pleach:a/same://7", Some("a same://7")), ("pleach:b/same://7", Some("b same://7"))];
    resources(&served, &made).await;
}

#[tokio::test]
async fn none_leaves_names_alone_and_what_two_servers_claim_is_nobodys() {
    let folder = folder(&[("a", "none"), ("b", "none"), ("always", "always")]);
    let served = Served::start(&folder);
    let [names, uris, templates] = listed(&served).await;
    let bare = |all: &[String]| all.iter().filter(|n| !n.contains("always")).cloned().collect::<Vec<_>>();
    assert_eq!(bare(&names), ["only_a", "only_b"]);
    assert_eq!(bare(&uris), ["note://a", "note://b"]);
    assert_eq!(bare(&templates), ["a://{id}", "b://{id}"]);
    let wanted = [("only_b", Some("b only_b")), ("always__shared", Some("always shared"))];
    prompts(&served, &wanted).await;
    prompts(&served, &[("shared", None), ("a__shared", None), ("odd__a", None), ("a__odd__a", None)]).await;
    let wanted = [("note://b", Some("b note://b")), ("pleach:always/note://shared", Some("always note://shared"))];
    resources(&served, &wanted).await;
    let nobodys = ["note://shared", "pleach:a/note://shared", "ui://shared/x", "ui://a/shared/x", "same://7", "a"];
    resources(&served, &nobodys.map(|uri| (uri, None))).await;
    let log = served.log.lock().unwrap().clone();
    assert!(log.contains("note://shared is not used: several servers offer it"), "{log}");
}

/// Alone, a server without a prefix has all its names, and the addresses it does not list.
#[tokio::test]
async fn one_server_without_a_prefix_has_every_bare_name() {
    for prefix in ["none", "auto"] {
        let folder = folder(&[("a", prefix), ("always", "always")]);
        let served = Served::start(&folder);
        prompts(&served, &[("shared", Some("a shared")), ("always__shared", Some("always shared"))]).await;
        resources(
            &served,
            &[
                ("note://shared", Some("a note://shared")),
                ("same://7", Some("a same://7")),
                ("note://unlisted", Some("a note://unlisted")),
                ("pleach:always/note://shared", Some("always note://shared")),
                ("ui://always/shared/x", Some("always ui://shared/x")),
            ],
        )
        .await;
    }
}

/// A server without a prefix could list addresses that were read as another server's.
#[tokio::test]
async fn no_server_speaks_in_the_name_of_another() {
    for prefix in ["none", "auto"] {
        let folder = folder(&[("a", prefix), ("always", "always")]);
        let served = Served::start(&folder);
        let [_, uris, _] = listed(&served).await;
        assert!(!uris.iter().any(|u| u.contains("forged") || u == "ui://always/a"), "{prefix}: {uris:?}");
        assert!(uris.contains(&"ui://always/always/always".to_owned()), "its own: {uris:?}");
        let wanted = [("ui://always/a", Some("always ui://a"))];
        resources(&served, &wanted).await;
    }
}

/// One of each kind; and the same names whatever the order of the file and of the answers.
#[tokio::test]
async fn names_depend_on_nothing_but_the_servers() {
    let mut seen = Vec::new();
    for order in [["a", "b"], ["b", "a"]] {
        let prefix = |name: &str| if name == "a" { "auto" } else { "none" };
        let folder = folder(&order.map(|name| (name, prefix(name))));
        for _ in 0..2 {
            let served = Served::start(&folder);
            seen.push(listed(&served).await);
            prompts(&served, &[("a__shared", Some("a shared")), ("shared", None), ("b__shared", None)]).await;
            let mixed = [("pleach:a/note://shared", Some("a note://shared")), ("note://shared", None)];
            resources(&served, &mixed).await;
        }
    }
    assert!(seen.iter().all(|all| *all == seen[0]), "{seen:?}");
    assert_eq!(seen[0][0], ["a__odd__a", "a__shared", "only_a", "only_b"]);
}
