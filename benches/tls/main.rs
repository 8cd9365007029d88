//! TLS echo over loopback: this library compared with tokio-rustls, and its handshakes with nginx.
//!
//! Every server runs in a process of its own, pinned to one core, and the generator on another where
//! there is one. All have the same certificate, and the client offers one cipher suite and one group for
//! the key exchange, so that no server computes anything else than the others. Counts come first, then
//! processor time; servers take turns within each round, and only their ratios mean something.
//!
//! `cargo bench --bench tls -- --help` lists the options.

#[cfg(target_os = "linux")]
mod burst;
#[cfg(target_os = "linux")]
mod client;
#[cfg(target_os = "linux")]
mod goals;
#[cfg(target_os = "linux")]
mod measure;
#[cfg(target_os = "linux")]
mod nginx;
#[cfg(target_os = "linux")]
mod options;
#[cfg(target_os = "linux")]
mod process;
#[cfg(target_os = "linux")]
mod run;
#[cfg(target_os = "linux")]
mod servers;
#[cfg(target_os = "linux")]
mod tasks;

#[cfg(target_os = "linux")]
fn main() -> std::process::ExitCode {
    serveloop_measure::arguments::run(servers::Kind::serve, run::measure)
}

#[cfg(not(target_os = "linux"))]
fn main() {
    println!("this benchmark reads /proc and runs on Linux only");
}
