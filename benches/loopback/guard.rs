//! What messages and connections may cost, as counts, which do not depend on how busy a machine is. For
//! continuous integration: fails when a count has risen.

use std::io;

use serveloop_measure::{Cores, Tool};

use crate::counts::{calls_per_connection, calls_per_message, instructions_per_message, works};
use crate::options::Options;
use crate::servers::Kind;

/// What is counted, of which server, with how many connections, and the most that it may be: a little
/// above the present cost, so that a rise by five parts in a hundred does not pass. Another compiler may
/// need other numbers.
const INSTRUCTIONS: [(&str, Kind, usize, f64); 5] = [
    ("an echoed message, the command", Kind::Command, 100, 315.0),
    (
        "an echoed message, the library",
        Kind::Serveloop,
        100,
        315.0,
    ),
    ("a turn with one message", Kind::Command, 1, 820.0),
    ("an echoed frame", Kind::Framed, 100, 540.0),
    ("an echoed line", Kind::Lines, 100, 540.0),
];

/// One read, one write, and a share of a wait.
const CALLS_MOST: f64 = 2.05;

/// Connections of one message: accept, register, read, write, the peer's end, close, and shares of a
/// wait and of an accept that finds nothing. Where the server closes first, it ends its side too.
const CONNECTIONS: [(&str, Kind, f64); 2] = [
    ("a connection that the client closes", Kind::Serveloop, 6.6),
    ("a connection that the server closes", Kind::Closing, 7.6),
];

/// Fails for a count above its limit; without a tool that works the count is left out, and said so.
pub(crate) fn guard(options: &Options, cores: &Cores) -> io::Result<()> {
    let mut outcome = Ok(());
    let mut check = |what: &str, each: f64, unit: &str, most: f64| {
        println!("{what}: {each:.3} {unit}, at most {most}");
        if each > most && outcome.is_ok() {
            let problem = format!("{what} costs {each:.3} {unit}, more than {most}");
            outcome = Err(io::Error::other(problem));
        }
    };

    if works(Tool::Callgrind) {
        for (what, kind, connections, most) in INSTRUCTIONS {
            let options = Options {
                connections: vec![connections],
                ..options.clone()
            };
            let each = instructions_per_message(&options, kind, cores)?;
            check(what, each, "user-space instructions", most);
        }
    }
    if works(Tool::Strace) {
        let each = calls_per_message(options, Kind::Serveloop, cores)?.all;
        check("an echoed message", each, "system calls", CALLS_MOST);
        for (what, kind, most) in CONNECTIONS {
            let each = calls_per_connection(options, kind, cores)?;
            check(what, each, "system calls", most);
        }
    }
    outcome
}
