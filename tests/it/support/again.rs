//! Tests that need a process of their own: they run again, alone, in another one.

use std::env;
use std::process::Command;

/// Set in the other process.
const INSIDE: &str = "SERVELOOP_TEST_AGAIN";

/// Whether this is the other process, where the test is to do its work.
pub(crate) fn is_inside() -> bool {
    env::var_os(INSIDE).is_some()
}

/// Runs the test `name` again by `command`, to which the program is given, and checks that it
/// succeeds there.
#[track_caller]
pub(crate) fn run(mut command: Command, name: &str) {
    let outcome = command
        .args(["--exact", name, "--nocapture", "--test-threads=1"])
        .env(INSIDE, "1")
        .output()
        .unwrap();
    let said = [&*outcome.stdout, &*outcome.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    assert!(outcome.status.success(), "{}: {said}", outcome.status);
    assert!(said.contains("1 passed"), "{said}");
}

/// This program.
pub(crate) fn itself() -> Command {
    Command::new(env::current_exe().unwrap())
}
