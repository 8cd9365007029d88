//! The protocol: cuts the stream into commands, and sends the answers.

use std::sync::Arc;

use serveloop::framing::Lines;
use serveloop::{Protocol, ProtocolError, Result, Transport};

use crate::answer::{Answer, Refusal};
use crate::command::Request;
use crate::retrieval::{Asked, Keys, Retrieval, is_retrieval, word};
use crate::store::Store;
use crate::words::Words;

/// Of a line with many keys, at most this many are answered before others have their turn.
const KEYS_PER_STEP: usize = 32;

/// What the line before a value usually takes at most, besides its key, with the ends of lines.
const HEAD_USUAL: usize = 64;

/// More bytes than the line before a value has, with a key of 250.
const HEAD_MOST: usize = 320;

/// Replies of more bytes than this are not copied.
const COPIED_MOST: usize = 32 << 10;

/// The protocol of one client. All clients of a server share one [`Store`].
///
/// ```
/// use serveloop::testing::MemorySession;
/// use serveloop_memcached::{Memcached, Settings, Store};
///
/// let mut client = MemorySession::new(Memcached::new(&Store::new(Settings::default())));
/// client.receive(b"ms lock 2 T30 ME\r\nme\r\nms lock 3 T30 ME\r\nyou\r\nmg lock v t\r\n");
/// assert_eq!(client.sent(), b"HD\r\nNS\r\nVA 2 t30\r\nme\r\n");
/// ```
#[derive(Debug)]
pub struct Memcached {
    store: Store,
    lines: Lines,
    state: State,
    /// What of a long value was not sent yet. Reading is paused meanwhile.
    unsent: Option<Box<Unsent>>,
    /// The server shuts down: the answer that is being sent is the last one.
    is_last: bool,
}

/// What the next bytes are.
#[derive(Clone, Copy, Debug)]
enum State {
    /// A line, and for some commands a data block.
    Command,
    /// The next key of a line that has begun with `get`, `gets`, `gat` or `gats`.
    Keys(Retrieval),
    /// This many bytes of a data block that is not wanted.
    Block(usize),
}

#[derive(Debug)]
struct Unsent {
    value: Arc<[u8]>,
    sent: usize,
    end: &'static str,
}

impl Memcached {
    /// Creates the protocol of one client of `store`.
    #[must_use]
    pub fn new(store: &Store) -> Self {
        store.join();
        Self {
            store: store.clone(),
            // The limits of the connection hold, which may change.
            lines: Lines::new(usize::MAX),
            state: State::Command,
            unsent: None,
            is_last: false,
        }
    }

    /// Carries out the command in front of `data`, or does nothing while it is incomplete.
    fn command(&mut self, data: &[u8], transport: &mut Transport<'_>) -> Result<usize> {
        let found = self.lines.decode(data)?;
        let line = found.map_or(data, |frame| frame.message);
        let (name, rest) = word(line);
        let limit = transport.limits().max_line;
        if line.len() > limit && !is_retrieval(name) {
            let length = line.len() as u64;
            return Err(ProtocolError::TooLong { length, limit });
        }
        let Some(taken) = found.map(|frame| frame.taken) else {
            return Ok(0);
        };

        if is_retrieval(name) {
            let begin = line.len() - rest.len();
            return Ok(begin + self.keys(name, rest, &data[begin..taken], transport));
        }
        match Request::parse(Words::of(line).as_slice()) {
            Ok(request) => Ok(self.run(&request, taken, data, transport)),
            Err(refusal) => Ok(self.refuse(refusal, taken, transport)),
        }
    }

    /// Carries out a command whose line is the first `taken` bytes of `data`. Returns how many bytes
    /// it has, or 0 if its data block is incomplete.
    fn run(
        &mut self,
        request: &Request<'_>,
        taken: usize,
        data: &[u8],
        transport: &mut Transport<'_>,
    ) -> usize {
        let size = request.block_size();
        let mut items = self.store.at(transport.now());
        if let Err(refusal) = request.check_size(&mut items) {
            drop(items);
            return self.refuse(refusal, taken, transport);
        }
        let Some(block) = data[taken..].get(..size) else {
            return 0;
        };

        let answer = request.run(block, &mut items);
        drop(items);
        self.send(answer, transport);
        taken + size
    }

    fn refuse(&mut self, refusal: Refusal, taken: usize, transport: &mut Transport<'_>) -> usize {
        if !refusal.is_quiet {
            transport.write(refusal.text.as_bytes());
        }
        if refusal.skip > 0 {
            self.state = State::Block(refusal.skip);
        }
        taken
    }

    /// Begins a line that asks for any number of keys, of which `rest` follows the command's `name`, and `data`
    /// has the end of the line too. They are answered as there is room, so that many long values wait for
    /// their client, not in memory. The line was found complete, and stays so.
    fn keys(
        &mut self,
        name: &[u8],
        rest: &[u8],
        data: &[u8],
        transport: &mut Transport<'_>,
    ) -> usize {
        match Retrieval::parse(name, rest) {
            Ok((_, Keys::None)) => {
                transport.write(b"END\r\n");
                data.len()
            }
            Ok((retrieval, Keys::One(key))) => {
                self.only_key(retrieval, key, transport);
                data.len()
            }
            Ok((retrieval, Keys::Several(keys))) => {
                let begin = rest.len() - keys.len();
                begin + self.next_keys(retrieval, &data[begin..], transport)
            }
            Err(text) => {
                transport.write(text.as_bytes());
                data.len()
            }
        }
    }

