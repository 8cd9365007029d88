//! One call fails, and everything else goes well: each call of a workload, in every way that the
//! system's may.

use serveloop::testing::{Call, Faults, Network};

use crate::systems::{SYSTEMS, Simulated};

/// Runs each system's workload once for each call and error. Returns how many runs that made.
pub(crate) fn fail_each_call(most_calls: usize) -> usize {
    SYSTEMS
        .iter()
        .map(|(name, make)| {
            let mut system = make().faults(Faults::none()).at_most(3);
            SEEDS
                .iter()
                .map(|seed| fail_calls(name, &mut system, *seed, most_calls))
                .sum::<usize>()
        })
        .sum()
}

/// The same with every such call from one on, for two seconds: nothing is tried again and again at
/// once. Of each kind of call the first that there is.
pub(crate) fn fail_calls_for_long() -> usize {
    let mut runs = 0;
    for (name, make) in &SYSTEMS {
        let mut system = make().faults(Faults::none()).at_most(3);
        let calls = record(&mut system, SEEDS[0]);
        for (call, errors) in STUBBORN {
            let Some(number) = calls.iter().position(|other| other == call) else {
                continue;
            };
            for error in *errors {
                runs += 1;
                let fails = |mut network: Network| {
                    network.fail_for_long(number, *error);
                    network
                };
                if let Err(failure) = system.check_through(SEEDS[0], fails) {
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

fn fail_calls(name: &str, system: &mut Simulated, seed: u64, most_calls: usize) -> usize {
    let calls = record(system, seed);
    assert!(!calls.is_empty(), "{name} makes no calls");
    let numbered = calls.iter().take(most_calls).enumerate();
    numbered
        .map(|(number, call)| fail_call(name, system, seed, (number, *call)))
        .sum()
}

fn record(system: &mut Simulated, seed: u64) -> Vec<Call> {
    let recorded = system.check_through(seed, |mut network| {
        network.record_calls();
        network
    });
    recorded.expect("without faults it is well").calls
}

fn fail_call(
    name: &str,
    system: &mut Simulated,
    seed: u64,
    (number, call): (usize, Call),
) -> usize {
    for error in call.errors() {
        let fails = |mut network: Network| {
            network.fail(number, *error);
            network
        };
        if let Err(failure) = system.check_through(seed, fails) {
            panic!("{name}: call {number}, {call:?}, failed with {error}: {failure}");
        }
    }
    call.errors().len()
}
