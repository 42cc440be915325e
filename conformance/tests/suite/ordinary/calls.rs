//! The calls, in the order in which somebody would make them.

use serde_json::{Value, json};

/// How often something is committed.
pub(super) const COMMITS: usize = 12;

/// All of them: the tool and its arguments. `root` is the folder, `site` what may be fetched from.
pub(super) fn all(root: &str, site: &str) -> Vec<(String, Value)> {
    let mut all = Vec::new();
    files(root, &mut all);
    repository(root, &mut all);
    notes(&mut all);
    orders(&mut all);
    pages(site, &mut all);
    thoughts(&mut all);
    clocks(&mut all);
    everything(&mut all);
    all
}

type Calls = Vec<(String, Value)>;

fn put(all: &mut Calls, tool: &str, arguments: Value) {
    all.push((tool.to_owned(), arguments));
}

fn files(root: &str, all: &mut Calls) {
    let at = |name: String| format!("{root}/{name}");
    put(all, "fs__list_allowed_directories", json!({}));
    for n in 0..20 {
        let chapter = at(format!("docs/part{}/chapter {n}.md", n % 4));
        put(all, "fs__read_text_file", json!({ "path": chapter }));
        put(all, "fs__get_file_info", json!({ "path": chapter }));
        if n % 2 == 0 {
            put(all, "fs__read_text_file", json!({ "path": chapter, "head": 2 }));
        }
    }
    for n in 0..4 {
        let part = at(format!("docs/part{n}"));
        put(all, "fs__list_directory", json!({ "path": part }));
        put(all, "fs__list_directory_with_sizes", json!({ "path": part, "sortBy": "size" }));
        put(all, "fs__directory_tree", json!({ "path": part, "excludePatterns": ["*.tmp", "node_modules"] }));
        put(all, "fs__search_files", json!({ "path": part, "pattern": "*chapter*" }));
        let two = [at(format!("docs/part{n}/chapter {n}.md")), at("docs/read me.md".into())];
        put(all, "fs__read_multiple_files", json!({ "paths": two }));
    }
    put(all, "fs__create_directory", json!({ "path": at("out/reports".into()) }));
    for n in 0..12 {
        let report = at(format!("out/reports/report {n}.md"));
        put(all, "fs__write_file", json!({ "path": report, "content": format!("# Report {n}\n\ndraft\n") }));
        let edits = json!([{ "oldText": "draft", "newText": "edited" }]);
        put(all, "fs__edit_file", json!({ "path": report, "edits": edits, "dryRun": true }));
        put(all, "fs__edit_file", json!({ "path": report, "edits": edits }));
        let last = at(format!("out/reports/final {n}.md"));
        put(all, "fs__move_file", json!({ "source": report, "destination": last }));
        put(all, "fs__read_text_file", json!({ "path": last, "tail": 1 }));
    }
}

fn repository(root: &str, all: &mut Calls) {
    let repo = format!("{root}/repo");
    let with = |more: Value| {
        let mut arguments = json!({ "repo_path": repo });
        arguments.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        arguments
    };
    put(all, "git__git_branch", with(json!({ "branch_type": "local" })));
    for n in 0..COMMITS {
        let (path, content) = (format!("{repo}/src/main.c"), format!("int main() {{ return {}; }}\n", n + 1));
        put(all, "fs__write_file", json!({ "path": path, "content": content }));
        put(all, "git__git_status", with(json!({})));
        put(all, "git__git_diff_unstaged", with(json!({})));
        put(all, "git__git_add", with(json!({ "files": ["src/main.c"] })));
        put(all, "git__git_diff_staged", with(json!({ "context_lines": 2 })));
        put(all, "git__git_commit", with(json!({ "message": format!("step {n}: and/or ../why not") })));
        put(all, "git__git_log", with(json!({ "max_count": 3 })));
        put(all, "git__git_show", with(json!({ "revision": "HEAD" })));
    }
    for n in 0..4 {
        put(all, "git__git_create_branch", with(json!({ "branch_name": format!("feature/part-{n}") })));
        put(all, "git__git_checkout", with(json!({ "branch_name": format!("feature/part-{n}") })));
        put(all, "git__git_diff", with(json!({ "target": "main" })));
        put(all, "git__git_checkout", with(json!({ "branch_name": "main" })));
    }
    put(all, "git__git_reset", with(json!({})));
}

