//! The session of one peer of a datagram socket: what happened to it, and what it sends.

use std::io::ErrorKind;

use crate::LOG_TARGET;
use crate::error::{CloseReason, Deadline, DeliveryError, counted};
use crate::net::{Destination, Net};
use crate::reactor::datagram::answer::{marked, of_call, uninterrupted};
use crate::reactor::hub::Hub;
use crate::reactor::peer_network::PeerNetwork;
use crate::session::{Context, Flags, Protocol, Session, Tick};

/// The most datagrams to send together, which is what older kernels take, and the most bytes.
const RUN_MOST: usize = 64;
const RUN_BYTES: usize = 65_000;

/// The session is in the list of those that have work.
const QUEUED: Flags = Flags::bit(0);
/// A waker was used, or something was posted.
const WOKEN: Flags = Flags::bit(1);
/// A deadline has passed.
const DUE: Flags = Flags::bit(2);
/// The server, or its factory, wants the session to finish.
const ASKED: Flags = Flags::bit(3);
/// The peer has sent a second datagram.
const RETURNED: Flags = Flags::bit(4);
/// Output waits until the socket has room.
const WAITS: Flags = Flags::bit(5);
/// The session has no timer.
const RETIME: Flags = Flags::bit(6);

/// A session that lasts, and what only datagrams need.
#[derive(Debug)]
pub(super) struct PeerSession<P> {
    pub(super) session: Session<P>,
    /// Which of our addresses the peer sends to.
    source: Option<Destination>,
    pub(super) generation: u32,
    /// How many bytes were added to the total of all sessions.
    held: u32,
    flags: Flags,
}

impl<P: Protocol> PeerSession<P> {
    pub(super) fn new(session: Session<P>, source: Option<Destination>, generation: u32) -> Self {
        Self {
            session,
            source,
            generation,
            held: 0,
            flags: Flags::default(),
        }
    }

    /// Returns whether the peer has begun, and not this server.
    pub(super) fn is_inbound(&self) -> bool {
        self.session.peer().listener().is_some()
    }

    /// Returns whether the peer has sent more than one datagram.
    pub(super) fn has_returned(&self) -> bool {
        self.flags.any(RETURNED)
    }

    /// Notes that the peer has sent another datagram, to the address `source`. Returns whether it is the
    /// second one.
    pub(super) fn note_datagram(&mut self, source: Option<Destination>) -> bool {
        self.source = source;
        let is_second = !self.flags.any(RETURNED);
        self.flags.set(RETURNED);
        is_second
    }

    pub(super) fn note_woken(&mut self) -> bool {
        self.queue(WOKEN)
    }

    pub(super) fn note_due(&mut self) -> bool {
        self.queue(DUE)
    }

    pub(super) fn note_asked(&mut self) -> bool {
        !self.session.was_asked_to_finish() && self.queue(ASKED)
    }

    pub(super) fn note_room(&mut self) -> bool {
        self.flags.clear(WAITS);
        self.queue(Flags::default())
    }

    /// Notes that the session has work. Returns true if that is to be put on the list.
    pub(super) fn queue(&mut self, work: Flags) -> bool {
        let is_queued = self.flags.any(QUEUED);
        self.flags.set(work.or(QUEUED));
        !is_queued
    }

    /// Returns whether a deadline may have passed.
    pub(super) fn is_due(&self) -> bool {
        self.flags.any(DUE)
    }

    /// Returns whether a datagram waits for room, which may be an empty one.
    pub(super) fn owes(&self) -> bool {
        let waits = self.flags.any(WAITS) && !self.session.is_aborted();
        waits && self.session.next_datagram().is_some()
    }

    /// Makes the next [`flush`](Self::flush) try again what found no room before.
    pub(super) fn retry(&mut self) {
        self.flags.clear(WAITS);
    }

    /// Tells the session what has happened to it, apart from datagrams. Some datagrams may wait to be
    /// received (`waits`), so that no peer is blamed for silence.
    pub(super) fn attend(&mut self, context: &Context<'_>, waits: bool) {
        self.flags.clear(QUEUED);
        if self.session.has_more() {
            self.session.handle_more(context);
        }
        if self.flags.take(WOKEN) {
            self.session.handle_woken(context);
        }
        if self.flags.take(DUE) {
            self.flags.set(RETIME);
            self.session.handle_deadlines(context, waits);
            let patience = self.patience(context).filter(|_| !waits);
            if patience.is_some_and(|at| at <= context.clock.tick()) {
                self.session.fail(CloseReason::TimedOut(Deadline::Idle));
            }
        }
        if self.flags.take(ASKED) {
            self.session.handle_shutdown(context);
        }
    }

    /// Sends what the session has written, until the socket has no room, and tells the session of what
    /// cannot be sent at all. Returns false if something waits for room from now on.
    pub(super) fn flush<N: Net>(
        &mut self,
        socket: &mut N::Datagram,
        hub: &mut Hub<'_, N>,
        context: &Context<'_>,
    ) -> bool {
        let mut failed = None;
        let has_room = self.send(socket, hub, context, &mut failed);
        let Some(error) = failed else {
            return has_room;
        };

        // What it says to that is sent, and told no more if it fails too.
        self.session.handle_undelivered(&error, context);
        self.send(socket, hub, context, &mut None) && has_room
    }

