//! `serve dispatch`: named actions, called in JSON.

use std::io;
use std::sync::Arc;

use clap::Args;
use clap::builder::RangedU64ValueParser;
use jiff::Zoned;
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use serde_json::{Number, Value};
use serveloop::layer::{Alarm, Observed, Screen};
use serveloop::{Peer, Statistics};
use serveloop_dispatch::{ActionError, Actions, Dispatch, sum_exactly};

use crate::protocols::timestamp::check_zone;
use crate::serving::{BoundServer, Execution};

/// Calls actions by name: JSON values in, JSON values out.
///
///   $ serveloop serve dispatch
///   listening on tcp://127.0.0.1:9999
///
/// In another terminal, type requests; each is answered with a line:
///
///   $ nc 127.0.0.1 9999
///   {"action": "sum", "numbers": [1, 2, 3]}
///   {"ok":true,"result":6}
///   {"action": "launch"}
///   {"ok":false,"error":{"code":"unknown_action","message":"no action \"launch\"; ...","at":"/action"}}
///
/// The action echo returns its parameters with every digit of their numbers, time returns the time,
/// sum adds numbers exactly, as decimal numbers (0.1 and 0.2 are 0.3), and help lists all actions.
///
/// A value may arrive in any number of pieces, and a piece may hold several values, with or without
/// whitespace between them. An error has a code and a place: a JSON pointer into the value, or a byte
/// of the stream if the value is not JSON. In that case the connection is closed, because it is unclear
/// where the next value begins; after any other error it stays open. A value has at most --max-frame
/// bytes.
///
/// Each datagram is answered with a datagram:
///
///   $ serveloop serve dispatch --listen udp://127.0.0.1:9999
///   $ nc -u 127.0.0.1 9999
///
/// A reply to another machine's datagram is dropped if it is longer than --reply-factor times the
/// datagram; try --reply-factor 10. No reply has more than 65,507 bytes.
#[derive(Args, Debug)]
#[command(verbatim_doc_comment)]
pub(crate) struct DispatchOptions {
    /// The most levels of arrays and objects in a value, up to 126
    #[arg(
        long,
        value_name = "NUMBER",
        default_value = "32",
        value_parser = RangedU64ValueParser::<usize>::new().range(1..=126)
    )]
    max_depth: usize,
}

impl DispatchOptions {
    pub(crate) fn serve(self, server: BoundServer, execution: Execution) -> io::Result<Statistics> {
        check_zone();
        let actions = Arc::new(actions());
        let alarm = Alarm::default();
        execution.serve(server, move |peer: &Peer| {
            let dispatch = Dispatch::new(Arc::clone(&actions)).with_max_depth(self.max_depth);
            // An HTTP method is not a JSON value, so `Dispatch` refuses such a stream before it
            // acts.
            Some(Observed::new(
                dispatch,
                Screen::new(peer, &alarm).answering(),
            ))
        })
    }
}

#[derive(Deserialize)]
struct Sum {
    numbers: Vec<Number>,
}

#[derive(Serialize)]
struct Time {
    /// Seconds since 1970.
    unix: i64,
    /// The local time, as in RFC 3339.
    local: String,
}

fn actions() -> Actions {
    let echo = |parameters: Value| Ok(parameters);
    let time = |_: IgnoredAny| Ok(time(&Zoned::now()));
    Actions::new()
        .register("echo", "returns its parameters: {...}", echo)
        .register("sum", "adds numbers: {\"numbers\": [...]}", sum)
        .register(
            "time",
            "returns the time: seconds since 1970, and local time",
            time,
        )
}

fn time(now: &Zoned) -> Time {
    let local = now.strftime("%Y-%m-%dT%H:%M:%S%:z").to_string();
    let unix = now.timestamp().as_second();
    Time { unix, local }
}

/// Returns the exact sum. Refuses one that is beyond the range of `f64`, as such a number in a
/// request is, and one with more digits than anybody needs.
fn sum(Sum { numbers }: Sum) -> Result<Number, ActionError> {
    let refused = |code, message| Err(ActionError::new(message).with_code(code).at("/numbers"));
    let Some(sum) = sum_exactly(&numbers) else {
        return refused("inexact", "the exact sum has too many digits");
    };
    if sum.as_f64().is_none_or(f64::is_infinite) {
        return refused("overflow", "the sum is out of range");
    }
    Ok(sum)
}

#[cfg(test)]
mod tests {
    use jiff::civil::date;
    use jiff::tz::{TimeZone, offset};
    use serde_json::json;

    use super::*;

    fn sum_of(numbers: Value) -> Result<Number, ActionError> {
        sum(serde_json::from_value(json!({ "numbers": numbers })).unwrap())
    }

    #[test]
    fn sums_are_exact_or_refused() {
        assert_eq!(json!(sum_of(json!([])).unwrap()), json!(0));
        assert_eq!(json!(sum_of(json!([1, 2, -5])).unwrap()), json!(-2));
        assert_eq!(json!(sum_of(json!([1, 0.5])).unwrap()), json!(1.5));
        assert_eq!(
            sum_of(json!([i64::MAX, 1])).unwrap().to_string(),
            "9223372036854775808"
        );
        assert_eq!(
            sum_of(json!([u64::MAX, 1])).unwrap().to_string(),
            "18446744073709551616"
        );

        assert_eq!(sum_of(json!([0.1, 0.2])).unwrap().to_string(), "0.3");
        assert!(sum_of(json!([f64::MAX, f64::MAX])).is_err());
    }

    #[test]
    fn the_time_has_its_zone() {
        let zone = TimeZone::fixed(offset(-5));
        let now = date(1970, 1, 1).at(0, 0, 1, 0).to_zoned(zone).unwrap();
        let expected = json!({"unix": 18_001, "local": "1970-01-01T00:00:01-05:00"});
        assert_eq!(json!(time(&now)), expected);
    }
}
