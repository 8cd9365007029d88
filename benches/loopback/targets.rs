//! Every target in one run, as a table for docs/BENCHMARKS.md.

use std::io;

use serveloop_measure::{Cores, Figure, Tool};

use crate::counts::{calls_per_message, instructions_per_message, works};
use crate::crowd::slowing;
use crate::goals::goals;
use crate::measure::{Trial, memory};
use crate::options::Options;
use crate::servers::Kind;
use crate::table::{Row, figure, ratio};

const CROWDS: [usize; 3] = [100, 1_000, 10_000];
/// How many times faster than threads, at each of these numbers of connections.
const BEYOND_THREADS: [f64; 3] = [1.6, 3.5, 2.7];
const PEERS: [Kind; 3] = [Kind::Edge, Kind::Mio, Kind::Tokio];

/// What is to be reached: so much at most, or at least.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Target {
    Most(f64),
    Least(f64),
    /// Measured and stated.
    Stated,
}

pub(crate) fn targets(options: &Options, apart: &Cores) -> io::Result<()> {
    println!("\n| what | target | measured | | compared with |\n|---|---|---|---|---|");
    counts(options, apart)?;
    for (connections, beyond) in CROWDS.into_iter().zip(BEYOND_THREADS) {
        let trial = Trial::of(options, connections);
        let what = format!("messages/s, {connections} connections");
        throughput(&what, trial, Some(beyond), options, apart)?;
    }
    let few = Trial::of(options, options.few());
    let piped = format!(
        "messages/s, {} connections, 16 under way",
        few.scenario.connections
    );
    throughput(&piped, few.deep(), None, options, apart)?;
    throughput(
        "messages/s, 10 connections, 64 KiB",
        few.bulk(),
        None,
        options,
        apart,
    )?;
    churn(few.churn(), options, apart)?;
    workers(few, options, &apart.with_all_for_servers())?;
    busy(options, apart)?;
    crowd(options, apart)?;
    idle(options, apart)?;
    let together = apart.join()?;
    processor_time(few, options, &together)?;
    framing(few, options, &together)?;
    goals(options, apart)
}

fn counts(options: &Options, cores: &Cores) -> io::Result<()> {
    if works(Tool::Strace) {
        let ours = calls_per_message(options, Kind::Serveloop, cores)?.all;
        let theirs = calls_per_message(options, Kind::Epoll, cores)?.all;
        let compared = format!("epoll {theirs:.3}");
        number(
            "system calls per message",
            Target::Most(2.05),
            ours,
            3,
            &compared,
        );
    }
    if works(Tool::Callgrind) {
        let ours = instructions_per_message(options, Kind::Serveloop, cores)?;
        let theirs = PEERS
            .iter()
            .map(|kind| {
                let each = instructions_per_message(options, *kind, cores)?;
                Ok(format!("{} {each:.0}", kind.name()))
            })
            .collect::<io::Result<Vec<_>>>()?;
        let compared = theirs.join(", ");
        number(
            "user-space instructions per message",
            Target::Most(340.0),
            ours,
            0,
            &compared,
        );
    }
    Ok(())
}

/// Against the best of the peers, and against threads.
fn throughput(
    what: &str,
    trial: Trial,
    beyond_threads: Option<f64>,
    options: &Options,
    cores: &Cores,
) -> io::Result<()> {
    let mut servers = vec![Kind::Serveloop, Kind::Epoll];
    servers.extend(PEERS);
    servers.extend(beyond_threads.map(|_| Kind::Threads));
    let rows = trial.rounds(&servers, cores, options.rounds)?;
    let ours = &rows[0];
    let rates = |row: &Row| ratio(&ours.rates(), &row.rates());
    let peers = &rows[2..2 + PEERS.len()];
    let best = peers
        .iter()
        .min_by(|one, other| rates(one).median.total_cmp(&rates(other).median));
    if let Some(best) = best {
        let others = list(rows[1..2 + PEERS.len()].iter(), &rates);
        let compared = format!("{:.0}/s; {others}", figure(ours.rates()).median);
        let what = format!("{what}, to the best of the peers ({})", best.name);
        line(&what, Target::Least(0.98), rates(best), &compared);
    }
    if let (Some(beyond), Some(threads)) = (beyond_threads, rows.last()) {
        let what = format!("{what}, to a thread for each");
        line(&what, Target::Least(beyond), rates(threads), "");
    }
    Ok(())
}

fn churn(trial: Trial, options: &Options, cores: &Cores) -> io::Result<()> {
    let servers = [
        Kind::Serveloop,
        Kind::Epoll,
        Kind::Mio,
        Kind::Tokio,
        Kind::Threads,
    ];
    let rows = trial.rounds(&servers, cores, options.rounds)?;
    let ours = &rows[0];
    let times = |row: &Row| ratio(&ours.times(), &row.times());
    let compared = format!(
        "{:.1} us; {}",
        figure(ours.times()).median,
        list(rows[2..4].iter(), &times)
    );
    line(
        "CPU per connection in churn, to epoll",
        Target::Most(1.05),
        times(&rows[1]),
        &compared,
    );
    line(
        "connections/s in churn, to a thread for each",
        Target::Least(2.5),
        ratio(&ours.rates(), &rows[4].rates()),
        "",
    );
    Ok(())
}

