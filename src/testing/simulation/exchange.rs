//! The conversation of one simulated client: what it sends and what it must receive.

use std::fmt;
use std::rc::Rc;

use crate::error::Deadline;

/// One client's conversation with the server: what it sends, and what it must receive.
///
/// The simulation varies how the bytes are cut, how fast the client sends and takes, and whether it
/// closes its side at once or waits for the reply. None of this may change the result.
///
/// ```
/// use serveloop::testing::Exchange;
/// let exchange = Exchange::new("bob\n", "Hello,bob\n").then("exit\n", "");
/// # let _ = exchange;
/// ```
#[derive(Clone, Debug, Default)]
pub struct Exchange {
    pub(super) sends: Vec<u8>,
    pub(super) expects: Vec<u8>,
    /// For each round, how many bytes have been sent and must have been received by its end.
    pub(super) rounds: Vec<(usize, usize)>,
    pub(super) in_turns: bool,
    pub(super) stays: bool,
    pub(super) ends_first: bool,
    pub(super) ends_last: bool,
    pub(super) may_be_cut: bool,
    /// It is one side of a proxy.
    pub(super) is_relayed: bool,
    /// What the server may say in place of the rest, before it ends the connection.
    endings: Vec<Vec<u8>>,
    /// Other right answers, as they go over the wire.
    others: Vec<Vec<u8>>,
    judge: Option<Judge>,
    /// What the client sends before the first byte of its layer.
    pub(super) preface: Vec<u8>,
}

impl Exchange {
    /// Creates a client that sends `sends` and must receive exactly `expects`, including any
    /// greeting.
    pub fn new(sends: impl AsRef<[u8]>, expects: impl AsRef<[u8]>) -> Self {
        Self::default().then(sends, expects)
    }

    /// Adds a round. A client may send it before it has the reply to the last, unless
    /// [`in_turns`](Self::in_turns) is set.
    #[must_use]
    pub fn then(mut self, sends: impl AsRef<[u8]>, expects: impl AsRef<[u8]>) -> Self {
        self.sends.extend_from_slice(sends.as_ref());
        self.expects.extend_from_slice(expects.as_ref());
        self.rounds.push((self.sends.len(), self.expects.len()));
        self
    }

    /// Makes the client wait for the reply to each round before it sends the next.
    #[must_use]
    pub fn in_turns(mut self) -> Self {
        self.in_turns = true;
        self
    }

    /// Keeps the client's side of the stream open until it has received everything. Use this for a
    /// protocol that drops its reply when the peer closes.
    #[must_use]
    pub fn stays_open(mut self) -> Self {
        self.stays = true;
        self
    }

    /// Makes the client close its side of the stream as soon as it has sent everything, for a reply
    /// that depends on the end.
    #[must_use]
    pub fn ends_first(mut self) -> Self {
        self.ends_first = true;
        self
    }

    /// Keeps the client's side of the stream open until the server has closed its own side, as a
    /// protocol does that [finishes](crate::Transport::finish) first.
    #[must_use]
    pub fn ends_last(mut self) -> Self {
        self.stays = true;
        self.ends_last = true;
        self
    }

    /// Allows the server to end the connection before the client has everything, as it does when a
    /// handler panics. The bytes that do arrive must still be right. For one side of a proxy there is
    /// [`relayed`](Self::relayed).
    #[must_use]
    pub fn may_be_cut(mut self) -> Self {
        self.may_be_cut = true;
        self
    }

    /// Makes the client one side of a proxy. Set it for both sides, the client's and the
    /// [remote](crate::testing::Simulation::remote) server's:
    ///
    /// - The end of one direction does not end the other. After the server's end of stream the client
    ///   goes on sending, and ends its side when it has sent everything. Without this it stops there, as
    ///   most clients do.
    /// - A proxy passes on what happens to one side. So the connection may be cut short, or be late, if
    ///   something happened to another connection of the run. Where nothing did, each side must have
    ///   everything.
    ///
    /// ```
    /// use serveloop::protocols::Relay;
    /// use serveloop::service::{Dialer, Dialing};
    /// use serveloop::testing::{Exchange, Simulation};
    /// use serveloop::{Address, Peer};
    ///
    /// let target: Address = "tcp://10.0.2.1:80".parse()?;
    /// let at = target.clone();
    /// let proxy = move || {
    ///     let at = at.clone();
    ///     Dialing::new(move |dialer: &Dialer<Relay>| {
    ///         let (dialer, at) = (dialer.clone(), at.clone());
    ///         move |_: &Peer| {
    ///             let (near, far) = Relay::pair();
    ///             Some(near.keeping(dialer.connect(at.clone(), far)))
    ///         }
    ///     })
    /// };
    /// Simulation::new(proxy)
    ///     .client(Exchange::new("question", "answer").relayed())
    ///     .remote(target, Exchange::new("answer", "question").relayed())
    ///     .run(0..100);
    /// # Ok::<(), serveloop::net::AddressError>(())
    /// ```
    #[must_use]
    pub fn relayed(mut self) -> Self {
        self.is_relayed = true;
        self
    }

