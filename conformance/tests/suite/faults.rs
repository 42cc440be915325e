//! Self-healing under traffic: upstreams of both kinds are killed, restarted, hung, slowed and
//! made to speak garbage, while others are called. A test a section of DESIGN 5.

use conformance::mirror_server::Mirror;
use conformance::official::{Fixture, binary};
use conformance::pleach::Folder;
use conformance::served::{Answer, Served};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::watch;

fn policy(http: &Mirror) -> String {
    format!(
        "version = 1\n[servers.steady]\n{steady}\n[servers.web]\nurl = {url:?}\ntimeout = 2000\n\
         [servers.child]\n{child}\ntimeout = 2000\n[policy]\nmax_access = \"destructive\"\ntools.allow = [\"*\"]\n",
        steady = Mirror::entry(None, "modern"),
        url = http.url,
        child = Mirror::entry(None, "legacy"),
    )
}

async fn call(served: &Served, tool: &str) -> Answer {
    let params = json!({ "name": tool, "arguments": { "value": 1 } });
    served.modern("/mcp", "tools/call", params, &[]).await
}

fn good(answer: &Answer) -> bool {
    answer.status == 200 && answer.json()["result"]["odd"] == 1
}

/// The reason a call gives for having failed: a tool error a model can read.
fn reason(answer: &Answer) -> Option<String> {
    let result = answer.json()["result"].clone();
    (result["isError"] == true).then(|| result["content"][0]["text"].as_str().unwrap_or("").to_owned())
}

/// Processes of a server, by what was asked to be run.
fn children(of: u32, era: &str) -> Vec<u32> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|n| n.parse::<u32>().ok()) else { continue };
        let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let words: Vec<&[u8]> = line.split(|b| *b == 0).collect();
        let ours = words.get(1..3).is_some_and(|w| w[0] == b"mirror" && w[1] == era.as_bytes());
        if ours && ancestors(pid).contains(&of) {
            found.push(pid);
        }
    }
    found
}

fn ancestors(mut pid: u32) -> Vec<u32> {
    let mut line = Vec::new();
    while pid > 1 {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let parent = stat.rsplit(')').next().and_then(|r| r.split_whitespace().nth(1)).and_then(|p| p.parse().ok());
        let Some(parent) = parent else { break };
        pid = parent;
        line.push(pid);
    }
    line
}

pub(crate) fn descriptors(pid: u32) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count()
}

/// What the descriptors of a process are, for whoever looks into a leak.
fn open_files(pid: u32) -> Vec<String> {
    let fds = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten();
    let mut what: Vec<String> =
        fds.filter_map(|fd| std::fs::read_link(fd.path()).ok()).map(|to| to.display().to_string()).collect();
    what.sort();
    what
}

