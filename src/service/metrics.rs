//! Metrics for Prometheus, and for what else reads its text format.
//!
//! [`write()`] turns a [`Snapshot`] into text. All names begin with `serveloop_`, times are in seconds and
//! sizes in bytes, and each statistic is there once.
//!
//! ```
//! use serveloop::service::metrics;
//! use serveloop::{Config, Server};
//!
//! let server = Server::bind(&["tcp://127.0.0.1:0".parse()?], Config::default())?;
//! let mut text = String::new();
//! metrics::write(&server.monitor().snapshot(), &mut text)?;
//! assert!(text.contains("\n# TYPE serveloop_connections_open gauge\nserveloop_connections_open 0\n"));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! | name | type | what |
//! |---|---|---|
//! | `serveloop_connections_accepted_total`, `..._connected_total` | counter | incoming connections, and outbound ones |
//! | `serveloop_connections_open` | gauge | of these, those that are open |
//! | `serveloop_connections_closed_total{reason}` | counter | of these, those that have ended |
//! | `serveloop_connections_handed_over_total` | counter | of these, those that go on in another process: the rest |
//! | `serveloop_datagram_sessions_open` | gauge | sessions of datagrams that are open |
//! | `serveloop_connections_refused_total{reason}` | counter | clients that were not served |
//! | `serveloop_read_bytes_total`, `serveloop_written_bytes_total` | counter | bytes of streams |
//! | `serveloop_buffered_bytes` | gauge | memory that connections hold |
//! | `serveloop_loop_lag_seconds` | histogram | how much later than asked for a loop begins a turn |
//! | `serveloop_turn_duration_seconds` | histogram | how long turns take |
//! | `serveloop_snapshot_age_seconds`, `serveloop_loops_unanswered` | gauge | not zero if a loop did not answer, and these figures are older |
//!
//! The others are the counters of [`Statistics`](crate::Statistics) under their own names.

use std::borrow::Cow;
use std::fmt::{self, Write};
use std::time::Duration;

use crate::service::monitor::{Histogram, Snapshot};

/// The media type of the text, for the header `Content-Type`.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Counters that are one of several under a name, told apart by the label `reason`: the beginning of
/// their names, the common name, and what it is.
const FAMILIES: [(&str, &str, &str); 2] = [
    (
        "closed_",
        "connections_closed",
        "Connections that have ended, by reason.",
    ),
    (
        "refused_",
        "connections_refused",
        "Clients that were refused, by reason.",
    ),
];

/// Counters whose name says too little alone: the counter, its name as a metric, and what it is.
const NAMED: [(&str, &str, &str); 25] = [
    (
        "accepted",
        "connections_accepted",
        "Incoming connections that got a protocol.",
    ),
    (
        "connected",
        "connections_connected",
        "Outbound connections that were begun.",
    ),
    (
        "register_errors",
        "register_errors",
        "Accepted connections that the system would not let the loop watch.",
    ),
    (
        "accept_aborted",
        "accepts_aborted",
        "Connections that were gone before they could be accepted.",
    ),
    (
        "accept_exhausted",
        "accepts_exhausted",
        "Pauses of accepting for lack of descriptors or memory.",
    ),
    ("bytes_read", "read_bytes", "Bytes read from streams."),
    (
        "bytes_written",
        "written_bytes",
        "Bytes written to streams.",
    ),
    (
        "datagrams_received",
        "datagrams_received",
        "Datagrams received.",
    ),
    (
        "datagrams_sent",
        "datagrams_sent",
        "Datagrams sent in reply.",
    ),
    (
        "datagrams_dropped",
        "datagrams_dropped",
        "Datagrams refused or too long, and replies that could not be sent.",
    ),
    (
        "datagrams_reflected",
        "datagrams_reflected",
        "Datagrams dropped because they may be replies.",
    ),
    (
        "datagrams_amplified",
        "datagrams_amplified",
        "Replies dropped because they were longer than allowed.",
    ),
    (
        "datagrams_over_rate",
        "datagrams_over_rate",
        "Datagrams dropped because of their peer's rate.",
    ),
    (
        "datagrams_undelivered",
        "datagrams_undelivered",
        "Datagrams of sessions that did not arrive, as the network reported.",
    ),
    (
        "datagrams_failed",
        "datagrams_failed",
        "Datagrams whose session ended with an error.",
    ),
    (
        "handed_over",
        "connections_handed_over",
        "Connections that go on in another process.",
    ),
    (
        "datagram_sessions",
        "datagram_sessions",
        "Sessions of a peer's datagrams that have begun.",
    ),
    (
        "datagram_sessions_ended",
        "datagram_sessions_ended",
        "Sessions of a peer's datagrams that have ended.",
    ),
    (
        "datagram_sessions_refused",
        "datagram_sessions_refused",
        "Datagrams of new peers for whom there was no room for a session.",
    ),
    (
        "peer_resets",
        "peer_resets",
        "Connections that the peer or the network reset or lost.",
    ),
    (
        "probes",
        "probes",
        "Incoming connections that ended before a byte had come.",
    ),
    (
        "rate_limited",
        "rate_limited_connections",
        "Ended connections that a rate limit had made wait.",
    ),
    (
        "cut_short",
        "cut_short_connections",
        "Connections that their protocol closed before all of its output had room.",
    ),
    ("panics", "panics", "Panics in handlers and hooks."),
    (
        "stale_events",
        "stale_events",
        "Events for an earlier connection in the same slot.",
    ),
];

