//! The lines of a transcript.

use std::fmt::Write;
use std::time::Duration;

use jiff::Timestamp;
use serveloop::protocols::counted;
use serveloop::service::recorder::{Chunk, Happening, RecordedConnection, RecordedEvent};

use crate::escaped::{Escaped, Quoted};

/// How a transcript is shown.
#[derive(Clone, Copy, Debug)]
pub(super) struct Style {
    /// When the record began, since the beginning of 1970, if that is known.
    pub(super) date: Option<Duration>,
    /// Whether long chunks are shown in full.
    pub(super) is_full: bool,
}

impl Style {
    /// Returns the date of a moment so long after the beginning of the record.
    fn date_of(&self, after: Duration) -> Option<String> {
        let since = self.date?.checked_add(after)?;
        let nanos = i128::try_from(since.as_nanos()).ok()?;
        let date = Timestamp::from_nanosecond(nanos).ok()?;
        Some(date.strftime("%Y-%m-%dT%H:%M:%S%.6fZ").to_string())
    }

    /// Shows a chunk: how many bytes, and which.
    fn chunk(&self, chunk: &Chunk<'_>) -> String {
        let count = count(chunk.length);
        match chunk.bytes {
            None => count,
            Some(bytes) if self.is_full => {
                let shown = Escaped(bytes).to_string().replace('"', "\\\"");
                format!("{count}: \"{shown}\"")
            }
            Some(bytes) => format!("{count}: {}", Quoted(bytes)),
        }
    }
}

fn count(bytes: u64) -> String {
    counted(bytes, "byte", "bytes").to_string()
}

/// Returns the last line: how many connections there are.
pub(super) fn head(total: u64, evicted: Option<u64>, content: bool, style: &Style) -> String {
    let mut line = counted(
        total,
        "connection was recorded",
        "connections were recorded",
    )
    .to_string();
    if let Some(date) = style.date_of(Duration::ZERO) {
        line += &format!(" from {date} on");
    }
    if let Some(evicted) = evicted.filter(|evicted| *evicted > 0) {
        let evicted = counted(evicted, "more was", "more were");
        line += &format!(", and {evicted} dropped for lack of room");
    }
    if !content {
        line += ", without content";
    }
    line + "\n"
}

/// Returns the lines about a connection, and an empty one.
pub(super) fn told(connection: &RecordedConnection, style: &Style) -> String {
    let peer = connection.peer();
    let way = match peer.listener() {
        Some(_) => "from",
        None => "to",
    };
    let mut text = format!("connection {} {way} {peer}", connection.id());
    if let Some(via) = peer.via() {
        text += &format!(" via {via}");
    }
    if let Some(listener) = peer.listener() {
        text += &format!(", listener {listener}");
    }
    text += &match style.date_of(connection.opened()) {
        Some(date) => format!(", at {date}\n"),
        None => format!(", after {:.6} s\n", connection.opened().as_secs_f64()),
    };

    let mut wrote = Wrote::default();
    for event in connection.events() {
        if let Happening::Wrote(chunk) = &event.what {
            wrote.add(chunk);
            continue;
        }
        wrote.tell(&mut text, style);
        let time = match has_time(&event.what) {
            true => format!("+{:.6}", event.at.as_secs_f64()),
            false => String::new(),
        };
        add(&mut text, &time, &line(&event, style));
    }
    wrote.tell(&mut text, style);
    if connection.end().is_none() {
        text += "              still open when the record was written\n";
    }
    text + "\n"
}

fn add(text: &mut String, time: &str, line: &str) {
    // Writing to a string does not fail.
    let _ = writeln!(text, "  {time:<11} {line}");
}

/// What a protocol has written piece by piece.
#[derive(Default)]
struct Wrote {
    length: u64,
    bytes: Option<Vec<u8>>,
}

impl Wrote {
    fn add(&mut self, chunk: &Chunk<'_>) {
        self.length += chunk.length;
        if let Some(bytes) = chunk.bytes {
            self.bytes.get_or_insert_default().extend_from_slice(bytes);
        }
    }