/// Resident memory, KiB.
pub(crate) fn memory(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|l| l.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// Calls until one is good; how long that took. Each answer is the event the next call waits for.
async fn until_good(served: &Served, tool: &str) -> Duration {
    let began = Instant::now();
    loop {
        if good(&call(served, tool).await) {
            return began.elapsed();
        }
        assert!(began.elapsed() < Duration::from_secs(30), "{tool} does not come back");
    }
}

/// Waits until an HTTP fixture has so many sessions; it ends them when it is told so, which takes
/// its time.
async fn until_sessions(url: &str, count: usize) {
    let began = Instant::now();
    loop {
        let live = sessions(url).await;
        if live == count {
            return;
        }
        assert!(began.elapsed() < Duration::from_secs(10), "{live} sessions are left, not {count}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The live sessions of an HTTP fixture.
async fn sessions(url: &str) -> usize {
    let url = url.replace("/mcp", "/sessions");
    Served::client().get(url).send().await.unwrap().text().await.unwrap().parse().unwrap()
}

/// 200 restarts and 20,000 calls: a returned upstream serves again within two seconds, another
/// one never notices, and nothing is left behind.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn restarts_under_traffic_cost_only_their_own_calls() {
    let mut web = Mirror::start("legacy", "127.0.0.1:0");
    let address = web.url.trim_start_matches("http://").trim_end_matches("/mcp").to_owned();
    let folder = Folder::new(&policy(&web));
    let served = Arc::new(Served::start(&folder));
    for tool in ["steady__echo", "web__echo", "child__echo"] {
        until_good(&served, tool).await;
    }
    let pid = served.pid();
    // Warm: what the first thousand calls allocate is no leak.
    for _ in 0..1_000 {
        call(&served, "steady__echo").await;
    }
    let (fds, rss) = (descriptors(pid), memory(pid));
    let (stop, failed) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let (calls, mut called) = watch::channel(0usize);
    let traffic = |tool: &'static str, must: bool| {
        let (served, stop, calls, failed) = (served.clone(), stop.clone(), calls.clone(), failed.clone());
        tokio::spawn(async move {
            while !stop.load(Ordering::Relaxed) {
                let answer = call(&served, tool).await;
                calls.send_modify(|n| *n += 1);
                if !good(&answer) {
                    assert!(!must, "{tool} never failed: {answer:?}");
                    let why = reason(&answer).unwrap_or_else(|| panic!("no reason: {answer:?}"));
                    assert!(why.starts_with(tool), "{why}");
                    failed.fetch_add(1, Ordering::Relaxed);
                }
            }
        })
    };
    let tasks = [
        traffic("steady__echo", true),
        traffic("steady__echo", true),
        traffic("web__echo", false),
        traffic("child__echo", false),
    ];
    let mut returns = Vec::new();
    for round in 0..100 {
        web.kill();
        web = Mirror::start(if round % 10 == 9 { "modern" } else { "legacy" }, &address);
        returns.push(until_good(&served, "web__echo").await);
        for process in children(pid, "legacy") {
            let _ = std::process::Command::new("kill").args(["-9", &process.to_string()]).status();
        }
        returns.push(until_good(&served, "child__echo").await);
    }
    // The last one had no sessions; of this one all are counted.
    web.kill();
    let web = Mirror::start("legacy", &address);
    until_good(&served, "web__echo").await;
    called.wait_for(|n| *n >= 20_000).await.unwrap();
    stop.store(true, Ordering::Relaxed);
    for task in tasks {
        task.await.unwrap();
    }
    returns.sort();
    assert_eq!(returns.len(), 200);
    let p99 = returns[197];
    assert!(p99 < Duration::from_secs(2), "p99 of the return is {p99:?}");
    assert!(failed.load(Ordering::Relaxed) > 0, "the faults were felt");
    let (fds_after, rss_after) = (descriptors(pid), memory(pid));
    // The pools (HTTP, SQLite) grow as calls happen to meet; one left by each of the hundred
    // restarts of either server would be a hundred more.
    assert!(fds_after <= fds + 25, "descriptors: {fds} before, {fds_after} after: {:?}", open_files(pid));
    assert!(rss_after < rss + 16 * 1024, "memory: {rss} KiB before, {rss_after} after");
    assert_eq!(children(pid, "legacy").len(), 1, "one process of the stdio server is left");
    assert_eq!(children(pid, "modern").len(), 1);
    println!("200 returns: p50 {:?}, p99 {p99:?}; {} calls", returns[100], *called.borrow());
    // One connection to the HTTP server is left, with one session; and none when Pleach ends.
    until_sessions(&web.url, 1).await;
    Arc::into_inner(served).unwrap().end();
    until_sessions(&web.url, 0).await;
}

/// Clients that come and go, ask, cancel and leave in the middle: of a server with sessions each
/// kind of caller has one, and all are given back at the end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_at_a_server_do_not_leak() {
    let fixture = Fixture::start(&binary(), "legacy").unwrap();
    let clients =
        "[clients.alice]\ntoken = \"alice-alice-alice-alice\"\n[clients.bob]\ntoken = \"bob-bob-bob-bob-bob-bob\"\n";
    let folder = Folder::new(&format!(
        "version = 1\n[servers.web]\nurl = {:?}\ndefault_access = \"read-only\"\n[policy]\ntools.allow = [\"*\"]\n{clients}",
        fixture.url
    ));
    let served = Served::start(&folder);
    assert_eq!(sessions(&fixture.url).await, 0, "nobody called yet");
    let tokens = ["Bearer alice-alice-alice-alice", "Bearer bob-bob-bob-bob-bob-bob"];
    for round in 0..20 {
        for token in tokens {
            let who = ("authorization", token);
            let session = served.initialize("/mcp", &[who]).await;
            let simple = || json!({ "name": "web__test_simple_text", "arguments": {} });
            assert_eq!(served.legacy("/mcp", &session, "tools/call", simple(), &[who]).await.status, 200);
            assert_eq!(served.modern("/mcp", "resources/list", json!({}), &[who]).await.status, 200);
            // One that is asked something, and never comes back with the answer.
            if round == 0 {
                let can = json!({ "io.modelcontextprotocol/clientCapabilities": { "elicitation": {} } });
                let params =
                    json!({ "name": "web__test_elicitation", "arguments": { "message": "who?" }, "_meta": can });
                let asked = served.modern("/mcp", "tools/call", params, &[who]).await;
                assert_eq!(asked.json()["result"]["resultType"], "input_required", "{asked:?}");
            }
            // One whose client goes away in the middle.
            let (slow, headers) = (json!({ "name": "web__test_tool_with_progress", "arguments": {} }), [who]);
            let left = served.modern("/mcp", "tools/call", slow, &headers);
            assert!(tokio::time::timeout(Duration::from_millis(20), left).await.is_err());
        }
    }
    // Each client as it can be asked nothing, and as it can be asked by a form.
    until_sessions(&fixture.url, 2 * tokens.len()).await;
    served.end();
    until_sessions(&fixture.url, 0).await;
}

/// Every call ends within its limit, with a reason, and the next one is served.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hung_slow_and_garbled_servers_cost_their_own_calls() {
    let web = Mirror::start("modern", "127.0.0.1:0");
    let folder = Folder::new(&policy(&web));
    let served = Arc::new(Served::start(&folder));
    for server in ["web", "child"] {
        until_good(&served, &format!("{server}__echo")).await;
        assert!(good(&call(&served, &format!("{server}__slow")).await), "slow is not dead");
        for (tool, words) in [("hang", "no answer to tools/call within 2 s"), ("garbage", "unacceptable"), ("die", "")]
        {
            // A server over HTTP that dies would not be started again by us.
            if (server, tool) == ("web", "die") {
                continue;
            }
            let name = format!("{server}__{tool}");
            let (answer, steady) = tokio::join!(call(&served, &name), call(&served, "steady__echo"));
            assert!(good(&steady), "{steady:?}");
            let why = reason(&answer).unwrap_or_else(|| panic!("{answer:?}"));
            assert!(why.contains(words), "{name}: {why}");
            until_good(&served, &format!("{server}__echo")).await;
        }
    }
}