/// Writes the metrics of a snapshot in the text format of Prometheus, version 0.0.4
/// ([`CONTENT_TYPE`]).
///
/// # Errors
/// Fails only if `out` does.
pub fn write(snapshot: &Snapshot, out: &mut impl Write) -> fmt::Result {
    write_counters(snapshot, out)?;
    write_gauges(snapshot, out)?;
    write_histogram(
        "loop_lag_seconds",
        "How much later than asked for a loop began a turn.",
        &snapshot.loop_lag,
        out,
    )?;
    write_histogram(
        "turn_duration_seconds",
        "How long the turns of the loops took, without waiting.",
        &snapshot.turn_time,
        out,
    )
}

fn write_counters(snapshot: &Snapshot, out: &mut impl Write) -> fmt::Result {
    let is_of_family = |name: &str| {
        let mut families = FAMILIES.iter();
        families.any(|(prefix, ..)| name.starts_with(prefix))
    };
    for (counter, count) in &snapshot.statistics {
        if is_of_family(counter) {
            continue;
        }
        let named = NAMED.iter().find(|(own, ..)| *own == counter);
        let (name, help) = match named {
            Some((_, name, help)) => (*name, Cow::Borrowed(*help)),
            None => (
                counter,
                format!("The counter {counter} of the loops.").into(),
            ),
        };
        write_head(&format!("{name}_total"), &help, "counter", out)?;
        writeln!(out, "serveloop_{name}_total {count}")?;
    }

    for (prefix, name, help) in FAMILIES {
        write_head(&format!("{name}_total"), help, "counter", out)?;
        for (counter, count) in &snapshot.statistics {
            if let Some(reason) = counter.strip_prefix(prefix) {
                let reason = reason.strip_prefix("by_").unwrap_or(reason);
                writeln!(out, "serveloop_{name}_total{{reason=\"{reason}\"}} {count}")?;
            }
        }
    }
    Ok(())
}

fn write_gauges(snapshot: &Snapshot, out: &mut impl Write) -> fmt::Result {
    let gauges = [
        (
            "connections_open",
            "Connections that are open.",
            snapshot.open,
        ),
        (
            "datagram_sessions_open",
            "Sessions of a peer's datagrams that are open.",
            snapshot.datagram_sessions(),
        ),
        (
            "buffered_bytes",
            "Memory that connections hold beyond idle ones.",
            snapshot.buffered,
        ),
        (
            "listeners",
            "Sockets that accept clients or datagrams.",
            snapshot.listeners,
        ),
        ("loops", "Event loops.", snapshot.loops),
        (
            "loops_unanswered",
            "Loops that did not answer in time, so that their figures are older.",
            snapshot.unanswered,
        ),
    ];
    for (name, help, value) in gauges {
        write_head(name, help, "gauge", out)?;
        writeln!(out, "serveloop_{name} {value}")?;
    }

    let name = "snapshot_age_seconds";
    write_head(
        name,
        "How old the oldest of these figures is.",
        "gauge",
        out,
    )?;
    writeln!(out, "serveloop_{name} {}", Seconds(snapshot.age))
}

