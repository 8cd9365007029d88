//! One call fails, and everything else goes well: each call of a workload, in every way that the
//! system's may.

use serveloop::testing::{Call, Faults, Network};

use crate::layers::{Subject, some};
use crate::systems::Simulated;
use crate::{IN_LAYERS, blocking};

/// The systems inside a layer whose calls fail too.
const LAYERED: [&str; 8] = [
    "echo/tls",
    "frames/tls12",
    "hello/tls",
    "producer/tls",
    "finishing/tls",
    "proxy/tls",
    "echo/proxied",
    "frames/proxied-tls",
];

/// A few clients, and no fault but the one that is chosen.
fn calm(system: Simulated) -> Simulated {
    system.faults(Faults::none()).at_most(3)
}

/// Runs each system's workload once for each call and error. Returns how many runs that made.
pub(crate) fn fail_each_call(most_calls: usize) -> usize {
    fail_each_call_of(some(&LAYERED, calm), most_calls)
}

/// The same under the driver that blocks.
pub(crate) fn fail_each_call_that_blocks(most_calls: usize) -> usize {
    fail_each_call_of(blocking::plain(calm), most_calls)
}

fn fail_each_call_of(
    systems: impl Iterator<Item = (String, Box<dyn Subject>)>,
    most_calls: usize,
) -> usize {
    systems
        .map(|(name, mut system)| {
            let seeds = seeds_of(&name).iter();
            let runs = seeds.map(|seed| fail_calls(&name, &mut *system, *seed, most_calls));
            runs.sum::<usize>()
        })
        .sum()
}

/// Runs each system's workload once for each read and write, of which that one moves a single byte.
/// Returns how many runs that made.
pub(crate) fn shorten_each_call(most_calls: usize) -> usize {
    let mut runs = 0;
    for (name, mut system) in some(&LAYERED, calm) {
        for seed in seeds_of(&name).iter().copied() {
            let calls = record(&mut *system, seed);
            let moves = |call: &Call| matches!(call, Call::Read | Call::Write);
            let moving = calls.iter().enumerate().filter(|(_, call)| moves(call));
            for (number, call) in moving.take(most_calls) {
                runs += 1;
                let shortens = &mut |network: &mut Network| network.shorten(number);
                if let Err(failure) = system.check_with(seed, shortens) {
                    panic!("{name}: call {number}, {call:?}, moved one byte: {failure}");
                }
            }
        }
    }
    runs
}

/// The same with every such call from one on, for two seconds: nothing is tried again and again at
/// once. Of each kind of call the first that there is.
pub(crate) fn fail_calls_for_long() -> usize {
    let mut runs = 0;
    for (name, mut system) in some(&LAYERED, calm).chain(blocking::plain(calm)) {
        let calls = record(&mut *system, SEEDS[0]);
        for (call, errors) in STUBBORN {
            let Some(number) = calls.iter().position(|other| other == call) else {
                continue;
            };
            for error in *errors {
                runs += 1;
                let fails = &mut |network: &mut Network| network.fail_for_long(number, *error);
                if let Err(failure) = system.check_with(SEEDS[0], fails) {
                    panic!("{name}: {call:?} fails for long with {error}: {failure}");
                }
            }
        }
    }
    runs
}

/// The calls of which an error may stay, and the connection or the socket with it.
const STUBBORN: &[(Call, &[i32])] = &[
    (
        Call::Accept,
        &[
            libc::EINTR,
            libc::EMFILE,
            libc::ENFILE,
            libc::ENOBUFS,
            libc::ENOMEM,
            libc::ECONNABORTED,
            libc::EPROTO,
            libc::EPERM,
            libc::EACCES,
            libc::ENETDOWN,
            libc::EHOSTUNREACH,
            libc::ETIMEDOUT,
        ],
    ),
    (
        Call::Receive,
        &[
            libc::EINTR,
            libc::ECONNREFUSED,
            libc::EPERM,
            libc::ENOMEM,
            libc::ENOBUFS,
        ],
    ),
    (Call::Read, &[libc::EINTR]),
    (Call::Write, &[libc::EINTR, libc::ENOBUFS, libc::ENOMEM]),
];

/// The workloads of each system.
const SEEDS: [u64; 3] = [3, 4, 5];

/// Returns the workloads of a system. Those inside layers take long, so that one has to do.
fn seeds_of(name: &str) -> &'static [u64] {
    if name.contains(IN_LAYERS) {
        &SEEDS[..1]
    } else {
        &SEEDS
    }
}

fn fail_calls(name: &str, system: &mut dyn Subject, seed: u64, most_calls: usize) -> usize {
    let calls = record(system, seed);
    assert!(!calls.is_empty(), "{name} makes no calls");
    let numbered = calls.iter().take(most_calls).enumerate();
    numbered
        .map(|(number, call)| fail_call(name, system, seed, (number, *call)))
        .sum()
}

fn record(system: &mut dyn Subject, seed: u64) -> Vec<Call> {
    let recorded = system.check_with(seed, &mut Network::record_calls);
    recorded.expect("without faults it is well").calls
}

fn fail_call(
    name: &str,
    system: &mut dyn Subject,
    seed: u64,
    (number, call): (usize, Call),
) -> usize {
    for error in call.errors() {
        let fails = &mut |network: &mut Network| network.fail(number, *error);
        if let Err(failure) = system.check_with(seed, fails) {
            panic!("{name}: call {number}, {call:?}, failed with {error}: {failure}");
        }
    }
    call.errors().len()
}
