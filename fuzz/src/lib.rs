//! Parts of serveloop against reference models, driven by arbitrary bytes.
//!
//! A [`Target`] decodes its bytes into whatever its part takes, runs the part and a naive model of
//! it, and panics where the two differ. The fuzzer searches for such bytes, and the tests run the
//! same targets on random ones and on the corpus.

pub mod addresses;
pub mod dispatch;
// The command's, which its head of a response uses.
#[path = "../../cli/src/escaped.rs"]
#[allow(dead_code, reason = "not all of it is used here")]
mod escaped;
pub mod framings;
pub mod http;
pub mod http_server;
mod input;
pub mod memcached;
pub mod proxy_header;
pub mod recording;
pub mod resp;
pub mod session;
pub mod simulation;
pub mod tls;
pub mod websocket;
pub mod words;

/// One part and its model, run on any bytes. Panics when they differ.
pub type Target = fn(&[u8]);

/// All targets, by the name of their directory in `corpus/`.
pub const TARGETS: &[(&str, Target)] = &[
    ("addresses", addresses::target),
    ("dispatch", dispatch::target),
    ("framings", framings::target),
    ("http", http::target),
    ("memcached", memcached::target),
    ("http_server", http_server::target),
    ("proxy_header", proxy_header::target),
    ("recording", recording::target),
    ("resp", resp::target),
    ("session", session::target),
    ("simulation", simulation::target),
    ("tls", tls::target),
    ("websocket", websocket::target),
    ("words", words::target),
];

/// The target with that name.
#[must_use]
pub fn target(name: &str) -> Option<Target> {
    let found = TARGETS.iter().find(|(other, _)| *other == name);
    found.map(|(_, target)| *target)
}
