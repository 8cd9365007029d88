//! The machine that the benchmark ran on.

use std::fs;

use rustix::system::uname;
use serde::Serialize;

#[derive(Clone, Debug, Serialize)]
pub(crate) struct Machine {
    pub(crate) processor: String,
    /// The number of cores that the benchmark uses.
    pub(crate) cores: usize,
    pub(crate) memory_bytes: Option<u64>,
    pub(crate) system: String,
}

impl Machine {
    pub(crate) fn of_this(cores: usize) -> Self {
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