    /// Allows the server to end the connection after any of the replies, or before the first, with
    /// `ending` in place of the rest: the 408 of a server whose client was too slow, or the 503 of one
    /// that has too many. Several calls allow several endings. What the server must not do is cut a
    /// reply or an ending.
    ///
    /// ```
    /// use serveloop::testing::{Exchange, Simulation};
    /// use serveloop::{Deadline, Peer, Protocol, Result, Transport};
    ///
    /// struct Patient;
    ///
    /// impl Protocol for Patient {
    ///     fn data_received(&mut self, data: &[u8], transport: &mut Transport<'_>) -> Result<usize> {
    ///         let line = data.iter().position(|byte| *byte == b'\n');
    ///         let taken = line.map_or(0, |end| end + 1);
    ///         transport.write(&data[..taken]);
    ///         Ok(taken)
    ///     }
    ///
    ///     fn deadline_passed(&mut self, _: Deadline, transport: &mut Transport<'_>) {
    ///         transport.write(b"408\n");
    ///     }
    /// }
    ///
    /// Simulation::new(|| |_: &Peer| Some(Patient))
    ///     .client(Exchange::new("a\n", "a\n").then("b\n", "b\n").or_ends_with("408\n"))
    ///     .run(0..10);
    /// ```
    #[must_use]
    pub fn or_ends_with(mut self, ending: impl AsRef<[u8]>) -> Self {
        self.endings.push(ending.as_ref().to_vec());
        self
    }

    /// Lets `judge` decide whether the client got a right answer, at the end of the run: it is shown all
    /// that the client received, and what happened to the connection. What the exchange expects then
    /// only says when a client that waits for replies goes on, and when it has all. Of a connection
    /// [through](crate::testing::Simulation::through) a layer the judge is shown what the layer sent.
    ///
    /// ```
    /// use serveloop::testing::{Exchange, Simulation};
    /// use serveloop::{Peer, protocols::Echo};
    ///
    /// let greets = Exchange::new("good morning", "good morning")
    ///     .judged(|got, fate| match fate.may_be_cut() || fate.may_be_late() {
    ///         true => b"good morning".starts_with(got),
    ///         false => got == b"good morning" || fate.saw_shutdown(),
    ///     });
    /// Simulation::new(|| |_: &Peer| Some(Echo)).client(greets).run(0..100);
    /// ```
    #[must_use]
    pub fn judged(mut self, judge: impl Fn(&[u8], Fate) -> bool + 'static) -> Self {
        self.judge = Some(Judge(Rc::new(judge)));
        self
    }

    /// Returns whether there are several right answers, so that the bytes of each are to be kept.
    pub(super) fn has_choice(&self) -> bool {
        self.judge.is_some() || !self.endings.is_empty() || !self.others.is_empty()
    }

    /// Returns whether a client may have received these bytes so far.
    pub(super) fn admits(&self, got: &[u8]) -> bool {
        self.judge.is_some() || self.answers().any(|answer| answer.starts_with(got))
    }

    /// Returns whether these bytes are all that the client must have received.
    pub(super) fn is_answered(&self, got: &[u8]) -> bool {
        self.answers().any(|answer| answer == got)
    }

    /// Returns whether the answer is right in the eyes of the judge, if there is one.
    pub(super) fn verdict(&self, got: &[u8], fate: Fate) -> Option<bool> {
        self.judge.as_ref().map(|judge| (judge.0)(got, fate))
    }

    /// Returns every right answer: what is expected, and what ends after one of its replies.
    fn answers(&self) -> impl Iterator<Item = Vec<u8>> {
        let replies = self.rounds.iter().map(|(_, expected)| *expected);
        let beginnings = std::iter::once(0).chain(replies);
        let ended = beginnings.flat_map(|end| {
            let beginning = &self.expects[..end];
            let whole = move |ending: &Vec<u8>| [beginning, ending].concat();
            self.endings.iter().map(whole)
        });
        let others = self.others.iter().cloned();
        std::iter::once(self.expects.clone())
            .chain(ended)
            .chain(others)
    }

