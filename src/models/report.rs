//! What a process tells its parent of the connection that it served, as bytes.

use crate::error::CloseReason;
use crate::models::ending;
use crate::models::interrupt::TOLD;
use crate::statistics::Statistics;

/// What the last and longest message begins with. [`TOLD`] may come before it.
const REPORT: u8 = 2;

/// What a process says at its end: its counters, and why the connection ended if that is an error.
pub(super) fn write(statistics: &Statistics, reason: Option<&CloseReason>) -> Vec<u8> {
    let counts = statistics.iter().flat_map(|(_, count)| count.to_le_bytes());
    let mut report = vec![REPORT];
    report.extend(counts);
    report.extend(reason.map(ending::describe).unwrap_or_default());
    report
}

/// The counters, and why the connection ended or nothing; `None` if the process did not come to say it.
pub(super) fn read(heard: &[u8]) -> Option<(Statistics, Option<CloseReason>)> {
    let told = usize::from(is_told(heard));
    let report = heard[told..].strip_prefix(&[REPORT])?;

    let mut counted = Statistics::default();
    let length = counted.counters().count() * size_of::<u64>();
    let (counts, reason) = report.split_at_checked(length)?;
    for (counter, count) in counted.counters().zip(counts.chunks_exact(8)) {
        *counter = count.try_into().map_or(0, u64::from_le_bytes);
    }
    Some((counted, ending::understand(reason)))
}

/// Whether the process has said that its session knows of the shutdown.
pub(super) fn is_told(heard: &[u8]) -> bool {
    heard.first() == Some(&TOLD)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_whether_or_not_it_was_told() {
        let statistics = Statistics {
            accepted: 1,
            bytes_read: u64::MAX,
            ..Statistics::default()
        };
        let report = write(&statistics, Some(&CloseReason::Panicked));
        let told = [&[TOLD][..], &report].concat();
        for heard in [&report, &told] {
            let (counted, reason) = read(heard).unwrap();
            assert_eq!(counted, statistics);
            let reason = reason.expect("a reason").to_string();
            assert_eq!(reason, "in its own process: the protocol panicked");
        }
        assert!(!is_told(&report));
        assert!(is_told(&told));
    }

    #[test]
    fn what_was_cut_off_is_no_report() {
        let report = write(&Statistics::default(), None);
        assert!(read(&report).unwrap().1.is_none());
        for length in 0..report.len() {
            assert!(read(&report[..length]).is_none());
        }
        assert!(read(&[TOLD]).is_none());
    }
}