fn workers(trial: Trial, options: &Options, cores: &Cores) -> io::Result<()> {
    let servers = [Kind::Workers, Kind::Serveloop, Kind::Multi, Kind::Tokio];
    let rows = trial.rounds(&servers, cores, options.rounds)?;
    let compared = format!(
        "messages/s {}; tokio's two threads to one: CPU {}",
        ratio(&rows[0].rates(), &rows[1].rates()),
        ratio(&rows[2].times(), &rows[3].times())
    );
    line(
        "CPU per message, two workers to one loop, all on two cores",
        Target::Stated,
        ratio(&rows[0].times(), &rows[1].times()),
        &compared,
    );
    Ok(())
}

fn busy(options: &Options, cores: &Cores) -> io::Result<()> {
    let one = Trial::of(options, 1);
    for (trial, target, name) in [
        (one.spinning(), Target::Most(0.35), "a client that spins"),
        (one, Target::Stated, "a client that sleeps"),
    ] {
        let rows = trial.rounds(&[Kind::Busy, Kind::Serveloop], cores, options.rounds)?;
        let trip = |row: &Row| row.of(|sample| 1e6 / sample.rate);
        let (on, off) = (trip(&rows[0]), trip(&rows[1]));
        let compared = format!(
            "{:.1} us to {:.1} us",
            figure(on.clone()).median,
            figure(off.clone()).median
        );
        let what = format!("round trip of one connection, busy polling on to off, {name}");
        line(&what, target, ratio(&on, &off), &compared);
    }
    Ok(())
}

fn crowd(options: &Options, cores: &Cores) -> io::Result<()> {
    let slowing = slowing(Kind::Serveloop, cores, options)?;
    let (all, few) = (options.crowd, options.few());
    let what = format!("p99 of {few} active among {all} open, to {few} alone");
    line(&what, Target::Most(1.1), slowing, "");
    Ok(())
}

fn idle(options: &Options, cores: &Cores) -> io::Result<()> {
    let ours = memory(Kind::Serveloop, cores, options.idle)?;
    let theirs = [Kind::Mio, Kind::Tokio, Kind::Threads]
        .iter()
        .map(|kind| {
            let each = memory(*kind, cores, options.idle)?;
            Ok(format!("{} {each:.0}", kind.name()))
        })
        .collect::<io::Result<Vec<_>>>()?;
    let compared = theirs.join(", ");
    let what = "resident bytes per idle connection, used once";
    number(what, Target::Most(176.0), ours, 0, &compared);
    Ok(())
}

fn processor_time(trial: Trial, options: &Options, cores: &Cores) -> io::Result<()> {
    let servers = [
        Kind::Serveloop,
        Kind::Epoll,
        Kind::Edge,
        Kind::Mio,
        Kind::Tokio,
    ];
    let rows = trial.rounds(&servers, cores, options.rounds)?;
    let ours = &rows[0];
    let times = |row: &Row| ratio(&ours.times(), &row.times());
    let compared = format!(
        "{:.2} us; {}",
        figure(ours.times()).median,
        list(rows[2..].iter(), &times)
    );
    line(
        "CPU per message on one core, to epoll",
        Target::Most(0.97),
        times(&rows[1]),
        &compared,
    );
    Ok(())
}

fn framing(trial: Trial, options: &Options, cores: &Cores) -> io::Result<()> {
    let servers = [Kind::Serveloop, Kind::Framed, Kind::Lines];
    let rows = trial.rounds(&servers, cores, options.rounds)?;
    for row in &rows[1..] {
        let what = format!("CPU per message on one core, {} to raw", row.name);
        let ratio = ratio(&row.times(), &rows[0].times());
        line(&what, Target::Most(1.1), ratio, "");
    }
    Ok(())
}

impl Target {
    fn judge(self, value: f64) -> &'static str {
        let met = match self {
            Self::Most(most) => value <= most,
            Self::Least(least) => value >= least,
            Self::Stated => return "",
        };
        if met { "met" } else { "missed" }
    }

    fn describe(self) -> String {
        match self {
            Self::Most(most) => format!("at most {most}"),
            Self::Least(least) => format!("at least {least}"),
            Self::Stated => "stated".to_owned(),
        }
    }
}

pub(crate) fn line(what: &str, target: Target, ratio: Figure, compared: &str) {
    let verdict = target.judge(ratio.median);
    let target = target.describe();
    println!("| {what} | {target} | {ratio} | {verdict} | {compared} |");
}

pub(crate) fn number(what: &str, target: Target, value: f64, digits: usize, compared: &str) {
    let verdict = target.judge(value);
    let target = target.describe();
    println!("| {what} | {target} | {value:.digits$} | {verdict} | {compared} |");
}

/// Our ratio to each of `rows`.
fn list<'a>(rows: impl Iterator<Item = &'a Row>, ratio: &impl Fn(&Row) -> Figure) -> String {
    let all: Vec<String> = rows
        .map(|row| format!("to {} {:.2}", row.name, ratio(row).median))
        .collect();
    all.join(", ")
}
