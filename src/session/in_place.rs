//! Long data that a protocol writes as it was shown: sent from where it was read, without a copy.

use std::ops::Range;

use crate::config::Config;
use crate::error::CloseReason;
use crate::session::clock::Tick;
use crate::session::shown::{LENT_LEAST, Shown};
use crate::session::state::{
    BLOCKED, EXPECTS, FIRST, FULL, INCOMPLETE, MUTE, QUEUED, STALLED, State, WANTED, WROTE,
};
use crate::session::unwind::take;
use crate::session::{Context, Protocol, Session, Transport, catch};

impl Transport<'_> {
    /// Notes that `data` is written, if that can be sent from where it is. Otherwise puts what was noted
    /// before into the output, and returns false.
    #[cold]
    pub(super) fn lend_out(&mut self, data: &[u8]) -> bool {
        let is_first = self.waiting() == 0 && !self.state.flags.any(QUEUED.or(MUTE));
        let place = match &self.shown {
            Some(shown) if is_first && data.len() >= LENT_LEAST => shown.place_of(data),
            _ => None,
        };

        let Some(place) = place else {
            self.settle();
            return false;
        };
        self.state.flags.set(WROTE);
        if self.makes_room(data.len()) {
            if let Some(shown) = &mut self.shown {
                shown.written = place;
            }
        }
        true
    }

    /// Puts what was to be sent from where it was read into the output, because something else comes
    /// after it.
    #[inline]
    pub(super) fn settle(&mut self) {
        if self.shown.is_some() {
            self.settle_shown();
        }
    }

    #[cold]
    fn settle_shown(&mut self) {
        if let Some(shown) = self.shown.take() {
            self.state.append(&shown.data[shown.written]);
        }
    }

    /// Returns how many bytes are to be sent from where they were read.
    #[inline]
    pub(super) fn lent(&self) -> usize {
        self.shown.as_ref().map_or(0, |shown| shown.written.len())
    }
}

impl<P: Protocol> Session<P> {
    /// Works like [`handle_data`](Self::handle_data), but may return a part of `data` that is to be sent
    /// before all other output. The caller then calls [`sent_in_place`](Self::sent_in_place), in any
    /// case.
    #[cold]
    pub(crate) fn handle_in_place(&mut self, data: &[u8], context: &Context<'_>) -> Range<usize> {
        let most = context.config.messages_per_turn;
        let flags = self.state.flags;
        if data.len() < LENT_LEAST
            || most < 2
            || self.unread.is_some()
            || flags.any(BLOCKED.or(QUEUED).or(EXPECTS))
            || self.has_output()
        {
            self.handle_data(data, context);
            return 0..0;
        }

        self.state.activity = context.clock.tick();
        self.state.received = self.state.received.wrapping_add(data.len() as u64);
        let mut transport = Transport {
            state: &mut self.state,
            context,
            shown: Some(Shown::new(data)),
        };
        let outcome = catch(|| take(&mut self.protocol.0, data, &mut transport));
        let written = transport.shown.take().map_or(0..0, |shown| shown.written);
        if outcome
            .as_ref()
            .is_some_and(|taken| matches!(taken, Ok(count) if *count == data.len()))
        {
            self.state.flags.clear(FIRST.or(INCOMPLETE));
            return written;
        }

        // There is more to do, and what comes of it is sent after this.
        if !written.is_empty() {
            self.state.append(&data[written]);
        }
        match outcome {
            Some(Ok(0)) => self.show_rest(data, 0, most, context),
            Some(Ok(taken)) => {
                self.state.flags.clear(FIRST.or(INCOMPLETE));
                self.show_rest(data, taken, most - 1, context);
            }
            Some(Err(error)) => self.protocol.reject(&mut self.state, context, error),
            None => self.fail(CloseReason::Panicked),
        }
        0..0
    }

    /// Shows what is left after the first `taken` bytes of `data`, in up to `most` calls.
    fn show_rest(&mut self, data: &[u8], taken: usize, most: usize, context: &Context<'_>) {
        let taken = match taken {
            0 => {
                let is_pending = self.state.flags.any(BLOCKED);
                self.left_over(0, is_pending, context);
                0
            }
            _ => taken + self.show_by(&data[taken..], most, context, take),
        };
        self.keep_rest(data, taken, context);
    }

    /// Notes that the peer took the first `count` bytes of what [`handle_in_place`](Self::handle_in_place)
    /// has returned. The `rest` waits before all other output.
    #[cold]
    pub(crate) fn sent_in_place(&mut self, count: usize, rest: &[u8], context: &Context<'_>) {
        if self.is_aborted() {
            return self.state.note_unsent(rest.len());
        }
        if !rest.is_empty() {
            self.state.append(rest);
        }
        if count > 0
            && self
                .state
                .lent_sent(count, context.clock.tick(), context.config)
        {
            self.resume(context);
        }
    }
}

