//! JSON values in, JSON values out: a protocol of [`serveloop`] that calls actions by their name.
//!
//! A client sends `{"action": "NAME", ...}`; what else the object holds are the action's parameters.
//! Only what was registered can be called. Values may be cut into any number of segments, and several
//! may share one, with or without whitespace between them. Replies come in the order of the requests,
//! one line each.
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
//! A result is `{"ok":true,"result":...}`, anything else
//! `{"ok":false,"error":{"code":"...","message":"...","at":...}}`. The message is for people; `at` is
//! a number or a string, by the kind of the error.
//!
//! What is wrong with the text itself closes the connection after the reply, since nobody can tell
//! where the next value begins. `at` is the byte, counted from 0 at the beginning of the connection,
//! where it was noticed:
//!
//! | code | what is wrong |
//! |---|---|
//! | `invalid_json` | no JSON: NaN, half a surrogate pair, a number that no `f64` holds, trailing data |
//! | `too_deep` | more levels of arrays and objects than allowed |
//! | `too_long` | a value of more than `max_frame` bytes |
//! | `truncated` | the stream ended inside a value |
//!
//! What is wrong with the meaning of a value concerns that value alone. `at` is a JSON pointer
//! (RFC 6901) into it, `""` being the whole:
//!
//! | code | what is wrong |
//! |---|---|
//! | `duplicate_key` | an object, at the pointer, has a key twice, and the value is JSON otherwise |
//! | `reserved_key` | a key by which `serde_json` itself marks numbers, and the value is JSON otherwise |
//! | `not_an_object` | the value is no object |
//! | `missing_action` | the object has no `action` |
//! | `wrong_type` | a parameter is missing, or not what the action takes, or `action` is no string |
//! | `unknown_action` | no action of that name is registered |
//! | `failed`, or a code of its own | the action itself says so |
//! | `reply_too_long` | the reply does not fit `max_output`, or a UDP datagram: 65,507 bytes |
//!
//! A message, or a pointer, of more than 256 bytes is cut and ends in `...`.
//!
//! # Values
//! A value is an object, an array, a string, a number, `true`, `false` or `null`; the first two and
//! strings end with their last character, the others with the next one that cannot belong to them,
//! or with the stream. Numbers keep the digits that they were sent with, until a type of an action
//! takes them: an `f64` is the nearest one, an integer is exact or refused, a
//! [`serde_json::Value`] has them as they are. [`sum_exactly`] adds them. A datagram holds
//! values as a stream does, most simply one, and what they reply comes back in one datagram.
//!
//! A value is read, and its action run, in one go, while the other connections of an event loop wait;
//! how long that takes is in proportion to its length, whatever keys were chosen, so that `max_frame`
//! says how long they wait at most. Values of many small parts cost the most: at its 1 MiB more than
//! 100 ms.

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
