//! No descriptor is left while many want to come in.

use std::io::Write;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};

use crate::project::scenarios::{Subject, echoes, expect, size};

#[test]
fn a_crowd_at_the_limit_waits_costs_nothing_and_gets_in() {
    let crowd = size(1_000, 100);
    let subject = Subject::new(&["echo", "--reserved-descriptors", "0"]);
    let mut inside: Vec<_> = (0..5).map(|_| subject.client()).collect();
    for client in &mut inside {
        echoes(client, b"inside");
    }
    let before = limit(&subject, subject.open_descriptors() as u64);
    let mut waiting: Vec<_> = (0..crowd).map(|_| subject.client()).collect();
    for client in &mut waiting {
        client.write_all(b"let me in").expect("the system's queue");
    }
    let line = subject.served.logged("cannot accept for now");
    assert!(
        line.contains("ulimit -n") && line.contains("LimitNOFILE="),
        "{line}"
    );
    let (cpu, began) = (subject.cpu_time(), Instant::now());
    for _ in 0..size(30, 2) {
        // At most one line a second, which says how many pauses there were.
        subject.served.logged("more like it");
    }
    let (cpu, took) = (subject.cpu_time() - cpu, began.elapsed());
    assert!(took >= Duration::from_secs(1), "two lines within {took:?}");
    assert!(cpu < took / 20, "{cpu:?} of {took:?} were spent waiting");
    for client in &mut inside {
        echoes(client, b"still inside");
    }
    limit(&subject, before);
    // No event reports that descriptors are free again, and no other client connects.
    for client in &mut waiting {
        expect(client, b"let me in");
    }
    subject.serves();
    drop((inside, waiting));
    let counts = subject.end();
    assert_eq!(counts.number("accepted"), crowd as u64 + 6, "{counts:?}");
    let pauses = counts.number("accept_exhausted");
    let most = 10 * (took.as_secs() + 10);
    assert!((5..most).contains(&pauses), "{pauses} pauses in {took:?}");
}

/// Lets the server have this many descriptors. Returns the previous limit.
fn limit(subject: &Subject, descriptors: u64) -> u64 {
    let id = i32::try_from(subject.served.process_id()).expect("a process's number");
    let limit = Rlimit {
        current: Some(descriptors),
        // It is our child, and has what we have.
        maximum: getrlimit(Resource::Nofile).maximum,
    };
    let before = prlimit(Pid::from_raw(id), Resource::Nofile, limit).expect("our child");
    before.current.expect("a limit")
}
