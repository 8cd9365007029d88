//! Integration tests of the library, one module per theme.
#![expect(
    clippy::unwrap_used,
    reason = "what cannot be unwrapped is a failure of the test"
)]

mod deadlines;
mod framing;
mod loop_echo;
mod loop_faults;
mod model_protocols;
mod model_server;
mod models;
mod models_rules;
mod pauses;
mod probe;
mod protocols;
mod session;
mod support;
mod transcripts;
