//! What a client sends and what it has to get.

/// One client's conversation with the server: what it sends, and what has to come back for it.
///
/// How its bytes are cut, how fast it sends and takes, whether it ends its side at once or waits
/// for the reply, is the simulation's to vary, and must not matter.
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
    /// How much is sent in each round, and how much is to be received before the next.
    pub(super) rounds: Vec<(usize, usize)>,
    pub(super) in_turns: bool,
    pub(super) stays: bool,
    pub(super) ends_first: bool,
    pub(super) may_be_cut: bool,
}

impl Exchange {
    /// A client that sends `sends` and has to get exactly `expects`, greeting included.
    pub fn new(sends: impl AsRef<[u8]>, expects: impl AsRef<[u8]>) -> Self {
        Self::default().then(sends, expects)
    }

    /// One more round. A client may send it before it has the last one's reply.
    #[must_use]
    pub fn then(mut self, sends: impl AsRef<[u8]>, expects: impl AsRef<[u8]>) -> Self {
        self.sends.extend_from_slice(sends.as_ref());
        self.expects.extend_from_slice(expects.as_ref());
        self.rounds.push((self.sends.len(), self.expects.len()));
        self
    }

    /// The client never sends a round before it has the reply to the last.
    #[must_use]
    pub fn in_turns(mut self) -> Self {
        self.in_turns = true;
        self
    }

    /// The client never ends its side of the stream before it has everything. For protocols that
    /// take the end of the stream for the end of all interest.
    #[must_use]
    pub fn stays_open(mut self) -> Self {
        self.stays = true;
        self
    }

    /// The client always ends its side of the stream when it has sent everything, because the reply
    /// depends on the end.
    #[must_use]
    pub fn ends_first(mut self) -> Self {
        self.ends_first = true;
        self
    }

    /// The server may end the connection before the client has everything, as it does when a handler
    /// panics. What comes until then still has to be right.
    #[must_use]
    pub fn may_be_cut(mut self) -> Self {
        self.may_be_cut = true;
        self
    }

    /// How much may have been sent by who has received so much, and waits for replies if `in_turns`.
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
