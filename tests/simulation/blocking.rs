//! Every system of streams once more, served by the driver that blocks: that of one connection at a
//! time, of threads and of processes.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use serveloop::testing::{Exchange, Network, Simulation, Slip};
use serveloop::{Protocol, ProtocolError, Transport, Waker};

use crate::bugs::{Bug, Faulty};
use crate::layers::{self, Subject};
use crate::systems::{Any, OF_DATAGRAMS, SYSTEMS, Simulated, System, finishing, text};
use crate::{check_happens, is_found};

/// The end of a name that only systems under the blocking driver have: `echo+blocking`.
pub(crate) const BLOCKING: &str = "+blocking";

/// What names all of them on the command line.
pub(crate) const ALL: &str = "+";

/// The system that serves its client by means of a second connection, which the loop would have to
/// serve meanwhile.
const NEEDS_THE_LOOP: &str = "proxy";

/// Returns every system under the blocking driver, plain and in each of the layers.
pub(crate) fn checks() -> impl Iterator<Item = (String, Box<dyn Subject>)> {
    let layered = all().flat_map(|(name, make)| layers::in_layers(name, || make().blocking()));
    let layered = layered.map(|(name, subject)| (format!("{name}{BLOCKING}"), subject));
    plain(|system| system).chain(layered)
}

/// Returns every system under the blocking driver, without a layer. `vary` changes the system first.
pub(crate) fn plain(
    vary: impl Fn(Simulated) -> Simulated,
) -> impl Iterator<Item = (String, Box<dyn Subject>)> {
    all().map(move |(name, make)| {
        let subject: Box<dyn Subject> = Box::new(vary(make().blocking()));
        (format!("{name}{BLOCKING}"), subject)
    })
}

/// Returns every system under the blocking driver, without a layer.
pub(crate) fn systems() -> Vec<Simulated> {
    all().map(|(_, make)| make().blocking()).collect()
}

/// Returns the systems of streams, yet to be put under the blocking driver.
pub(crate) fn all() -> impl Iterator<Item = System> {
    let systems = SYSTEMS.into_iter();
    let needs_the_loop = |name| name == NEEDS_THE_LOOP || OF_DATAGRAMS.contains(&name);
    let systems = systems.filter(move |(name, _)| !needs_the_loop(*name));
    let own: [System; 3] = [
        ("ticking", ticking),
        ("chatting", chatting),
        ("ending", ending),
    ];
    systems.chain(own)
}

/// Ends its side first, to a client that waits for that.
fn ending() -> Simulated {
    finishing().client(Exchange::new(text(30), text(20)).ends_last())
}

/// Has deadlines of its own, near and far, while it waits for input.
fn ticking() -> Simulated {
    struct Ticking {
        at: Instant,
        ticks: u32,
    }

    impl Protocol for Ticking {
        fn connection_made(&mut self, transport: &mut Transport<'_>) -> Result<(), ProtocolError> {
            self.handle_timeout(transport);
            Ok(())
        }

        fn data_received(
            &mut self,
            data: &[u8],
            transport: &mut Transport<'_>,
        ) -> Result<usize, ProtocolError> {
            transport.write(data);
            Ok(data.len())
        }

        fn poll_timeout(&self) -> Option<Instant> {
            Some(self.at)
        }

        fn handle_timeout(&mut self, transport: &mut Transport<'_>) {
            self.ticks += 1;
            let seconds = if self.ticks % 2 == 0 { 1 } else { 4 };
            self.at = transport.now() + Duration::from_secs(seconds);
        }
    }

    let make = || {
        Any::of(|| Ticking {
            at: Instant::now(),
            ticks: 0,
        })
    };
    Simulation::new(make as fn() -> Any)
        .client(Exchange::new(text(20), text(20)))
        .client(Exchange::new("a", "a").then("b", "b").in_turns())
}

