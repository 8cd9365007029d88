//! System calls per message, counted by strace in runs of their own: it slows a server too much for
//! anything else to be measured meanwhile. The count is the difference of two runs, which leaves the
//! beginning and the end out.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::{self, Command, Stdio};
use std::{env, fs, io};

use crate::bench::contender::Model;
use crate::bench::load::Load;
use crate::bench::round::Ground;
use crate::bench::scenario::{Pace, Scenario};
use crate::bench::server::Server;

/// Messages of the shorter run, at least; the other has twice as many.
const MESSAGES: u64 = 1_000;

/// Whether strace can be run at all.
pub(crate) fn are_countable() -> bool {
    Command::new("strace")
        .arg("-V")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// `None` for an open loop: under strace it would not keep its rate.
///
/// # Errors
/// The server fails under strace, or a signal came.
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

/// All system calls of a server that answers so many messages.
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
        // Its connections still stand, so that their ends are the same in both runs.
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

/// All calls in strace's table: share, seconds, microseconds per call, calls, errors if any, name.
fn total(table: &str) -> Option<u64> {
    let line = table.lines().find(|line| line.ends_with(" total"))?;
    line.split_whitespace().nth(3)?.parse().ok()
}

/// The file that strace writes, which goes with it.
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
        // It is not there if strace failed.
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
