//! The exchange between clients that wait for a reply and the person who types it.

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, BufRead, Read};
use std::mem;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use serveloop::Waker;

use crate::logger::TARGET;
use crate::protocols::operator::typed::{Mistake, Typed};

/// The most replies that wait to be sent to one client.
const REPLIES_MOST: usize = 16;

/// The connected clients, those that wait for a reply, and the replies typed for each.
#[derive(Debug, Default)]
pub(crate) struct Console {
    state: Mutex<State>,
    /// Notified when a client begins to wait for a reply.
    asked: Condvar,
}

#[derive(Debug, Default)]
struct State {
    clients: BTreeMap<u64, Client>,
    /// The clients that wait for a reply, the longest-waiting first.
    waiting: VecDeque<u64>,
    last_number: u64,
    /// Whether the input has ended, so that nothing more is typed.
    closed: bool,
}

#[derive(Debug)]
struct Client {
    waker: Waker,
    replies: VecDeque<Vec<u8>>,
}

impl Console {
    /// Adds a client and returns the number that identifies it from now on.
    pub(crate) fn join(&self, waker: Waker) -> u64 {
        let mut state = self.lock();
        state.last_number += 1;
        let number = state.last_number;
        let replies = VecDeque::new();
        state.clients.insert(number, Client { waker, replies });
        number
    }

    /// Removes a client and returns the number of replies that it did not get.
    pub(crate) fn leave(&self, number: u64) -> usize {
        let mut state = self.lock();
        state.waiting.retain(|other| *other != number);
        let client = state.clients.remove(&number);
        client.map_or(0, |client| client.replies.len())
    }

    /// Notes that a client waits for a reply. Returns false if there will be none, because the
    /// input has ended.
    pub(crate) fn ask(&self, number: u64) -> bool {
        let mut state = self.lock();
        if state.closed {
            return false;
        }

        state.waiting.push_back(number);
        drop(state);
        self.asked.notify_all();
        true
    }

    /// Takes the next reply for a client.
    pub(crate) fn take_reply(&self, number: u64) -> Option<Vec<u8>> {
        self.lock().clients.get_mut(&number)?.replies.pop_front()
    }

    /// Returns whether the input has ended.
    pub(crate) fn is_closed(&self) -> bool {
        self.lock().closed
    }

    /// Reads lines from `input` until it ends. With `patience`, a line without a number waits until
    /// a client waits for a reply.
    pub(crate) fn read(&self, input: &mut impl BufRead, max_line: usize, patience: bool) {
        loop {
            match read_line(input, max_line) {
                Ok(None) => break,
                Ok(Some(Ok(line))) => self.tell_mistake(self.hear(&line, patience)),
                Ok(Some(Err(mistake))) => self.tell_mistake(Err(mistake)),
                Err(error) => {
                    log::error!(target: TARGET, "cannot read standard input: {error}");
                    break;
                }
            }
        }

        log::info!(target: TARGET, "standard input has ended: messages are still shown, but cannot be answered");
        self.close();
    }

    /// Handles a typed line.
    fn hear(&self, line: &[u8], patience: bool) -> Result<(), Mistake> {
        let Some(Typed { to, text }) = Typed::parse(line)? else {
            return Ok(());
        };
        let mut state = self.lock();
        if patience && to.is_none() {
            let waited = self.asked.wait_while(state, |it| it.waiting.is_empty());
            state = waited.unwrap_or_else(PoisonError::into_inner);
        }

        let waker = state.reply(to, text)?;
        drop(state);
        waker.wake();
        Ok(())
    }

    fn tell_mistake(&self, heard: Result<(), Mistake>) {
        if let Err(mistake) = heard {
            log::warn!(target: TARGET, "{mistake}");
        }
    }

    fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        let waiting = mem::take(&mut state.waiting);
        let clients = waiting.iter().filter_map(|it| state.clients.get(it));
        let wakers: Vec<_> = clients.map(|client| client.waker.clone()).collect();
        drop(state);
        wakers.iter().for_each(Waker::wake);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Queues a reply for its client, and returns what wakes that client.
    fn reply(&mut self, to: Option<u64>, text: &[u8]) -> Result<Waker, Mistake> {
        let number = match to {
            Some(number) => number,
            None => self.addressee()?,
        };

        let client = self.clients.get_mut(&number);
        let client = client.ok_or(Mistake::NotConnected(number))?;
        if client.replies.len() == REPLIES_MOST {
            return Err(Mistake::TooManyReplies(number));
        }

        client.replies.push_back(text.to_vec());
        self.waiting.retain(|other| *other != number);
        Ok(client.waker.clone())
    }

    /// Returns the client that waits the longest, or the only client.
    fn addressee(&self) -> Result<u64, Mistake> {
        let mut clients = self.clients.keys();
        match (self.waiting.front(), clients.next(), clients.next()) {
            (Some(number), ..) | (None, Some(number), None) => Ok(*number),
            _ => Err(Mistake::NobodyWaits(self.clients.keys().copied().collect())),
        }
    }
}

