//! JSON values in, JSON values out: a [`serveloop`] protocol that calls actions by name.
//!
//! A client sends `{"action": "NAME", ...}`. The other members of the object are the action's
//! parameters. Only registered actions can be called. Values may be cut into any number of
//! segments, and several may share one, with or without whitespace between them. Replies come in
//! the order of the requests, one line each.
//!
//! ```
//! use std::sync::Arc;
//!
//! use serde::Deserialize;
//! use serveloop::testing::MemorySession;
//! use serveloop_dispatch::{ActionError, Actions, Dispatch};
//!
//! #[derive(Deserialize)]
//! struct Numbers {
//!     numbers: Vec<f64>,
//! }
//!
//! fn mean(Numbers { numbers }: Numbers) -> Result<f64, ActionError> {
//!     if numbers.is_empty() {
//!         return Err(ActionError::new("no numbers").at("/numbers"));
//!     }
//!     Ok(numbers.iter().sum::<f64>() / numbers.len() as f64)
//! }
//!
//! let actions = Arc::new(Actions::new().register("mean", "the mean of {\"numbers\": [...]}", mean));
//! let mut session = MemorySession::new(Dispatch::new(actions));
//! session.receive(br#"{"action": "mean", "numbers": [1, 2, 6]} {"action": "mean", "numbers": []}"#);
//! let replies = String::from_utf8(session.sent()).unwrap();
//! let expected = r#"{"ok":true,"result":3.0}
//! {"ok":false,"error":{"code":"failed","message":"no numbers","at":"/numbers"}}
//! "#;
//! assert_eq!(replies, expected);
//! ```
//!
//! # Replies
//! The reply to a request that succeeds is `{"ok":true,"result":...}`. Any other reply is
//! `{"ok":false,"error":{"code":"...","message":"...","at":...}}`. The message is for people. `at`
//! is a number or a string, depending on the kind of error.
//!
//! An error in the text itself closes the connection after the reply, since the start of the next
//! value is unknown. `at` is the byte where the error was noticed, counted from 0 at the start of
//! the connection:
//!
//! | code | what is wrong |
//! |---|---|
//! | `invalid_json` | not JSON: NaN, a lone surrogate, trailing data |
//! | `too_deep` | more levels of arrays and objects than allowed |
//! | `too_long` | a value of more than `max_frame` bytes |
//! | `truncated` | the stream ended inside a value |
//!
//! An error in the meaning of a value concerns only that value. `at` is a JSON pointer (RFC 6901)
//! into it. The pointer `""` is the whole value:
//!
//! | code | what is wrong |
//! |---|---|
//! | `duplicate_key` | the object at the pointer has a key twice, and the value is otherwise JSON |
//! | `reserved_key` | a key with a meaning of its own in `serde_json`, and the value is otherwise JSON |
//! | `out_of_range` | a number that no `f64` holds, and the value is otherwise JSON |
//! | `not_an_object` | the value is not an object |
//! | `missing_action` | the object has no `action` |
//! | `wrong_type` | a parameter is missing or of the wrong type, or `action` is not a string |
//! | `unknown_action` | no action of that name is registered |
//! | `failed`, or another code | the action returned an error |
//! | `reply_too_long` | the reply does not fit `max_output`, or a UDP datagram of 65,507 bytes |
//!
//! A message or a pointer of more than 256 bytes is cut and ends in `...`.
//!
//! # Values
//! A value is an object, an array, a string, a number, `true`, `false` or `null`. Objects, arrays
//! and strings end with their last character. The others end with the next character that cannot
//! belong to them, or with the stream.
//!
//! Numbers keep the digits that they were sent with until an action's type converts them. An `f64`
//! is the nearest one, an integer is exact or rejected, and a [`serde_json::Value`] keeps them as
//! they are. [`sum_exactly`] adds them.
//!
//! A datagram holds values as a stream does, usually one, and all replies to it come back in one
//! datagram.
//!
//! A value is parsed and its action runs in one go, while the other connections of an event loop
//! wait. The time for parsing is proportional to the length of the value, whatever keys the client
//! chose, so `max_frame` limits the wait. Values of many small parts cost the most. At the default
//! of 1 MiB, one can take more than 100 ms.

mod actions;
mod decimal;
mod dispatch;
mod numbers;
mod parse;
mod problem;
mod scanner;

pub use actions::{ActionError, Actions};
pub use decimal::sum_exactly;
pub use dispatch::Dispatch;
