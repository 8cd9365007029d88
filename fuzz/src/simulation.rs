//! Servers under a simulated network of which bytes decide what it does.

#[path = "../../tests/simulation/asking.rs"]
mod asking;
#[expect(dead_code, reason = "the tests of this server are not run here")]
#[path = "../../tests/simulation/http.rs"]
mod http;
#[expect(dead_code, reason = "the tests of this server are not run here")]
#[path = "../../tests/simulation/proxy.rs"]
mod proxy;
#[path = "../../tests/simulation/systems.rs"]
mod systems;

use systems::{OF_DATAGRAMS, SYSTEMS};

/// No run is longer, in turns of the loop.
const TURNS_MOST: u64 = 100_000;

/// From this first byte on, the driver that blocks serves, except the servers that need the loop.
const BLOCKS_FROM: u8 = 128;
const NEEDS_THE_LOOP: &str = "proxy";

/// One of the servers that the tests simulate, and then a byte for every choice of its network and
/// its clients. The simulation finds nothing wrong, and comes to an end.
///
/// # Panics
/// When it does.
pub fn target(data: &[u8]) {
    let Some((first, choices)) = data.split_first() else {
        return;
    };
    let (name, make) = SYSTEMS[usize::from(*first) % SYSTEMS.len()];
    let mut system = make();
    let needs_the_loop = name == NEEDS_THE_LOOP || OF_DATAGRAMS.contains(&name);
    if *first >= BLOCKS_FROM && !needs_the_loop {
        system = system.blocking();
    }
    match system.check_bytes(choices) {
        Ok(report) => assert!(report.statistics.turns < TURNS_MOST, "{name}: {report:?}"),
        Err(failure) => panic!("system {name}: {failure}"),
    }
}
