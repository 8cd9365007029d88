//! The limits on descriptors: how many connections fit into this process, and how many workers into
//! a server.

use std::fmt::Display;

use rustix::process::{Resource, Rlimit, setrlimit};
use serveloop::protocols::counted;

use crate::sys::Descriptors;

/// The most descriptors for one process, whatever the system allows.
const MOST: u64 = 20_000;
/// Descriptors reserved for everything except connections, here and in the servers.
const OTHERS: u64 = 64;
/// Descriptors of one worker besides its listeners: its poller and its waker.
const OF_WORKER: u64 = 2;

/// Makes room for `connections` by raising the soft limit to the hard limit, if they need it.
/// Servers started later inherit the limit.
///
/// # Errors
/// Fails if they do not fit, with a message that says how many do, and what they need.
pub fn check(connections: usize) -> Result<(), String> {
    let wanted = connections as u64 + OTHERS;
    let fit = hard_limit().saturating_sub(OTHERS);
    if wanted > hard_limit() {
        let connections = counted(connections, "connection is", "connections are");
        return Err(too_many(&connections, wanted, fit));
    }
    raise(wanted)
}

/// Makes room for a server of `workers` loops, each with `listeners`, and for `connections`.
///
/// # Errors
/// Fails if they do not fit, with a message that says how many workers do, and what they need.
pub fn check_workers(workers: usize, listeners: usize, connections: usize) -> Result<(), String> {
    let (others, each) = (connections as u64 + OTHERS, OF_WORKER + listeners as u64);
    let wanted = workers as u64 * each + others;

    if wanted > hard_limit() {
        let fit = hard_limit().saturating_sub(others) / each;
        let workers = counted(workers, "worker is", "workers are");
        return Err(too_many(&workers, wanted, fit));
    }
    raise(wanted)
}

/// Describes what does not fit: why, how much would, and what helps.
fn too_many(what: &impl Display, wanted: u64, fit: u64) -> String {
    let (hard, wanted) = (hard_limit(), counted(wanted, "descriptor", "descriptors"));
    let start = format!("{what} too many for one process: they need {wanted}, and");
    if hard == MOST {
        return format!("{start} a benchmark uses at most {MOST}, which allow {fit}");
    }
    format!(
        "{start} it may have {hard}, which allow {fit}: use fewer, or raise the limit (ulimit -Hn, \
         or LimitNOFILE= in a unit of systemd)"
    )
}

fn hard_limit() -> u64 {
    let limit = Descriptors::of_this().and_then(|limits| limits.hard);
    limit.unwrap_or(MOST).min(MOST)
}

/// Raises the soft limit to the hard limit, if `wanted` descriptors need it.
fn raise(wanted: u64) -> Result<(), String> {
    let Some(limits) = Descriptors::of_this() else {
        return Ok(());
    };
    if limits.soft.is_none_or(|soft| soft >= wanted) {
        return Ok(());
    }

    let hard = hard_limit();
    let raised = Rlimit {
        current: Some(hard),
        maximum: limits.hard,
    };
    setrlimit(Resource::Nofile, raised)
        .map_err(|error| format!("cannot raise the limit of descriptors to {hard}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_many_connections_are_refused_with_the_number_that_fits() {
        let problem = check(1_000_000).unwrap_err();
        assert!(
            problem.contains("they need 1000064 descriptors"),
            "{problem}"
        );
        let (_, fit) = problem.split_once("which allow ").unwrap();
        let fit = fit.split(':').next();
        let fit: usize = fit.unwrap().parse().unwrap();
        assert!(check(fit + 1).is_err());
        check(fit).unwrap();
    }

    #[test]
    fn too_many_workers_are_refused_with_the_number_that_fits() {
        let problem = check_workers(1_000_000, 1, 100).unwrap_err();
        assert!(problem.contains("which allow "), "{problem}");
        check_workers(2, 1, 100).unwrap();
    }
}
