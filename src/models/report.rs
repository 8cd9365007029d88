//! The report that a child process sends to its parent about the connection it served.

use std::os::unix::net::UnixStream;

use crate::error::CloseReason;
use crate::models::ending;
use crate::models::interrupt::TOLD;
use crate::session::catch;
use crate::statistics::Statistics;
use crate::sys;

/// The first byte of a report. [`TOLD`] may come before or after the report.
const REPORT: u8 = 2;

/// Sends the final report of a process, and drops the reason, which may hold a user's error.
pub(super) fn send(
    to_parent: &UnixStream,
    statistics: &mut Statistics,
    reason: Option<Box<CloseReason>>,
) {
    let described = reason.as_deref().map(ending::describe);
    statistics.panics += u64::from(catch(|| drop(reason)).is_none());
    // Ignore a failure, since a parent that is gone counts nothing.
    let _ = sys::send_all(
        to_parent,
        &write(statistics, &described.unwrap_or_default()),
    );
}

/// Encodes the counters and the reason, which is empty unless the connection failed.
fn write(statistics: &Statistics, reason: &[u8]) -> Vec<u8> {
    let counts = statistics.iter().flat_map(|(_, count)| count.to_le_bytes());
    let mut report = vec![REPORT];
    report.extend(counts);
    report.extend((reason.len() as u64).to_le_bytes());
    report.extend(reason);
    report
}

/// Decodes the counters, and the reason if the connection failed. Returns `None` if the report is
/// missing or incomplete.
pub(super) fn read(heard: &[u8]) -> Option<(Statistics, Option<CloseReason>)> {
    let report = heard.strip_prefix(&[TOLD]).unwrap_or(heard);
    let (counts, reason, _) = split(report)?;

    let mut counted = Statistics::default();
    for (counter, count) in counted.counters().zip(counts.chunks_exact(8)) {
        *counter = count.try_into().map_or(0, u64::from_le_bytes);
    }
    Some((counted, ending::understand(reason)))
}

/// Splits a report into counters, reason and what follows. Returns `None` if it is incomplete.
fn split(report: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let report = report.strip_prefix(&[REPORT])?;
    let length = Statistics::default().iter().count() * size_of::<u64>();
    let (counts, rest) = report.split_at_checked(length)?;
    let (length, rest) = rest.split_first_chunk()?;
    let length = usize::try_from(u64::from_le_bytes(*length)).ok()?;
    let (reason, rest) = rest.split_at_checked(length)?;
    Some((counts, reason, rest))
}

/// Returns whether the process has said that its session knows of the shutdown.
pub(super) fn is_told(heard: &[u8]) -> bool {
    heard.first() == Some(&TOLD) || split(heard).is_some_and(|(.., rest)| !rest.is_empty())
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
        let report = write(&statistics, &ending::describe(&CloseReason::Panicked));
        let told = [&[TOLD][..], &report].concat();
        let told_late = [&report[..], &[TOLD]].concat();

        for heard in [&report, &told, &told_late] {
            let (counted, reason) = read(heard).unwrap();
            assert_eq!(counted, statistics);
            let reason = reason.expect("a reason").to_string();
            assert_eq!(reason, "in its own process: the protocol panicked");
        }

        assert!(!is_told(&report));
        assert!(is_told(&told));
        assert!(is_told(&told_late));
    }

    #[test]
    fn what_was_cut_off_is_no_report() {
        let report = write(&Statistics::default(), &[]);
        assert!(read(&report).unwrap().1.is_none());
        for length in 0..report.len() {
            assert!(read(&report[..length]).is_none());
        }
        assert!(read(&[TOLD]).is_none());
    }
}
