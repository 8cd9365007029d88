//! What the machine says about a process: its time, its memory, its cores.

use std::fs;
use std::io;
use std::process::{self, Command, Stdio};
use std::thread;
use std::time::Duration;

/// The unit of the times in /proc/pid/stat, which Linux fixes for user space at 100 a second.
const JIFFY: Duration = Duration::from_millis(10);
const PAGE: u64 = 4_096;

/// Processor time that a process has used.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Usage {
    /// All of it, from the scheduler, which counts nanoseconds.
    pub(crate) total: Duration,
    /// What the kernel attributes to user space, from its ticks.
    pub(crate) user: Duration,
    pub(crate) system: Duration,
}

impl Usage {
    pub(crate) fn of(process: u32) -> io::Result<Self> {
        let text = fs::read_to_string(format!("/proc/{process}/stat"))?;
        // The name in parentheses may contain blanks; the fields are counted from its end.
        let fields = text.rsplit_once(')').map_or("", |(_, fields)| fields);
        let mut times = fields.split_whitespace().skip(11).map(|field| {
            let jiffies = field.parse().unwrap_or(0);
            JIFFY * jiffies
        });
        let user = times.next().unwrap_or_default();
        let system = times.next().unwrap_or_default();
        let total = scheduled(process).unwrap_or(user + system);
        Ok(Self {
            total,
            user,
            system,
        })
    }

    pub(crate) fn since(self, earlier: Self) -> Self {
        Self {
            total: self.total.saturating_sub(earlier.total),
            user: self.user.saturating_sub(earlier.user),
            system: self.system.saturating_sub(earlier.system),
        }
    }

    /// Which part of the ticks fell into user space.
    pub(crate) fn user_share(self) -> f64 {
        let ticks = (self.user + self.system).as_secs_f64();
        if ticks == 0.0 {
            return 0.0;
        }
        self.user.as_secs_f64() / ticks
    }
}

/// The sum over the process's threads; `None` where the kernel was built without it.
fn scheduled(process: u32) -> Option<Duration> {
    let mut total = Duration::ZERO;
    for task in fs::read_dir(format!("/proc/{process}/task")).ok()? {
        let text = fs::read_to_string(task.ok()?.path().join("schedstat")).ok()?;
        total += Duration::from_nanos(text.split_whitespace().next()?.parse().ok()?);
    }
    Some(total)
}

/// The memory that a process has in use, in bytes.
pub(crate) fn resident(process: u32) -> io::Result<u64> {
    let text = fs::read_to_string(format!("/proc/{process}/statm"))?;
    let pages: u64 = text
        .split_whitespace()
        .nth(1)
        .and_then(|field| field.parse().ok())
        .ok_or(io::ErrorKind::InvalidData)?;
    Ok(pages * PAGE)
}

/// Sees to it that this process, and its children, can have so many descriptors.
pub(crate) fn allow_descriptors(count: usize) -> io::Result<()> {
    let limits = fs::read_to_string("/proc/self/limits")?;
    let soft = limits
        .lines()
        .find_map(|line| {
            line.strip_prefix("Max open files")?
                .split_whitespace()
                .next()
        })
        .map_or(0, |soft| soft.parse().unwrap_or(usize::MAX));
    if soft >= count {
        return Ok(());
    }
    let status = Command::new("prlimit")
        .args(["--pid", &process::id().to_string()])
        .arg(format!("--nofile={count}:"))
        .status()?;
    if status.success() {
        return Ok(());
    }
    Err(io::Error::other(format!(
        "{count} descriptors are needed, which the hard limit does not allow"
    )))
}

/// Where servers and the generator run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cores {
    pub(crate) server: usize,
    pub(crate) generator: usize,
    /// Whether processes can be pinned at all.
    pub(crate) pinned: bool,
    /// The server has all cores.
    all: bool,
}

impl Cores {
    /// Pins this process, the generator, to the server's core or to the last one. To be called once:
    /// a process that is pinned sees no other core any more.
    pub(crate) fn assign(same: bool) -> Self {
        let count = thread::available_parallelism().map_or(1, usize::from);
        let generator = if same { 0 } else { count - 1 };
        Self {
            server: 0,
            generator,
            pinned: pin(generator),
            all: false,
        }
    }

    /// Moves this process to the server's core.
    pub(crate) fn together(self) -> Self {
        Self {
            generator: self.server,
            pinned: pin(self.server),
            ..self
        }
    }

    /// The same, where the server has all cores, the generator's too.
    pub(crate) fn all(self) -> Self {
        Self { all: true, ..self }
    }

    /// The server's, as taskset takes them.
    pub(crate) fn list(self) -> String {
        if self.all {
            return format!("{}-{}", self.server, self.generator.max(self.server));
        }
        self.server.to_string()
    }

    pub(crate) fn describe(self) -> &'static str {
        if !self.pinned {
            "not pinned (no taskset)"
        } else if self.server == self.generator {
            "server and generator on one core"
        } else {
            "server and generator on two cores"
        }
    }
}

/// Whether this process runs on that core alone from now on.
fn pin(core: usize) -> bool {
    Command::new("taskset")
        .args(["-cp", &core.to_string(), &process::id().to_string()])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}
