//! Programs by others, which judge our TLS: a table of what each of them sees, in every model.
//!
//! `SERVELOOP_FULL=1` tries every row in every model with 16 MiB where much is sent. Otherwise each row is
//! tried in one model, the next row in the next one, with 2 MiB.

mod cases;
mod client;
mod programs;
mod rotation;
mod scanner;
mod stalled;
mod table;
mod talk;
mod tunnel;

use std::env;

use crate::support::secure::certificate;

/// The models of which every row is true.
const MODELS: [&[&str]; 4] = [
    &[],
    &["--model", "threaded"],
    &["--model", "forking"],
    &["--workers", "2"],
];

/// Whether everything is tried in its full size.
fn is_full() -> bool {
    env::var_os("SERVELOOP_FULL").is_some()
}

/// How many bytes are sent and come back where much is sent.
fn bulk() -> usize {
    if is_full() { 16 << 20 } else { 2 << 20 }
}

/// The certificate of this name, and its key.
fn pair(name: &str) -> (String, String) {
    let file = |end| certificate(&format!("{name}.{end}"));
    (file("pem"), file("key"))
}

/// A listener's URI with the certificate of our tests, and more options.
fn listener(more: &str) -> String {
    let (chain, key) = pair("localhost");
    format!("tls://127.0.0.1:0?cert={chain}&key={key}{more}")
}

/// Returns the counters of ended connections in the line that a server logs at its end.
fn closed(last: &str) -> Vec<&str> {
    let counters = last
        .split_once("] ")
        .map_or(last, |(_, rest)| rest)
        .split(", ");
    counters.filter(|it| it.starts_with("closed_")).collect()
}
