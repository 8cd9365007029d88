//! The memory limit of this process, and buffers that fit into it: a server that ends a few
//! connections keeps serving the others, and one that is killed serves none.

use std::fs;
use std::path::Path;

use rustix::process::Resource;
use serveloop::Config;

use crate::logger::TARGET;
use crate::sys::{limits, share_one_heap};

/// Buffers may take one part in this many of the memory. Code, stacks and tables need the rest.
const BUFFERS: usize = 2;
/// The same with a thread for each connection, because threads may take half of the memory.
const BUFFERS_WITH_THREADS: usize = 4;
/// What one thread counts towards a limit on addresses: its stack and guard pages.
const STACK: usize = (2 << 20) + (64 << 10);
/// What one thread really uses of its stack.
const STACK_IN_USE: usize = 128 << 10;
/// Larger limits mean "no limit": systems write it as a very large number.
const UNLIMITED: u64 = 1 << 60;
const CGROUPS: &str = "/sys/fs/cgroup";

/// The lowest memory limit, and its source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Memory {
    bytes: u64,
    by: &'static str,
    /// The bytes of it that one thread takes.
    stack: usize,
}

/// Lowers the defaults of `max_buffered` and, with a thread for each connection, of
/// `max_connections` to what fits the memory limit. Warns about values that were chosen and do not
/// fit. Each of the server's `loops` may buffer up to `max_buffered`.
pub(crate) fn fit(config: &mut Config, loops: usize, has_threads: bool) {
    let Some(memory) = limit() else {
        return;
    };
    if has_threads || loops > 1 {
        share_one_heap();
    }
    let usual = Config::default();
    let Memory { bytes, by, .. } = memory;

    let threads = threads(memory);
    if has_threads && config.max_connections > threads {
        let before = config.max_connections;
        if before == usual.max_connections {
            config.max_connections = threads;
            log::info!(
                target: TARGET, "--max-connections is lowered to {threads}: each connection has a thread, and this \
                 process may use {bytes} bytes of memory ({by})"
            );
        } else {
            log::warn!(
                target: TARGET, "--max-connections is {before}: each connection has a thread, and this process may \
                 use only {bytes} bytes of memory ({by}), so many clients can get it killed; at most {threads} is safe"
            );
        }
    }

    let part = if has_threads {
        BUFFERS_WITH_THREADS
    } else {
        BUFFERS
    };
    let Some((fitting, is_safe)) = fitting(config, bytes, part * loops) else {
        return;
    };
    let before = config.max_buffered;
    if before == usual.max_buffered {
        config.max_buffered = fitting;
        log::info!(
            target: TARGET, "--max-buffered is lowered to {fitting} bytes: this process may use {bytes} bytes of \
             memory ({by})"
        );
    } else if is_safe {
        log::warn!(
            target: TARGET, "--max-buffered is {before} bytes: this process may use only {bytes} bytes of memory \
             ({by}), so slow clients can get it killed; at most {fitting} is safe"
        );
    }
    if !is_safe {
        let most = config.limits.max_output;
        log::warn!(
            target: TARGET, "--max-output is {most} bytes: this process may use only {bytes} bytes of memory ({by}), \
             so slow clients can get it killed"
        );
    }
}

/// Returns the number of threads that half of the memory suffices for, at least one.
fn threads(memory: Memory) -> usize {
    let room = usize::try_from(memory.bytes / 2).unwrap_or(usize::MAX);
    (room / memory.stack).max(1)
}

/// Returns the `max_buffered` that fits into one of `parts` equal parts of the memory, and whether
/// it is safe, or `None` if the present value fits. It always has room for one `max_output`, which
/// is not safe where the part is smaller.
fn fitting(config: &Config, memory: u64, parts: usize) -> Option<(usize, bool)> {
    let room = usize::try_from(memory).unwrap_or(usize::MAX) / parts;
    let fitting = room.max(config.limits.max_output);
    (config.max_buffered > fitting || room < fitting).then_some((fitting, room == fitting))
}

fn limit() -> Option<Memory> {
    let resources = [(Resource::As, "ulimit -v"), (Resource::Data, "ulimit -d")];
    let ours = resources.into_iter().filter_map(|(resource, by)| {
        Some(Memory {
            bytes: limits(resource)?.current?,
            by,
            stack: STACK,
        })
    });

    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let group = of_groups(&groups, |path| fs::read_to_string(path).ok());
    let group = group.map(|bytes| Memory {
        bytes,
        by: "control group",
        stack: STACK_IN_USE,
    });

    ours.chain(group)
        .filter(|memory| memory.bytes < UNLIMITED)
        .min_by_key(|memory| memory.bytes)
}

/// Returns the lowest limit of the control groups in `text`, the lines of /proc/self/cgroup, and of
/// the groups above them. `read` returns the content of a file.
fn of_groups(text: &str, read: impl Fn(&Path) -> Option<String>) -> Option<u64> {
    let limits = text.lines().filter_map(|line| {
        let (_, rest) = line.split_once(':')?;
        let (controllers, path) = rest.split_once(':')?;
        let (mount, file) = match controllers {
            "" => (CGROUPS.to_owned(), "memory.max"),
            "memory" => (format!("{CGROUPS}/memory"), "memory.limit_in_bytes"),
            _ => return None,
        };

        let path = Path::new(path.trim_start_matches('/'));
        let limit = |group: &Path| {
            let text = read(&Path::new(&mount).join(group).join(file))?;
            text.trim().parse::<u64>().ok()
        };

        path.ancestors().filter_map(limit).min()
    });
    limits.min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_limit_of_a_group_and_those_above_it_counts() {
        let files = [
            ("/sys/fs/cgroup/a/b/memory.max", "max\n"),
            ("/sys/fs/cgroup/a/memory.max", "500\n"),
            ("/sys/fs/cgroup/memory/c/memory.limit_in_bytes", "300\n"),
            (
                "/sys/fs/cgroup/memory/memory.limit_in_bytes",
                "9223372036854771712\n",
            ),
        ];
        let read = |path: &Path| {
            let found = files.iter().find(|(at, _)| Path::new(at) == path);
            found.map(|(_, text)| (*text).to_owned())
        };

        assert_eq!(of_groups("0::/a/b\n", read), Some(500));
        assert_eq!(of_groups("0::/\n", read), None);
        let old = "5:cpu:/c\n4:memory:/c\n";
        assert_eq!(of_groups(old, read), Some(300));
        // A container sees its own group at the top, whatever the line says.
        assert_eq!(
            of_groups("4:memory:/docker/x\n", read),
            Some(9_223_372_036_854_771_712)
        );
        assert_eq!(of_groups("nonsense\n", read), None);
    }

    #[test]
    fn buffers_have_half_of_the_memory_and_room_for_one_output() {
        let config = Config::default();
        assert_eq!(fitting(&config, 1 << 30, 2), None);
        assert_eq!(fitting(&config, 128 << 20, 2), Some((64 << 20, true)));
        assert_eq!(fitting(&config, 128 << 20, 8), Some((16 << 20, true)));
        assert_eq!(
            fitting(&config, 1, 2),
            Some((config.limits.max_output, false))
        );
    }

    #[test]
    fn threads_have_half_of_the_memory_and_there_is_one() {
        let memory = |bytes| Memory {
            bytes,
            by: "a test",
            stack: STACK,
        };
        assert_eq!(threads(memory(400 << 20)), 96);
        assert_eq!(threads(memory(1)), 1);
    }
}
