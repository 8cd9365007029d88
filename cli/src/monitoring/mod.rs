//! Looking into a server while it runs, and steering it: the pages of `--metrics`, the socket of
//! `--admin`, and what both ask.
//!
//! A second, small server with its own loop serves both on a thread of its own, or in a process of its own
//! if the server forks. What it asks goes through one [`Source`], so that pages, `ctl` and `top` say the same.
//! This room imports `failure`, `logger`, `restart`, `signals`, `sys`, `threads` and `units`.

mod admin;
mod apart;
mod asking;
mod bound;
mod clients;
mod host;
mod link;
mod live;
mod options;
mod pages;
mod places;
mod question;
mod retiring;
mod rows;
mod side_server;
mod source;
mod stuck;

use serveloop::Address;
use serveloop::net::VsockAddr;

pub(crate) use self::link::look;
pub(crate) use self::options::{Inherit, MonitoringOptions};
pub(crate) use self::question::{Answer, By, Question, Selection};
pub(crate) use self::side_server::{SidePlace, SideServer};
pub(crate) use self::source::{About, Source};

/// Returns whether only this machine can connect to an address. Everybody can reach a Unix socket of
/// this machine, if its file allows it.
pub(crate) fn is_local(address: &Address) -> bool {
    match address {
        Address::Tcp(addr) | Address::Udp(addr) => addr.ip().to_canonical().is_loopback(),
        Address::Unix(_) | Address::Unixgram(_) => true,
        Address::Vsock(addr) => addr.cid == VsockAddr::LOCAL,
    }
}
