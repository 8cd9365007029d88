//! How datagrams are shown to a protocol. The session of a single datagram has no other turn, so
//! everything happens in this one. A session that lasts is shown all datagrams of its peer.

use crate::address::{Ecn, PacketInfo};
use crate::error::DeliveryError;
use crate::session::state::{
    AGAIN, BLOCKED, CLOSING, CONFIRMED, EOF, EOF_TOLD, FIRST, INCOMPLETE, LASTING, PENDING, State,
    WROTE,
};
use crate::session::unwind::take_datagram;
use crate::session::{Context, Protocol, Session, Transport};

/// How many times as many bytes as it has sent a peer gets until its address is confirmed. QUIC has
/// the same rule (RFC 9000, section 8.1).
const UNCONFIRMED_FACTOR: u64 = 3;

impl Transport<'_> {
    /// Sends `data` as a datagram of its own, before what is written next. Without this, everything
    /// that is written in one event becomes one datagram. For a stream it works like
    /// [`write`](Self::write).
    ///
    /// ```
    /// use serveloop::testing::MemorySession;
    /// use serveloop::{Protocol, Result, Transport};
    ///
    /// /// Answers each word of a datagram with a datagram.
    /// struct Words;
    ///
    /// impl Protocol for Words {
    ///     fn data_received(&mut self, data: &[u8], transport: &mut Transport<'_>) -> Result<usize> {
    ///         for word in data.split(|byte| *byte == b' ') {
    ///             transport.write_datagram(word);
    ///         }
    ///         Ok(data.len())
    ///     }
    /// }
    ///
    /// let mut session = MemorySession::datagrams(Words);
    /// session.receive_datagram(b"to be");
    /// assert_eq!(session.take_datagrams(), [b"to", b"be"]);
    /// ```
    pub fn write_datagram(&mut self, data: &[u8]) {
        if !self.peer().is_datagram() {
            return self.write(data);
        }
        self.state.cut();
        self.write(data);
        self.state.cut();
    }

    /// Returns the ECN mark and the hop limit of the datagram that the protocol is shown in this call, or
    /// whose session begins with it. `None` in other calls, for streams and Unix datagrams, and for
    /// listeners without the option `packet-info` ([`UdpOptions::packet_info`]).
    ///
    /// ```
    /// use serveloop::net::{Ecn, PacketInfo};
    /// use serveloop::testing::MemorySession;
    /// use serveloop::{Protocol, Result, Transport};
    ///
    /// /// Takes datagrams of neighbours only, and says whether a router on the way was congested.
    /// struct Neighbour;
    ///
    /// impl Protocol for Neighbour {
    ///     fn data_received(&mut self, data: &[u8], transport: &mut Transport<'_>) -> Result<usize> {
    ///         match transport.packet_info() {
    ///             Some(packet) if packet.hop_limit == 255 => {
    ///                 transport.set_ecn(Ecn::Ect0);
    ///                 transport.write(if packet.ecn == Ecn::Ce { b"slower" } else { b"fine" });
    ///             }
    ///             _ => transport.abort(),
    ///         }
    ///         Ok(data.len())
    ///     }
    /// }
    ///
    /// let mut session = MemorySession::datagrams(Neighbour);
    /// session.set_packet_info(Some(PacketInfo::new(Ecn::Ce, 255)));
    /// session.receive_datagram(b"?");
    /// assert_eq!(session.take_marked_datagrams(), [(Ecn::Ect0, b"slower".to_vec())]);
    /// session.set_packet_info(Some(PacketInfo::new(Ecn::Ce, 254)));
    /// session.receive_datagram(b"?");
    /// assert!(session.reason().is_some());
    /// ```
    ///
    /// [`UdpOptions::packet_info`]: crate::net::UdpOptions::packet_info
    #[must_use]
    pub fn packet_info(&self) -> Option<PacketInfo> {
        match self.peer().is_datagram() {
            true => self.context.driver.packet_info(self.context.id),
            false => None,
        }
    }

    /// Sets the ECN mark of the datagrams that this session sends from now on, until it is set again. A
    /// datagram has the mark that was set when its writing ended. By default there is none.
    ///
    /// A protocol that marks its datagrams has to learn from its peer which marks arrived, and to slow
    /// down for [`Ecn::Ce`] as for a lost datagram. Marks are sent on Linux only; elsewhere, and for
    /// streams and Unix datagrams, this does nothing.
    pub fn set_ecn(&mut self, ecn: Ecn) {
        if self.peer().is_datagram() {
            self.state.set_ecn(ecn);
        }
    }

    /// Returns whether this is the session of a single datagram, which ends at once: nothing can be
    /// sent later, and no waker, outbox or timer has an effect. False for a connection, and for a
    /// session of a peer's datagrams ([`Config::sessions`](crate::Config::sessions)).
    #[must_use]
    pub fn is_one_shot(&self) -> bool {
        self.peer().is_datagram() && !self.state.flags.any(LASTING)
    }

    /// Tells the server that the peer of a lasting session receives what is sent to its address, for
    /// example because it has sent back a random number that it was sent. Until then, it gets at most
    /// three times as many bytes as it has sent, since its address may be forged, and what is beyond
    /// that is dropped. Other sessions have no such limit, and this does nothing for them.
    ///
    /// Peers on this machine need no confirmation, unless
    /// [`limit_loopback`](crate::Config::limit_loopback) is on.
    ///
    /// ```
    /// use serveloop::testing::MemorySession;
    /// use serveloop::{Protocol, Result, Transport};
    ///
    /// /// Sends the state of a game to those who repeat its number.
    /// struct Player(u32);
    ///
    /// impl Protocol for Player {
    ///     fn data_received(&mut self, data: &[u8], transport: &mut Transport<'_>) -> Result<usize> {
    ///         if data == self.0.to_be_bytes() {
    ///             transport.confirm_address();
    ///             transport.write(&[b'x'; 1_000]);
    ///         } else {
    ///             transport.write(&self.0.to_be_bytes());
    ///         }
    ///         Ok(data.len())
    ///     }
    /// }
    ///
    /// let mut session = MemorySession::datagrams(Player(7));
    /// session.receive_datagram(b"join");
    /// assert_eq!(session.take_datagrams(), [[0, 0, 0, 7]]);
    /// session.receive_datagram(&[0, 0, 0, 7]);
    /// assert_eq!(session.take_datagrams()[0].len(), 1_000);
    /// ```
    pub fn confirm_address(&mut self) {
        if self.state.flags.any(LASTING) && self.peer().is_datagram() {
            self.state.flags.set(CONFIRMED);
        }
    }
}

