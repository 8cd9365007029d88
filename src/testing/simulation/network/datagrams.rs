//! Simulated datagrams: what clients send to the server's one socket, and the replies.

use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

use crate::address::Address;
use crate::net::Undelivered;
use crate::testing::simulation::network::Network;
use crate::testing::simulation::network::action::{Action, Unreachable};
use crate::testing::simulation::outbound::INTERRUPTED_MOST;

/// One datagram, and the reply that must come back.
#[derive(Debug)]
pub(crate) struct Question {
    pub(in crate::testing::simulation) request: Vec<u8>,
    pub(in crate::testing::simulation) reply: Option<Vec<u8>>,
}

impl Question {
    pub(in crate::testing::simulation) fn new(
        request: impl AsRef<[u8]>,
        reply: Option<&[u8]>,
    ) -> Rc<Self> {
        Rc::new(Self {
            request: request.as_ref().to_vec(),
            reply: reply.map(<[u8]>::to_vec),
        })
    }
}

/// All datagrams of a run, and the server's socket.
#[derive(Debug, Default)]
pub(super) struct DatagramQueue {
    packets: Vec<Packet>,
    waiting: VecDeque<usize>,
    token: Option<usize>,
    was_closed: bool,
    /// How many sends in a row a signal has interrupted.
    interrupted: u32,
    /// How many replies the system did not take, which the server counts as dropped.
    lost_replies: u64,
    /// What the network says of datagrams to peers with sessions.
    reports: VecDeque<Undelivered>,
    has_peers: bool,
    is_changed: bool,
}

#[derive(Debug)]
struct Packet {
    from: Address,
    question: Rc<Question>,
    fate: Fate,
    replies: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    UnderWay,
    /// It waits in the server's socket.
    Arrived,
    Received,
    /// The reply to it waits for room in the server's socket.
    Waits,
    /// It, or the reply to it, was lost.
    Lost,
}

impl DatagramQueue {
    pub(super) fn open(&mut self, token: usize) {
        self.token = Some(token);
    }

    pub(super) fn close(&mut self) {
        self.token = None;
        self.was_closed = true;
    }

    pub(super) fn is_open(&self) -> bool {
        self.token.is_some()
    }

    /// Returns whether every datagram has its fate. A reply that waits has none, unless it waited for too
    /// long: its session was one of the peers that have `timed_out`, after the clock jumped.
    pub(super) fn is_over(&self, timed_out: &[Address]) -> bool {
        let open = |packet: &Packet| match packet.fate {
            Fate::UnderWay | Fate::Arrived => true,
            Fate::Waits => !timed_out.contains(&packet.from),
            Fate::Received | Fate::Lost => false,
        };
        self.was_closed || !self.packets.iter().any(open)
    }

    pub(super) fn is_changed(&self) -> bool {
        self.is_changed
    }

    pub(super) fn announce(&mut self) {
        self.is_changed = true;
    }

    /// Returns, once, the token for which an event is due.
    pub(super) fn take_change(&mut self) -> Option<usize> {
        std::mem::take(&mut self.is_changed).then_some(self.token)?
    }

    /// Returns whether there are reports that the server has not taken.
    pub(super) fn has_reports(&self) -> bool {
        !self.reports.is_empty()
    }

    pub(super) fn take_report(&mut self) -> Option<Undelivered> {
        self.reports.pop_front()
    }

    /// Reports that the datagrams to the sender of this one do not arrive.
    pub(super) fn report(&mut self, number: usize, reason: Unreachable) {
        if !self.is_open() {
            return;
        }
        let to = self.packets[number].from.clone();
        let error = reason.error();
        self.reports.push_back(Undelivered { to, error });
        self.is_changed = true;
    }

    pub(super) fn has_mail(&self) -> bool {
        !self.waiting.is_empty()
    }

    pub(super) fn deliver(&mut self, number: usize, lost: bool) {
        if lost || !self.is_open() {
            self.packets[number].fate = Fate::Lost;
            return;
        }
        self.packets[number].fate = Fate::Arrived;
        self.waiting.push_back(number);
        self.is_changed = true;
    }

    /// Receives a datagram. A server that `ends` may ignore it.
    pub(super) fn receive(&mut self, buffer: &mut [u8], ends: bool) -> Option<(usize, Address)> {
        let packet = &mut self.packets[self.waiting.pop_front()?];
        packet.fate = match ends {
            true => Fate::Lost,
            false => Fate::Received,
        };
        self.interrupted = 0;

        let data = &packet.question.request;
        let count = data.len().min(buffer.len());
        buffer[..count].copy_from_slice(&data[..count]);
        Some((count, packet.from.clone()))
    }

    /// Records that a signal interrupted a reply. A reply that is interrupted too often may be
    /// dropped.
    pub(super) fn note_interrupted(&mut self, to: &Address) {
        self.interrupted += 1;
        let packet = self.packets.iter_mut().find(|packet| packet.from == *to);
        if let Some(packet) = packet.filter(|_| self.interrupted >= INTERRUPTED_MOST) {
            packet.fate = Fate::Lost;
            self.lost_replies += 1;
        }
    }

