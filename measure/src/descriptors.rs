//! The limits on descriptors: how many connections fit into this process, and how many workers into
//! a server.

use rustix::process::{Resource, Rlimit, setrlimit};

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
/// Fails if they do not fit, with a message that says how many do.
pub fn check(connections: usize) -> Result<(), String> {
    let hard = hard_limit();
    let fit = hard.saturating_sub(OTHERS);
    if connections as u64 > fit {
        return Err(format!(
            "{connections} connections are too many for one process: {hard} descriptors allow {fit}"
        ));
    }
    raise(connections as u64 + OTHERS)
}

/// Makes room for a server of `workers` loops, each with `listeners`, and for `connections`.
///
/// # Errors
/// Fails if they do not fit, with a message that says how many workers do.
pub fn check_workers(workers: usize, listeners: usize, connections: usize) -> Result<(), String> {
    let hard = hard_limit();
    let (others, each) = (connections as u64 + OTHERS, OF_WORKER + listeners as u64);

    let fit = hard.saturating_sub(others) / each;
    if workers as u64 > fit {
        return Err(format!(
            "{workers} workers are too many for one process: {hard} descriptors allow {fit}"
        ));
    }
    raise(workers as u64 * each + others)
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
        assert!(problem.contains(" descriptors allow "), "{problem}");
        let fit = problem.split(' ').next_back();
        let fit: usize = fit.unwrap().parse().unwrap();
        assert!(check(fit + 1).is_err());
        check(fit).unwrap();
    }

    #[test]
    fn too_many_workers_are_refused_with_the_number_that_fits() {
        let problem = check_workers(1_000_000, 1, 100).unwrap_err();
        assert!(problem.contains(" descriptors allow "), "{problem}");
        check_workers(2, 1, 100).unwrap();
    }
}
