//! One publishes and many are sent it, over loopback TCP: this library's groups compared with a loop as
//! in C, with a queue and a waker for each member, and with tokio's broadcast channel.
//!
//! Every server runs in a process of its own. Counts and memory do not depend on how busy the machine
//! is; times do, so servers take turns within each round, and only ratios mean something.
//!
//! `cargo bench --bench groups -- --help` lists the options.

#[cfg(target_os = "linux")]
mod broadcast;
#[cfg(target_os = "linux")]
mod epoll;
#[cfg(target_os = "linux")]
mod measure;
#[cfg(target_os = "linux")]
mod message;
#[cfg(target_os = "linux")]
mod options;
#[cfg(target_os = "linux")]
mod protocols;
#[cfg(target_os = "linux")]
mod room;
#[cfg(target_os = "linux")]
mod servers;

#[cfg(target_os = "linux")]
fn main() -> std::process::ExitCode {
    serveloop_measure::arguments::run(servers::Kind::serve, |options| measure::measure(&options))
}

#[cfg(not(target_os = "linux"))]
fn main() {
    println!("this benchmark reads /proc and runs on Linux only");
}
