//! The report that a child process sends to its parent about the connection it served.

use std::os::unix::net::UnixStream;

use crate::error::CloseReason;
use crate::models::ending;
use crate::models::interrupt::TOLD;
use crate::session::{End, Traffic, catch};
use crate::statistics::Statistics;
use crate::sys;

/// The first byte of a report. [`TOLD`] may come before or after the report.
const REPORT: u8 = 2;

/// Sends the final report of a process, and drops the reason, which may hold a user's error.
pub(super) fn send(to_parent: &UnixStream, statistics: &mut Statistics, failure: Option<End>) {
    let described = failure.as_ref().map(|end| ending::describe(end.reason()));
    let bytes = failure.as_ref().map(|end| Bytes::of(&end.traffic));
    statistics.panics += u64::from(catch(|| drop(failure)).is_none());

    let (bytes, described) = (bytes.unwrap_or_default(), described.unwrap_or_default());
    // Ignore a failure, since a parent that is gone counts nothing.
    let _ = sys::send_all(to_parent, &write(statistics, bytes, &described));
}

/// How many bytes the connection received, sent and dropped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Bytes([u64; 3]);

impl Bytes {
    fn of(traffic: &Traffic) -> Self {
        Self([traffic.received, traffic.sent, traffic.unsent])
    }

    /// Puts the counts into `traffic`, whose moments the parent knows.
    pub(super) fn fill(self, traffic: &mut Traffic) {
        [traffic.received, traffic.sent, traffic.unsent] = self.0;
    }
}

/// Encodes the counters, and of a failed connection its bytes and the reason. Of any other, the
/// reason is empty.
fn write(statistics: &Statistics, bytes: Bytes, reason: &[u8]) -> Vec<u8> {
    let counts = statistics.iter().map(|(_, count)| count).chain(bytes.0);
    let mut report = vec![REPORT];
    report.extend(counts.flat_map(u64::to_le_bytes));
    report.extend((reason.len() as u64).to_le_bytes());
    report.extend(reason);
    report
}

/// Decodes the counters, and the reason and the bytes if the connection failed. Returns `None` if
/// the report is missing or incomplete.
pub(super) fn read(heard: &[u8]) -> Option<(Statistics, Option<(CloseReason, Bytes)>)> {
    let report = heard.strip_prefix(&[TOLD]).unwrap_or(heard);
    let (counts, reason, _) = split(report)?;

    let (mut counted, mut bytes) = (Statistics::default(), Bytes::default());
    let counters = counted.counters().chain(&mut bytes.0);
    for (counter, count) in counters.zip(counts.chunks_exact(8)) {
        *counter = count.try_into().map_or(0, u64::from_le_bytes);
    }

    let failure = ending::understand(reason).map(|reason| (reason, bytes));
    Some((counted, failure))
}

/// Splits a report into counters, reason and what follows. Returns `None` if it is incomplete.
fn split(report: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let report = report.strip_prefix(&[REPORT])?;
    let counters = Statistics::default().iter().count() + Bytes::default().0.len();
    let length = counters * size_of::<u64>();
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
        let bytes = Bytes([1, 2, u64::MAX]);
        let described = ending::describe(&CloseReason::Panicked);
        let report = write(&statistics, bytes, &described);
        let told = [&[TOLD][..], &report].concat();
        let told_late = [&report[..], &[TOLD]].concat();

        for heard in [&report, &told, &told_late] {
            let (counted, failure) = read(heard).unwrap();
            assert_eq!(counted, statistics);
            let (reason, counted_bytes) = failure.expect("a reason");
            assert_eq!(counted_bytes, bytes);
            let reason = reason.to_string();
            assert_eq!(reason, "in its own process: the protocol panicked");
        }

        assert!(!is_told(&report));
        assert!(is_told(&told));
        assert!(is_told(&told_late));
    }

    #[test]
    fn what_was_cut_off_is_no_report() {
        let report = write(&Statistics::default(), Bytes::default(), &[]);
        assert!(read(&report).unwrap().1.is_none());
        for length in 0..report.len() {
            assert!(read(&report[..length]).is_none());
        }
        assert!(read(&[TOLD]).is_none());
    }
}
