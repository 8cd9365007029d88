//! Datagrams outside the event loop: each is answered at once.

use std::time::Instant;

use crate::address::Address;
use crate::config::Config;
use crate::models::blocking::{Failure, context};
use crate::net::Datagram;
use crate::reactor::answer_with;
use crate::session::{Admitted, Clock, Protocol};
use crate::statistics::Statistics;
use crate::waker::Mailbox;

/// Answers one datagram outside the event loop.
pub(in crate::models) fn answer<P: Protocol>(
    socket: &Datagram,
    data: &[u8],
    admitted: Admitted<P>,
    config: &Config,
    statistics: &mut Statistics,
) -> Failure {
    let clock = Clock::new(Instant::now());
    let driver = Mailbox::silent();
    let context = context(&clock, config, &driver);

    let send = |reply: &[u8], to: &Address| socket.send_to(reply, to);
    answer_with(admitted, data, &context, statistics, &mut None, send)
}
