//! The figures of the closing note, measured on the built binary, against a direct connection and
//! against bare proxies of the same libraries, in the same run: `cargo bench -p conformance`.
//! With a name (`start`, `egress`, `calls`, `loads`, `lists`, `idle`, `a2a`) only that.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod a2a;
mod calls;
mod doubles;
mod egress;
mod idle;
mod lists;
mod loads;
mod start;

use conformance::pleach::binary;
use std::time::{Duration, Instant};

fn main() {
    // `cargo bench` adds `--bench`.
    let args: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with("--")).collect();
    let wanted = args.first().map(String::as_str);
    if doubles::run(&args) {
        return;
    }
    let wants = |name| wanted.is_none_or(|w| w == name);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    println!("binary: {:.1} MB", std::fs::metadata(binary()).unwrap().len() as f64 / 1e6);
    if wants("start") {
        start::starts();
        start::ready();
    }
    if wants("egress") {
        egress::egress();
    }
    if wants("calls") {
        runtime.block_on(calls::calls());
    }
    if wants("loads") {
        runtime.block_on(loads::loads());
    }
    if wants("lists") {
        runtime.block_on(lists::lists());
    }
    if wants("idle") {
        runtime.block_on(idle::idle());
    }
    if wants("a2a") {
        runtime.block_on(a2a::a2a());
    }
}

/// In milliseconds.
fn percentile(times: &mut [Duration], p: f64) -> f64 {
    times.sort();
    times[((times.len() - 1) as f64 * p) as usize].as_secs_f64() * 1e3
}

fn times(n: u32, mut work: impl FnMut()) -> Vec<Duration> {
    (0..n)
        .map(|_| {
            let start = Instant::now();
            work();
            start.elapsed()
        })
        .collect()
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Processor time of a process so far, in microseconds, as the scheduler counts it: ticks miss
/// what sleeps and wakes in between.
fn cpu(pid: u32) -> f64 {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let spent = threads.filter_map(|thread| {
        let text = std::fs::read_to_string(thread.ok()?.path().join("schedstat")).ok()?;
        text.split_whitespace().next()?.parse::<f64>().ok()
    });
    spent.sum::<f64>() / 1e3
}
