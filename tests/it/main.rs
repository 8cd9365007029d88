//! Integration tests of the library, laid out like `src`: a room's tests have the room's name. Besides, there
//! are `project`, what concerns no room alone, and `support`, what the tests are made with.
#![expect(
    clippy::unwrap_used,
    reason = "what cannot be unwrapped is a failure of the test"
)]

mod address;
mod config;
mod error;
mod framing;
mod layer;
mod models;
mod net;
mod project;
mod protocols;
mod reactor;
mod service;
mod session;
mod support;
mod testing;
