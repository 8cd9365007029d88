//! Where the loop was not yet as fast as it could be, and what became of it: bulk, one connection,
//! connections that come and go, crowds that leave, several loops, framings.

use std::io;

use serveloop_measure::{Cores, Tool};

use crate::counts::{calls_per_connection, instructions_per_message, works};
use crate::departed::depart;
use crate::measure::{BULK, Trial};
use crate::options::Options;
use crate::servers::Kind;
use crate::spread::unevenness;
use crate::table::ratio;
use crate::targets::{Target, line, number};

pub(crate) fn goals(options: &Options, apart: &Cores) -> io::Result<()> {
    let together = apart.join()?;
    let few = Trial::of(options, options.few());
    for (name, size, connections) in BULK {
        let most = if size == 64 * 1024 { 1.0 } else { 1.05 };
        let trial = few.long(size, connections);
        let what = format!("CPU per message of {name}, {connections} connections, to epoll");
        processor_time(&what, trial, Target::Most(most), options, &together)?;
    }
    let one = Trial::of(options, 1);
    processor_time(
        "CPU per message, one connection, to epoll",
        one,
        Target::Most(1.03),
        options,
        &together,
    )?;
    let churn = few.churn();
    processor_time(
        "CPU per connection in churn, to epoll",
        churn,
        Target::Most(0.97),
        options,
        &together,
    )?;

    counts(options, apart)?;
    let left = depart(Kind::Serveloop, apart)?.left();
    number(
        "what a crowd has left behind, 10 survivors of 20,000",
        Target::Most(0.1),
        left,
        3,
        "",
    );
    for loops in [2, 4] {
        let off = unevenness(loops)?;
        let what = format!("connections of a loop, off from the mean of {loops}");
        number(&what, Target::Most(0.1), off, 3, "");
    }
    Ok(())
}

fn processor_time(
    what: &str,
    trial: Trial,
    target: Target,
    options: &Options,
    cores: &Cores,
) -> io::Result<()> {
    let rows = trial.rounds(&[Kind::Serveloop, Kind::Epoll], cores, options.rounds)?;
    line(what, target, ratio(&rows[0].times(), &rows[1].times()), "");
    Ok(())
}

fn counts(options: &Options, cores: &Cores) -> io::Result<()> {
    if works(Tool::Callgrind) {
        for (what, kind, connections, most) in [
            (
                "instructions per message, the built command",
                Kind::Command,
                100,
                300.0,
            ),
            (
                "instructions in a turn with one message",
                Kind::Command,
                1,
                500.0,
            ),
            ("instructions per frame", Kind::Framed, 100, 430.0),
            ("instructions per line", Kind::Lines, 100, 450.0),
        ] {
            let options = Options {
                connections: vec![connections],
                ..options.clone()
            };
            let each = instructions_per_message(&options, kind, cores)?;
            number(what, Target::Most(most), each, 0, "");
        }
    }
    if works(Tool::Strace) {
        for (what, kind, most) in [
            (
                "system calls of a connection that the client closes",
                Kind::Serveloop,
                6.0,
            ),
            (
                "system calls of a connection that the server closes",
                Kind::Closing,
                7.0,
            ),
        ] {
            let each = calls_per_connection(options, kind, cores)?;
            number(what, Target::Most(most), each, 2, "");
        }
    }
    Ok(())
}
