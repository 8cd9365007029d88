//! Faults at their full size, with figures: what they cost the server, and what they cost the other
//! clients. `cargo bench --bench faults` runs all of them, in about five minutes;
//! `cargo bench --bench faults -- descriptors flood` some, `--quick` with a tenth of the size.
//!
//! Each server is a separate process on one core, and the measuring process is on another where there is
//! one. Ratios within a run, counts and memory are reliable.

#[cfg(target_os = "linux")]
mod descriptors;
#[cfg(target_os = "linux")]
mod flood;
#[cfg(target_os = "linux")]
mod handshakes;
#[cfg(target_os = "linux")]
#[path = "../loopback/logger.rs"]
mod logger;
#[cfg(target_os = "linux")]
mod panics;
#[cfg(target_os = "linux")]
mod quiet;
#[cfg(target_os = "linux")]
mod secure;
#[cfg(target_os = "linux")]
mod server;
#[cfg(target_os = "linux")]
mod slow;
#[cfg(target_os = "linux")]
mod unread;

#[cfg(target_os = "linux")]
use std::{env, io, process::ExitCode};

#[cfg(target_os = "linux")]
use serveloop_measure::{Cores, launch};

/// A measurement; its argument divides all sizes.
#[cfg(target_os = "linux")]
type Measure = fn(&Cores, usize) -> io::Result<()>;

#[cfg(target_os = "linux")]
const MODES: [(&str, Measure); 6] = [
    ("descriptors", descriptors::measure),
    ("slow", slow::measure),
    ("unread", unread::measure),
    ("flood", flood::measure),
    ("panics", panics::measure),
    ("handshakes", handshakes::measure),
];

#[cfg(target_os = "linux")]
fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(target_os = "linux")]
fn run(arguments: &[String]) -> io::Result<()> {
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["--serve", what] => return server::serve(what),
        ["--flood", port] => return flood::flood(port),
        ["--launch", _, _, _, ..] => {
            return Err(launch::launch(&arguments[1..3], &arguments[4..]));
        }
        _ => {}
    }
    if arguments.iter().any(|argument| argument == "--list") {
        return Ok(());
    }
    let has = |word: &str| arguments.iter().any(|argument| argument == word);
    // Without --bench it is only tested whether everything works.
    let shrink = match (has("--bench"), has("--quick")) {
        (true, false) => 1,
        (true, true) => 10,
        (false, _) => 100,
    };
    let names: Vec<_> = arguments
        .iter()
        .filter(|it| !it.starts_with("--"))
        .collect();
    if let Some(name) = names
        .iter()
        .find(|name| MODES.iter().all(|mode| mode.0 != name.as_str()))
    {
        let problem = format!("{name} is none of {}", MODES.map(|mode| mode.0).join(", "));
        return Err(io::Error::new(io::ErrorKind::InvalidInput, problem));
    }
    let cores = Cores::divide()?.with_one_for_servers();
    println!("faults, {cores}, sizes divided by {shrink}");
    for (name, measure) in MODES {
        if names.is_empty() || names.iter().any(|chosen| *chosen == name) {
            println!("\n{name}");
            measure(&cores, shrink)?;
        }
    }
    Ok(())
}

#[cfg(not(target_os = "linux"))]
fn main() {
    println!("this benchmark reads /proc and runs on Linux only");
}
