//! Servers under a simulated network, and the simulation itself under test.
//!
//! As a command, for as many runs as you like:
//! `cargo test --release --test simulation -- --seeds 100000 [--from SEED] [--system NAME]`.
//! A server with several right answers, all faults on:
//! `cargo test --release --test simulation -- --seeds 200000 --system http`.
//! `--system /` is all systems inside a layer or behind PROXY headers, `--system /tls` those in TLS, and
//! `--system echo/scrambled` one of them; `--system +` is those under the driver that blocks, and
//! `--system echo/scrambled+blocking` one of them. `--system all` is all of these and the plain ones.
//!
//! `SERVELOOP_FULL=1` has the tests that take longest in full.

mod alone;
mod asking;
mod blocking;
mod bugs;
mod calls;
mod certificate;
mod http;
mod layer_bugs;
mod layers;
mod proxy;
mod systems;

use std::collections::BTreeSet;
use std::env;
use std::num::NonZero;
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Instant;

use serveloop::protocols::Discard;
use serveloop::testing::{Exchange, Failure, Faults, Report, Simulation};
use serveloop::{Config, Peer, Statistics};

use bugs::{BUGS, Faulty};
use layers::Subject;
use systems::{SYSTEMS, Simulated};

const TESTS: [(&str, fn()); 20] = [
    ("two_thousand_runs", || {
        let tally = Tally::of(0..2_000, None);
        assert_eq!(tally.failures, 0);
    }),
    ("runs_in_layers", || {
        let tally = Tally::of(0..size(4_000, 500), Some(IN_LAYERS));
        assert_eq!(tally.failures, 0);
    }),
    ("runs_of_the_blocking_driver", || {
        let tally = Tally::of(0..size(4_200, 500), Some(blocking::ALL));
        assert_eq!(tally.failures, 0);
    }),
    ("each_call_fails_in_every_way", || {
        let cells = calls::fail_each_call(size(150, 40));
        println!("  {cells} runs, one failing call each");
        assert!(cells >= size(15_000, 5_000), "{cells} only");
    }),
    ("each_call_that_blocks_fails_in_every_way", || {
        let cells = calls::fail_each_call_that_blocks(size(150, 40));
        println!("  {cells} runs, one failing call each");
        assert!(cells >= size(15_000, 5_000), "{cells} only");
    }),
    ("each_call_is_short", || {
        let runs = calls::shorten_each_call(size(100, 50));
        println!("  {runs} runs, in each one call that moves one byte");
        assert!(runs >= 800, "{runs} only");
    }),
    ("calls_fail_for_long", || {
        println!(
            "  {} runs, one kind of call failing",
            calls::fail_calls_for_long()
        );
    }),
    ("each_kind_of_fault_alone", || {
        println!("  {} runs", alone::each_kind_alone());
    }),
    ("a_crowd_is_late_at_once", a_crowd_is_late_at_once),
    ("every_bug_is_found", every_bug_is_found),
    (
        "each_bug_of_a_layer_is_found",
        layer_bugs::each_bug_of_a_layer_is_found,
    ),
    (
        "every_bug_of_the_blocking_driver_is_found",
        blocking::every_bug_is_found,
    ),
    (
        "a_seed_is_always_the_same_run",
        a_seed_is_always_the_same_run,
    ),
    (
        "a_judge_tells_answers_apart",
        http::a_judge_tells_answers_apart,
    ),
    (
        "only_the_endings_that_are_allowed_pass",
        http::only_the_endings_that_are_allowed_pass,
    ),
    (
        "no_client_is_slow_unless_it_may_be",
        http::no_client_is_slow_unless_it_may_be,
    ),
    (
        "who_speaks_at_a_deadline_was_not_early",
        http::who_speaks_at_a_deadline_was_not_early,
    ),
    (
        "a_proxy_that_loses_a_direction_is_found",
        proxy::a_proxy_that_loses_a_direction_is_found,
    ),
    ("everything_happens", everything_happens),
    ("bytes_are_a_run_too", bytes_are_a_run_too),
];

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let option = |name: &str| {
        let at = arguments.iter().position(|argument| argument == name)?;
        arguments.get(at + 1)
    };
    if let Some(seeds) = option("--seeds") {
        let number = |text: &String| text.parse::<u64>().expect("a number");
        let from = option("--from").map_or(0, number);
        let system = option("--system").map(String::as_str);
        let tally = Tally::of(from..from + number(seeds), system);
        return ExitCode::from(u8::from(tally.failures > 0));
    }
    let filter = arguments.iter().find(|argument| !argument.starts_with('-'));
    let is_chosen = |name: &str| filter.is_none_or(|part| name.contains(part.as_str()));
    let chosen: Vec<_> = TESTS.iter().filter(|(name, _)| is_chosen(name)).collect();
    if arguments.iter().any(|argument| argument == "--list") {
        chosen.iter().for_each(|(name, _)| println!("{name}: test"));
        return ExitCode::SUCCESS;
    }
    println!("\nrunning {} tests", chosen.len());
    let failed = failures(&chosen);
    let outcome = if failed == 0 { "ok" } else { "FAILED" };
    println!(
        "\ntest result: {outcome}. {} passed; {failed} failed; 0 ignored; 0 measured; {} filtered out\n",
        chosen.len() - failed,
        TESTS.len() - chosen.len()
    );
    ExitCode::from(u8::from(failed > 0))
}