impl<P: Protocol> Session<P> {
    /// Makes this the session of all datagrams of its peer.
    pub(crate) fn make_lasting(&mut self) {
        self.state.flags.set(LASTING);
        self.state.flags.clear(FIRST);
    }

    /// Notes that the peer is known to receive what is sent to its address.
    pub(crate) fn confirm(&mut self) {
        self.state.flags.set(CONFIRMED);
    }

    /// Returns whether the peer is known to receive what is sent to its address.
    pub(crate) fn is_confirmed(&self) -> bool {
        self.state.flags.any(CONFIRMED)
    }

    /// Returns whether a peer that is not confirmed may be sent `count` more bytes.
    pub(crate) fn may_send(&self, count: usize) -> bool {
        let most = self.state.received.saturating_mul(UNCONFIRMED_FACTOR);
        self.is_confirmed() || self.state.sent.saturating_add(count as u64) <= most
    }

    /// Shows a datagram to a session that lasts. What the protocol does not take of it is dropped.
    /// Returns false if the protocol takes no input now: then it is not shown at all.
    pub(crate) fn handle_peer_datagram(&mut self, mut rest: &[u8], context: &Context<'_>) -> bool {
        let mut calls = context.config.messages_per_turn;
        self.call_now(&mut calls, context);
        if self.state.flags.any(BLOCKED) {
            return false;
        }

        self.state.activity = context.clock.tick();
        self.state.received = self.state.received.wrapping_add(rest.len() as u64);
        loop {
            let taken = self.show_datagram(rest, context);
            rest = &rest[taken..];
            if !self.take_more() || rest.is_empty() {
                break;
            }
        }
        // The peer owes no rest of a message: the next datagram begins another one.
        self.state.flags.clear(INCOMPLETE | PENDING);
        true
    }

    /// Tells the protocol that a datagram of this session did not arrive.
    pub(crate) fn handle_undelivered(&mut self, error: &DeliveryError, context: &Context<'_>) {
        self.protocol
            .tell(&mut self.state, context, |protocol, transport| {
                protocol.datagram_undelivered(error, transport);
            });
    }

    /// Handles a datagram, or a part of it, that a layer has unwrapped for the session inside. What the
    /// protocol does not take is kept until the datagram's end.
    pub(crate) fn handle_unwrapped_datagram(&mut self, data: &[u8], context: &Context<'_>) {
        self.handle_data_by(data, context, take_datagram);
    }

    pub(super) fn show_datagram(&mut self, data: &[u8], context: &Context<'_>) -> usize {
        self.show_by(
            data,
            context.config.messages_per_turn,
            context,
            take_datagram,
        )
    }
}

impl<P: Protocol> Session<P> {
    /// Shows the rest of a datagram, if there may be a message in it (`is_more`), and then its end.
    /// The protocol has up to `calls` calls that it asks for.
    pub(super) fn end_datagram(
        &mut self,
        mut rest: &[u8],
        mut is_more: bool,
        mut calls: usize,
        context: &Context<'_>,
    ) {
        loop {
            is_more |= self.call_now(&mut calls, context);
            if is_more && !rest.is_empty() {
                let taken = self.show_datagram(rest, context);
                rest = &rest[taken..];
                is_more = self.take_more();
                if is_more || self.state.flags.any(AGAIN) {
                    continue;
                }
            }

            self.state.flags.set(EOF | EOF_TOLD);
            self.protocol
                .call(&mut self.state, context, |protocol, transport| {
                    protocol.eof_received(rest, transport)
                });
            self.call_now(&mut calls, context);

            // A protocol that took the datagram over is yet to see the rest of it.
            if self.state.flags.any(EOF_TOLD | CLOSING) {
                return;
            }
            is_more = true;
        }
    }

