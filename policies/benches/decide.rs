//! `decide` on a tool call with a path, at 10, 1,000 and 10,000 rules.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use divan::{Bencher, black_box};
use policies::action::{Call, Touch, Touched};
use policies::authority::{Authority, Sources};
use policies::decide;
use policies::fs::{FileOp, FsGrant};
use policies::grant::Grant;
use policies::json::{Json, Limits};
use policies::manifest::{ServerWords, import};
use policies::names::Name;
use policies::permission::Access;
use policies::secrets::Hidden;
use policies::tools::{Glob, Layer, ToolRules};
use std::sync::Arc;

fn main() {
    divan::main();
}

fn authority(rules: usize) -> Authority {
    let glob = |text: String| Glob::try_from(text.as_str()).unwrap();
    let allow =
        (0..rules).map(|i| if i % 3 == 0 { glob(format!("server{i}__*")) } else { glob(format!("server{i}__tool")) });
    let deny = (0..rules / 10).map(|i| glob(format!("*__delete_{i}")));
    let mut grant = Grant::nothing();
    grant.tools = ToolRules::of(Layer::new(allow, [], deny));
    grant.max_access = Access::Destructive;
    grant.filesystem = FsGrant::new((0..rules / 10).map(|i| format!("/data/{i}").into()), ["/data/out".into()], []);
    Authority::root(Arc::new(grant), Arc::new(Sources::default()), None)
}

#[divan::bench(args = [10, 1_000, 10_000])]
fn call(bencher: Bencher<'_, '_>, rules: usize) {
    let authority = authority(rules);
    let list = br#"[{"name":"tool","inputSchema":{"type":"object","properties":{"path":{"type":"string"}}}}]"#;
    let list = Json::parse(list, Limits::default()).unwrap();
    let tool =
        import(&Name::try_from("server1").unwrap(), &ServerWords::default(), list.as_array().unwrap()).tools.remove(0);
    let tool = Arc::new(tool);
    let arguments = Json::parse(br#"{"path":"/data/out/report.md"}"#, Limits::default()).unwrap();
    bencher
        .with_inputs(|| Call {
            tool: tool.clone(),
            arguments: arguments.clone(),
            touches: vec![Touch {
                pointer: "/path".into(),
                written: "/data/out/report.md".into(),
                what: Touched::Path(FileOp::Write, "/data/out/report.md".into()),
            }],
        })
        .bench_values(|call| black_box(decide::call(&authority, call)));
}

/// 64 KiB of JSON, looked through for so many secrets.
#[divan::bench(args = [1, 10, 100])]
fn redact(bencher: Bencher<'_, '_>, secrets: usize) {
    let mut hidden = Hidden::default();
    for i in 0..secrets {
        let name = Name::try_from(format!("s{i}").as_str()).unwrap();
        hidden.hide(&name, &format!("sk-{:032x}", (i as u128 + 1) * 0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835));
    }
    let text = r#"{"path":"docs/a.md","text":"A line of \"ordinary\" words, 40 % of them short.\n"},"#.repeat(820);
    assert_eq!(hidden.redact(&text), text);
    bencher.bench(|| black_box(hidden.redact(black_box(&text)).len()));
}
