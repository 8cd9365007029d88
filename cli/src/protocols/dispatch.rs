//! `serve dispatch`: actions called by their names, in JSON.

use std::io;
use std::sync::Arc;

use clap::Args;
use clap::builder::RangedU64ValueParser;
use jiff::Zoned;
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use serde_json::{Number, Value};
use serveloop::{Peer, Server, Statistics};
use serveloop_dispatch::{ActionError, Actions, Dispatch};

use super::timestamp::check_zone;
use crate::serve::way::Way;

/// Calls actions by their names: JSON values in, JSON values out.
///
///   $ serveloop serve dispatch
///   listening on tcp://127.0.0.1:9999
///
/// In another terminal; requests are typed, and each is answered with a line:
///
///   $ nc 127.0.0.1 9999
///   {"action": "sum", "numbers": [1, 2, 3]}
///   {"ok":true,"result":6}
///   {"action": "launch"}
///   {"ok":false,"error":{"code":"unknown_action","message":"no action \"launch\"; ...","at":"/action"}}
///
/// Actions: echo gives back its parameters; time tells the time; sum adds the numbers, whole ones exactly if 64
/// bits hold the sum; help lists
/// all actions.
///
/// A value may come in any number of pieces, and several in one, with or without whitespace
/// between them. An error tells a code, and where: a JSON pointer into the value, or, when it is
/// no JSON, the byte of the stream. Then the connection is closed, since nobody can tell where the
/// next value begins; after all other errors it goes on. A value has at most --max-frame bytes.
///
/// Datagrams are answered too, each on its own:
///
///   $ serveloop serve dispatch --listen udp://127.0.0.1:9999
///   $ nc -u 127.0.0.1 9999
///
/// Datagrams of other machines get a reply if --reply-factor is large enough, for example 10: one
/// that is longer than what it answers is dropped otherwise. No reply has more than 65,507 bytes.
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
    pub(crate) fn serve(self, server: Server, way: Way) -> io::Result<Statistics> {
        check_zone();
        let actions = Arc::new(actions());
        way.serve(server, move |_: &Peer| {
            Some(Dispatch::new(Arc::clone(&actions)).with_max_depth(self.max_depth))
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
    /// The local time, by RFC 3339.
    local: String,
}

fn actions() -> Actions {
    let echo = |parameters: Value| Ok(parameters);
    let time = |_: IgnoredAny| Ok(time(&Zoned::now()));
    Actions::new()
        .register("echo", "gives back its parameters: {...}", echo)
        .register("sum", "adds numbers: {\"numbers\": [...]}", sum)
        .register("time", "the time: seconds since 1970, and local", time)
}

fn time(now: &Zoned) -> Time {
    let local = now.strftime("%Y-%m-%dT%H:%M:%S%:z").to_string();
    let unix = now.timestamp().as_second();
    Time { unix, local }
}

/// Whole numbers have an exact sum, which is whole if 64 bits hold it, signed or not, else the nearest
/// `f64`. With others among them all are added as `f64`, in their order.
fn sum(Sum { numbers }: Sum) -> Result<Number, ActionError> {
    let add = |sum: i128, number: &Number| sum.checked_add(number.as_i128()?);
    let sum = match numbers.iter().try_fold(0, add) {
        Some(whole) => match Number::from_i128(whole) {
            Some(whole) => return Ok(whole),
            None => whole as f64,
        },
        None => numbers.iter().filter_map(Number::as_f64).sum(),
    };
    Number::from_f64(sum).ok_or_else(|| {
        let error = ActionError::new("the sum is beyond all numbers");
        error.with_code("overflow").at("/numbers")
    })
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
    fn sums_are_whole_if_they_can_be() {
        assert_eq!(json!(sum_of(json!([])).unwrap()), json!(0));
        assert_eq!(json!(sum_of(json!([1, 2, -5])).unwrap()), json!(-2));
        assert_eq!(json!(sum_of(json!([1, 0.5])).unwrap()), json!(1.5));
        let large = i64::MAX as u64 + 1;
        for order in [[json!(i64::MAX), json!(1)], [json!(1), json!(i64::MAX)]] {
            assert_eq!(json!(sum_of(json!(order)).unwrap()), json!(large));
        }
        for order in [[u64::MAX, 1], [1, u64::MAX]] {
            let beyond = json!(sum_of(json!(order)).unwrap());
            assert_eq!(beyond, json!(18_446_744_073_709_551_616.0));
        }
        let back = json!([json!(u64::MAX), json!(1), json!(-1)]);
        assert_eq!(json!(sum_of(back).unwrap()), json!(u64::MAX));
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