/// Runs the tests, as many at a time as there are cores, and returns how many fail.
fn failures(tests: &[&(&str, fn())]) -> usize {
    let cores = thread::available_parallelism().map_or(1, NonZero::get);
    let (next, failed) = (AtomicUsize::new(0), AtomicUsize::new(0));
    thread::scope(|scope| {
        for _ in 0..cores {
            scope.spawn(|| {
                while let Some((name, test)) = tests.get(next.fetch_add(1, Ordering::Relaxed)) {
                    failed.fetch_add(usize::from(!passes(name, *test)), Ordering::Relaxed);
                }
            });
        }
    });
    failed.into_inner()
}

fn passes(name: &str, test: fn()) -> bool {
    let passed = thread::spawn(test).join().is_ok();
    println!("test {name} ... {}", if passed { "ok" } else { "FAILED" });
    passed
}

/// How much of something a test tries.
fn size<T>(full: T, modest: T) -> T {
    if env::var_os("SERVELOOP_FULL").is_some() {
        full
    } else {
        modest
    }
}

/// What many runs were like.
#[derive(Default)]
struct Tally {
    runs: u64,
    failures: u64,
    sessions: u64,
    turns: u64,
    bytes: u64,
    trace: u64,
}

/// How many failures are printed.
const PRINTED_MOST: u64 = 5;

impl Tally {
    /// Runs seeds, each of one system or all systems in turn, and says what came of it.
    fn of(seeds: std::ops::Range<u64>, only: Option<&str>) -> Self {
        let begin = Instant::now();
        let mut systems = chosen(only);
        assert!(!systems.is_empty(), "there is no such system");
        let mut tally = Self::default();
        for seed in seeds {
            let (name, system) = of_seed(&mut systems, seed);
            tally.note(name, system.check(seed));
        }
        let Self {
            runs,
            failures,
            sessions,
            turns,
            bytes,
            trace,
        } = tally;
        let took = begin.elapsed();
        println!(
            "{runs} runs in {took:.1?}: {failures} failed; {sessions} sessions, {turns} turns, {bytes} bytes; trace {trace:016x}"
        );
        tally
    }

    fn note(&mut self, name: &str, outcome: Result<Report, Failure>) {
        self.runs += 1;
        match outcome {
            Ok(report) => {
                self.sessions += report.sessions;
                self.turns += report.statistics.turns;
                self.bytes += report.statistics.bytes_read + report.statistics.bytes_written;
                self.trace = self.trace.rotate_left(1) ^ report.trace;
            }
            Err(failure) => {
                self.failures += 1;
                if self.failures <= PRINTED_MOST {
                    println!("--system {name}, {failure}\n");
                }
            }
        }
    }
}

/// The part of a name that only systems in a layer have: `echo/identity`.
const IN_LAYERS: &str = "/";

/// Returns the systems that `only` names: one of them, those in layers, or all without a layer.
fn chosen(only: Option<&str>) -> Vec<(String, Box<dyn Subject>)> {
    let is_chosen = |name: &str| {
        let blocks = name.contains(blocking::ALL);
        match only {
            None => !blocks && !name.contains(IN_LAYERS),
            Some("all") => true,
            Some(blocking::ALL) => blocks,
            Some(part) if part.starts_with(IN_LAYERS) => !blocks && name.contains(part),
            Some(only) => name == only,
        }
    };
    let all = layers::some(&[], |plain| plain).chain(layers::layered(|plain| plain));
    let all = all.chain(blocking::checks());
    all.filter(|(name, _)| is_chosen(name)).collect()
}

/// The systems take turns.
fn of_seed<T>(systems: &mut [T], seed: u64) -> &mut T {
    let count = systems.len() as u64;
    &mut systems[usize::try_from(seed % count).unwrap_or(0)]
}

