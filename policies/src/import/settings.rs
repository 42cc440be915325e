//! `.claude/settings.json`: its permission rules, collected. What they amount to is said in
//! [`super::rules`], where the root grant is known.

use super::rules::{Listed, Said};
use super::tools::{Known, Word};
use super::{Import, Kind};
use crate::file::{Node, Value};
use crate::place::Place;
use crate::resolve::Surroundings;
use std::path::{Path, PathBuf};

/// The modes, from the strictest.
pub(super) const MODES: [&str; 7] =
    ["plan", "dontAsk", "default", "manual", "auto", "acceptEdits", "bypassPermissions"];

pub(super) fn read(import: &mut Import, files: &[(Node, PathBuf)], policy: &Node, around: &dyn Surroundings) {
    for (file, project) in files {
        for (key, place, node) in file.entries() {
            match key.as_str() {
                "$schema" => {}
                "permissions" => permissions(import, node, project, around),
                "disabledMcpjsonServers" => disabled(import, node, policy),
                "hooks" => {
                    let what = "hooks are not run here; what one of them would block is to be said as a rule";
                    import.note(place, Kind::Left, what);
                }
                "sandbox" => {
                    let what = "sandbox: [policy.filesystem], [policy.domains] and [policy.sandbox] say it here, for every server";
                    import.note(place, Kind::Left, what);
                }
                "enableAllProjectMcpServers" | "enabledMcpjsonServers" => {
                    let what = format!("{key}: a server is approved by standing in the policy file");
                    import.note(place, Kind::Left, what);
                }
                other => {
                    import.note(place, Kind::Left, format!("{other}: a setting of the client; it has no counterpart"))
                }
            }
        }
    }
}

fn permissions(import: &mut Import, node: &Node, project: &Path, around: &dyn Surroundings) {
    if !matches!(node.value, Value::Table(_)) {
        return import.error(&node.place, "permissions is an object");
    }
    for (key, place, value) in node.entries() {
        match key.as_str() {
            "allow" => list(import, Listed::Allow, place, value, project),
            "ask" => list(import, Listed::Ask, place, value, project),
            "deny" => list(import, Listed::Deny, place, value, project),
            "defaultMode" => mode(import, place, value),
            "additionalDirectories" => directories(import, value, around),
            // They only take away what is never there.
            "disableBypassPermissionsMode" | "disableAutoMode" => {
                import.note(place, Kind::Taken, format!("{key}: neither mode exists here"));
            }
            other => import.note(place, Kind::Left, format!("permissions.{other} has no counterpart")),
        }
    }
}

fn list(import: &mut Import, listed: Listed, place: &Place, node: &Node, project: &Path) {
    let Value::List(items) = &node.value else {
        return import.error(&node.place, "a list of rules, such as [\"Bash\", \"Read(./docs/**)\"]");
    };
    if listed == Listed::Allow {
        import.rules.closed.get_or_insert_with(|| place.clone());
    }
    for item in items {
        let Some(text) = item.text() else {
            import.error(&item.place, "a rule is a string");
            continue;
        };
        match Word::parse(text) {
            Err(why) => import.error(&item.place, format!("{why}; a rule is Tool or Tool(scope)")),
            Ok(word) => import.rules.said.push(Said {
                listed,
                place: item.place.clone(),
                text: text.to_owned(),
                tool: word.tool.to_owned(),
                scope: word.scope.map(str::to_owned),
                project: project.to_owned(),
            }),
        }
    }
}

/// Of several files the strictest mode holds.
fn mode(import: &mut Import, place: &Place, node: &Node) {
    let rank = |mode: &str| MODES.iter().position(|m| *m == mode);
    match node.text().and_then(|text| rank(text).map(|rank| (text, rank))) {
        None => import.error(&node.place, format!("defaultMode is one of {}", MODES.join(", "))),
        Some((text, new)) => {
            let stricter = import.rules.mode.as_ref().and_then(|(old, _)| rank(old)).is_none_or(|old| new < old);
            if stricter {
                import.rules.mode = Some((text.to_owned(), place.clone()));
            }
        }
    }
}

fn directories(import: &mut Import, node: &Node, around: &dyn Surroundings) {
    for item in node.items() {
        let Some(text) = item.text() else {
            import.error(&item.place, "a folder is a string");
            continue;
        };
        let path = match (text.strip_prefix("~/"), around.home()) {
            (Some(rest), Some(home)) => home.join(rest),
            _ => around.folder().join(text),
        };
        match around.canonical(&path) {
            Ok(path) => import.rules.folders.push((path, item.place.clone())),
            Err(why) => import.error(&item.place, format!("additionalDirectories {text:?}: {why}")),
        }
    }
}

fn disabled(import: &mut Import, node: &Node, policy: &Node) {
    for item in node.items() {
        let Some(name) = item.text() else { continue };
        match Known::new(policy).server(name) {
            None => import.note(&item.place, Kind::Taken, format!("server {name} is not registered here either")),
            Some(_) => import.rules.said.push(Said {
                listed: Listed::Deny,
                place: item.place.clone(),
                text: format!("disabledMcpjsonServers {name}"),
                tool: format!("mcp__{name}"),
                scope: None,
                project: PathBuf::new(),
            }),
        }
    }
}
