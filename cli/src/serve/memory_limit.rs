//! How much memory the system lets this process have, and buffers that fit into it: a server that
//! ends some connections goes on serving the others, and one that is killed serves nobody.

use std::fs;
use std::path::Path;

use rustix::process::{Resource, getrlimit};
use serveloop::Config;

use crate::logger::TARGET;

/// Buffers may take this part of the memory: code, stacks and tables need the rest.
const BUFFERS: u64 = 2;
/// Systems write "no limit" as a number of this size.
const UNLIMITED: u64 = 1 << 60;
const CGROUPS: &str = "/sys/fs/cgroup";

/// The least of the limits, and what set it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Memory {
    bytes: u64,
    by: &'static str,
}

/// Lowers the default of `max_buffered` to what fits, and warns of a value that was chosen and does
/// not.
pub(crate) fn fit(config: &mut Config) {
    let Some(memory) = limit() else {
        return;
    };
    let chosen = config.max_buffered != Config::default().max_buffered;
    let Some(fitting) = fitting(config, memory.bytes) else {
        return;
    };
    let Memory { bytes, by } = memory;
    let before = config.max_buffered;
    if chosen {
        log::warn!(
            target: TARGET, "--max-buffered is {before} bytes, and this process may have {bytes} ({by}): slow clients \
             may have it killed; {fitting} or less is safe"
        );
        return;
    }
    config.max_buffered = fitting;
    log::info!(target: TARGET, "--max-buffered is {fitting} bytes, since this process may have {bytes} ({by})");
}

/// What `max_buffered` may be where it does not fit.
fn fitting(config: &Config, memory: u64) -> Option<usize> {
    let room = usize::try_from(memory / BUFFERS).unwrap_or(usize::MAX);
    let fitting = room.max(config.max_output);
    (config.max_buffered > fitting).then_some(fitting)
}

fn limit() -> Option<Memory> {
    let resources = [(Resource::As, "ulimit -v"), (Resource::Data, "ulimit -d")];
    let ours = resources.into_iter().filter_map(|(resource, by)| {
        let bytes = getrlimit(resource).current?;
        Some(Memory { bytes, by })
    });
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let group = of_groups(&groups, |path| fs::read_to_string(path).ok());
    let group = group.map(|bytes| Memory {
        bytes,
        by: "its control group",
    });
    ours.chain(group)
        .filter(|memory| memory.bytes < UNLIMITED)
        .min_by_key(|memory| memory.bytes)
}

/// The least limit of the control groups in `text`, the lines of /proc/self/cgroup, and of those above
/// them. `read` gives the content of a file.
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
        assert_eq!(fitting(&config, 1 << 30), None);
        assert_eq!(fitting(&config, 128 << 20), Some(64 << 20));
        assert_eq!(fitting(&config, 1), Some(config.max_output));
    }
}