fn write_histogram(
    name: &str,
    help: &str,
    histogram: &Histogram,
    out: &mut impl Write,
) -> fmt::Result {
    write_head(name, help, "histogram", out)?;
    for (bound, count) in histogram.cumulative() {
        match bound {
            Some(bound) => writeln!(
                out,
                "serveloop_{name}_bucket{{le=\"{}\"}} {count}",
                Seconds(bound)
            )?,
            None => writeln!(out, "serveloop_{name}_bucket{{le=\"+Inf\"}} {count}")?,
        }
    }
    writeln!(out, "serveloop_{name}_sum {}", Seconds(histogram.sum()))?;
    writeln!(out, "serveloop_{name}_count {}", histogram.count())
}

fn write_head(name: &str, help: &str, kind: &str, out: &mut impl Write) -> fmt::Result {
    writeln!(out, "# HELP serveloop_{name} {help}")?;
    writeln!(out, "# TYPE serveloop_{name} {kind}")
}

/// A duration in seconds, as a decimal number.
struct Seconds(Duration);

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.as_secs_f64())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::statistics::Statistics;

    fn text(snapshot: &Snapshot) -> String {
        let mut text = String::new();
        write(snapshot, &mut text).expect("a string takes everything");
        text
    }

    /// Returns the value of a sample.
    fn value(text: &str, sample: &str) -> Option<u64> {
        let mut lines = text.lines();
        let line = lines.find_map(|line| line.strip_prefix(sample)?.strip_prefix(' '));
        line.and_then(|value| value.parse().ok())
    }

    /// Each counter has a value of its own here, so a counter that is written twice or not at all is
    /// found.
    #[test]
    fn each_statistic_is_there_once() {
        let mut snapshot = Snapshot::default();
        let first = 7_000_001;
        for (number, counter) in snapshot.statistics.counters().enumerate() {
            *counter = first + number as u64;
        }

        let text = text(&snapshot);
        let samples = text.lines().filter(|line| !line.starts_with('#'));
        let values: Vec<u64> = samples
            .filter_map(|line| line.rsplit_once(' ')?.1.parse().ok())
            .filter(|value| *value >= first)
            .collect();
        let distinct: BTreeSet<_> = values.iter().collect();
        assert_eq!(values.len(), Statistics::default().iter().count());
        assert_eq!(distinct.len(), values.len());
    }

    #[test]
    fn every_counter_is_explained() {
        let is_named = |name: &str| NAMED.iter().any(|(own, ..)| *own == name);
        let is_of_family = |name: &str| FAMILIES.iter().any(|(own, ..)| name.starts_with(own));
        let own = ["slow_turns", "turns"];
        for (name, _) in &Statistics::default() {
            assert!(
                is_named(name) || is_of_family(name) || own.contains(&name),
                "{name}"
            );
        }
        for (name, ..) in NAMED {
            let statistics = Statistics::default();
            assert!(statistics.iter().any(|(own, _)| own == name), "{name}");
        }
    }

    /// Samples of a name follow its HELP and TYPE, and no name and no sample is there twice.
    #[test]
    fn names_and_samples_are_unique() {
        let text = text(&Snapshot::default());
        let (mut samples, mut families) = (BTreeSet::new(), BTreeSet::new());
        let mut family = String::new();
        for line in text.lines() {
            if let Some(help) = line.strip_prefix("# HELP ") {
                family = help.split(' ').next().unwrap_or_default().to_owned();
                assert!(families.insert(family.clone()), "{family}");
            } else if !line.starts_with('#') {
                let (sample, _) = line.rsplit_once(' ').expect("a value");
                assert!(sample.starts_with(&family), "{sample} in {family}");
                assert!(samples.insert(sample.to_owned()), "{sample}");
            }
        }
        assert!(families.len() > 20, "{families:?}");
    }

    #[test]
    fn histograms_are_cumulative_and_in_seconds() {
        let mut snapshot = Snapshot::default();
        for micros in [10, 2_500, 2_500, 60_000_000] {
            snapshot.turn_time.record(Duration::from_micros(micros));
        }
        let text = text(&snapshot);
        let bucket = |le: &str| {
            let sample = format!("serveloop_turn_duration_seconds_bucket{{le=\"{le}\"}}");
            value(&text, &sample)
        };
        assert_eq!(bucket("0.00001"), Some(1));
        assert_eq!(bucket("0.001"), Some(1));
        assert_eq!(bucket("0.0025"), Some(3));
        assert_eq!(bucket("10"), Some(3));
        assert_eq!(bucket("+Inf"), Some(4));
        assert_eq!(
            value(&text, "serveloop_turn_duration_seconds_count"),
            Some(4)
        );
        assert!(text.contains("serveloop_turn_duration_seconds_sum 60.00501\n"));
    }
}