    /// Checks a reply. `lost` says whether it is lost on its way.
    ///
    /// # Errors
    /// Returns a problem if the reply is unexpected or wrong.
    pub(super) fn note_reply(
        &mut self,
        data: &[u8],
        to: &Address,
        lost: bool,
    ) -> Result<(), String> {
        self.interrupted = 0;
        let packet = self.answered(data, to)?;
        packet.replies += 1;
        packet.fate = match lost {
            true => Fate::Lost,
            false => Fate::Received,
        };
        self.lost_replies += u64::from(lost);
        Ok(())
    }

    /// Checks a reply that finds no room, and is to be sent again.
    ///
    /// # Errors
    /// Returns a problem if the reply is unexpected or wrong.
    pub(super) fn note_waits(&mut self, data: &[u8], to: &Address) -> Result<(), String> {
        self.answered(data, to)?.fate = Fate::Waits;
        Ok(())
    }

    /// Returns the datagram that a reply is for. One peer may have sent several, and then any that was
    /// received and not answered yet will do.
    fn answered(&mut self, data: &[u8], to: &Address) -> Result<&mut Packet, String> {
        if !self.packets.iter().any(|packet| packet.from == *to) {
            return Err(format!("a datagram was sent to {to}, who had not asked"));
        }
        let awaits = |packet: &Packet, fate: Fate| {
            let is_right = packet.question.reply.as_deref() == Some(data);
            let is_known = packet.from == *to && packet.fate == fate;
            is_known && is_right && packet.replies == 0
        };
        // One that may be given up can still be answered.
        let fates = [Fate::Waits, Fate::Received, Fate::Lost];
        let mut found = fates.into_iter().filter_map(|fate| {
            let mut all = self.packets.iter();
            all.position(|packet| awaits(packet, fate))
        });
        match found.next() {
            Some(number) => Ok(&mut self.packets[number]),
            None => Err(format!("{to}: the reply is \"{}\"", data.escape_ascii())),
        }
    }

    /// Checks that every datagram that was received is answered once. A server that drops some says so
    /// (`dropped`).
    ///
    /// What a session wrote behind a reply that waits ends with it, if its deadline passes: peers that have
    /// `timed_out` are forgiven.
    pub(super) fn judge(&self, dropped: u64, timed_out: &[Address]) -> Result<(), String> {
        let mut forgiven = dropped.saturating_sub(self.lost_replies);
        for packet in &self.packets {
            let due = usize::from(packet.question.reply.is_some());
            let right = packet.replies == due;

            if packet.fate == Fate::Received && !right {
                if packet.replies < due && timed_out.contains(&packet.from) {
                    continue;
                }
                if packet.replies < due && forgiven > 0 {
                    forgiven -= 1;
                    continue;
                }
                let Packet { from, replies, .. } = packet;
                return Err(format!(
                    "{from}: {replies} replies to one datagram, not {due}"
                ));
            }
        }

        Ok(())
    }
}

impl Network {
    /// Perhaps reports that datagrams to the sender of this one do not arrive: as a router does that
    /// has seen one, or an impostor who has not.
    pub(super) fn perhaps_report(&mut self, number: usize) {
        if !self.datagram_queue.has_peers || !self.random.chance(self.faults.datagram_reports) {
            return;
        }
        let reasons = [
            Unreachable::Refused,
            Unreachable::NoRoute,
            Unreachable::TooLong,
        ];
        let reason = self.random.pick(&reasons);
        let at = self.elapsed + Duration::from_micros(self.random.below(100_000) as u64);
        self.timeline.plan(at, Action::Unreachable(number, reason));
    }

    /// Adds a datagram that is sent soon after the start.
    pub(in crate::testing::simulation) fn add_letter(
        &mut self,
        from: Address,
        question: &Rc<Question>,
    ) {
        let number = self.datagram_queue.packets.len();
        self.datagram_queue.packets.push(Packet {
            from,
            question: Rc::clone(question),
            fate: Fate::UnderWay,
            replies: 0,
        });

        let at = Duration::from_micros(self.random.below(200_000) as u64);
        self.timeline.plan(at, Action::Packet(number));
    }

    /// Adds datagrams of a peer that has a session. The network may deliver one twice.
    pub(in crate::testing::simulation) fn add_letter_of_peer(
        &mut self,
        from: Address,
        question: &Rc<Question>,
    ) {
        self.datagram_queue.has_peers = true;
        self.add_letter(from.clone(), question);
        if self.random.chance(self.faults.doubled_datagrams) {
            self.add_letter(from, question);
        }
    }

    /// Checks the outcome of every datagram, of which the server has counted some as `dropped`.
    ///
    /// # Errors
    /// Returns the first violation.
    pub(in crate::testing::simulation) fn judge_datagrams(
        &self,
        dropped: u64,
    ) -> Result<(), String> {
        let ledger = self.ledger.borrow();
        self.datagram_queue.judge(dropped, &ledger.timed_out)?;
        self.judge_outbound(dropped)
    }
}
