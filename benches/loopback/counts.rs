//! Counts that do not depend on how busy the machine is: instructions in user space, by callgrind,
//! and system calls, by strace. Both slow the server so much that all connections are ready whenever
//! it looks. A count per message is the difference of two runs, which leaves the start out.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use crate::generator::{Generator, Pattern};
use crate::options::Options;
use crate::process::Running;
use crate::servers::Kind;

/// The calls that an echo server makes for a message, by the names that differ between servers.
const READS: [&str; 2] = ["read", "recvfrom"];
const WRITES: [&str; 3] = ["write", "sendto", "writev"];
const WAITS: [&str; 3] = ["epoll_wait", "epoll_pwait", "epoll_pwait2"];

/// A program that counts while a server runs.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Tool {
    Callgrind,
    Strace,
}

/// System calls per message.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Calls {
    pub(crate) all: f64,
    pub(crate) reads: f64,
    pub(crate) writes: f64,
    pub(crate) waits: f64,
}

pub(crate) fn count(options: &Options) -> io::Result<()> {
    println!(
        "\ncounts per message: {} connections, {} bytes, {} messages",
        options.few(),
        options.size,
        options.messages
    );
    if Tool::Callgrind.works() {
        println!("{:<10} {:>25}", "", "user-space instructions");
        for &kind in &options.servers {
            let each = instructions_per_message(options, kind)?;
            println!("{:<10} {each:>25.0}", kind.name());
        }
    }
    if !Tool::Strace.works() {
        return Ok(());
    }
    println!(
        "{:<10} {:>14} {:>8} {:>8} {:>8}",
        "", "system calls", "read", "write", "wait"
    );
    for &kind in &options.servers {
        let each = calls_per_message(options, kind)?;
        println!(
            "{:<10} {:>14.3} {:>8.3} {:>8.3} {:>8.3}",
            kind.name(),
            each.all,
            each.reads,
            each.writes,
            each.waits
        );
    }
    Ok(())
}

/// Instructions in user space that a message costs.
pub(crate) fn instructions_per_message(options: &Options, kind: Kind) -> io::Result<f64> {
    let run = |messages| Ok([instructions(options, kind, messages)?]);
    Ok(difference(options, run)?[0])
}

/// System calls that a message costs.
pub(crate) fn calls_per_message(options: &Options, kind: Kind) -> io::Result<Calls> {
    let run = |messages| calls(options, kind, messages);
    let [all, reads, writes, waits] = difference(options, run)?;
    Ok(Calls {
        all,
        reads,
        writes,
        waits,
    })
}

impl Tool {
    /// Whether it is there and allowed to do its work; if not, that is said.
    pub(crate) fn works(self) -> bool {
        let (program, arguments): (&str, &[&str]) = match self {
            Self::Callgrind => ("valgrind", &["--tool=none"]),
            Self::Strace => ("strace", &["-c"]),
        };
        let works = Command::new(program)
            .args(arguments)
            .arg("true")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|status| status.success());
        if !works {
            println!("skipped: {program} is missing, or may not trace a process here");
        }
        works
    }
}

/// What one message more costs: half as many are run first, then all.
#[expect(
    clippy::cast_precision_loss,
    reason = "counts of one run are far below 2^52"
)]
fn difference<const N: usize>(
    options: &Options,
    mut run: impl FnMut(u64) -> io::Result<[u64; N]>,
) -> io::Result<[f64; N]> {
    let half = (options.messages / 2).max(1);
    let less = run(half)?;
    let more = run(2 * half)?;
    Ok(std::array::from_fn(|place| {
        (more[place] as f64 - less[place] as f64) / half as f64
    }))
}

fn instructions(options: &Options, kind: Kind, messages: u64) -> io::Result<u64> {
    let file = file("callgrind.out", kind, messages);
    let output = format!("--callgrind-out-file={}", file.display());
    let tool = ["valgrind", "--quiet", "--tool=callgrind", &output];
    let text = trace(&tool, &file, options, kind, messages)?;
    if options.keep {
        println!("{:<10} {}", "", file.display());
    }
    text.lines()
        .find_map(|line| line.strip_prefix("totals: ")?.trim().parse().ok())
        .ok_or_else(|| io::Error::other("callgrind wrote no total"))
}

/// All system calls, those that read, those that write, those that wait.
fn calls(options: &Options, kind: Kind, messages: u64) -> io::Result<[u64; 4]> {
    let file = file("strace.out", kind, messages);
    let output = file.display().to_string();
    let tool = ["strace", "-f", "-c", "-o", &output];
    let text = trace(&tool, &file, options, kind, messages)?;
    let mut calls = [0; 4];
    for (name, count) in text.lines().filter_map(summary) {
        calls[0] += count;
        for (place, names) in [(1, &READS[..]), (2, &WRITES), (3, &WAITS)] {
            if names.contains(&name) {
                calls[place] += count;
            }
        }
    }
    Ok(calls)
}

/// A line of strace's table: share, seconds, microseconds per call, calls, errors if any, name.
fn summary(line: &str) -> Option<(&str, u64)> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let name = *fields.last()?;
    let count = fields.get(3)?.parse().ok()?;
    (name != "total").then_some((name, count))
}

/// Runs a server under `tool` for so many messages, and gives what the tool wrote into `file`.
fn trace(
    tool: &[&str],
    file: &PathBuf,
    options: &Options,
    kind: Kind,
    messages: u64,
) -> io::Result<String> {
    let server = Running::start_under(tool, kind)?;
    let pattern = Pattern::new(options.size, kind.shape());
    let mut generator = Generator::connect(server.address, options.few(), pattern)?;
    generator.run_messages(messages)?;
    // The connections still stand, so that their ends are in neither of the two runs.
    server.terminate()?;
    let text = fs::read_to_string(file)?;
    if !options.keep {
        fs::remove_file(file)?;
    }
    Ok(text)
}

fn file(tool: &str, kind: Kind, messages: u64) -> PathBuf {
    let name = format!("{tool}.{}.{messages}", kind.name());
    PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name)
}
