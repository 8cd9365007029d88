//! Counts that do not depend on how busy the machine is, per message.

use std::io;
use std::path::Path;

use serveloop_measure::{Calls, Cores, Pace, Scenario, Tool, Tracer, line, per_message};

use crate::options::Options;
use crate::process::Running;
use crate::servers::Kind;

/// How many connections are counted at most: a port stays in use for a minute.
const CONNECTIONS: u64 = 4_000;

pub(crate) fn count(options: &Options, cores: &Cores) -> io::Result<()> {
    println!(
        "\ncounts per message: {} connections, {} bytes, {} messages",
        options.few(),
        options.size,
        options.messages
    );
    if works(Tool::Callgrind) {
        println!("{}", line([10, 25], ["", "user-space instructions"]));
        for &kind in &options.servers {
            let each = instructions_per_message(options, kind, cores)?;
            println!("{}", line([10, 25], [kind.name(), &format!("{each:.0}")]));
        }
    }
    if !works(Tool::Strace) {
        return Ok(());
    }
    let widths = [10, 14, 8, 8, 8];
    println!(
        "{}",
        line(widths, ["", "system calls", "read", "write", "wait"])
    );
    for &kind in &options.servers {
        let each: [f64; 4] = calls_per_message(options, kind, cores)?.into();
        let [all, reads, writes, waits] = each.map(|each| format!("{each:.3}"));
        println!(
            "{}",
            line(widths, [kind.name(), &all, &reads, &writes, &waits])
        );
    }
    Ok(())
}

/// Instructions in user space that a message costs.
pub(crate) fn instructions_per_message(
    options: &Options,
    kind: Kind,
    cores: &Cores,
) -> io::Result<f64> {
    let run = |messages| {
        let read = |tracer: &Tracer| Ok([tracer.instructions()?]);
        trace(Tool::Callgrind, options, kind, cores, messages, read)
    };
    Ok(per_message(half(options), run)?[0])
}

/// System calls that a message costs.
pub(crate) fn calls_per_message(
    options: &Options,
    kind: Kind,
    cores: &Cores,
) -> io::Result<Calls<f64>> {
    let run = |messages| {
        let read = |tracer: &Tracer| Ok(tracer.calls()?.into());
        trace(Tool::Strace, options, kind, cores, messages, read)
    };
    Ok(Calls::from(per_message(half(options), run)?))
}

/// Whether the tool can do its work; if not, that is said.
pub(crate) fn works(tool: Tool) -> bool {
    let works = tool.works();
    if !works {
        let program = tool.program();
        println!("skipped: {program} is missing, or may not trace a process here");
    }
    works
}

/// System calls that a connection with one message costs, from its beginning to its end.
pub(crate) fn calls_per_connection(
    options: &Options,
    kind: Kind,
    cores: &Cores,
) -> io::Result<f64> {
    let options = Options {
        messages: options.messages.min(CONNECTIONS),
        ..options.clone()
    };
    let run = |connections| {
        let read = |tracer: &Tracer| Ok([tracer.calls()?.all]);
        let scenario = Scenario {
            pace: Pace::Churn,
            ..scenario(&options, kind)
        };
        trace_load(
            Tool::Strace,
            &options,
            kind,
            cores,
            (scenario, connections),
            read,
        )
    };
    Ok(per_message(half(&options), run)?[0])
}

fn half(options: &Options) -> u64 {
    (options.messages / 2).max(1)
}

/// Runs a server under `tool` for `messages` messages, and returns the counts.
fn trace<const N: usize>(
    tool: Tool,
    options: &Options,
    kind: Kind,
    cores: &Cores,
    messages: u64,
    read: impl FnOnce(&Tracer) -> io::Result<[u64; N]>,
) -> io::Result<[u64; N]> {
    let load = (scenario(options, kind), messages);
    trace_load(tool, options, kind, cores, load, read)
}

fn scenario(options: &Options, kind: Kind) -> Scenario {
    Scenario {
        connections: options.few(),
        size: options.size,
        shape: kind.shape(),
        ..Scenario::default()
    }
}

/// Runs a server under `tool` for the messages of a load, and returns the counts.
fn trace_load<const N: usize>(
    tool: Tool,
    options: &Options,
    kind: Kind,
    cores: &Cores,
    (scenario, messages): (Scenario, u64),
    read: impl FnOnce(&Tracer) -> io::Result<[u64; N]>,
) -> io::Result<[u64; N]> {
    let program = format!("{tool:?}").to_lowercase();
    let name = format!("{program}.out.{}.{messages}", kind.name());
    let tracer = Tracer::new(tool, Path::new(env!("CARGO_TARGET_TMPDIR")), &name);

    // On one core either side does all that it can before the other runs, so that all connections are
    // ready in every turn, however busy the machine is.
    let cores = Cores {
        servers: vec![cores.generator],
        generator: cores.generator,
    };
    let server = Running::start_by(&[], kind, &cores, Some(&tracer), &scenario)?;
    let mut load = server.load(&scenario)?;
    load.exchange_messages(messages)?;
    // The connections still stand, so that their ends are in neither of the two runs.
    server.end_traced()?;

    let counted = read(&tracer)?;
    if options.keep {
        println!("{:<10} {}", "", tracer.keep().display());
    }
    Ok(counted)
}
