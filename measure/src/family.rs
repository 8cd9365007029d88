//! The processor time and memory of a server's process and of its children, as the system reports
//! them.

use std::fs;
use std::time::Duration;

use crate::platform::processor_time;

/// The unit of the times in `/proc/PID/stat`, which Linux fixes for user space at 100 per second.
const TICK: Duration = Duration::from_millis(10);
const KIB: u64 = 1_024;

/// A server's process and, if it forks, all other processes of the group that it leads.
#[derive(Clone, Copy, Debug)]
pub struct Family {
    /// The number of the server's process.
    pub leader: u32,
    /// Whether other processes do the server's work, too.
    pub forks: bool,
}

/// The fields used of a line of `/proc/PID/stat`.
#[derive(Debug, PartialEq, Eq)]
struct Stat {
    parent: u32,
    group: u32,
    /// The time of the process itself.
    own: Ticks,
    /// The time of its children that have ended.
    gone: Ticks,
}

/// Processor time as the system attributes it, by looking a hundred times a second where it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ticks {
    user: Duration,
    system: Duration,
}

impl Family {
    /// Returns the processor time of all processes, including children that have ended, or `None`
    /// if the system does not report it.
    #[must_use]
    pub fn processor_time(self) -> Option<Duration> {
        if !self.forks {
            return processor_time(self.leader);
        }
        let gone = Stat::of(self.leader)?.gone;
        let live = self.members().into_iter().filter_map(processor_time);
        Some(live.sum::<Duration>() + gone.total())
    }

    /// Returns where the processor time was spent, or `None` if the system does not report it.
    pub(crate) fn ticks(self) -> Option<Ticks> {
        let leader = Stat::of(self.leader)?;
        if !self.forks {
            return Some(leader.own);
        }
        let live = self.members().into_iter().filter_map(Stat::of);
        Some(live.fold(leader.gone, |sum, stat| sum.plus(stat.own)))
    }

    /// Returns the resident memory of all processes in bytes, with pages that they share counted once. Pages of
    /// files are left out where the system tells them apart: most are the program's, and their share changes
    /// whenever another process runs the same program.
    #[must_use]
    pub fn memory(self) -> Option<u64> {
        if !self.forks {
            return memory(self.leader);
        }
        let each: Vec<_> = self.members().into_iter().filter_map(memory).collect();
        (!each.is_empty()).then(|| each.iter().sum())
    }

    /// Returns the first child of the leader, which is the server if the leader is a tracer.
    pub(crate) fn first_child(self) -> Option<u32> {
        let child = |id: &u32| Stat::of(*id).is_some_and(|stat| stat.parent == self.leader);
        self.members().into_iter().find(child)
    }

    fn members(self) -> Vec<u32> {
        let Ok(entries) = fs::read_dir("/proc") else {
            return Vec::new();
        };
        entries
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
            .filter(|id| Stat::of(*id).is_some_and(|stat| stat.group == self.leader))
            .collect()
    }
}

impl Stat {
    fn of(process: u32) -> Option<Self> {
        Self::parse(&fs::read_to_string(format!("/proc/{process}/stat")).ok()?)
    }

    /// Parses a line. The name in parentheses may contain spaces, so fields are counted from its
    /// end.
    fn parse(line: &str) -> Option<Self> {
        let (_, fields) = line.rsplit_once(')')?;
        let fields: Vec<_> = fields.split_whitespace().collect();
        let ticks = |place: usize| fields.get(place)?.parse::<u32>().ok();
        let pair = |place: usize| {
            Some(Ticks {
                user: TICK * ticks(place)?,
                system: TICK * ticks(place + 1)?,
            })
        };

        Some(Self {
            parent: fields.get(1)?.parse().ok()?,
            group: fields.get(2)?.parse().ok()?,
            own: pair(11)?,
            gone: pair(13)?,
        })
    }
}

impl Ticks {
    fn total(self) -> Duration {
        self.user + self.system
    }

    fn plus(self, other: Self) -> Self {
        Self {
            user: self.user + other.user,
            system: self.system + other.system,
        }
    }

    /// Returns which part of the time since `earlier` was spent in user space, from 0 to 1. Without
    /// a tick in between it is 0.
    pub(crate) fn user_share(self, earlier: Self) -> f64 {
        let since = Self {
            user: self.user.saturating_sub(earlier.user),
            system: self.system.saturating_sub(earlier.system),
        };
        let total = since.total().as_secs_f64();
        if total == 0.0 {
            return 0.0;
        }
        since.user.as_secs_f64() / total
    }
}

/// Returns the processor time of this process.
pub(crate) fn own_processor_time() -> Option<Duration> {
    processor_time(std::process::id())
}

/// Returns how long this thread was ready to run but waited for its core because of others.
pub(crate) fn own_waiting_time() -> Option<Duration> {
    let text = fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    let nanos = text.split_whitespace().nth(1)?.parse().ok()?;
    Some(Duration::from_nanos(nanos))
}

fn memory(process: u32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{process}/smaps_rollup")).ok()?;
    proportional(&text)
}

fn proportional(text: &str) -> Option<u64> {
    let find = |name| text.lines().find_map(|line| line.strip_prefix(name));
    let line = find("Pss_Anon:").or_else(|| find("Pss:"))?;
    let count: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(count * KIB)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lines_of_proc_are_understood() {
        let line = "12 (a) b (c) S 7 9 9 0 -1 4194304 102 0 0 0 5 6 30 12 20 0 1 0 99 3 0";
        let stat = Stat::parse(line).unwrap();
        let ticks = |user, system| Ticks {
            user: TICK * user,
            system: TICK * system,
        };
        let expected = Stat {
            parent: 7,
            group: 9,
            own: ticks(5, 6),
            gone: ticks(30, 12),
        };
        assert_eq!(stat, expected);

        assert_eq!(Stat::parse("12 (a"), None);
        let rollup =
            "5600-7fff ---p 0 00:00 0 [rollup]\nRss:  1688 kB\nPss:   295 kB\nPss_Dirty: 1 kB\n";
        assert_eq!(proportional(rollup), Some(295 * 1_024));
        let newer = format!("{rollup}Pss_Anon:   120 kB\nPss_File:   175 kB\n");
        assert_eq!(proportional(&newer), Some(120 * 1_024));
    }

    #[test]
    fn the_share_of_user_space_is_that_of_the_time_between() {
        let ticks = |user, system| Ticks {
            user: TICK * user,
            system: TICK * system,
        };
        assert_eq!(ticks(6, 9).user_share(ticks(5, 6)), 0.25);
        assert_eq!(ticks(6, 9).user_share(ticks(6, 9)), 0.0);
    }

    #[test]
    fn our_own_time_passes() {
        let before = own_processor_time().unwrap();
        let mut sum = 0_u64;
        while own_processor_time().unwrap() == before {
            sum = std::hint::black_box(sum + 1);
        }
        assert!(own_processor_time().unwrap() > before);
    }
}