fn systems() -> Vec<Simulated> {
    SYSTEMS.iter().map(|(_, make)| make()).collect()
}

/// Hundreds of equal deadlines, and few that may be acted on in a turn.
fn a_crowd_is_late_at_once() {
    let config = Config {
        timeouts_per_turn: 7,
        ..Config::default()
    };
    Simulation::new(|| |_: &Peer| Some(Discard))
        .config(config)
        .faults(Faults {
            small_batches: 500,
            ..Faults::none()
        })
        .at_most(500)
        .client(Exchange::default().stays_open())
        .run(0..20);
}

/// The power of the simulation: a loop with a fault that loops have had does not pass.
fn every_bug_is_found() {
    let lost = BUGS.into_iter().filter(|bug| {
        let faulty = |network| Faulty::new(network, *bug);
        let fails = |system: &mut Simulated, seed| system.check_through(seed, faulty).is_err();
        !is_found(bug, systems(), fails)
    });
    let lost: Vec<_> = lost.collect();
    assert!(lost.is_empty(), "not found: {lost:?}");
}

/// Returns whether one of the seeds fails.
fn is_found(
    bug: impl std::fmt::Debug,
    mut systems: Vec<Simulated>,
    fails: impl Fn(&mut Simulated, u64) -> bool,
) -> bool {
    let found = (0..10_000).position(|seed: u64| fails(of_seed(&mut systems, seed), seed));
    let after = found.map_or("never".to_owned(), |seed| {
        format!("after {} runs", seed + 1)
    });
    println!("  {bug:?}: found {after}");
    found.is_some()
}

fn a_seed_is_always_the_same_run() {
    for seed in 0..40 {
        // Of the systems in layers as many as one can wait for.
        let which = (seed < 3).then_some("all");
        let traces = [0, 1].map(|_| {
            let systems = chosen(which).into_iter();
            let systems = systems.chain(blocking::plain(|plain| plain));
            let reports = systems.map(|(_, mut system)| system.check(seed));
            reports
                .map(|report| report.map_err(|failure| failure.to_string()))
                .collect::<Vec<_>>()
        });
        assert_eq!(traces[0], traces[1], "seed {seed}");
    }
}

fn bytes_are_a_run_too() {
    let mut echo = (SYSTEMS[0].1)();
    let mut traces = BTreeSet::new();
    for byte in 0..=u8::MAX {
        let bytes = [byte, 200, 3, byte];
        let report = echo.check_bytes(&bytes).expect("it is well");
        assert_eq!(report, echo.check_bytes(&bytes).expect("it is well"));
        traces.insert(report.trace);
    }
    assert!(traces.len() > 250, "{} different runs", traces.len());
    let mut wrong = (SYSTEMS[0].1)()
        .faults(Faults::none())
        .client(Exchange::new("good morning", "good night"));
    let failures = (0..100_u8).filter_map(|byte| wrong.check_bytes(&[byte; 9]).err());
    let failure = failures.last().expect("some client is told the wrong");
    let replay = "with check_bytes(b\"";
    assert!(failure.to_string().contains(replay), "{failure}");
}

/// A simulation in which nothing happens would pass everything.
fn everything_happens() {
    // What only other servers than these can count.
    let not_here = [
        "refused_by_factory",
        "refused_by_panic",
        "refused_by_system",
        "datagrams_amplified",
        "datagrams_reflected",
        "datagrams_over_rate",
        "closed_malformed",
        "closed_overflow",
        "rate_limited",
        "cut_short",
        "closed_unterminated",
        "closed_refused",
        "closed_timeout_handshake",
        "closed_timeout_drain",
        "closed_protocol_error",
        "closed_source_failed",
        "closed_killed",
        "handed_over",
    ];
    check_happens(systems(), 1_000, &not_here);
    blocking::everything_happens(&not_here);
}

/// Checks that runs count everything at least once, but for what cannot happen in them.
fn check_happens(mut systems: Vec<Simulated>, runs: u64, not_here: &[&str]) {
    let mut all = Statistics::default();
    for seed in 0..runs {
        let system = of_seed(&mut systems, seed);
        all.add(&system.check(seed).expect("it is well").statistics);
    }
    let missing: Vec<_> = all
        .iter()
        .filter(|(name, count)| *count == 0 && !not_here.contains(name))
        .map(|(name, _)| name)
        .collect();
    assert!(missing.is_empty(), "never: {missing:?}");
    assert!(all.closed() > 0);
}
