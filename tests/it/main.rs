//! Integration tests of the library, one module per theme.
#![expect(
    clippy::unwrap_used,
    reason = "what cannot be unwrapped is a failure of the test"
)]

mod accept_errors;
mod account;
mod addresses;
mod again;
mod broken_pipes;
mod busy_polling;
#[cfg(target_os = "linux")]
mod datagram_destinations;
mod deadlines;
mod ended;
mod errors;
#[cfg(target_os = "linux")]
mod examples;
#[path = "../../examples/framed.rs"]
#[expect(dead_code, reason = "an example's tests run here, its main does not")]
mod framed_example;
mod frames;
mod framing;
mod half_close;
mod late_turns;
mod layers;
mod local_addresses;
mod log_fields;
mod loop_budget;
mod loop_calls;
mod loop_connect;
mod loop_datagrams;
mod loop_echo;
mod loop_faults;
mod loop_files;
mod loop_limits;
mod loop_shutdown;
// A poller without a descriptor cannot be watched by another.
#[cfg(not(mio_unsupported_force_poll_poll))]
mod loop_turn;
mod model_failures;
mod model_protocols;
mod model_server;
mod models;
mod models_rules;
#[cfg(target_os = "linux")]
mod namespace;
mod networks;
mod outside;
mod panics_abort;
mod pauses;
mod peers;
mod probe;
mod properties;
mod protocols;
mod proxied;
mod proxy_header;
mod regression;
mod scenarios;
mod screens;
mod scripted;
mod session;
mod short_reads;
mod socketserver;
mod support;
mod tidy;
mod transcripts;
