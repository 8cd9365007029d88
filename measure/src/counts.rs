//! Counts that do not depend on how busy the machine is: instructions in user space, by callgrind,
//! and system calls, by strace.
//!
//! Both slow a server so much that nothing else can be measured meanwhile, and that all connections
//! are ready whenever it looks. A count per message is the difference between two runs, which
//! leaves out the start and the end.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::{fs, io};

/// The calls that an echo server makes for a message, by the names that differ between servers.
const READS: [&str; 2] = ["read", "recvfrom"];
const WRITES: [&str; 3] = ["write", "sendto", "writev"];
const WAITS: [&str; 3] = ["epoll_wait", "epoll_pwait", "epoll_pwait2"];

/// A program that counts while a server runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tool {
    /// Counts instructions in user space.
    Callgrind,
    /// Counts system calls.
    Strace,
}

/// System calls: of one run, or per message.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Calls<T> {
    /// All calls.
    pub all: T,
    /// Those that read from a connection.
    pub reads: T,
    /// Those that write to a connection.
    pub writes: T,
    /// Those that wait for events.
    pub waits: T,
}

/// A tool, and the file that it writes. The file is removed on drop.
#[derive(Debug)]
pub struct Tracer {
    tool: Tool,
    file: PathBuf,
}

impl Tool {
    /// Returns whether the program is there and allowed to do its work.
    #[must_use]
    pub fn works(self) -> bool {
        let (program, arguments): (&str, &[&str]) = match self {
            Self::Callgrind => (self.program(), &["--tool=none"]),
            Self::Strace => (self.program(), &["-c"]),
        };
        Command::new(program)
            .args(arguments)
            .arg("true")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|status| status.success())
    }

    /// Returns the name of the program.
    #[must_use]
    pub fn program(self) -> &'static str {
        match self {
            Self::Callgrind => "valgrind",
            Self::Strace => "strace",
        }
    }
}

impl Tracer {
    /// Returns the tool with a file named `name` in `directory`.
    #[must_use]
    pub fn new(tool: Tool, directory: &Path, name: &str) -> Self {
        let file = directory.join(name);
        Self { tool, file }
    }

    /// Returns the words of the command line that come before the server's own.
    pub(crate) fn words(&self) -> Vec<OsString> {
        let file = self.file.clone().into_os_string();
        let words = |words: &[&str]| words.iter().map(OsString::from).collect();
        let mut all: Vec<OsString> = match self.tool {
            Tool::Callgrind => words(&["valgrind", "--quiet", "--tool=callgrind"]),
            Tool::Strace => words(&["strace", "-f", "-c", "-o"]),
        };

        match self.tool {
            Tool::Callgrind => {
                let mut option = OsString::from("--callgrind-out-file=");
                option.push(file);
                all.push(option);
            }
            Tool::Strace => all.push(file),
        }
        all
    }

    /// Returns whether the server is a child of the tool's process, rather than that process.
    pub(crate) fn forks(&self) -> bool {
        self.tool == Tool::Strace
    }

    /// Returns the instructions that callgrind counted.
    ///
    /// # Errors
    /// Fails if there is no such file, or if it has no total.
    pub fn instructions(&self) -> io::Result<u64> {
        let text = fs::read_to_string(&self.file)?;
        text.lines()
            .find_map(|line| line.strip_prefix("totals: ")?.trim().parse().ok())
            .ok_or_else(|| io::Error::other("callgrind wrote no total"))
    }

    /// Returns the system calls that strace counted.
    ///
    /// # Errors
    /// Fails if there is no such file, or if it has no summary.
    pub fn calls(&self) -> io::Result<Calls<u64>> {
        calls(&fs::read_to_string(&self.file)?)
            .ok_or_else(|| io::Error::other("strace wrote no summary of system calls"))
    }

    /// Leaves the file, and returns its path.
    #[must_use]
    pub fn keep(mut self) -> PathBuf {
        std::mem::take(&mut self.file)
    }
}

impl Drop for Tracer {
    fn drop(&mut self) {
        // There is no file if the tool failed.
        let _ = fs::remove_file(&self.file);
    }
}

/// Returns what one message more costs: `run` is asked first for `messages` of them, then for twice
/// as many.
///
/// # Errors
/// Those of `run`.
#[expect(
    clippy::cast_precision_loss,
    reason = "counts of one run are far below 2^52"
)]
pub fn per_message<const N: usize>(
    messages: u64,
    mut run: impl FnMut(u64) -> io::Result<[u64; N]>,
) -> io::Result<[f64; N]> {
    let less = run(messages)?;
    let more = run(2 * messages)?;
    Ok(std::array::from_fn(|place| {
        more[place].saturating_sub(less[place]) as f64 / messages as f64
    }))
}

impl<T> From<Calls<T>> for [T; 4] {
    fn from(calls: Calls<T>) -> Self {
        [calls.all, calls.reads, calls.writes, calls.waits]
    }
}

impl<T> From<[T; 4]> for Calls<T> {
    fn from([all, reads, writes, waits]: [T; 4]) -> Self {
        Self {
            all,
            reads,
            writes,
            waits,
        }
    }
}

/// Reads strace's table, whose columns are share, seconds, microseconds per call, calls, errors (if
/// any) and name.
fn calls(table: &str) -> Option<Calls<u64>> {
    let rows = table.lines().filter_map(|line| {
        let fields: Vec<_> = line.split_whitespace().collect();
        let count: u64 = fields.get(3)?.parse().ok()?;
        Some((*fields.last()?, count))
    });

    let rows: Vec<_> = rows.collect();
    let sum = |names: &[&str]| {
        let named = rows.iter().filter(|(name, _)| names.contains(name));
        named.map(|(_, count)| count).sum()
    };
    rows.iter()
        .any(|(name, _)| *name == "total")
        .then(|| Calls {
            all: sum(&["total"]),
            reads: sum(&READS),
            writes: sum(&WRITES),
            waits: sum(&WAITS),
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_of_strace_is_understood() {
        let table = "\
% time     seconds  usecs/call     calls    errors syscall
------ ----------- ----------- --------- --------- ----------------
 60.00    0.000060          20      3001         1 recvfrom
 40.00    0.000040          20      2000           sendto
------ ----------- ----------- --------- --------- ----------------
100.00    0.000100          20      5001         1 total
";
        let expected = Calls {
            all: 5_001,
            reads: 3_001,
            writes: 2_000,
            waits: 0,
        };
        assert_eq!(calls(table), Some(expected));
        assert_eq!(calls(""), None);
    }

    #[test]
    fn the_start_is_in_no_count_per_message() {
        let run = |messages| Ok([1_000 + 3 * messages, 7]);
        assert_eq!(per_message(50, run).unwrap(), [3.0, 0.0]);
    }
}
