//! The memory of a process, as Linux tells it.

use std::fs;

/// Returns the value in KiB of a field of /proc/PID/status, such as `VmHWM`. `None` if there is no
/// such process, field or file.
pub(crate) fn kib(process: u32, field: &str) -> Option<usize> {
    let status = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let value = status
        .lines()
        .find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))?;
    value.trim().strip_suffix(" kB")?.parse().ok()
}
