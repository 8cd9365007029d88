//! A soak test: servers of every model under load for as long as you like, with every byte checked.
//! Run `cargo run --release --example soak -- --minutes 10`.
//!
//! Honest clients send keyed pseudo-random streams through every transport and must get each byte
//! back once and in order. Hostile clients reset, stall, never read, or send and vanish. Each
//! server is a separate process. Its descriptors, threads, children and memory are printed every
//! ten seconds and at the end, when they must be back to what they were at the start. The exit
//! status is 1 if anything was lost or was not released.
//!
//! Expected output at the end: `0 mismatches, 0 failures`, and a line for each server that ends in
//! `flat`.

mod connect;
mod holdings;
mod honest;
mod hostile;
mod keyed;
mod served;
mod server;
mod tally;

use honest::{honest, try_all};
use hostile::hostile;
use served::Served;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use std::{env, process::ExitCode, thread};
use tally::Tally;

const MODELS: [&str; 5] = [
    "event-loop",
    "workers",
    "threading",
    "forking",
    "sequential",
];
const HONEST: u64 = 8;
const HOSTILE: u64 = 4;
const REPORT_EVERY: Duration = Duration::from_secs(10);

fn main() -> ExitCode {
    env_logger::init();
    let arguments: Vec<String> = env::args().skip(1).collect();

    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["serve", model, directory] => server::serve(model, directory),
        ["--minutes", minutes] => {
            let minutes: f64 = minutes.parse().expect("--minutes takes a number");
            return soak(Duration::from_secs_f64(minutes * 60.0));
        }
        _ => {
            eprintln!("usage: soak --minutes NUMBER");
            return ExitCode::from(2);
        }
    }
    ExitCode::SUCCESS
}

fn soak(length: Duration) -> ExitCode {
    let directory = env::temp_dir().join(format!("soak-{}", std::process::id()));
    std::fs::create_dir(&directory).expect("a directory for sockets");

    let mut servers: Vec<_> = MODELS
        .iter()
        .map(|model| Served::start(model, &directory))
        .collect();
    try_all(&servers).expect("servers that serve");
    servers.iter_mut().for_each(Served::note_start);

    let (tally, over) = (Tally::default(), AtomicBool::new(false));
    thread::scope(|scope| {
        for number in 0..HONEST {
            let (servers, tally, over) = (&servers, &tally, &over);
            scope.spawn(move || honest(number, servers, tally, over));
        }
        for number in 0..HOSTILE {
            let (servers, tally, over) = (&servers, &tally, &over);
            scope.spawn(move || hostile(number, servers, tally, over));
        }

        let end = Instant::now() + length;
        while Instant::now() < end {
            thread::sleep(REPORT_EVERY.min(end.saturating_duration_since(Instant::now())));
            println!("{tally}");
            servers.iter().for_each(|server| println!("  {server}"));
        }
        over.store(true, Ordering::Relaxed);
    });

    println!("\nat the end: {tally}");
    let flat = servers
        .iter_mut()
        .map(Served::finish)
        .filter(|flat| !flat)
        .count()
        == 0;
    std::fs::remove_dir_all(&directory).expect("the directory of before");
    ExitCode::from(u8::from(!flat || tally.is_bad()))
}