    /// Answers a line with one key.
    fn only_key(&mut self, retrieval: Retrieval, key: &[u8], transport: &mut Transport<'_>) {
        let found = retrieval.find(key, &mut self.store.at(transport.now()));
        let Some(item) = found else {
            return transport.write(b"END\r\n");
        };

        let mut head = [0; HEAD_MOST];
        let mut rest = &mut head[..];
        let written = retrieval.write_head(key, &item, &mut rest);
        written.expect("a head has room");
        let length = HEAD_MOST - rest.len();
        transport.write(&head[..length]);

        let room = transport.limits().high_water;
        let room = room.saturating_sub(transport.waiting()).min(COPIED_MOST);
        let value = Unsent::new(item.value, "\r\nEND\r\n");
        if value.value.len() > room {
            return self.send_value(value, transport);
        }
        transport.write(&value.value);
        transport.write(value.end.as_bytes());
    }

    /// Answers with the values of the next keys, as many as there is room for, and after the last one with
    /// the end.
    fn next_keys(
        &mut self,
        retrieval: Retrieval,
        data: &[u8],
        transport: &mut Transport<'_>,
    ) -> usize {
        let room = transport.limits().high_water;
        let room = room.saturating_sub(transport.waiting());
        let mut reply = Vec::new();
        let mut items = self.store.at(transport.now());

        let (mut taken, mut is_last, mut unsent) = (0, false, None);
        for _ in 0..KEYS_PER_STEP {
            let asked = Asked::first_of(&data[taken..]);
            (taken, is_last) = (taken + asked.taken, asked.is_last);

            if let Some(item) = retrieval.find(asked.key, &mut items) {
                // All at once if more may follow, so that nothing is moved for the next value.
                let more = if is_last {
                    item.value.len().min(room)
                } else {
                    room
                };
                let most = HEAD_USUAL + asked.key.len() + more;
                if reply.capacity() == 0 {
                    reply = Vec::with_capacity(most);
                }
                reply.reserve(most.saturating_sub(reply.len()));
                let written = retrieval.write_head(asked.key, &item, &mut reply);
                written.expect("memory has room");
                if item.value.len() > room.saturating_sub(reply.len()) {
                    unsent = Some(item.value);
                    break;
                }
                reply.extend_from_slice(&item.value);
                reply.extend_from_slice(b"\r\n");
            }
            if is_last || reply.len() >= room {
                break;
            }
        }
        drop(items);

        let ends = is_last && unsent.is_none();
        reply.extend_from_slice(if ends { b"END\r\n" } else { b"" });
        match reply.len() {
            ..=COPIED_MOST => transport.write(&reply),
            _ => transport.write_owned(reply),
        }
        if let Some(value) = unsent {
            let end = if is_last { "\r\nEND\r\n" } else { "\r\n" };
            self.send_value(Unsent::new(value, end), transport);
        }
        self.state = match is_last {
            true => State::Command,
            false => State::Keys(retrieval),
        };
        taken
    }

    fn send(&mut self, answer: Answer, transport: &mut Transport<'_>) {
        match answer {
            Answer::Nothing => (),
            Answer::Text(text) => transport.write(text.as_bytes()),
            Answer::Bytes(bytes) => transport.write(&bytes),
            Answer::Value(head, value, end) => {
                transport.write(&head);
                self.send_value(Unsent::new(value, end), transport);
            }
            Answer::End => transport.close(),
        }
    }

    /// Sends as much of a value as there is room for, and the rest when there is room again. Until then
    /// no command is read, and the value counts as memory of this connection: the store may have
    /// dropped it.
    fn send_value(&mut self, mut unsent: Unsent, transport: &mut Transport<'_>) {
        unsent.sent += transport.write_some(&unsent.value[unsent.sent..]);
        if unsent.sent == unsent.value.len() {
            return transport.write(unsent.end.as_bytes());
        }
        transport.charge(unsent.value.len());
        transport.pause_reading();
        self.unsent = Some(Box::new(unsent));
    }

    /// Ends the connection of a server that shuts down, between two answers.
    fn end_if_last(&self, transport: &mut Transport<'_>) {
        let is_answering = self.unsent.is_some() || matches!(self.state, State::Keys(_));
        if self.is_last && !is_answering {
            transport.close();
        }
    }
}

impl Protocol for Memcached {
    fn data_received(&mut self, data: &[u8], transport: &mut Transport<'_>) -> Result<usize> {
        let taken = match self.state {
            State::Command => self.command(data, transport)?,
            State::Keys(retrieval) => self.next_keys(retrieval, data, transport),
            State::Block(left) => {
                let taken = left.min(data.len());
                self.state = match left - taken {
                    0 => State::Command,
                    left => State::Block(left),
                };
                taken
            }
        };
        self.end_if_last(transport);
        Ok(taken)
    }

    fn resume_writing(&mut self, transport: &mut Transport<'_>) {
        if let Some(unsent) = self.unsent.take() {
            self.send_value(*unsent, transport);
            if self.unsent.is_none() {
                transport.charge(0);
                transport.resume_reading();
            }
        }
        self.end_if_last(transport);
    }

    fn input_rejected(&mut self, error: &ProtocolError, transport: &mut Transport<'_>) {
        if let ProtocolError::TooLong { .. } = error {
            transport.write(format!("CLIENT_ERROR {error}\r\n").as_bytes());
        }
    }

    fn shutdown_requested(&mut self, transport: &mut Transport<'_>) {
        self.is_last = true;
        self.end_if_last(transport);
    }

    /// Datagrams have a frame header, which is not read here.
    fn needs_stream() -> bool {
        true
    }
}

impl Drop for Memcached {
    fn drop(&mut self) {
        self.store.leave();
    }
}

impl Unsent {
    fn new(value: Arc<[u8]>, end: &'static str) -> Self {
        Self {
            value,
            sent: 0,
            end,
        }
    }
}
