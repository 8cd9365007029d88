//! The resources that a process holds, according to the system.

use std::fs::{read_dir, read_to_string};

/// How much memory a server may keep, in KiB. Allocators keep some of what was freed, but that does
/// not grow with time.
const GROWTH_KIB: u64 = 32 * 1_024;

/// The resources that a process holds.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Holdings {
    descriptors: usize,
    threads: usize,
    children: usize,
    kib: u64,
}

impl Holdings {
    pub(crate) fn of(process: u32) -> Self {
        let count =
            |what: &str| read_dir(format!("/proc/{process}/{what}")).map_or(0, Iterator::count);
        let children = format!("/proc/{process}/task/{process}/children");
        let children = read_to_string(children).unwrap_or_default();

        let status = read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|line| line.split_whitespace().next()?.parse().ok());

        Self {
            descriptors: count("fd"),
            threads: count("task"),
            children: children.split_whitespace().count(),
            kib: kib.unwrap_or(0),
        }
    }

    pub(crate) fn is_back_at(&self, start: &Self) -> bool {
        let kib = start.kib;
        self.kib < kib + GROWTH_KIB && Self { kib, ..*self } == *start
    }
    pub(crate) fn and_now(&self, now: &Self) -> String {
        format!(
            "descriptors {} -> {}, threads {} -> {}, children {} -> {}, KiB {} -> {}",
            self.descriptors,
            now.descriptors,
            self.threads,
            now.threads,
            self.children,
            now.children,
            self.kib,
            now.kib
        )
    }
}
