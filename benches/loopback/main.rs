//! Echo over loopback TCP: this library's models compared with loops as in C, a plain mio
//! loop and tokio.
//!
//! Every server runs in a process of its own, pinned to one core, and the generator on another where
//! there is one. Servers take turns within each round, so that a machine that becomes slower does so
//! for all of them; ratios within a run, and counts, are reliable.
//!
//! `cargo bench --bench loopback -- --help` lists the options.

#[cfg(target_os = "linux")]
mod counts;
#[cfg(target_os = "linux")]
mod crowd;
#[cfg(target_os = "linux")]
mod departed;
#[cfg(target_os = "linux")]
mod epoll;
#[cfg(target_os = "linux")]
mod goals;
#[cfg(target_os = "linux")]
mod guard;
#[cfg(target_os = "linux")]
mod limit;
#[cfg(target_os = "linux")]
mod logger;
#[cfg(target_os = "linux")]
mod measure;
#[cfg(target_os = "linux")]
mod options;
#[cfg(target_os = "linux")]
mod plain;
#[cfg(target_os = "linux")]
mod process;
#[cfg(target_os = "linux")]
mod run;
#[cfg(target_os = "linux")]
mod servers;
#[cfg(target_os = "linux")]
mod spread;
#[cfg(target_os = "linux")]
mod table;
#[cfg(target_os = "linux")]
mod targets;
#[cfg(target_os = "linux")]
mod tasks;

#[cfg(target_os = "linux")]
fn main() -> std::process::ExitCode {
    serveloop_measure::arguments::run(servers::Kind::serve, |options| run::measure(&options))
}

#[cfg(not(target_os = "linux"))]
fn main() {
    println!("this benchmark reads /proc and runs on Linux only");
}