/// Reads the next line, without its end. Returns a mistake in place of a line that is too long, and
/// `None` at the end of the input.
fn read_line(
    input: &mut impl BufRead,
    limit: usize,
) -> io::Result<Option<Result<Vec<u8>, Mistake>>> {
    let mut line = Vec::new();
    // Leaves room for the line's end, which takes up to two bytes.
    let most = limit.saturating_add(2) as u64;
    if input.by_ref().take(most).read_until(b'\n', &mut line)? == 0 {
        return Ok(None);
    }

    if line.ends_with(b"\n") {
        line.pop();
        line.pop_if(|last| *last == b'\r');
    } else if line.len() as u64 == most {
        input.skip_until(b'\n')?;
    }

    let line = (line.len() <= limit).then_some(line);
    Ok(Some(line.ok_or(Mistake::TooLong(limit))))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serveloop::driver::{Mailbox, Wake, Wakers};

    use super::*;

    struct Silent;

    impl Wake for Silent {
        fn wake(&self) {}
    }

    /// Returns a console with this many clients, and the mailbox where their wakes arrive.
    fn console(clients: usize) -> (Console, Arc<Mailbox>) {
        let console = Console::default();
        let mailbox = Mailbox::new(Box::new(Silent));
        for id in 1..=clients {
            assert_eq!(console.join(mailbox.waker(id)), id as u64);
        }
        (console, mailbox)
    }

    fn woken(mailbox: &Arc<Mailbox>) -> Vec<usize> {
        mailbox.take().collect()
    }

    fn reply(console: &Console, number: u64) -> Option<String> {
        let reply = console.take_reply(number)?;
        Some(String::from_utf8(reply).unwrap())
    }

    #[test]
    fn who_waits_the_longest_is_answered_first() {
        let (console, mailbox) = console(3);

        for number in [2, 3, 1] {
            assert!(console.ask(number));
        }
        for number in [2, 3, 1] {
            console.hear(b"your turn", false).unwrap();
            assert_eq!(woken(&mailbox), [number as usize]);
            assert_eq!(reply(&console, number).unwrap(), "your turn");
        }

        let nobody = console.hear(b"hello?", false).unwrap_err();
        assert_eq!(nobody, Mistake::NobodyWaits(vec![1, 2, 3]));
    }

    #[test]
    fn who_is_addressed_waits_no_longer() {
        let (console, mailbox) = console(2);
        console.ask(1);
        console.ask(2);
        console.hear(b"@2 you", false).unwrap();
        console.hear(b"you too", false).unwrap();

        assert_eq!(woken(&mailbox), [2, 1]);
        assert_eq!(reply(&console, 2).unwrap(), "you");
        assert_eq!(reply(&console, 1).unwrap(), "you too");
        assert_eq!(console.hear(b"@3 hi", false), Err(Mistake::NotConnected(3)));
    }

    #[test]
    fn who_is_alone_needs_no_number() {
        let (console, _mailbox) = console(1);
        console.hear(b"are you there", false).unwrap();
        assert_eq!(reply(&console, 1).unwrap(), "are you there");
        assert_eq!(console.leave(1), 0);
        let nobody = console.hear(b"hello?", false).unwrap_err();
        assert_eq!(nobody, Mistake::NobodyWaits(vec![]));
    }

    #[test]
    fn who_leaves_is_forgotten() {
        let (console, _mailbox) = console(2);
        console.ask(1);
        console.ask(2);
        console.hear(b"@1 one", false).unwrap();
        assert_eq!(console.leave(1), 1);
        console.hear(b"two", false).unwrap();
        assert_eq!(reply(&console, 2).unwrap(), "two");
    }

    #[test]
    fn replies_that_nobody_takes_have_a_limit() {
        let (console, _mailbox) = console(1);
        for _ in 0..REPLIES_MOST {
            console.hear(b"@1 more", false).unwrap();
        }
        let refused = console.hear(b"@1 more", false);
        assert_eq!(refused, Err(Mistake::TooManyReplies(1)));
    }

    #[test]
    fn at_the_end_of_the_input_nobody_waits() {
        let (console, mailbox) = console(2);
        console.ask(1);
        console.read(&mut &b"@1 one\n\n@1 two"[..], 100, true);
        assert!(console.is_closed() && !console.ask(2));
        assert_eq!(woken(&mailbox), [1]);
        assert_eq!(reply(&console, 1).unwrap(), "one");
        assert_eq!(reply(&console, 1).unwrap(), "two");
    }

    #[test]
    fn lines_have_a_limit() {
        let mut input = &b"12345\n123456\n12345\r\n123456789012345\n\n12345"[..];
        let mut lines = Vec::new();
        while let Some(line) = read_line(&mut input, 5).unwrap() {
            lines.push(line);
        }

        let full = || Ok(b"12345".to_vec());
        let long = || Err(Mistake::TooLong(5));
        assert_eq!(lines, [full(), long(), full(), long(), Ok(vec![]), full()]);
    }
}
