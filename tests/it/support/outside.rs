//! Programs and rights that some tests need and a machine may lack. Such a test says "skipped" and
//! what it lacks; with `SERVELOOP_OUTSIDE=1` in the environment, as `.ci/outside` has it, it fails.

#![allow(dead_code, reason = "each group of tests uses a part of it")]

use std::env;
use std::path::Path;

/// Set where nothing may be missing.
const VARIABLE: &str = "SERVELOOP_OUTSIDE";

/// Whether `program` is on the path. If not, the test is skipped, or fails.
#[track_caller]
pub(crate) fn require(program: &str) -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    let found = env::split_paths(&path).any(|directory| directory.join(program).is_file());
    require_that(found, program)
}

/// Whether `file` is there. If not, the test is skipped, or fails.
#[track_caller]
pub(crate) fn require_file(file: &str) -> bool {
    require_that(Path::new(file).exists(), file)
}

/// Gives `holds`. If it does not, the test is skipped for want of `what`, or fails.
#[track_caller]
pub(crate) fn require_that(holds: bool, what: &str) -> bool {
    if !holds {
        skip(what);
    }
    holds
}

/// Says that the test is skipped for want of `what`, or fails.
#[track_caller]
pub(crate) fn skip(what: &str) {
    assert!(
        env::var_os(VARIABLE).is_none_or(|value| value != "1"),
        "{what} is missing, and {VARIABLE}=1 lets nothing be missing"
    );
    println!("skipped: no {what}");
}