    /// Shows it as one chunk, if there is any.
    fn tell(&mut self, text: &mut String, style: &Style) {
        let wrote = std::mem::take(self);
        if wrote.length > 0 || wrote.bytes.is_some() {
            let chunk = Chunk {
                length: wrote.length,
                bytes: wrote.bytes.as_deref(),
            };
            add(text, "", &format!("-> {}", style.chunk(&chunk)));
        }
    }
}

/// Returns whether an event has a time of its own, and is not a part of the one before.
fn has_time(what: &Happening<'_>) -> bool {
    !matches!(
        what,
        Happening::Took(_) | Happening::Changed { .. } | Happening::Due(_) | Happening::Cut
    )
}

fn line(event: &RecordedEvent<'_>, style: &Style) -> String {
    let line = match &event.what {
        Happening::DataReceived(chunk) => format!("<- {}", style.chunk(chunk)),
        Happening::EofReceived(chunk) if chunk.length > 0 => {
            format!(
                "<- {}, and the end of the client's stream",
                style.chunk(chunk)
            )
        }
        Happening::Posted(chunk) => format!("posted: {}", style.chunk(chunk)),
        Happening::ConnectionLost(end) => {
            let dropped = match end.unsent {
                0 => String::new(),
                unsent => format!(", {unsent} dropped"),
            };
            let (received, sent) = (count(end.received), end.sent);
            format!(
                "ended: {} ({received} received, {sent} sent{dropped})",
                end.reason
            )
        }
        other => other.to_string(),
    };
    match event.waiting {
        0 => line,
        waiting => format!("{line} [{} waited for the client]", count(waiting)),
    }
}

#[cfg(test)]
mod tests {
    use serveloop::protocols::Echo;
    use serveloop::service::recorder::{Recorder, RecorderOptions, Recording};
    use serveloop::testing::MemorySession;

    use super::*;

    fn recording(recorder: &Recorder) -> Recording {
        let mut record = Vec::new();
        recorder.write(&mut record).expect("memory");
        Recording::read(&record[..]).expect("a record")
    }

    #[test]
    fn a_connection_is_told_with_everything_escaped() {
        let recorder = Recorder::new(RecorderOptions::default());
        let mut session = MemorySession::new(recorder.protocol(Echo));
        session.receive(b"a \"b\"\x1b[2J\n");
        session.stop_taking();
        session.advance(Duration::from_millis(1_500));
        session.receive(&[b'x'; 1_000]);
        session.receive_eof();
        session.take(usize::MAX);

        let style = |is_full| Style {
            date: Some(Duration::from_millis(1_767_225_600_250)),
            is_full,
        };
        let recording = recording(&recorder);
        let text = told(&recording.connections()[0], &style(false));
        let lines: Vec<_> = text.lines().collect();
        assert!(
            lines[0].ends_with(", listener 0, at 2026-01-01T00:00:00.250000Z"),
            "{text}"
        );
        let piece = r#"10 bytes: "a \"b\"\u{1b}[2J\n""#;
        assert_eq!(lines[1], "  +0.000000   connection made");
        assert_eq!(lines[2], format!("  +0.000000   <- {piece}"));
        assert_eq!(lines[3], format!("              -> {piece}"));
        assert!(
            lines[4].starts_with("  +1.500000   <- 1000 bytes: \"xxx"),
            "{text}"
        );
        assert!(lines[4].ends_with("...\""), "{text}");
        let waited = "  +1.500000   end of the peer's stream [1000 bytes waited for the client]";
        assert_eq!(lines[6], waited);
        let end = "  +1.500000   ended: closed by the peer (1010 bytes received, 1010 sent)";
        assert_eq!(lines[8], end);

        let text = told(&recording.connections()[0], &style(true));
        assert!(text.contains(&"x".repeat(1_000)), "{text}");
    }

    #[test]
    fn counts_are_in_the_last_line() {
        let style = Style {
            date: None,
            is_full: false,
        };
        assert_eq!(
            head(1, Some(0), true, &style),
            "1 connection was recorded\n"
        );
        let line = head(2, Some(3), false, &style);
        let expected = "2 connections were recorded, and 3 more were dropped for lack of room, \
                        without content\n";
        assert_eq!(line, expected);
    }
}