/// Is woken while it waits for input and for room at once.
fn chatting() -> Simulated {
    type Said = Rc<RefCell<Vec<u8>>>;
    type Woken = Rc<RefCell<Vec<Waker>>>;
    struct Chatting(Said, Woken);

    impl Protocol for Chatting {
        fn data_received(
            &mut self,
            data: &[u8],
            transport: &mut Transport<'_>,
        ) -> Result<usize, ProtocolError> {
            self.0.borrow_mut().extend_from_slice(data);
            self.1.borrow_mut().push(transport.waker());
            Ok(data.len())
        }

        fn eof_received(
            &mut self,
            _: &[u8],
            transport: &mut Transport<'_>,
        ) -> Result<(), ProtocolError> {
            self.woken(transport);
            transport.close();
            Ok(())
        }

        fn woken(&mut self, transport: &mut Transport<'_>) {
            transport.write(&self.0.take());
        }
    }

    fn make() -> Any {
        let woken = Woken::default();
        let to_wake = Rc::clone(&woken);
        Any {
            actions: Box::new(move |_| to_wake.take().iter().for_each(Waker::wake)),
            ..Any::of(move || Chatting(Rc::default(), Rc::clone(&woken)))
        }
    }
    Simulation::new(make as fn() -> Any)
        .client(Exchange::new(text(60), text(60)))
        .client(Exchange::new("a", "a").then("b", "b").in_turns())
}

/// Everything that can happen to the loop's connections happens to these, apart from what needs
/// several at a time, and some things that cannot happen to the loop's.
pub(crate) fn everything_happens(not_on_the_loop: &[&str]) {
    let happens = ["refused_by_system", "closed_timeout_drain"];
    let never = [
        "connected",
        "refused_max_connections",
        "refused_max_per_peer",
        "register_errors",
        "stale_events",
        "closed_timeout_connect",
        "closed_connect_failed",
        // Only the proxy aborts, and a turn may serve a whole connection.
        "closed_aborted",
        "slow_turns",
        // Only a loop has sessions of datagrams, which hear of reports.
        "datagram_sessions",
        "datagram_sessions_ended",
        "datagram_sessions_refused",
        "datagrams_undelivered",
    ];
    let not_here = not_on_the_loop.iter().filter(|it| !happens.contains(it));
    let not_here: Vec<_> = not_here.copied().chain(never).collect();
    check_happens(systems(), 2_000, &not_here);
}

/// Bugs that only a driver that blocks can have, each in the driver or in what it asks.
const SLIPS: [Slip; 8] = [
    Slip::KeepsReadTimeout,
    Slip::TakesTimeoutForFailure,
    Slip::IsDeafWhileSending,
    Slip::NeverWaitsForRoom,
    Slip::SpinsOnHangUp,
    Slip::NeverTellsOfShutdown,
    Slip::TellsOfShutdownTwice,
    Slip::LingersBriefly,
];

/// Bugs of event loops that it could have too.
const SHARED: [Bug; 13] = [
    Bug::KeepsAccount,
    Bug::AsksAfterEnd,
    Bug::LeaksSockets,
    Bug::IgnoresShortWrites,
    Bug::RepeatsWrites,
    Bug::CrossesWires,
    Bug::ReadsTwice,
    Bug::DropsInput,
    Bug::TakesSilenceForEnd,
    Bug::TakesEndForReset,
    Bug::DropsLastOutput,
    Bug::ClosesWithoutLingering,
    Bug::StoppedClock,
];

/// The power of the simulation for the driver that blocks.
pub(crate) fn every_bug_is_found() {
    let slips = SLIPS.into_iter().filter(|slip| {
        let slips = |system: &mut Simulated, seed: u64| {
            let slips = |mut network: Network| {
                network.slip(*slip);
                network
            };
            system.check_through(seed, slips).is_err()
        };
        !is_found(slip, systems(), slips)
    });
    let lost: Vec<_> = slips.collect();
    assert!(lost.is_empty(), "not found: {lost:?}");

    let shared = SHARED.into_iter().filter(|bug| {
        let faulty = |network| Faulty::new(network, *bug);
        let fails = |system: &mut Simulated, seed| system.check_through(seed, faulty).is_err();
        !is_found(bug, systems(), fails)
    });
    let lost: Vec<_> = shared.collect();
    assert!(lost.is_empty(), "not found: {lost:?}");
}
