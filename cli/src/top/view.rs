//! What `top` shows: lines of text, made of the server's answers.

use std::time::Instant;

use serde_json::Value;

use crate::ctl::{bytes, span, text_of};
use crate::monitoring::By;
use crate::top::looks::Look;

/// The orders that a key goes through.
const ORDERS: [(By, &str); 4] = [
    (By::Traffic, "traffic"),
    (By::Held, "memory"),
    (By::Idle, "idle"),
    (By::Age, "age"),
];

/// The last answers, and those before, from which rates follow.
#[derive(Debug)]
pub(super) struct View {
    order: By,
    stats: Value,
    list: Value,
    taken: Option<Instant>,
    rates: Option<Rates>,
}

/// How much happened in a second.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Rates {
    read: f64,
    written: f64,
    accepted: f64,
    turns: f64,
}

impl View {
    pub(super) fn new(order: By) -> Self {
        Self {
            order,
            stats: Value::Null,
            list: Value::Null,
            taken: None,
            rates: None,
        }
    }

    pub(super) fn order(&self) -> By {
        self.order
    }

    /// Goes on to the next order.
    pub(super) fn change_order(&mut self) {
        let place = ORDERS.iter().position(|(order, _)| *order == self.order);
        let next = place.map_or(0, |place| (place + 1) % ORDERS.len());
        self.order = ORDERS[next].0;
    }

    /// Takes new answers.
    pub(super) fn take(&mut self, look: Look, now: Instant) {
        let Look { stats, list } = look;
        let passed = self.taken.map(|taken| now.duration_since(taken));
        let passed = passed.filter(|passed| !passed.is_zero());
        self.rates = passed.map(|passed| {
            let rate = |name: &str| {
                let before = self.stats["statistics"][name].as_f64();
                let after = stats["statistics"][name].as_f64();
                let more = after.unwrap_or_default() - before.unwrap_or_default();
                more.max(0.0) / passed.as_secs_f64()
            };
            Rates {
                read: rate("bytes_read"),
                written: rate("bytes_written"),
                accepted: rate("accepted"),
                turns: rate("turns"),
            }
        });
        (self.stats, self.list, self.taken) = (stats, list, Some(now));
    }

    /// Returns the lines of a screen of this size. None is longer, and there are no more.
    pub(super) fn lines(&self, columns: usize, rows: usize) -> Vec<String> {
        let mut lines = self.head();
        lines.push(String::new());
        lines.push(format!(
            "{:>8}  {:<40}  {:>5}  {:>5}  {:>6}  {:>6}  {:>6}  STATE",
            "ID", "PEER", "AGE", "IDLE", "IN", "OUT", "HELD"
        ));
        let connections = self.list["connections"].as_array();
        for it in connections.into_iter().flatten() {
            lines.push(format!(
                "{:>8}  {:<40}  {:>5}  {:>5}  {:>6}  {:>6}  {:>6}  {}",
                text_of(&it["id"]),
                text_of(&it["peer"]),
                span(&it["age"]),
                span(&it["idle"]),
                bytes(&it["received"]),
                bytes(&it["sent"]),
                bytes(&it["held"]),
                text_of(&it["state"]),
            ));
        }

        lines.truncate(rows);
        for line in &mut lines {
            *line = line.chars().take(columns).collect();
        }
        lines
    }