/// A server that is not there when Pleach starts, and one that changes while it runs: the list
/// is the others' at first, and clients are told when it grows.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_comes_late_is_listed_by_itself() {
    let mut web = Mirror::start("modern", "127.0.0.1:0");
    let address = web.url.trim_start_matches("http://").trim_end_matches("/mcp").to_owned();
    let folder = Folder::new(&policy(&web));
    web.kill();
    let served = Served::start(&folder);
    let list = async || -> Vec<String> {
        let list = served.modern("/mcp", "tools/list", json!({}), &[]).await.json();
        let tools = list["result"]["tools"].as_array().unwrap().clone();
        tools.iter().map(|t: &Value| t["name"].as_str().unwrap().to_owned()).collect()
    };
    let first = list().await;
    assert!(first.contains(&"steady__echo".to_owned()) && !first.contains(&"web__echo".to_owned()), "{first:?}");
    let why = reason(&call(&served, "web__echo").await).expect("it is a tool error");
    assert!(why.contains("denied: server web could not be listed yet"), "{why}");
    let wanted = json!({ "notifications": { "toolsListChanged": true } });
    let listening = tokio::time::timeout(Duration::from_secs(20), async {
        let body = conformance::served::modern_body("subscriptions/listen", wanted).to_string();
        let request = Served::client().post(format!("{}/mcp", served.base)).body(body);
        let request =
            request.header("content-type", "application/json").header("accept", "text/event-stream, application/json");
        let request = request.header("mcp-protocol-version", "2026-07-28").header("mcp-method", "subscriptions/listen");
        let mut stream = request.send().await.unwrap();
        let mut heard = String::new();
        let mut again = None;
        while let Some(chunk) = stream.chunk().await.unwrap() {
            heard.push_str(&String::from_utf8_lossy(&chunk));
            if again.is_none() && heard.contains("acknowledged") {
                again = Some(Mirror::start("modern", &address));
            }
            if heard.contains("notifications/tools/list_changed") {
                return again;
            }
        }
        panic!("the stream ended: {heard}");
    });
    let _web = listening.await.expect("nobody was told");
    assert!(list().await.contains(&"web__echo".to_owned()));
    assert!(good(&call(&served, "web__echo").await));
}

/// A run goes on with a call whose server comes back only after its first attempts failed.
#[test]
fn a_run_waits_for_a_server_that_comes_late() {
    let mut web = Mirror::start("modern", "127.0.0.1:0");
    let address = web.url.trim_start_matches("http://").trim_end_matches("/mcp").to_owned();
    let agent = "[models.default]\nprovider = \"scripted\"\nscript = \"replies.toml\"\n[agents.a]\nprompt = \"\"\n";
    let policy = format!(
        "version = 1\n[servers.web]\nurl = {:?}\n[policy]\nmax_access = \"destructive\"\ntools.allow = [\"*\"]\n{agent}",
        web.url
    );
    let folder = Folder::new(&policy);
    let call = "[[reply.tool]]\nname = \"web__echo\"\ninput = { value = 1 }\n";
    folder.write("replies.toml", &format!("[[reply]]\ntext = \"c\"\n{call}[[reply]]\ntext = \"{{{{results}}}}\"\n"));
    web.kill();
    let mut command = folder.command(&["run", "--agent", "a", "--json", "go"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    // Its list was tried before its model was asked, and is tried again from now on.
    lines.find(|line| line.contains("model.replied")).expect("it asks for the tool");
    let _web = Mirror::start("modern", &address);
    let finished = lines.find(|line| line.contains("tool.finished")).expect("the call ends");
    assert!(finished.contains("\"outcome\":\"ok\""), "{finished}");
    assert!(lines.any(|line| line.contains("run.finished") && line.contains("completed")));
    child.wait().unwrap();
}
