//! Answering one datagram: a session that ends at once, with its output as the one reply.

use std::io::{self, ErrorKind};

use crate::LOG_TARGET;
use crate::address::{Address, Ecn};
use crate::error::{CloseReason, DeliveryError};
use crate::net::Net;
use crate::reactor::hub::{Effects, Hub};
use crate::reactor::peer_network::PeerNetwork;
use crate::reactor::token::NOBODY;
use crate::session::{Admitted, Buffer, Context, End, Protocol, Session, catch};
use crate::statistics::Statistics;

/// How many times to try to send a reply that is interrupted, before it is dropped like any other
/// that the system does not take.
const TRIES: usize = 16;

/// Answers the datagram that is in the first `count` bytes of the turn's input.
pub(crate) fn answer_on_loop<N: Net, P: Protocol>(
    socket: &mut N::Datagram,
    count: usize,
    admitted: Admitted<P>,
    hub: &mut Hub<'_, N>,
) {
    let context = hub.context(NOBODY);
    let Hub {
        net,
        effects,
        input,
        ..
    } = hub;
    let Effects {
        statistics,
        failures,
        reply_limit,
        output,
        ..
    } = &mut **effects;

    let name = admitted.peer.clone();
    let before = statistics.datagrams_amplified;
    let send = |reply: &[u8], to: &Address, ecn: Ecn| {
        reply_limit.count(to, context.config);
        marked(*net, socket, ecn, |net, socket| net.send(socket, reply, to))
    };
    failures.extend(answer_with(
        admitted,
        &input[..count],
        &context,
        statistics,
        output,
        send,
    ));
    if hub.effects.statistics.datagrams_amplified > before {
        hub.warn_amplified(Some(&name), format_args!("{name}: the reply"));
    }
}

/// Runs a datagram's session and sends its reply. Returns the session's error, if an operator
/// should hear of it.
pub(crate) fn answer_with<P: Protocol>(
    admitted: Admitted<P>,
    data: &[u8],
    context: &Context<'_>,
    statistics: &mut Statistics,
    scratch: &mut Option<Box<Buffer>>,
    send: impl FnMut(&[u8], &Address, Ecn) -> io::Result<()>,
) -> Option<End> {
    let mut session = admitted.begin(context.clock.tick());

    session.lend(scratch);
    session.handle_datagram(data, context);
    if session.has_replied() && !session.is_aborted() {
        reply(&mut session, data.len(), context, statistics, send);
    }

    session.drop_output();
    session.reclaim(scratch, context);

    let end = session.handle_lost(context)?;
    let is_error = end.reason().is_error();
    statistics.panics += u64::from(matches!(end.reason(), CloseReason::Panicked));
    statistics.panics += u64::from(session.has_panicked_last());
    statistics.datagrams_failed += u64::from(is_error);
    statistics.panics += u64::from(catch(|| drop(session)).is_none());

    is_error.then_some(end)
}

/// Sends a datagram, and tries again if a signal interrupts that, up to [`TRIES`] times.
pub(super) fn uninterrupted(mut send: impl FnMut() -> io::Result<()>) -> io::Result<()> {
    let mut sent = send();
    for _ in 1..TRIES {
        match &sent {
            Err(error) if error.kind() == ErrorKind::Interrupted => sent = send(),
            _ => break,
        }
    }
    sent
}

/// Sends with a mark, and without one from then on.
pub(super) fn marked<N: Net, T>(
    net: &mut N,
    socket: &mut N::Datagram,
    ecn: Ecn,
    send: impl FnOnce(&mut N, &mut N::Datagram) -> T,
) -> T {
    if ecn == Ecn::NotEct {
        return send(net, socket);
    }
    net.set_ecn(socket, ecn);
    let sent = send(net, socket);
    net.set_ecn(socket, Ecn::NotEct);
    sent
}

/// Returns what the error of a call means, where the system tells no more of a report: usually what
/// `otherwise` makes of it.
pub(super) fn of_call(
    error: io::Error,
    otherwise: fn(io::Error) -> DeliveryError,
) -> DeliveryError {
    match error.raw_os_error() {
        Some(libc::EMSGSIZE) => DeliveryError::TooLong { mtu: None },
        _ => otherwise(error),
    }
}

/// Sends the reply, which may be several datagrams.
fn reply<P: Protocol>(
    session: &mut Session<P>,
    asked: usize,
    context: &Context<'_>,
    statistics: &mut Statistics,
    mut send: impl FnMut(&[u8], &Address, Ecn) -> io::Result<()>,
) {
    let most = asked.saturating_mul(context.config.reply_factor);
    let is_limited = PeerNetwork::of(session.peer().address(), context.config).is_some();
    if is_limited && session.output().len() > most {
        statistics.datagrams_amplified += 1;
        return;
    }

    while let Some(data) = session.next_datagram() {
        let (length, to, ecn) = (data.len(), session.peer().address(), session.next_ecn());
        match uninterrupted(|| send(data, to, ecn)) {
            Ok(()) => {
                statistics.datagrams_sent += 1;
                session.datagram_sent(length, context);
            }
            Err(error) => {
                let id = session.peer().id();
                log::debug!(target: LOG_TARGET, id = id; "{to}: reply dropped: {error}");
                statistics.datagrams_dropped += 1;
                return;
            }
        }
    }
}