    fn head(&self) -> Vec<String> {
        let stats = &self.stats;
        let listening = stats["listening"].as_array().into_iter().flatten();
        let listening: Vec<_> = listening.map(text_of).collect();
        let order = ORDERS.iter().find(|(order, _)| *order == self.order);
        let order = order.map_or("age", |(_, name)| name);
        let quantiles = |field: &str| {
            let [p50, p99] = ["p50", "p99"].map(|name| span(&stats[field][name]));
            format!("p50 <= {p50}, p99 <= {p99}")
        };
        let late = match stats["unanswered"].as_u64() {
            None | Some(0) => String::new(),
            Some(count) => format!("  {count} STUCK for {}", span(&stats["age"])),
        };

        vec![
            format!(
                "serveloop {}  {}  {} for {}  {}",
                text_of(&stats["protocol"]),
                listening.join(" "),
                text_of(&stats["phase"]),
                span(&stats["uptime"]),
                self.rate(|rates| rates.turns, " turns/s"),
            ),
            format!(
                "open {}  accepted {} {}  buffered {}",
                text_of(&stats["open"]),
                text_of(&stats["statistics"]["accepted"]),
                self.rate(|rates| rates.accepted, "/s"),
                bytes(&stats["buffered"]),
            ),
            format!(
                "read {} {}  written {} {}",
                bytes(&stats["statistics"]["bytes_read"]),
                self.rate(|rates| rates.read, " B/s"),
                bytes(&stats["statistics"]["bytes_written"]),
                self.rate(|rates| rates.written, " B/s"),
            ),
            format!("lag {}  turn {}", quantiles("lag"), quantiles("turn")),
            format!(
                "loops {}{late}  [o] order: {order}  [q] quit",
                text_of(&stats["loops"])
            ),
        ]
    }

    fn rate(&self, of: impl Fn(Rates) -> f64, unit: &str) -> String {
        self.rates
            .map_or_else(String::new, |rates| format!("({:.0}{unit})", of(rates)))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;

    use super::*;

    fn stats(read: u64) -> Value {
        json!({
            "protocol": "echo", "listening": ["tcp://127.0.0.1:9999"], "phase": "serving", "uptime": 3.0,
            "open": 1, "buffered": 0, "loops": 1, "unanswered": 0, "age": 0.0,
            "statistics": { "bytes_read": read, "bytes_written": 0, "accepted": 1, "turns": 7 },
            "lag": { "p50": 0.001, "p99": null }, "turn": { "p50": 0.000_05, "p99": 0.001 },
        })
    }

    fn look(stats: Value) -> Look {
        let list = list();
        Look { stats, list }
    }

    fn list() -> Value {
        let peer = "tcp://127.0.0.1:4711";
        let one = json!({ "id": 7, "peer": peer, "age": 1.0, "idle": 1.0, "received": 5, "sent": 5,
                          "held": 0, "state": "open" });
        json!({ "connections": [one, one, one], "found": 3 })
    }

    #[test]
    fn rates_are_of_the_time_between_two_looks() {
        let (mut view, begin) = (View::new(By::Traffic), Instant::now());
        view.take(look(stats(1_000)), begin);
        assert_eq!(view.rates, None);
        view.take(look(stats(5_000)), begin + Duration::from_secs(2));
        let lines = view.lines(200, 50);
        assert!(lines[2].contains("(2000 B/s)"), "{lines:?}");
        assert_eq!(lines.len(), 7 + 3);
        assert!(lines[9].contains("tcp://127.0.0.1:4711"), "{lines:?}");
    }

    #[test]
    fn lines_fit_the_screen() {
        let mut view = View::new(By::Age);
        view.take(look(stats(0)), Instant::now());
        for (columns, rows) in [(0, 0), (1, 1), (10, 3), (80, 8), (300, 100)] {
            let lines = view.lines(columns, rows);
            assert!(lines.len() <= rows);
            assert!(lines.iter().all(|line| line.chars().count() <= columns));
        }
    }

    #[test]
    fn a_key_goes_through_all_orders() {
        let mut view = View::new(By::Traffic);
        let orders: Vec<_> = (0..4)
            .map(|_| {
                view.change_order();
                view.order()
            })
            .collect();
        assert_eq!(orders, [By::Held, By::Idle, By::Age, By::Traffic]);
    }

    #[test]
    fn a_stuck_loop_is_named() {
        let mut view = View::new(By::Age);
        let mut stats = stats(0);
        (stats["unanswered"], stats["age"]) = (json!(1), json!(42.0));
        view.take(look(stats), Instant::now());
        let lines = view.lines(200, 50);
        assert!(lines[4].contains("1 STUCK for 42s"), "{lines:?}");
    }
}
