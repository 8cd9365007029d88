//! Clients that behave: each has one message under way, and notes how long its reply takes.

use std::io;
use std::time::Duration;

use serveloop::Address;
use serveloop_measure::{Load, Scenario, Shape, Terms};

use crate::server::{PATIENCE, Running};

/// Connects `count` clients, and uses each once.
pub(crate) fn connect(server: &Running, count: usize) -> io::Result<Load<'static>> {
    let scenario = Scenario {
        connections: count,
        // Short, and a line for who wants lines.
        size: 8,
        shape: Shape::Line,
        ..Scenario::default()
    };
    let terms = Terms {
        patience: PATIENCE,
        ..Terms::default()
    };

    let mut load = Load::new(&scenario, vec![Address::Tcp(server.address)], terms)?;
    load.settle(count)?;
    Ok(load)
}

/// The 99th of 100 replies, in microseconds.
pub(crate) fn p99(load: &mut Load<'_>, duration: Duration) -> io::Result<f64> {
    load.exchange(duration)?;
    Ok(load.latency().p99)
}
