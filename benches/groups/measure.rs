//! The measurements, one function for each mode.

use std::io;
use std::path::Path;
use std::thread;
use std::time::Duration;

use serveloop_measure::{Cores, Figure, Machine, Tool, Tracer, line, per_message, turns};

use crate::options::{Mode, Options};
use crate::room::Room;
use crate::servers::Kind;

const WIDTHS: [usize; 2] = [12, 26];
/// How long a server may take for work after which it reports nothing.
const REST: Duration = Duration::from_millis(100);
/// Messages after which everybody who does not read lags.
const FILLING: u64 = 40;
/// How often the one that publishes is timed in a round.
const TIMED: usize = 300;

pub(crate) fn measure(options: &Options) -> io::Result<()> {
    let cores = Cores::divide()?.with_one_for_servers();
    println!("groups over loopback TCP, {cores}");
    println!("{}", Machine::of_this(cores.count()));

    for mode in &options.modes {
        match mode {
            Mode::Counts => counts(options, &cores)?,
            Mode::Memory => memory(options, &cores)?,
            Mode::Lagging => lagging(options, &cores)?,
        }
    }
    Ok(())
}

fn counts(options: &Options, cores: &Cores) -> io::Result<()> {
    let (members, size) = (options.members, options.size);
    println!("\nper delivery: {members} members, {size} bytes");
    for (tool, what) in [
        (Tool::Callgrind, "user-space instructions"),
        (Tool::Strace, "system calls"),
    ] {
        if !works(tool) {
            continue;
        }
        println!("{}", line(WIDTHS, ["", what]));
        for &kind in &options.servers {
            let each = per_message(options.messages, |messages| {
                trace(tool, options, kind, cores, messages)
            })?[0];
            let each = each / (members + 1) as f64;
            println!("{}", line(WIDTHS, [kind.name(), &format!("{each:.3}")]));
        }
    }
    Ok(())
}

/// Whether the tool can do its work; if not, that is said.
fn works(tool: Tool) -> bool {
    let works = tool.works();
    if !works {
        let program = tool.program();
        println!("skipped: {program} is missing, or may not trace a process here");
    }
    works
}

fn tracer(tool: Tool, kind: Kind, messages: u64) -> Tracer {
    let program = format!("{tool:?}").to_lowercase();
    let name = format!("groups.{program}.out.{}.{messages}", kind.name());
    Tracer::new(tool, Path::new(env!("CARGO_TARGET_TMPDIR")), &name)
}

/// Returns what `tool` has counted.
fn counted(tool: Tool, tracer: Tracer, options: &Options) -> io::Result<[u64; 1]> {
    let count = match tool {
        Tool::Callgrind => tracer.instructions()?,
        Tool::Strace => tracer.calls()?.all,
    };
    if options.keep {
        println!("{:<12} {}", "", tracer.keep().display());
    }
    Ok([count])
}

/// On one core, either side does all that it can before the other runs.
fn joined(cores: &Cores) -> Cores {
    Cores {
        servers: vec![cores.generator],
        generator: cores.generator,
    }
}

/// Runs a server under `tool` for `messages` messages that everybody receives.
fn trace(
    tool: Tool,
    options: &Options,
    kind: Kind,
    cores: &Cores,
    messages: u64,
) -> io::Result<[u64; 1]> {
    let tracer = tracer(tool, kind, messages);
    let mut room = Room::start(kind, &joined(cores), Some(&tracer), options.size)?;
    room.join(options.members)?;
    for _ in 0..messages {
        room.publish()?;
        room.receive()?;
    }
    room.end_traced()?;
    counted(tool, tracer, options)
}

