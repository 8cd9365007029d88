//! What `serveloop bench` and the benchmarks of [`serveloop`] measure echo servers with.
//!
//! A [`Scenario`] is a load, and a [`Load`] puts it on a server from one loop: connections that
//! send as soon as a reply has come, at a steady rate, or once each. Every byte that comes back is
//! compared with what was sent. [`Launched`] is a server as a child process on [`Cores`] of its
//! own, and [`Family`] what it costs. [`sample`] measures once; [`turns`] is the order in which
//! servers take turns, and [`Figure`] what several rounds gave.
//!
//! The crate is made for these two programs. Its interface changes with them.
//!
//! ```
//! use std::time::Duration;
//!
//! use serveloop::{Address, Config, Server, protocols::Echo};
//! use serveloop_measure::{Load, Scenario, Terms};
//!
//! let any: Address = "tcp://127.0.0.1:0".parse()?;
//! let server = Server::bind(&[any], Config::default())?;
//! let (addresses, handle) = (server.addresses().to_vec(), server.shutdown_handle());
//! let serving = std::thread::spawn(move || server.serve_forever(|_| Some(Echo)));
//!
//! let scenario = Scenario { connections: 10, ..Scenario::default() };
//! let mut load = Load::new(&scenario, addresses, Terms::default())?;
//! load.settle(scenario.total())?;
//! load.exchange(Duration::from_millis(50))?;
//! assert!(load.messages() > 0);
//!
//! handle.shutdown();
//! serving.join().unwrap()?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

pub mod arguments;
mod cores;
mod counts;
pub mod descriptors;
mod family;
mod fan_out;
pub mod figure;
pub mod launch;
mod load;
mod machine;
#[cfg_attr(target_os = "linux", path = "linux.rs")]
#[cfg_attr(not(target_os = "linux"), path = "other_systems.rs")]
mod platform;
mod round;
mod sys;
mod table;

pub use crate::cores::Cores;
pub use crate::counts::{Calls, Tool, Tracer, per_message};
pub use crate::family::Family;
pub use crate::fan_out::{Deliveries, FanOut, Room};
pub use crate::figure::Figure;
pub use crate::launch::Launched;
#[cfg(feature = "tls")]
pub use crate::load::Tickets;
pub use crate::load::{
    Audience, Exchange, Handshakes, Interrupt, Latency, Load, Moment, Pace, Scenario, Secured,
    Shape, Stage, Terms, Uninterrupted, Waiting, Width,
};
pub use crate::machine::Machine;
pub use crate::round::{Counting, Rates, Sample, fill, sample, turns};
pub use crate::table::line;
