//! The list of ten servers with five hundred tools each.

use crate::percentile;
use conformance::pleach::Folder;
use conformance::served::Served;
use serde_json::json;
use std::time::Instant;

pub(crate) async fn lists() {
    let me = std::env::current_exe().unwrap().display().to_string();
    let server =
        |i: u32| format!("[servers.s{i}]\ncommand = \"{me}\"\nargs = [\"many\"]\ndefault_access = \"read-only\"\n");
    let servers: String = (0..10).map(server).collect();
    let folder = Folder::new(&format!("version = 1\n{servers}[policy]\ntools = {{ allow = [\"*\"] }}\n"));
    let served = Served::start(&folder);
    let mut times = Vec::new();
    for _ in 0..50 {
        let (start, mut cursor, mut count) = (Instant::now(), None::<serde_json::Value>, 0);
        loop {
            let params = cursor.take().map_or(json!({}), |c| json!({ "cursor": c }));
            let page = served.modern("/mcp", "tools/list", params, &[]).await.json()["result"].clone();
            count += page["tools"].as_array().unwrap().len();
            match &page["nextCursor"] {
                serde_json::Value::Null => break,
                next => cursor = Some(next.clone()),
            }
        }
        assert_eq!(count, 5_000);
        times.push(start.elapsed());
    }
    let first = times.remove(0).as_secs_f64() * 1e3;
    println!(
        "5,000 tools of ten servers: first {first:.0} ms (with their start), then p50 {:.1} ms",
        percentile(&mut times, 0.5)
    );
}
