//! testssl.sh, which looks for weaknesses.

use std::collections::BTreeSet;
use std::fs;
use std::process::{Command, Stdio};

use rustix::process::Signal;
use serde_json::Value;

use crate::serving::judges::{closed, listener};
use crate::support::outside::require;
use crate::support::secure::certificate;
use crate::support::served::Served;
use crate::support::sockets::{Directory, socket_addr};

/// The fewest findings of a scan that has got through.
const FINDINGS: usize = 80;

#[test]
#[ignore = "takes two minutes; a part of .ci/outside runs it"]
fn testssl_finds_what_is_listed() {
    if !require("testssl") || !require("timeout") {
        return;
    }
    let served = Served::new(&["echo", "--listen", &listener("")]);
    let (status, findings) = scan(socket_addr(served.uri(0)).port());
    served.signal(Signal::TERM);
    let log = served.status_and_log();
    assert!(findings.len() > FINDINGS, "{status:?}: {findings:?}");

    let grave = ["MEDIUM", "HIGH", "CRITICAL", "FATAL"];
    let text = |finding: &Value, name| finding[name].as_str().unwrap_or_default().to_owned();
    let found = findings
        .iter()
        .filter(|finding| grave.contains(&&*text(finding, "severity")));
    let found: BTreeSet<_> = found.map(|finding| text(finding, "id")).collect();
    assert_eq!(found, listed(), "{findings:#?}");

    // Everything that it tried has ended, and is counted.
    let last = log.last().expect("its counters");
    let count = |name: &str| {
        let (_, rest) = last.split_once(name)?;
        let number = rest.trim_start().split(',').next()?;
        number.parse::<usize>().ok()
    };
    let accepted = count("accepted ").expect("a number");
    let ended: Option<usize> = closed(last)
        .iter()
        .map(|it| it.split_once(' ')?.1.parse::<usize>().ok())
        .sum();
    assert_eq!(ended, Some(accepted), "{last}");
    assert!(!log.iter().any(|line| line.contains("panic")), "{log:?}");
}

/// Scans the server on this port with testssl.sh. Returns the exit status and the findings.
fn scan(port: u16) -> (Option<i32>, Vec<Value>) {
    let directory = Directory::new();
    let json = directory.path("findings.json");
    let mut command = Command::new("timeout");
    command.args(["590", "testssl", "--quiet", "--color", "0"]);
    command.args(["--warnings", "off", "--ip", "one", "--nodns", "min"]);
    command.args(["--add-ca", &certificate("authority.pem"), "--jsonfile"]);
    command.arg(&json).arg(format!("localhost:{port}"));
    command.stdin(Stdio::null()).stdout(Stdio::null());
    // It says there is something to see by its status.
    let status = command.stderr(Stdio::null()).status();
    let status = status.expect("a program that is there").code();

    let text = fs::read_to_string(json).expect("its findings");
    let findings = serde_json::from_str(&text).expect("JSON");
    (status, findings)
}

fn listed() -> BTreeSet<String> {
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/it/serving/judges/testssl.md"
    );
    let list = fs::read_to_string(path).expect("the list");
    let rows = list.lines().filter(|line| line.starts_with("| ")).skip(1);
    rows.map(|row| {
        let cells: Vec<_> = row.trim_matches('|').split('|').map(str::trim).collect();
        let [id, reason] = cells[..] else {
            panic!("no row: {row}");
        };
        assert!(!reason.is_empty(), "{row}");
        id.to_owned()
    })
    .collect()
}