    fn send<N: Net>(
        &mut self,
        socket: &mut N::Datagram,
        hub: &mut Hub<'_, N>,
        context: &Context<'_>,
        failed: &mut Option<DeliveryError>,
    ) -> bool {
        if self.flags.any(WAITS) {
            self.session.cut();
            return true;
        }

        while !self.session.is_aborted() {
            if self.session.is_confirmed() && self.send_run(socket, hub, context) {
                continue;
            }
            let Some(data) = self.session.next_datagram() else {
                return true;
            };
            let length = data.len();
            if !self.may_send(length, context) {
                self.refuse(length, hub, context);
                continue;
            }

            let (to, ecn) = (self.session.peer().address(), self.session.next_ecn());
            let send = |net: &mut N, socket: &mut N::Datagram| {
                uninterrupted(|| net.send_from(socket, data, to, self.source))
            };
            match marked(hub.net, socket, ecn, send) {
                Ok(()) => {
                    hub.effects.statistics.datagrams_sent += 1;
                    if !self.session.is_confirmed() {
                        hub.effects.reply_limit.count(to, context.config);
                    }
                    self.session.datagram_sent(length, context);
                }
                // The room that a Unix peer lacks is its own, and no event tells of it.
                Err(error) if error.kind() == ErrorKind::WouldBlock && is_of_ip(&self.session) => {
                    self.session.cut();
                    self.flags.set(WAITS);
                    return false;
                }
                Err(error) => {
                    let peer = self.session.peer();
                    let bytes = counted(length, "byte", "bytes");
                    log::debug!(
                        target: LOG_TARGET, id = peer.id();
                        "{peer}: a datagram of {bytes} was not sent: {error}"
                    );
                    hub.effects.statistics.datagrams_dropped += 1;
                    self.session.datagram_dropped(length, context);
                    *failed = Some(of_call(error, DeliveryError::NotSent));
                }
            }
        }
        true
    }

    /// Sends the next datagrams together, if they are several of one length. Returns false if nothing was
    /// sent, whatever the reason: then the first of them is to be sent alone.
    fn send_run<N: Net>(
        &mut self,
        socket: &mut N::Datagram,
        hub: &mut Hub<'_, N>,
        context: &Context<'_>,
    ) -> bool {
        let Some((data, length)) = self.session.next_run(RUN_MOST, RUN_BYTES) else {
            return false;
        };
        let (to, total) = (self.session.peer().address(), data.len());
        let send = |net: &mut N, socket: &mut N::Datagram| {
            net.send_run(socket, data, length, to, self.source)
        };
        let sent = marked(hub.net, socket, self.session.next_ecn(), send);
        let sent = sent.unwrap_or(0);

        hub.effects.statistics.datagrams_sent += sent as u64;
        for number in 0..sent {
            let length = length.min(total - number * length);
            self.session.datagram_sent(length, context);
        }
        sent > 0
    }

    /// Returns whether the peer may get `length` more bytes, although its address may be forged.
    fn may_send(&self, length: usize, context: &Context<'_>) -> bool {
        let to = self.session.peer().address();
        self.session.may_send(length) || PeerNetwork::of(to, context.config).is_none()
    }

    /// Drops a datagram that would be too much for a forged address.
    #[cold]
    fn refuse<N>(&mut self, length: usize, hub: &mut Hub<'_, N>, context: &Context<'_>) {
        hub.effects.statistics.datagrams_amplified += 1;
        let (peer, bytes) = (self.session.peer(), counted(length, "byte", "bytes"));
        hub.warn_of(
            peer,
            "unconfirmed",
            format_args!(
                "{peer}: dropped a datagram of {bytes} to an address that is not confirmed"
            ),
        );
        self.session.datagram_dropped(length, context);
    }

    /// Returns the deadline of the session, if it may have become earlier.
    pub(super) fn earlier_deadline(&mut self, context: &Context<'_>) -> Option<Tick> {
        if !self.flags.take(RETIME) && !self.session.deadline_changed() {
            return None;
        }
        let own = self.session.deadline(context);
        own.into_iter().chain(self.patience(context)).min()
    }

    /// Returns until when a peer has to send its second datagram, if it has not yet.
    fn patience(&self, context: &Context<'_>) -> Option<Tick> {
        let timeout = self.session.limits(context.config).first_message_timeout?;
        (!self.has_returned()).then(|| self.session.began().after(timeout))
    }

    /// Adds what the session holds to the total of all, in place of what was added before.
    pub(super) fn hold<N>(&mut self, hub: &mut Hub<'_, N>) {
        let held = u32::try_from(self.session.held()).unwrap_or(u32::MAX);
        self.count_held(held, hub);
    }

    /// Subtracts what [`hold`](Self::hold) added.
    pub(super) fn release<N>(&mut self, hub: &mut Hub<'_, N>) {
        self.count_held(0, hub);
    }

    fn count_held<N>(&mut self, held: u32, hub: &mut Hub<'_, N>) {
        let sum = &mut hub.effects.held_by_sessions;
        let others = *sum - self.held as usize;
        // All bytes of all sessions can be counted, also with pointers of 32 bits.
        let room = u32::try_from(usize::MAX - others).unwrap_or(u32::MAX);
        self.held = held.min(room);
        *sum = others + self.held as usize;
    }

    /// Returns what the session holds, with what was posted for it.
    pub(super) fn share(&self) -> usize {
        (self.held as usize).saturating_add(self.session.posted())
    }
}

fn is_of_ip<P: Protocol>(session: &Session<P>) -> bool {
    session.peer().address().socket_addr().is_some()
}
