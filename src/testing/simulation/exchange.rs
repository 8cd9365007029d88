//! The conversation of one simulated client: what it sends and what it must receive.

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
    /// handler panics. The bytes that do arrive must still be right.
    #[must_use]
    pub fn may_be_cut(mut self) -> Self {
        self.may_be_cut = true;
        self
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_open_one_by_one() {
        let exchange = Exchange::new("ab", "x").then("cd", "").then("e", "yz");
        assert_eq!(exchange.may_send(0, false), 5);
        assert_eq!(exchange.may_send(0, true), 2);
        assert_eq!(exchange.may_send(1, true), 5);
        assert_eq!(Exchange::default().may_send(0, true), 0);
    }
}
