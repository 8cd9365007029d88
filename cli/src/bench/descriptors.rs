//! How many connections fit into this process.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// No process is given more, whatever the system allows.
const MOST: u64 = 20_000;
/// Descriptors for everything but connections, here and in the servers.
const OTHERS: u64 = 64;

/// Makes room for so many connections: raises the soft limit as far as the hard limit lets us.
/// Servers that are started later inherit it.
///
/// # Errors
/// They do not fit; the text says how many do.
pub(crate) fn check(connections: usize) -> Result<(), String> {
    let limit = getrlimit(Resource::Nofile);
    let hard = limit.maximum.unwrap_or(MOST).min(MOST);
    let fit = hard.saturating_sub(OTHERS);
    if connections as u64 > fit {
        return Err(format!(
            "{connections} connections do not fit into one process: {fit} do, with {hard} descriptors"
        ));
    }
    let wanted = connections as u64 + OTHERS;
    if limit.current.is_none_or(|soft| soft >= wanted) {
        return Ok(());
    }
    let raised = Rlimit {
        current: Some(hard),
        maximum: limit.maximum,
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
        assert!(problem.contains(" do, with "), "{problem}");
        let fit = problem
            .split(": ")
            .last()
            .and_then(|text| text.split(' ').next());
        let fit: usize = fit.unwrap().parse().unwrap();
        assert!(check(fit + 1).is_err());
        check(fit).unwrap();
    }
}
