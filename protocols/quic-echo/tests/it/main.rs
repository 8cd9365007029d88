//! Tests of the crate: quinn's own client over loopback, and its state machine over a bad link in
//! virtual time.
#![expect(
    clippy::unwrap_used,
    reason = "what cannot be unwrapped is a failure of the test"
)]

mod loopback;
mod session;
mod simulated;
mod support;