impl State {
    fn lent_sent(&mut self, count: usize, now: Tick, config: &Config) -> bool {
        self.activity = now;
        self.sent = self.sent.wrapping_add(count as u64);
        self.flags.any(FULL.or(STALLED).or(WANTED)) && self.output_moved(now, config)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::address::{Address, Peer};
    use crate::error::ProtocolError;
    use crate::session::Clock;
    use crate::waker::Mailbox;

    type Reply = fn(&[u8], &mut Transport<'_>) -> Result<usize, ProtocolError>;

    type Expected = fn(&[u8]) -> Vec<u8>;

    struct By(Reply);

    impl Protocol for By {
        fn data_received(
            &mut self,
            data: &[u8],
            transport: &mut Transport<'_>,
        ) -> Result<usize, ProtocolError> {
            (self.0)(data, transport)
        }
    }

    fn input() -> Vec<u8> {
        (0..10_000_u32).map(|number| (number % 251) as u8).collect()
    }

    /// Shows `input` to the protocol in place, and returns what is sent from there and what waits.
    fn show(input: &[u8], reply: Reply) -> (Vec<u8>, Vec<u8>, Session<By>) {
        let (clock, config) = (Clock::new(Instant::now()), Config::default());
        let mailbox = Mailbox::new(Box::new(|| ()));
        let context = &Context::new(&clock, &config, &mailbox, 0);
        let peer = Peer::new(Address::Tcp(([192, 0, 2, 1], 5).into()), Some(0));
        let mut session = Session::new(By(reply), peer, clock.tick());
        session.handle_open(context);

        let lent = session.handle_in_place(input, context);
        let in_place = input[lent].to_vec();
        session.sent_in_place(in_place.len(), &[], context);
        let waits = session.output().to_vec();
        (in_place, waits, session)
    }

    #[test]
    fn what_is_written_as_it_came_is_not_copied() {
        let input = input();
        let (in_place, waits, session) = show(&input, |data, transport| {
            transport.write(data);
            assert_eq!(transport.waiting(), data.len());
            Ok(data.len())
        });
        assert!(in_place == input && waits.is_empty());
        assert_eq!(session.state.sent, 10_000);

        let (in_place, waits, _) = show(&input, |data, transport| {
            transport.write(&data[100..4_000]);
            transport.close();
            Ok(data.len())
        });
        assert!(in_place == input[100..4_000] && waits.is_empty());
    }

    #[test]
    fn whatever_else_is_written_comes_in_its_order() {
        let input = input();
        let replies: [(Reply, Expected); 6] = [
            (
                |data, transport| {
                    transport.write(b"before");
                    transport.write(data);
                    Ok(data.len())
                },
                |data| [b"before", data].concat(),
            ),
            (
                |data, transport| {
                    transport.write(data);
                    transport.write(b"behind");
                    Ok(data.len())
                },
                |data| [data, b"behind"].concat(),
            ),
            (
                |data, transport| {
                    transport.write(data);
                    transport.write(&data[..3_000]);
                    Ok(data.len())
                },
                |data| [data, &data[..3_000]].concat(),
            ),
            (
                |data, transport| {
                    transport.write(data);
                    assert_eq!(transport.write_some(b"some"), 4);
                    transport.reborrow().write(b"more");
                    Ok(data.len())
                },
                |data| [data, b"some", b"more"].concat(),
            ),
            (
                |data, transport| {
                    let count = data.len().min(4_000);
                    transport.write(&data[..count]);
                    Ok(count)
                },
                <[u8]>::to_vec,
            ),
            (
                |data, transport| {
                    let copy = Vec::from(data);
                    transport.write(&copy);
                    Ok(data.len())
                },
                <[u8]>::to_vec,
            ),
        ];
        for (number, (reply, expected)) in replies.into_iter().enumerate() {
            let (in_place, waits, _) = show(&input, reply);
            assert!([in_place, waits].concat() == expected(&input), "{number}");
        }
    }

    #[test]
    fn an_end_in_the_same_call_counts_what_was_not_sent() {
        let (in_place, waits, session) = show(&input(), |data, transport| {
            transport.write(data);
            transport.abort();
            Ok(data.len())
        });
        assert!(in_place.is_empty() && waits.is_empty() && session.is_aborted());

        let (in_place, waits, session) = show(&input(), |data, transport| {
            transport.write(data);
            Err(ProtocolError::malformed("of no use"))
        });
        assert!(in_place.is_empty() && session.is_closing());
        assert_eq!(waits, input());
    }

    #[test]
    fn what_the_peer_does_not_take_waits_before_the_rest() {
        let (clock, config) = (Clock::new(Instant::now()), Config::default());
        let mailbox = Mailbox::new(Box::new(|| ()));
        let context = &Context::new(&clock, &config, &mailbox, 0);
        let peer = Peer::new(Address::Tcp(([192, 0, 2, 1], 5).into()), Some(0));
        let mut session = Session::new(
            By(|data, transport| {
                transport.write(data);
                Ok(data.len())
            }),
            peer,
            clock.tick(),
        );
        session.handle_open(context);

        let input = input();
        let lent = session.handle_in_place(&input, context);
        assert_eq!(lent, 0..10_000);
        session.sent_in_place(1_000, &input[1_000..], context);
        assert!(session.output() == &input[1_000..]);
        // As long as something waits, nothing goes past it.
        assert_eq!(session.handle_in_place(&input, context), 0..0);
        assert_eq!(session.waiting(), 19_000);
    }

    #[test]
    fn output_that_is_full_is_written_again_when_it_was_sent() {
        let input = vec![b'x'; 70_000];
        let (in_place, waits, session) = show(&input, |data, transport| {
            transport.write(data);
            assert!(transport.is_full());
            Ok(data.len())
        });
        assert!(in_place == input && waits.is_empty());
        assert!(session.wants_input());
    }
}
