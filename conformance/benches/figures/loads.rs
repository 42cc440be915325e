//! Many connections at once: throughput and tail through Pleach, through a bare proxy, and direct.

use crate::calls::{body, one_call};
use crate::doubles::{Double, echo_http};
use crate::{cpu, percentile};
use conformance::pleach::Folder;
use conformance::served::Served;
use std::time::{Duration, Instant};

/// Calls a second, and the 99th percentile in ms.
async fn load(url: &str, tool: &str, connections: usize, calls: usize, payload: usize) -> (f64, f64) {
    let body = body(tool, &"x".repeat(payload));
    let start = Instant::now();
    let work = (0..connections).map(|_| {
        let (client, url, tool, body) = (Served::client(), url.to_owned(), tool.to_owned(), body.clone());
        async move {
            let mut times = Vec::new();
            for _ in 0..calls.div_ceil(connections) {
                let start = Instant::now();
                assert!(one_call(&client, &url, &tool, &body).await > payload);
                times.push(start.elapsed());
            }
            times
        }
    });
    let mut times: Vec<Duration> = futures_util::future::join_all(work).await.concat();
    (times.len() as f64 / start.elapsed().as_secs_f64(), percentile(&mut times, 0.99))
}

pub(crate) async fn loads() {
    let url = echo_http();
    let folder = Folder::new(&format!(
        "version = 1\n[servers.http]\nurl = \"{url}\"\ndefault_access = \"read-only\"\n[policy]\ntools = {{ allow = [\"*\"] }}\n"
    ));
    let served = Served::start(&folder);
    let proxy = Double::start(&["proxy", &url]);
    let door = format!("{}/mcp", served.base);
    load(&door, "http__echo", 16, 500, 5).await;
    load(&proxy.url, "echo", 16, 500, 5).await;
    for (payload, calls) in [(5, 4_000), (1 << 20, 100)] {
        for connections in [1, 16, 64, 256] {
            let calls = calls.max(connections);
            let (direct, direct_tail) = load(&url, "echo", connections, calls, payload).await;
            let before = cpu(proxy.pid());
            let (bare, bare_tail) = load(&proxy.url, "echo", connections, calls, payload).await;
            let bare_cpu = (cpu(proxy.pid()) - before) / calls as f64;
            let before = cpu(served.pid());
            let (through, tail) = load(&door, "http__echo", connections, calls, payload).await;
            let own_cpu = (cpu(served.pid()) - before) / calls as f64;
            println!(
                "{payload} bytes over {connections} connections: {through:.0} calls/s, p99 {tail:.1} ms, {own_cpu:.0} µs of CPU a call; {:.2} x bare proxy ({bare:.0}, {bare_tail:.1} ms, {bare_cpu:.0} µs); {:.2} x direct ({direct:.0}, {direct_tail:.1} ms)",
                through / bare,
                through / direct
            );
        }
    }
}
