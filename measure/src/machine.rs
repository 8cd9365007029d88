//! The machine that the benchmark ran on.

use std::fmt;
use std::fs;

use rustix::system::uname;
use serde::{Deserialize, Serialize};

use serveloop::protocols::counted;

/// The machine that a benchmark ran on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Machine {
    /// The model of the processor, or its kind where the system does not tell the model.
    pub processor: String,
    /// The number of cores that the benchmark uses.
    pub cores: usize,
    /// The memory in bytes, if the system tells.
    pub memory_bytes: Option<u64>,
    /// The name of the system, its release and the kind of the processor.
    pub system: String,
}

impl Machine {
    /// Describes this machine.
    #[must_use]
    pub fn of_this(cores: usize) -> Self {
        let system = uname();
        let text = |part: &std::ffi::CStr| part.to_string_lossy().into_owned();
        let (name, release) = (text(system.sysname()), text(system.release()));
        let kind = text(system.machine());
        Self {
            processor: field("/proc/cpuinfo", "model name").unwrap_or_else(|| kind.clone()),
            cores,
            memory_bytes: memory(),
            system: format!("{name} {release} {kind}"),
        }
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}, {}, {}",
            self.processor,
            counted(self.cores, "core", "cores"),
            self.system
        )
    }
}

fn memory() -> Option<u64> {
    let text = field("/proc/meminfo", "MemTotal")?;
    let count: u64 = text.strip_suffix(" kB")?.parse().ok()?;
    Some(count * 1_024)
}

fn field(file: &str, name: &str) -> Option<String> {
    let text = fs::read_to_string(file).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    let (_, value) = line.split_once(':')?;
    Some(value.trim().to_owned())
}