/// Memory is not a matter of luck, so it is looked at once.
fn memory(options: &Options, cores: &Cores) -> io::Result<()> {
    println!("\nmemory: {} idle members, sent to once", options.members);
    println!("{}", line(WIDTHS, ["", "bytes per member"]));
    for &kind in &options.servers {
        let mut room = Room::start(kind, cores, None, options.size)?;
        room.join(1)?;
        let before = used(&mut room)?;
        room.join(options.members)?;
        let each = used(&mut room)?.saturating_sub(before) as f64 / options.members as f64;
        println!("{}", line(WIDTHS, [kind.name(), &format!("{each:.0}")]));
    }
    Ok(())
}

/// Returns the memory of a server after a message to everybody, in bytes.
fn used(room: &mut Room) -> io::Result<u64> {
    room.publish()?;
    room.receive()?;
    resident(room)
}

fn resident(room: &Room) -> io::Result<u64> {
    thread::sleep(REST);
    let memory = room.process.family().memory();
    memory.ok_or_else(|| io::Error::other("the system does not tell the memory of a process"))
}

/// Members that never read: what each costs, and whether they hold up the one that publishes.
fn lagging(options: &Options, cores: &Cores) -> io::Result<()> {
    let (lagging, long) = (options.lagging, options.long);
    println!("\nlagging: {lagging} members that never read, {long} bytes");

    let mut slow = Room::start(Kind::Narrow, cores, None, long)?;
    slow.join_narrow(lagging)?;
    let before = resident(&slow)?;
    for _ in 0..FILLING {
        slow.publish()?;
    }
    let grown = resident(&slow)?.saturating_sub(before) as f64;
    let shared = FILLING as f64 * long as f64;
    let each = (grown - shared).max(0.0) / lagging as f64;
    row(
        "bytes per member without the messages",
        &format!("{each:.0}"),
    );

    let mut quick = Room::start(Kind::Narrow, cores, None, long)?;
    quick.join(lagging)?;
    let mut times = [Vec::new(), Vec::new()];
    for place in turns(options.rounds, 2) {
        let p99 = match place {
            0 => p99(&mut quick, Room::receive)?,
            _ => p99(&mut slow, |_| Ok(()))?,
        };
        times[place].push(p99);
    }
    let [quick, slow] = &times;
    if let Some(ratio) = Figure::ratio(slow, quick) {
        row(
            "p99 of who publishes, to a group that reads",
            &ratio.to_string(),
        );
    }
    lagging_counts(options, cores)
}

/// Returns the 99th of 100 times that a message takes to come back to the one that published it, in
/// microseconds.
fn p99(room: &mut Room, rest: fn(&mut Room) -> io::Result<()>) -> io::Result<f64> {
    let mut times = Vec::new();
    for _ in 0..TIMED {
        times.push(room.publish()?.as_secs_f64() * 1e6);
        rest(room)?;
    }
    times.sort_by(f64::total_cmp);
    Ok(times[times.len() * 99 / 100])
}

/// A member that is woken once for all that it does not read costs little more than an entry in its
/// queue for each message, and no system call.
fn lagging_counts(options: &Options, cores: &Cores) -> io::Result<()> {
    // The smoke test does without the tools.
    if !options.modes.contains(&Mode::Counts) && options.rounds == 1 {
        return Ok(());
    }
    for (tool, what) in [
        (
            Tool::Callgrind,
            "user-space instructions per message not read",
        ),
        (
            Tool::Strace,
            "system calls per message, all members together",
        ),
    ] {
        if !works(tool) {
            continue;
        }
        let [each] = per_message(FILLING, |messages| {
            let tracer = tracer(tool, Kind::Narrow, messages);
            let mut room = Room::start(Kind::Narrow, &joined(cores), Some(&tracer), options.long)?;
            room.join_narrow(options.lagging)?;
            for _ in 0..messages {
                room.publish()?;
            }
            room.end_traced()?;
            counted(tool, tracer, options)
        })?;
        let members = match tool {
            Tool::Callgrind => options.lagging as f64,
            Tool::Strace => 1.0,
        };
        row(what, &format!("{:.2}", each / members));
    }
    Ok(())
}

fn row(what: &str, figure: &str) {
    println!("{}", line([48, 22], [what, figure]));
}
