//! What an echoed message may cost, as counts, which do not depend on how busy a machine is. For
//! continuous integration: fails when a count has risen.

use std::io;

use serveloop_measure::{Cores, Tool};

use crate::counts::{calls_per_message, instructions_per_message, works};
use crate::options::Options;
use crate::servers::Kind;

/// A little above the present cost: a rise by five parts in a hundred does not pass. Another compiler may
/// need another number.
const INSTRUCTIONS_MOST: f64 = 340.0;
/// One read, one write, and a share of a wait.
const CALLS_MOST: f64 = 2.05;

/// Fails for a count above its limit; without a tool that works the count is left out, and said so.
pub(crate) fn guard(options: &Options, cores: &Cores) -> io::Result<()> {
    let mut outcome = Ok(());
    if works(Tool::Callgrind) {
        let each = instructions_per_message(options, Kind::Serveloop, cores)?;
        outcome = check("user-space instructions", each, INSTRUCTIONS_MOST);
    }
    if works(Tool::Strace) {
        let each = calls_per_message(options, Kind::Serveloop, cores)?;
        outcome = outcome.and(check("system calls", each.all, CALLS_MOST));
    }
    outcome
}

fn check(what: &str, each: f64, most: f64) -> io::Result<()> {
    println!("{each:.3} {what} per echoed message, at most {most}");
    if each <= most {
        return Ok(());
    }
    Err(io::Error::other(format!(
        "an echoed message costs {each:.3} {what}, more than {most}"
    )))
}
