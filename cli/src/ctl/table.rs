//! Answers as people read them.

use std::fmt::Write;

use serde_json::Value;

use crate::escaped::on_one_line;

use serveloop::protocols::counted;

/// The columns of a list: the heading, the field, how its value is written, and whether it is a number.
type Column = (&'static str, &'static str, fn(&Value) -> String, Side);

/// On which side of a column its values are.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Left,
    Right,
}

const COLUMNS: [Column; 9] = [
    ("ID", "id", text_of, Side::Right),
    ("PEER", "peer", text_of, Side::Left),
    ("LISTENING ON", "listening", text_of, Side::Left),
    ("AGE", "age", span, Side::Right),
    ("IDLE", "idle", span, Side::Right),
    ("IN", "received", bytes, Side::Right),
    ("OUT", "sent", bytes, Side::Right),
    ("HELD", "held", bytes, Side::Right),
    ("STATE", "state", text_of, Side::Left),
];

/// Returns a value as it is: a text without quotes, and a dash for what is not known.
pub(crate) fn text_of(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => on_one_line(text),
        other => other.to_string(),
    }
}

/// Returns seconds as a short duration.
pub(crate) fn span(value: &Value) -> String {
    let Some(seconds) = value.as_f64() else {
        return "-".to_owned();
    };
    match seconds {
        ..0.000_999_5 => format!("{:.0}us", seconds * 1e6),
        ..0.999_5 => format!("{:.0}ms", seconds * 1e3),
        ..99.5 => format!("{seconds:.0}s"),
        ..5_970.0 => format!("{:.0}m", seconds / 60.0),
        ..356_400.0 => format!("{:.0}h", seconds / 3_600.0),
        _ => format!("{:.0}d", seconds / 86_400.0),
    }
}

/// Returns a number of bytes in binary units.
pub(crate) fn bytes(value: &Value) -> String {
    let Some(count) = value.as_u64() else {
        return "-".to_owned();
    };
    #[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
    let mut rest = count as f64;
    let mut unit = "";
    for larger in ["K", "M", "G", "T"] {
        if rest < 9_999.5 {
            break;
        }
        rest /= 1_024.0;
        unit = larger;
    }
    format!("{rest:.0}{unit}")
}

/// Returns a list of connections as a table.
pub(super) fn connections(answer: &Value) -> String {
    let empty = Vec::new();
    let all = answer["connections"].as_array().unwrap_or(&empty);
    let head = COLUMNS.map(|(heading, ..)| heading.to_owned());
    let cells = |connection: &Value| COLUMNS.map(|(_, field, write, _)| write(&connection[field]));
    let rows: Vec<_> = [head].into_iter().chain(all.iter().map(cells)).collect();
    let widths: [usize; COLUMNS.len()] = std::array::from_fn(|column| {
        let lengths = rows.iter().map(|row| row[column].chars().count());
        lengths.max().unwrap_or_default()
    });

    let mut text = String::new();
    for row in &rows {
        let mut line = String::new();
        for ((cell, width), (.., side)) in row.iter().zip(widths).zip(COLUMNS) {
            // A string takes everything.
            let _ = match side {
                Side::Left => write!(line, "{cell:<width$}  "),
                Side::Right => write!(line, "{cell:>width$}  "),
            };
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }

    let (shown, found) = (
        all.len() as u64,
        answer["found"].as_u64().unwrap_or_default(),
    );
    if found > shown {
        let _ = writeln!(text, "({} more)", found - shown);
    }
    text + &late(answer)
}

/// Returns one connection, a field in each line.
pub(super) fn connection(answer: &Value) -> String {
    let mut text = String::new();
    for (name, value) in answer.as_object().into_iter().flatten() {
        let written = match name.as_str() {
            "age" | "idle" => span(value),
            _ => text_of(value),
        };
        let _ = writeln!(text, "{name:<10}{written}");
    }
    text
}

/// Returns the counters that are not zero, after what else is known.
pub(super) fn stats(answer: &Value) -> String {
    let mut text = String::new();
    let mut line = |name: &str, value: String| {
        let _ = writeln!(text, "{name:<28}{value}");
    };
    for name in ["protocol", "version", "process", "phase"] {
        line(name, text_of(&answer[name]));
    }
    line("uptime", span(&answer["uptime"]));
    for name in ["open", "listeners", "loops"] {
        line(name, text_of(&answer[name]));
    }
    line("buffered", bytes(&answer["buffered"]));
    for (name, field) in [("loop lag", "lag"), ("turn", "turn")] {
        for quantile in ["p50", "p99"] {
            let value = format!("<= {}", span(&answer[field][quantile]));
            line(&format!("{name} {quantile}"), value);
        }
    }
    for (name, count) in answer["statistics"].as_object().into_iter().flatten() {
        if count.as_u64() != Some(0) {
            line(name, text_of(count));
        }
    }
    text + &late(answer)
}

/// Returns a line about loops that did not answer, if there are any.
fn late(answer: &Value) -> String {
    match answer["unanswered"].as_u64() {
        None | Some(0) => String::new(),
        Some(count) => {
            let loops = counted(count, "loop", "loops");
            let what = if count == 1 { "it" } else { "them" };
            let age = span(&answer["age"]);
            format!("({loops} did not answer: what is shown of {what} is {age} old)\n")
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn numbers_are_short() {
        for (seconds, expected) in [
            (0.0, "0us"),
            (0.000_25, "250us"),
            (0.25, "250ms"),
            (0.999_7, "1s"),
            (99.4, "99s"),
            (99.6, "2m"),
            (7_200.0, "2h"),
            (864_000.0, "10d"),
        ] {
            assert_eq!(span(&json!(seconds)), expected);
        }
        for (count, expected) in [
            (0_u64, "0"),
            (9_999, "9999"),
            (10_240, "10K"),
            (1 << 30, "1024M"),
            (u64::MAX, "16777216T"),
        ] {
            assert_eq!(bytes(&json!(count)), expected);
        }
        assert_eq!(
            (span(&Value::Null), bytes(&Value::Null)),
            ("-".into(), "-".into())
        );
    }

    #[test]
    fn a_list_is_a_table_that_no_peer_can_draw_in() {
        let answer = json!({
            "connections": [
                { "id": 7, "peer": "unix:///tmp/\u{1b}[2J\nroot", "listening": null, "age": 3.0, "idle": null,
                  "received": 5, "sent": 20_480, "held": 0, "state": "open" },
            ],
            "found": 3, "unanswered": 1, "age": 2.0,
        });
        let text = connections(&answer);
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines.len(), 4, "{text}");
        assert!(lines[0].starts_with("ID  PEER"), "{text}");
        assert!(
            lines[1].contains("20K") && lines[1].ends_with("open"),
            "{text}"
        );
        assert!(!text.contains('\u{1b}'), "{text}");
        assert_eq!(lines[2], "(2 more)");
        assert_eq!(
            lines[3],
            "(1 loop did not answer: what is shown of it is 2s old)"
        );
    }
}
