//! System calls per message, counted by strace in separate runs, because strace slows a server too
//! much for anything else to be measured.
//!
//! The count is the difference between two runs, which leaves out the start and the end.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::{self, Command, Stdio};
use std::{env, fs, io};

use crate::bench::contender::Model;
use crate::bench::load::Load;
use crate::bench::round::Ground;
use crate::bench::scenario::{Pace, Scenario};
use crate::bench::server::Server;

/// The fewest messages of the shorter run. The longer run has twice as many as the shorter.
const MESSAGES: u64 = 1_000;

/// Returns whether strace can be run at all.
pub(crate) fn are_countable() -> bool {
    Command::new("strace")
        .arg("-V")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// Counts the system calls per message. Returns `None` for an open loop, which would not keep its
/// rate under strace.
///
/// # Errors
/// Fails if the server fails under strace, or after a signal.
pub(crate) fn count(
    ground: Ground<'_>,
    model: Model,
    scenario: &Scenario,
) -> io::Result<Option<f64>> {
    if let Pace::Open(_) = scenario.pace {
        return Ok(None);
    }

    let connections = scenario.connections as u64;
    let messages = MESSAGES.max(4 * connections * scenario.depth as u64);
    let less = traced(ground, model, scenario, messages)?;
    let more = traced(ground, model, scenario, 2 * messages)?;
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
    let each = more.saturating_sub(less) as f64 / messages as f64;
    Ok(Some(each))
}

/// Counts all system calls of a server that answers `messages` messages.
fn traced(ground: Ground<'_>, model: Model, scenario: &Scenario, messages: u64) -> io::Result<u64> {
    let summary = Summary::new();
    let tracer = summary.tracer();

    let server = Server::start(model, scenario, ground.cores, &tracer, ground.interrupt)?;
    let load = Load::new(
        scenario,
        &server.addresses,
        ground.plan.patience,
        ground.interrupt,
    );
    let exchanged = load.and_then(|mut load| exchange(&mut load, scenario, messages));

    match exchanged {
        // The connections are still open, so that they end in the same way in both runs.
        Ok(()) => server.end_traced()?,
        Err(error) => return Err(server.explain(error)),
    }
    total(&fs::read_to_string(&summary.0)?)
        .ok_or_else(|| io::Error::other("strace wrote no summary"))
}

fn exchange(load: &mut Load<'_>, scenario: &Scenario, messages: u64) -> io::Result<()> {
    if scenario.pace != Pace::Churn {
        load.settle(scenario.total())?;
    }
    load.begin(scenario.connections, messages);
    load.run_messages(messages)
}

/// Returns the total number of calls in strace's table, whose columns are share, seconds,
/// microseconds per call, calls, errors (if any) and name.
fn total(table: &str) -> Option<u64> {
    let line = table.lines().find(|line| line.ends_with(" total"))?;
    line.split_whitespace().nth(3)?.parse().ok()
}

/// The file that strace writes. It is removed on drop.
struct Summary(PathBuf);

impl Summary {
    fn new() -> Self {
        let name = format!("serveloop-bench-{}.strace", process::id());
        Self(env::temp_dir().join(name))
    }

    fn tracer(&self) -> [OsString; 5] {
        let [program, threads, summary, output] = ["strace", "-f", "-c", "-o"].map(OsString::from);
        [program, threads, summary, output, self.0.clone().into()]
    }
}

impl Drop for Summary {
    fn drop(&mut self) {
        // There is no file if strace failed.
        let _ = fs::remove_file(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_total_of_a_summary_is_found() {
        let table = "\
% time     seconds  usecs/call     calls    errors syscall
------ ----------- ----------- --------- --------- ----------------
 60.00    0.000060          20      3001         1 recvfrom
 40.00    0.000040          20      2000           sendto
------ ----------- ----------- --------- --------- ----------------
100.00    0.000100          20      5001         1 total
";
        assert_eq!(total(table), Some(5_001));
        assert_eq!(total(""), None);
    }
}