    /// Returns whether the last show ended because the turn's calls were used up. No other turn shows
    /// the rest.
    pub(super) fn take_more(&mut self) -> bool {
        self.state.flags.take(PENDING) && !self.state.flags.any(BLOCKED)
    }

    /// Calls the protocol as often as it asks for that, and no more than `calls` times. Returns
    /// whether it was called.
    pub(super) fn call_now(&mut self, calls: &mut usize, context: &Context<'_>) -> bool {
        let before = *calls;
        while self.state.flags.take(AGAIN) && *calls > 0 {
            *calls -= 1;
            self.tell(context, P::woken);
        }
        *calls < before
    }
}

impl<P: Protocol> Session<P> {
    /// Returns whether the protocol wrote anything, including an empty datagram.
    #[must_use]
    pub fn has_replied(&self) -> bool {
        self.state.flags.any(WROTE) || self.next_datagram().is_some()
    }

    /// Runs a whole session on one datagram. Its output is the reply, if the session
    /// [`has_replied`](Self::has_replied). The driver then only calls
    /// [`handle_lost`](Self::handle_lost).
    pub fn handle_datagram(&mut self, data: &[u8], context: &Context<'_>) {
        self.handle_open(context);
        self.state.received = data.len() as u64;

        let mut calls = context.config.messages_per_turn;
        self.call_now(&mut calls, context);
        let taken = self.show_datagram(data, context);
        let is_more = self.take_more();
        self.end_datagram(&data[taken..], is_more, calls, context);
        self.state.close();
    }

    /// Returns the datagram that is to be sent next. Nothing remains of those that were dropped.
    pub(crate) fn next_datagram(&self) -> Option<&[u8]> {
        if self.is_aborted() {
            return None;
        }

        let output = self.buffered();
        let cuts = self
            .state
            .extra
            .as_ref()
            .and_then(|extra| extra.cuts.as_ref());
        match cuts.and_then(|cuts| cuts.first()) {
            Some(length) => Some(&output[..length]),
            None => self.state.flags.any(WROTE).then_some(output),
        }
    }

    /// Returns the mark of the datagram that is to be sent next.
    pub(crate) fn next_ecn(&self) -> Ecn {
        let extra = self.state.extra.as_ref();
        let cuts = extra.and_then(|extra| extra.cuts.as_ref());
        cuts.map_or(Ecn::NotEct, |cuts| cuts.ecn())
    }

    /// Returns the datagrams that are to be sent next, if they are several of one length and one mark: their
    /// bytes one behind the other, of which only the last may be shorter, and that length.
    pub(crate) fn next_run(&self, most: usize, bytes: usize) -> Option<(&[u8], usize)> {
        let cuts = self.state.extra.as_ref()?.cuts.as_ref()?;
        let (count, sum) = cuts.run(most, bytes);
        (count > 1).then_some((&self.buffered()[..sum], cuts.first()?))
    }

    /// Notes that the next datagram, of `length` bytes, was sent.
    pub(crate) fn datagram_sent(&mut self, length: usize, context: &Context<'_>) {
        self.state.uncut();
        self.output_sent(length, context);
    }

    /// Notes that the next datagram, of `length` bytes, is not sent at all.
    pub(crate) fn datagram_dropped(&mut self, length: usize, context: &Context<'_>) {
        let sent = self.state.sent;
        self.datagram_sent(length, context);
        self.state.sent = sent;
    }

    /// Ends the datagram that was begun, because it has to wait, and what is written later is not to
    /// become a part of it.
    pub(crate) fn cut(&mut self) {
        self.state.cut();
    }
}

impl State {
    /// Ends the datagram that was begun, if one was.
    pub(super) fn cut(&mut self) {
        if self.flags.take(WROTE) {
            let buffered = self.buffered();
            let cuts = &mut self.extra().cuts;
            cuts.get_or_insert_with(Box::default).push(buffered);
        }
    }

    /// Returns how many bytes of output are in complete datagrams.
    pub(super) fn cut_off(&self) -> usize {
        let cuts = self.extra.as_ref().and_then(|extra| extra.cuts.as_ref());
        cuts.map_or(0, |cuts| cuts.sum())
    }

    fn set_ecn(&mut self, ecn: Ecn) {
        let cuts = &mut self.extra().cuts;
        cuts.get_or_insert_with(Box::default).set_ecn(ecn);
    }

    /// Works like `cut`, if this is the state of a datagram's session.
    pub(super) fn cut_datagram(&mut self) {
        if self.peer.is_datagram() {
            self.cut();
        }
    }

    /// Notes that the first datagram has left the output.
    fn uncut(&mut self) {
        let cuts = self.extra.as_mut().and_then(|extra| extra.cuts.as_mut());
        if !cuts.is_some_and(|cuts| cuts.pop()) {
            self.flags.clear(WROTE);
        }
    }
}
