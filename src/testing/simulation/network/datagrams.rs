//! Simulated datagrams: what clients send to the server's one socket, and the replies.

use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

use crate::address::Address;
use crate::testing::simulation::network::Network;
use crate::testing::simulation::network::clients::Action;

/// One datagram, and the reply that must come back.
#[derive(Debug)]
pub(crate) struct Question {
    pub(in crate::testing::simulation) request: Vec<u8>,
    pub(in crate::testing::simulation) reply: Option<Vec<u8>>,
}

/// How many interrupted sends in a row allow a server to drop a reply.
const INTERRUPTED_MOST: u32 = 16;

/// All datagrams of a run, and the server's socket.
#[derive(Debug, Default)]
pub(super) struct DatagramQueue {
    packets: Vec<Packet>,
    waiting: VecDeque<usize>,
    token: Option<usize>,
    was_closed: bool,
    /// How many sends in a row a signal has interrupted.
    interrupted: u32,
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

    pub(super) fn is_over(&self) -> bool {
        let open = |packet: &Packet| matches!(packet.fate, Fate::UnderWay | Fate::Arrived);
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

    pub(super) fn receive(&mut self, buffer: &mut [u8]) -> Option<(usize, Address)> {
        let packet = &mut self.packets[self.waiting.pop_front()?];
        packet.fate = Fate::Received;
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
        let Some(packet) = self.packets.iter_mut().find(|packet| packet.from == *to) else {
            return Err(format!("a datagram was sent to {to}, who had not asked"));
        };
        if Some(data) != packet.question.reply.as_deref() {
            return Err(format!("{to}: the reply is \"{}\"", data.escape_ascii()));
        }

        packet.replies += 1;
        if lost {
            packet.fate = Fate::Lost;
        }
        Ok(())
    }

    pub(super) fn judge(&self) -> Result<(), String> {
        for packet in &self.packets {
            let due = usize::from(packet.question.reply.is_some());
            let right = packet.replies == due;

            if packet.fate == Fate::Received && !right {
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

    /// Checks the outcome of every datagram.
    ///
    /// # Errors
    /// Returns the first violation.
    pub(in crate::testing::simulation) fn judge_datagrams(&self) -> Result<(), String> {
        self.datagram_queue.judge()
    }
}
