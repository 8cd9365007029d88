//! A log that cannot be written must not hold up any client.

use std::fs::OpenOptions;
use std::io::Read;
use std::process::Stdio;

use rustix::process::Signal;

use crate::project::scenarios::{Subject, TCP, echoes};
use crate::support::outside::skip;
use crate::support::served::{Served, serveloop};

#[test]
fn a_full_disk_under_the_log_is_nobodys_problem() {
    let Ok(full) = OpenOptions::new().write(true).open("/dev/full") else {
        return skip("/dev/full");
    };
    let mut command = serveloop(&["serve", "echo", "-vv"]);
    command.args(TCP).stderr(Stdio::from(full));
    let subject = Subject::of(Served::spawn(command));
    for _ in 0..100 {
        subject.serves();
    }
    subject.served.signal(Signal::TERM);
    assert_eq!(subject.served.exit_code(), Some(0));
}

/// Every kind of line that peers can cause, a thousand times.
#[test]
fn who_is_refused_over_and_over_does_not_flood_the_log() {
    let subject = Subject::new(&["echo", "--max-connections", "1"]);
    let mut inside = subject.client();
    echoes(&mut inside, b"inside");
    for _ in 0..1_000 {
        let mut refused = subject.client();
        assert_eq!(refused.read(&mut [0]).expect("an end"), 0);
    }
    drop(inside);
    let counts = subject.end();
    assert_eq!(counts.number("refused_max_connections"), 1_000);
}
