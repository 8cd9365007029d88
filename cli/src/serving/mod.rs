//! What `serve` and its protocols share: execution models, message framings, limits that move along
//! with others, log lines about clients, who may connect, standard output that clients write to, proxies in front,
//! and TLS.
//!
//! Code belongs here if more than one protocol needs it, or a protocol and `serve`. This room
//! imports neither.

mod access;
mod access_log;
mod bound_server;
mod boxed_factory;
mod chore;
mod connect_rate;
mod door;
mod encrypted;
mod execution;
mod gate;
mod implied_limits;
mod lifetime;
#[cfg_attr(not(feature = "tls"), path = "listener_tls_missing.rs")]
mod listener_tls;
mod messages;
mod rate;
mod statistics_dump;
mod stdout_queue;

pub(crate) use self::access::{Access, Allow, Rule};
pub(crate) use self::access_log::AccessLog;
pub(crate) use self::bound_server::{BoundServer, OfPlaces};
pub(crate) use self::chore::Chore;
pub(crate) use self::connect_rate::{ConnectRate, RATE_MOST};
pub(crate) use self::encrypted::TLS_KEYS;
pub(crate) use self::execution::Execution;
pub(crate) use self::implied_limits::{Need, make_room};
pub(crate) use self::lifetime::Lifetime;
pub(crate) use self::listener_tls::ListenerTls;
pub(crate) use self::messages::{MessageKind, Messages};
pub(crate) use self::statistics_dump::statistics_line;
pub(crate) use self::stdout_queue::{Outflow, StdoutQueue};