fn notes(all: &mut Calls) {
    for n in 0..16 {
        let name = if n == 0 { "Ada".to_owned() } else { format!("Person {n}") };
        let entity =
            json!({ "name": name, "entityType": "person", "observations": ["likes tea/coffee", "born ~1815"] });
        put(all, "memory__create_entities", json!({ "entities": [entity] }));
        let relation = json!({ "from": name, "to": "Ada", "relationType": if n == 0 { "wrote" } else { "knows" } });
        put(all, "memory__create_relations", json!({ "relations": [relation] }));
        let more = json!({ "entityName": name, "contents": [format!("said: \"../{n}\"")] });
        put(all, "memory__add_observations", json!({ "observations": [more] }));
        put(all, "memory__search_nodes", json!({ "query": name }));
        put(all, "memory__open_nodes", json!({ "names": [name] }));
    }
    put(all, "memory__read_graph", json!({}));
    put(
        all,
        "memory__delete_observations",
        json!({ "deletions": [{ "entityName": "Person 9", "observations": ["born ~1815"] }] }),
    );
    put(all, "memory__delete_entities", json!({ "entityNames": ["Person 10"] }));
}

fn orders(all: &mut Calls) {
    put(all, "db__list_tables", json!({}));
    put(
        all,
        "db__create_table",
        json!({ "query": "CREATE TABLE orders (id INTEGER PRIMARY KEY, what TEXT, price REAL)" }),
    );
    put(all, "db__describe_table", json!({ "table_name": "orders" }));
    for n in 0..20 {
        let insert = format!("INSERT INTO orders (what, price) VALUES ('tea / {n} g', {n}.50)");
        put(all, "db__write_query", json!({ "query": insert }));
        let select = format!("SELECT what, price / 2 AS half FROM orders WHERE id <= {n} ORDER BY price DESC");
        put(all, "db__read_query", json!({ "query": select }));
    }
    for n in 0..4 {
        put(all, "db__append_insight", json!({ "insight": format!("week {n}/52: tea sells") }));
    }
}

fn pages(site: &str, all: &mut Calls) {
    for n in 0..24 {
        put(all, "fetch__fetch", json!({ "url": format!("{site}/page/{n}?q=a%2Fb#top") }));
    }
    for n in 0..6 {
        put(all, "fetch__fetch", json!({ "url": format!("{site}/page/raw{n}"), "raw": true, "max_length": 500 }));
    }
}

fn thoughts(all: &mut Calls) {
    for n in 1..=30 {
        let thought = format!("Step {n}: look at https://example.com/{n} or /etc/hosts? No, think on.");
        put(
            all,
            "thinking__sequentialthinking",
            json!({ "thought": thought, "nextThoughtNeeded": n < 30, "thoughtNumber": n, "totalThoughts": 30 }),
        );
    }
}

fn clocks(all: &mut Calls) {
    let zones = ["UTC", "Europe/Berlin", "America/New_York", "Asia/Tokyo", "Australia/Sydney", "Africa/Nairobi"];
    for (n, zone) in zones.iter().cycle().take(18).enumerate() {
        put(all, "time__get_current_time", json!({ "timezone": zone }));
        let (time, target) = (format!("{:02}:30", n), zones[(n + 1) % zones.len()]);
        put(all, "time__convert_time", json!({ "source_timezone": zone, "time": time, "target_timezone": target }));
    }
}

fn everything(all: &mut Calls) {
    for n in 0..20 {
        put(all, "everything__echo", json!({ "message": format!("see ./notes/{n}.txt and ~/x, http://h/{n}") }));
        put(all, "everything__get-sum", json!({ "a": n, "b": 2.5 }));
    }
    for city in ["New York", "Chicago", "Los Angeles"] {
        put(all, "everything__get-structured-content", json!({ "location": city }));
    }
    for kind in ["success", "debug"] {
        put(all, "everything__get-annotated-message", json!({ "messageType": kind, "includeImage": kind == "debug" }));
    }
    for n in 1..=5 {
        put(all, "everything__get-resource-links", json!({ "count": n }));
        put(all, "everything__get-resource-reference", json!({ "resourceType": "Text", "resourceId": n }));
    }
    put(all, "everything__get-tiny-image", json!({}));
    put(all, "everything__trigger-long-running-operation", json!({ "duration": 0.1, "steps": 2 }));
}
