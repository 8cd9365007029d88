//! Log lines in JSON: one object on one line, with the fields of its event.

use std::fmt::Write as _;
use std::io::{self, Write};
use std::sync::OnceLock;
use std::time::SystemTime;

use log::kv::{self, Key, Value, VisitSource};
use log::{Level, Record};

use crate::logger::TARGET;

use serveloop::protocols::counted;

/// The key of a listener's number, in place of which a line has its URI.
const LISTENER: &str = "listener";

/// The key of a connection's number, which every line about one has.
const ID: &str = "id";

/// What the lines about connections say in addition to their own fields.
static SERVER: OnceLock<ServerFields> = OnceLock::new();

struct ServerFields {
    protocol: &'static str,
    listeners: Vec<String>,
}

/// Sets the protocol of the server, and the URIs of its listeners in the order of their numbers. Only
/// the first call counts.
pub(crate) fn describe_server(protocol: &'static str, listeners: Vec<String>) {
    let _ = SERVER.set(ServerFields {
        protocol,
        listeners,
    });
}

/// Writes a record as one line.
pub(super) fn write_record<W: Write>(to: &mut W, record: &Record<'_>) -> io::Result<()> {
    let mut line = Line::new(record.level());
    line.text("target", record.target());
    // No field of ours fails to be visited.
    let _ = record.key_values().visit(&mut line);

    let is_of_connection = record.key_values().get(Key::from(ID)).is_some();
    if let Some(server) = SERVER.get().filter(|_| is_of_connection) {
        line.text("protocol", server.protocol);
    }
    line.text("message", &record.args().to_string());
    to.write_all(line.end().as_bytes())
}

/// Returns the line about log lines that were dropped.
pub(crate) fn dropped_line(count: u64) -> String {
    let mut line = Line::new(Level::Warn);
    line.text("target", TARGET);
    let dropped = counted(count, "log line was dropped", "log lines were dropped");
    line.text("message", &dropped.to_string());
    line.end()
}

/// An object that is being written.
struct Line(String);

impl Line {
    fn new(level: Level) -> Self {
        let mut line = Self("{".to_owned());
        let time = humantime::format_rfc3339_millis(SystemTime::now());
        line.text("time", &time.to_string());
        line.text("level", &level.as_str().to_ascii_lowercase());
        line
    }

    fn key(&mut self, key: &str) {
        if self.0.len() > 1 {
            self.0.push(',');
        }
        self.string(key);
        self.0.push(':');
    }

    fn text(&mut self, key: &str, value: &str) {
        self.key(key);
        self.string(value);
    }

    /// Writes something that is displayed as JSON has it.
    fn plain(&mut self, key: &str, value: impl std::fmt::Display) {
        self.key(key);
        // Writing to a string does not fail.
        let _ = write!(self.0, "{value}");
    }

    /// Writes a string, in which everything is escaped that could end a line or control a terminal.
    fn string(&mut self, text: &str) {
        self.0.push('"');
        for next in text.chars() {
            match next {
                '"' => self.0.push_str("\\\""),
                '\\' => self.0.push_str("\\\\"),
                ' '..='~' => self.0.push(next),
                _ if next.is_alphanumeric() => self.0.push(next),
                _ => next.encode_utf16(&mut [0; 2]).iter().for_each(|unit| {
                    let _ = write!(self.0, "\\u{unit:04x}");
                }),
            }
        }
        self.0.push('"');
    }

    fn end(mut self) -> String {
        self.0.push_str("}\n");
        self.0
    }
}

impl<'kvs> VisitSource<'kvs> for Line {
    fn visit_pair(&mut self, key: Key<'kvs>, value: Value<'kvs>) -> Result<(), kv::Error> {
        let key = key.as_str();
        if key == LISTENER {
            let number = value
                .to_u64()
                .and_then(|number| usize::try_from(number).ok());
            let listeners = SERVER.get().map(|server| &server.listeners);
            if let Some(uri) = number.and_then(|number| listeners?.get(number)) {
                self.text(key, uri);
                return Ok(());
            }
        }

        if let Some(number) = value.to_u64() {
            self.plain(key, number);
        } else if let Some(number) = value.to_i64() {
            self.plain(key, number);
        } else if let Some(truth) = value.to_bool() {
            self.plain(key, truth);
        } else if let Some(number) = value.to_f64().filter(|number| number.is_finite()) {
            self.plain(key, number);
        } else {
            self.text(key, &value.to_string());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(message: &str, fields: &[(&str, Value<'_>)]) -> String {
        let mut line = Vec::new();
        let mut builder = Record::builder();
        let builder = builder.level(Level::Info).target(TARGET);
        let builder = builder.key_values(&fields);
        let written = write_record(&mut line, &builder.args(format_args!("{message}")).build());
        written.unwrap();
        String::from_utf8(line).unwrap()
    }

    #[test]
    fn a_line_is_one_object_whatever_is_in_it() {
        let hostile = "a\"}\n{\"forged\":1}\r\x1b[2J\u{2028}\u{202e}\u{9b}\\ gr\u{fc}n \u{1f600}";
        let line = written(hostile, &[("peer", Value::from(hostile))]);
        assert_eq!(line.matches('\n').count(), 1);
        assert!(line.ends_with("}\n"));
        let is_order =
            |c: char| c != '\n' && (c.is_control() || c == '\u{202e}' || c == '\u{2028}');
        assert!(!line.contains(is_order), "{line:?}");

        let parsed: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(parsed["message"], hostile);
        assert_eq!(parsed["peer"], hostile);
        assert_eq!(parsed.get("forged"), None);
    }

    #[test]
    fn fields_have_their_types() {
        let fields = [
            ("id", Value::from(7_u64)),
            ("offset", Value::from(-7_i64)),
            ("seconds", Value::from(0.25)),
            ("odd", Value::from(f64::NAN)),
            ("marked", Value::from(true)),
            ("reason", Value::from("closed by the peer")),
        ];
        let line = written("said", &fields);
        let parsed: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(parsed["id"], 7);
        assert_eq!(parsed["offset"], -7);
        assert_eq!(parsed["seconds"], 0.25);
        assert_eq!(parsed["odd"], "NaN");
        assert_eq!(parsed["marked"], true);
        assert_eq!(parsed["reason"], "closed by the peer");
        assert_eq!(parsed["level"], "info");
        assert!(parsed["time"].as_str().unwrap().ends_with('Z'));
    }
}
