//! Datagrams: what is sent to the server's one socket, and what comes back.

use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

use crate::address::Address;
use crate::simulation::network::Network;
use crate::simulation::network::clients::Deed;

/// One datagram, and what has to come back for it.
#[derive(Debug)]
pub(crate) struct Question {
    pub(crate) request: Vec<u8>,
    pub(crate) reply: Option<Vec<u8>>,
}

/// After so many signals in a row a server may drop a reply.
const INTERRUPTED_MOST: u32 = 16;

/// Every datagram of a run, and the server's socket.
#[derive(Debug, Default)]
pub(super) struct Post {
    letters: Vec<Letter>,
    waiting: VecDeque<usize>,
    token: Option<usize>,
    was_closed: bool,
    /// How often in a row a reply could not be sent for a signal.
    interrupted: u32,
    is_changed: bool,
}

#[derive(Debug)]
struct Letter {
    from: Address,
    question: Rc<Question>,
    fate: Fate,
    replies: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    UnderWay,
    /// Waits in the socket, or is with the server.
    Arrived,
    Received,
    /// It was lost, or the reply to it.
    Lost,
}

impl Post {
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
        let open = |letter: &Letter| matches!(letter.fate, Fate::UnderWay | Fate::Arrived);
        self.was_closed || !self.letters.iter().any(open)
    }

    pub(super) fn is_changed(&self) -> bool {
        self.is_changed
    }

    pub(super) fn announce(&mut self) {
        self.is_changed = true;
    }

    /// The token that an event is due for, once.
    pub(super) fn take_change(&mut self) -> Option<usize> {
        std::mem::take(&mut self.is_changed).then_some(self.token)?
    }

    pub(super) fn has_mail(&self) -> bool {
        !self.waiting.is_empty()
    }

    pub(super) fn deliver(&mut self, number: usize, lost: bool) {
        if lost || !self.is_open() {
            self.letters[number].fate = Fate::Lost;
            return;
        }
        self.letters[number].fate = Fate::Arrived;
        self.waiting.push_back(number);
        self.is_changed = true;
    }

    pub(super) fn receive(&mut self, buffer: &mut [u8]) -> Option<(usize, Address)> {
        let letter = &mut self.letters[self.waiting.pop_front()?];
        letter.fate = Fate::Received;
        self.interrupted = 0;
        let data = &letter.question.request;
        let count = data.len().min(buffer.len());
        buffer[..count].copy_from_slice(&data[..count]);
        Some((count, letter.from.clone()))
    }

    /// A reply was not sent for a signal. One that is tried often in vain may be dropped.
    pub(super) fn note_interrupted(&mut self, to: &Address) {
        self.interrupted += 1;
        let letter = self.letters.iter_mut().find(|letter| letter.from == *to);
        if let Some(letter) = letter.filter(|_| self.interrupted >= INTERRUPTED_MOST) {
            letter.fate = Fate::Lost;
        }
    }

    /// Looks at a reply, which is lost on its way or not.
    ///
    /// # Errors
    /// It must not be.
    pub(super) fn note_reply(
        &mut self,
        data: &[u8],
        to: &Address,
        lost: bool,
    ) -> Result<(), String> {
        self.interrupted = 0;
        let Some(letter) = self.letters.iter_mut().find(|letter| letter.from == *to) else {
            return Err(format!("a datagram was sent to {to}, who had not asked"));
        };
        if Some(data) != letter.question.reply.as_deref() {
            return Err(format!("{to}: the reply is \"{}\"", data.escape_ascii()));
        }
        letter.replies += 1;
        if lost {
            letter.fate = Fate::Lost;
        }
        Ok(())
    }

    pub(super) fn judge(&self) -> Result<(), String> {
        for letter in &self.letters {
            let due = usize::from(letter.question.reply.is_some());
            let right = letter.replies == due;
            if letter.fate == Fate::Received && !right {
                let Letter { from, replies, .. } = letter;
                return Err(format!(
                    "{from}: {replies} replies to one datagram, not {due}"
                ));
            }
        }
        Ok(())
    }
}

impl Network {
    /// A datagram that is sent at some moment soon.
    pub(crate) fn add_letter(&mut self, from: Address, question: &Rc<Question>) {
        let number = self.post.letters.len();
        self.post.letters.push(Letter {
            from,
            question: Rc::clone(question),
            fate: Fate::UnderWay,
            replies: 0,
        });
        let at = Duration::from_micros(self.random.below(200_000) as u64);
        self.timeline.plan(at, Deed::Letter(number));
    }

    /// Looks at what has become of every datagram.
    ///
    /// # Errors
    /// What must not be.
    pub(crate) fn judge_datagrams(&self) -> Result<(), String> {
        self.post.judge()
    }
}