    /// Returns the same conversation as it goes over the wire: `seal` returns the bytes for a part
    /// of what is sent, and `expect` those for the beginning of what is expected.
    pub(super) fn on_wire(
        &self,
        seal: impl Fn(&[u8]) -> Vec<u8>,
        expect: impl Fn(&[u8]) -> Vec<u8>,
    ) -> Self {
        let mut wire = Self {
            rounds: Vec::new(),
            sends: Vec::new(),
            expects: expect(&self.expects),
            endings: Vec::new(),
            others: self
                .answers()
                .skip(1)
                .map(|answer| expect(&answer))
                .collect(),
            ..self.clone()
        };

        let mut sent = 0;
        for (sends, expects) in &self.rounds {
            wire.sends.extend(seal(&self.sends[sent..*sends]));
            sent = *sends;
            let expected = expect(&self.expects[..*expects]).len();
            wire.rounds.push((wire.sends.len(), expected));
        }
        wire
    }

    /// Returns the same conversation of a client that sends `preface` first. Inside a layer it goes
    /// before everything that the layer sends.
    pub(super) fn after(&self, preface: &[u8], is_layered: bool) -> Self {
        let mut after = self.clone();
        if is_layered {
            after.preface.splice(0..0, preface.iter().copied());
            return after;
        }

        after.sends.splice(0..0, preface.iter().copied());
        for (sends, _) in &mut after.rounds {
            *sends += preface.len();
        }
        if after.rounds.is_empty() {
            after.rounds.push((preface.len(), 0));
        }
        after
    }

    /// Returns how many bytes may be sent by a client that has received `received`, and waits for
    /// replies if `in_turns`.
    pub(super) fn may_send(&self, received: usize, in_turns: bool) -> usize {
        if !in_turns {
            return self.sends.len();
        }

        let mut needed = 0;
        let open = self.rounds.iter().take_while(|(_, expected)| {
            let is_open = needed <= received;
            needed = *expected;
            is_open
        });

        open.last().map_or(0, |(sends, _)| *sends)
    }
}

type IsRight = dyn Fn(&[u8], Fate) -> bool;

/// Decides whether an answer is right.
#[derive(Clone)]
struct Judge(Rc<IsRight>);

impl fmt::Debug for Judge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Judge")
    }
}

/// What happened to a simulated connection, for the judge of its answer
/// ([`Exchange::judged`]).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fate {
    pub(super) cut: bool,
    pub(super) late: bool,
    pub(super) shutdown: bool,
    pub(super) deadline: Option<Deadline>,
}

impl Fate {
    /// Returns whether the connection may have been cut anywhere: the client reset it or vanished, a
    /// call of the system failed, or the server refused it or had no memory.
    #[must_use]
    pub fn may_be_cut(&self) -> bool {
        self.cut
    }

    /// Returns whether a deadline of the server may have passed: the client was slow, or the time
    /// jumped.
    #[must_use]
    pub fn may_be_late(&self) -> bool {
        self.late
    }

    /// Returns whether the server was shut down before the connection had ended.
    #[must_use]
    pub fn saw_shutdown(&self) -> bool {
        self.shutdown
    }

    /// Returns the deadline for which the server ended the connection.
    #[must_use]
    pub fn deadline(&self) -> Option<Deadline> {
        self.deadline
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ending_comes_after_a_whole_reply() {
        let exchange = Exchange::new("1", "ab").then("2", "cd");
        let exchange = exchange.or_ends_with("xy").or_ends_with("abz");
        for whole in ["abcd", "xy", "abxy", "abcdxy", "abz", "ababz"] {
            assert!(exchange.is_answered(whole.as_bytes()), "{whole}");
            for end in 0..whole.len() {
                assert!(exchange.admits(&whole.as_bytes()[..end]), "{whole}");
            }
        }
        let wire = exchange.on_wire(<[u8]>::to_vec, |all| [b">", all].concat());
        assert!(wire.is_answered(b">abcdxy") && wire.is_answered(b">abcd"));
        assert!(!wire.is_answered(b">") && !wire.admits(b"xy"));
        for wrong in ["axy", "abcxy", "xyab", "xyz", "abcde"] {
            assert!(!exchange.admits(wrong.as_bytes()), "{wrong}");
        }
        for part in ["", "a", "ab", "abc", "x", "abx", "abab"] {
            assert!(!exchange.is_answered(part.as_bytes()), "{part}");
        }
    }

    #[test]
    fn rounds_open_one_by_one() {
        let exchange = Exchange::new("ab", "x").then("cd", "").then("e", "yz");
        assert_eq!(exchange.may_send(0, false), 5);
        assert_eq!(exchange.may_send(0, true), 2);
        assert_eq!(exchange.may_send(1, true), 5);
        assert_eq!(Exchange::default().may_send(0, true), 0);
    }
}
