//! A protocol on a simulated network that does its worst. Run
//! `cargo run --release --example simulate`.
//!
//! Each seed is another run, with other clients, cuts, delays, lost events, failing calls and clock
//! jumps. Every byte is accounted for, or the run says what is wrong and how to replay it.
//!
//! Expected output: `2000 runs, and every byte accounted for`. To see a failure, change a protocol
//! so that its `data_received` drops bytes instead of leaving them for the next call.

use serveloop::framing::{FrameProtocol, FrameTransport};
use serveloop::framing::{Framed, Lines};
use serveloop::testing::{Exchange, Simulation};
use serveloop::{Peer, ProtocolError, protocols::Hello};
use std::time::Duration;

/// Replies to each line with the sum of its numbers.
struct Sum;

impl FrameProtocol for Sum {
    type Framing = Lines;

    fn frame_received(
        &mut self,
        line: &[u8],
        frames: &mut FrameTransport<'_, Lines>,
    ) -> Result<(), ProtocolError> {
        let line = std::str::from_utf8(line).map_err(ProtocolError::other)?;
        let numbers: Result<Vec<i64>, _> = line.split_whitespace().map(str::parse).collect();
        let sum: i64 = numbers.map_err(ProtocolError::other)?.iter().sum();
        frames.send(sum.to_string().as_bytes())
    }
}

fn main() {
    env_logger::init();
    let runs = 1_000;
    Simulation::new(|| |_: &Peer| Some(Framed::new(Lines::new(100), Sum)))
        .client(Exchange::new("1 2 3\n", "6\n").then("-4\n\n", "-4\n0\n"))
        .run(0..runs);

    // Time is simulated too, so these sessions of seconds or minutes take almost no real time. The
    // driver of threads and processes serves them here, in place of the event loop.
    let slow = || Framed::new(Lines::new(100), Hello::new(Duration::from_secs(5)));
    Simulation::new(|| move |_: &Peer| Some(slow()))
        .client(Exchange::new("bob\nexit\n", "Welcome!\nHello,bob\n").stays_open())
        .blocking()
        .run(0..runs);
    println!("{} runs, and every byte accounted for", 2 * runs);
}
