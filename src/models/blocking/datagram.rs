//! Datagrams outside the event loop: each is answered at once.

use std::sync::Arc;
use std::time::Instant;

use crate::address::{Address, Ecn, PacketInfo};
use crate::config::Config;
use crate::models::blocking::{Failure, context};
use crate::net::Datagram;
use crate::reactor::answer_with;
use crate::session::{Admitted, Clock, Driver, Protocol};
use crate::statistics::Statistics;
use crate::waker::{Mailbox, Waker, Wakers};

/// Answers one datagram outside the event loop.
pub(in crate::models) fn answer<P: Protocol>(
    socket: &Datagram,
    data: &[u8],
    admitted: Admitted<P>,
    config: &Config,
    statistics: &mut Statistics,
) -> Failure {
    let clock = Clock::new(Instant::now());
    let driver = OneDatagram {
        mailbox: Mailbox::silent(),
        packet: socket.packet_info(),
    };
    let context = context(&clock, config, &driver);

    let send = |reply: &[u8], to: &Address, ecn: Ecn| socket.send_marked(reply, to, ecn);
    answer_with(admitted, data, &context, statistics, &mut None, send)
}

/// The driver of a session that ends at once.
struct OneDatagram {
    mailbox: Arc<Mailbox>,
    packet: Option<PacketInfo>,
}

impl Wakers for OneDatagram {
    fn waker(&self, id: usize) -> Waker {
        self.mailbox.waker(id)
    }
}

impl Driver for OneDatagram {
    fn packet_info(&self, _: usize) -> Option<PacketInfo> {
        self.packet
    }
}
