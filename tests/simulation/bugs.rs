//! Faults that event loops really had, put between the loop and the network. A simulation that does not
//! find them proves nothing.
//!
//! A loop with the fault and a sound loop on a network with the fault see and do the same: one that
//! forgets to accept a second connection is one that was told that there is none.

use std::io::{self, ErrorKind};
use std::time::{Duration, Instant};

use serveloop::driver::Wake;
use serveloop::net::{Destination, Ecn, Event, Net, PacketInfo, Undelivered};
use serveloop::testing::{Handle, Network, Slip};
use serveloop::{Address, Config, ShutdownHandle};

/// What goes wrong, and where it did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bug {
    /// One connection is accepted for each event (tokio-rs/mio#845).
    AcceptsOncePerEvent,
    /// After EMFILE nothing is accepted until another client connects (edge-triggered loops).
    DeafAfterExhaustion,
    /// EMFILE is retried at once (joyent/libuv#690, nodejs/node#45242, oven-sh/bun#32705).
    SpinsOnExhaustion,
    /// What says that one connection was lost is retried at once, for good (EPERM from a filter).
    SpinsOnRefusal,
    /// A short read from a Unix socket is taken for the last, behind which a descriptor was passed.
    TakesShortReadForLast,
    /// The time to wait is computed from before the turn's work.
    WaitsFromBeforeWork,
    /// What a connection kept is never subtracted where its protocol panicked.
    KeepsAccount,
    /// A protocol is asked for its deadline after its end.
    AsksAfterEnd,
    /// ECONNABORTED ends the listener (mio's example server).
    DiesOnAbort,
    /// A refused socket stays open (socketserver).
    LeavesRefusedOpen,
    /// Some sockets are never closed (asyncio, ranch#36).
    LeaksSockets,
    /// A short read hides the end of the stream that came with it (edge-triggered loops).
    LosesEnd,
    /// Some events are lost (tokio-rs/tokio#6133, #2886).
    LosesEvents,
    /// The tail of a batch of events is lost (event capacity).
    LosesTailOfBatch,
    /// The first event of a connection is lost: it was ready before it was registered.
    LosesFirstEvent,
    /// Room to write is never noticed (tokio-rs/tokio#672).
    LosesRoom,
    /// A reset is never noticed (netty CVE-2026-42577).
    LosesReset,
    /// A wake is lost.
    LosesWakes,
    /// A signal ends the loop (tokio-rs/mio#494).
    DiesOnSignal,
    /// A full socket is written again at once (hyperium/h2 0.4.16).
    SpinsOnFullSocket,
    /// An empty socket is read again at once (hyper#4085).
    SpinsOnEmptySocket,
    /// A timeout is rounded down to none (libuv, epoll's milliseconds).
    NeverWaits,
    /// The count of a short write is ignored (the tutorials' `send`).
    IgnoresShortWrites,
    /// A write that failed halfway is repeated from its beginning.
    RepeatsWrites,
    /// A new connection is taken for an earlier one (tokio-rs/mio#172, tokens used again).
    CrossesWires,
    /// Unread bytes are shown twice.
    ReadsTwice,
    /// Bytes that were read are dropped.
    DropsInput,
    /// Nothing to read is taken for the end (CPython's non-blocking sockets).
    TakesSilenceForEnd,
    /// The client's end is taken for the end of everything (hyper#4018, half-close).
    TakesEndForReset,
    /// Output that waits is dropped at the end (hyper#4022).
    DropsLastOutput,
    /// Closing does not wait for the client's unread input (nginx before lingering_close).
    ClosesWithoutLingering,
    /// The clock jumps ahead (haproxy, libuv: a wall clock).
    JumpingClock,
    /// The clock never advances.
    StoppedClock,
    /// One client's failed datagram closes the socket for all (ICMP errors on UDP).
    DatagramErrorIsFatal,
    /// A report that a datagram did not arrive ends the session of its peer, whoever made it.
    EndsByReport,
    /// A reply is sent twice.
    RepeatsDatagrams,
    /// A datagram that finds no room is taken for sent.
    ForgetsBlockedDatagrams,
    /// An outbound session hears others than its peer (resolvers whose sockets are not connected).
    HearsStrangers,
    /// A datagram that came for an outbound session is dropped.
    DropsAnswers,
    /// The same is shown twice.
    ShowsAnswersTwice,
    /// A datagram of an outbound session is sent twice.
    RepeatsQuestions,
    /// A datagram of an outbound session is dropped though nothing has failed.
    DropsQuestions,
    /// The socket of an outbound session is never closed.
    LeaksDatagramSockets,
}

pub(crate) const BUGS: [Bug; 43] = [
    Bug::AcceptsOncePerEvent,
    Bug::DeafAfterExhaustion,
    Bug::SpinsOnExhaustion,
    Bug::SpinsOnRefusal,
    Bug::TakesShortReadForLast,
    Bug::WaitsFromBeforeWork,
    Bug::KeepsAccount,
    Bug::AsksAfterEnd,
    Bug::DiesOnAbort,
    Bug::LeavesRefusedOpen,
    Bug::LeaksSockets,
    Bug::LosesEnd,
    Bug::LosesEvents,
    Bug::LosesTailOfBatch,
    Bug::LosesFirstEvent,
    Bug::LosesRoom,
    Bug::LosesReset,
    Bug::LosesWakes,
    Bug::DiesOnSignal,
    Bug::SpinsOnFullSocket,
    Bug::SpinsOnEmptySocket,
    Bug::NeverWaits,
    Bug::IgnoresShortWrites,
    Bug::RepeatsWrites,
    Bug::CrossesWires,
    Bug::ReadsTwice,
    Bug::DropsInput,
    Bug::TakesSilenceForEnd,
    Bug::TakesEndForReset,
    Bug::DropsLastOutput,
    Bug::ClosesWithoutLingering,
    Bug::JumpingClock,
    Bug::StoppedClock,
    Bug::DatagramErrorIsFatal,
    Bug::EndsByReport,
    Bug::RepeatsDatagrams,
    Bug::ForgetsBlockedDatagrams,
    Bug::HearsStrangers,
    Bug::DropsAnswers,
    Bug::ShowsAnswersTwice,
    Bug::RepeatsQuestions,
    Bug::DropsQuestions,
    Bug::LeaksDatagramSockets,
];

/// How many calls are made rightly for each that is not, where not every one is wrong.
const SOMETIMES: u64 = 7;

/// How many refusals in a row may each have concerned one connection.
const REFUSALS_FEW: u32 = 16;

/// A network with a fault.
pub(crate) struct Faulty {
    net: Network,
    bug: Bug,
    calls: u64,
    begin: Option<Instant>,
    /// The listener has nothing to say until an event comes.
    is_deaf: bool,
    /// Something is tried again at once, so that no wait takes time.
    is_restless: bool,
    refusals: u32,
    /// The time when it was last looked at since the last wait.
    looked: Option<Instant>,
    /// Connections of which a read was short since their last event.
    short: Vec<usize>,
    seen: Vec<usize>,
    /// What was read last, and which connection was accepted last.
    read: Vec<u8>,
    accepted: Option<Address>,
}

/// A connection, and whether the loop has had it watched.
pub(crate) struct Socket {
    handle: Handle,
    is_watched: bool,
    token: usize,
}

/// A socket of datagrams, and whether it is that of an outbound session.
pub(crate) struct Mail {
    handle: Handle,
    is_outbound: bool,
    /// What was received last.
    last: Option<(Vec<u8>, Address)>,
}

impl Mail {
    fn new(handle: Handle, is_outbound: bool) -> Self {
        Self {
            handle,
            is_outbound,
            last: None,
        }
    }
}

impl From<Handle> for Socket {
    fn from(handle: Handle) -> Self {
        Self {
            handle,
            is_watched: false,
            token: 0,
        }
    }
}

impl Faulty {
    pub(crate) fn new(mut net: Network, bug: Bug) -> Self {
        match bug {
            Bug::KeepsAccount => net.slip(Slip::KeepsAccount),
            Bug::AsksAfterEnd => net.slip(Slip::AsksAfterEnd),
            Bug::EndsByReport => net.slip(Slip::EndsByReport),
            _ => {}
        }
        Self {
            net,
            bug,
            calls: 0,
            begin: None,
            is_deaf: false,
            is_restless: false,
            refusals: 0,
            looked: None,
            short: Vec::new(),
            seen: Vec::new(),
            read: Vec::new(),
            accepted: None,
        }
    }

    fn is(&self, bug: Bug) -> bool {
        self.bug == bug
    }

    /// Whether it is this call's turn to be wrong.
    fn sometimes(&mut self, bug: Bug) -> bool {
        self.calls += u64::from(self.bug == bug);
        self.bug == bug && self.calls % SOMETIMES == 0
    }

    fn spoil(&mut self, event: &mut Event) -> bool {
        match self.bug {
            Bug::LosesEnd => event.closed &= !event.readable,
            Bug::LosesRoom => event.writable &= event.closed || self.is_new(event.token),
            Bug::LosesReset => return !event.error,
            Bug::LosesFirstEvent => return !self.is_new(event.token),
            Bug::LosesEvents => return !self.sometimes(Bug::LosesEvents),
            _ => {}
        }
        true
    }

    fn is_new(&mut self, token: usize) -> bool {
        let is_new = !self.seen.contains(&token);
        self.seen.push(token);
        is_new
    }

    fn accept_error(&mut self, error: io::Error) -> io::Error {
        let number = error.raw_os_error();
        let exhausted = [libc::EMFILE, libc::ENFILE, libc::ENOMEM, libc::ENOBUFS];
        let is_exhausted = number.is_some_and(|number| exhausted.contains(&number));
        match self.bug {
            Bug::DeafAfterExhaustion if is_exhausted => {
                self.is_deaf = true;
                ErrorKind::WouldBlock.into()
            }
            Bug::SpinsOnExhaustion if is_exhausted => {
                self.is_restless = true;
                error
            }
            Bug::SpinsOnRefusal if number.is_some() && !is_exhausted => {
                self.refusals += 1;
                self.is_restless |= self.refusals > REFUSALS_FEW;
                error
            }
            Bug::DiesOnAbort if number == Some(libc::ECONNABORTED) => number_of(libc::EBADF),
            _ => error,
        }
    }
}

fn number_of(number: i32) -> io::Error {
    io::Error::from_raw_os_error(number)
}

impl AsMut<Network> for Faulty {
    fn as_mut(&mut self) -> &mut Network {
        &mut self.net
    }
}

struct Deaf(Box<dyn Wake>, std::sync::atomic::AtomicU64);

impl Wake for Deaf {
    fn wake(&self) {
        let number = self.1.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        if number % 3 != 0 {
            self.0.wake();
        }
    }
}

impl Net for Faulty {
    type Stream = Socket;
    type Listener = Handle;
    type Datagram = Mail;

    fn now(&mut self) -> Instant {
        let now = self.net.now();
        let begin = *self.begin.get_or_insert(now);
        match self.bug {
            Bug::StoppedClock => begin,
            Bug::WaitsFromBeforeWork => *self.looked.get_or_insert(now),
            Bug::JumpingClock if now > begin + Duration::from_millis(150) => {
                now + Duration::from_secs(3_600)
            }
            _ => now,
        }
    }

    fn poll(&mut self, events: &mut Vec<Event>, timeout: Option<Duration>) -> io::Result<()> {
        if self.sometimes(Bug::DiesOnSignal) {
            return Err(ErrorKind::Interrupted.into());
        }
        let never = self.is(Bug::NeverWaits) || self.is_restless;
        let never = never.then_some(Duration::ZERO);
        self.net.poll(events, never.or(timeout))?;
        self.is_restless &= events.is_empty();
        self.looked = None;
        let told = |token: &usize| events.iter().any(|event| event.token == *token);
        self.short.retain(|token| !told(token));
        self.is_deaf = false;
        if self.is(Bug::LosesTailOfBatch) {
            events.truncate(1);
        }
        events.retain_mut(|event| self.spoil(event));
        Ok(())
    }

    fn waker(&mut self, token: usize) -> io::Result<Box<dyn Wake>> {
        let waker = self.net.waker(token)?;
        if self.is(Bug::LosesWakes) {
            return Ok(Box::new(Deaf(waker, 0.into())));
        }
        Ok(waker)
    }

    fn watch_shutdown(&mut self, handle: &ShutdownHandle, token: usize) -> io::Result<()> {
        self.net.watch_shutdown(handle, token)
    }

    fn listen(
        &mut self,
        at: &Address,
        config: &Config,
        token: usize,
    ) -> io::Result<(Handle, Address)> {
        self.net.listen(at, config, token)
    }

    fn accept(&mut self, listener: &mut Handle) -> io::Result<(Socket, Address)> {
        if self.is_deaf {
            return Err(ErrorKind::WouldBlock.into());
        }
        let accepted = self.net.accept(listener);
        self.is_deaf = self.is(Bug::AcceptsOncePerEvent);
        match accepted {
            Ok((stream, address)) => {
                self.refusals = 0;
                let earlier = self.accepted.replace(address.clone());
                let earlier = earlier.filter(|_| self.is(Bug::CrossesWires));
                Ok((stream.into(), earlier.unwrap_or(address)))
            }
            Err(error) => Err(self.accept_error(error)),
        }
    }

    fn close_listener(&mut self, listener: Handle) {
        self.net.close_listener(listener);
    }

    fn connect(&mut self, to: &Address, config: &Config) -> io::Result<Socket> {
        self.net.connect(to, config).map(Socket::from)
    }

    fn connected(&mut self, stream: &mut Socket) -> io::Result<()> {
        self.net.connected(&mut stream.handle)
    }

    fn register(&mut self, stream: &mut Socket, token: usize) -> io::Result<()> {
        self.seen.retain(|other| *other != token);
        stream.is_watched = true;
        stream.token = token;
        self.net.register(&mut stream.handle, token)
    }

    fn read(&mut self, stream: &mut Socket, buffer: &mut [u8]) -> io::Result<usize> {
        if self.sometimes(Bug::ReadsTwice)
            && self.read.len() <= buffer.len()
            && !self.read.is_empty()
        {
            buffer[..self.read.len()].copy_from_slice(&self.read);
            return Ok(self.read.len());
        }
        if self.is(Bug::TakesShortReadForLast) && self.short.contains(&stream.token) {
            return Err(ErrorKind::WouldBlock.into());
        }
        let outcome = self.net.read(&mut stream.handle, buffer);
        let short = |count: &usize| *count > 0 && *count < buffer.len();
        if outcome.as_ref().is_ok_and(short) {
            self.short.push(stream.token);
        }
        match outcome {
            Ok(0) if self.is(Bug::TakesEndForReset) => Err(number_of(libc::ECONNRESET)),
            Ok(count) if count > 1 && self.sometimes(Bug::DropsInput) => Ok(count - 1),
            Ok(count) => {
                self.read = buffer[..count].to_vec();
                Ok(count)
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => match self.bug {
                Bug::SpinsOnEmptySocket => {
                    self.is_restless = true;
                    Err(error)
                }
                Bug::TakesSilenceForEnd => Ok(0),
                _ => Err(error),
            },
            outcome => outcome,
        }
    }

    fn write(&mut self, stream: &mut Socket, data: &[u8]) -> io::Result<usize> {
        let outcome = self.net.write(&mut stream.handle, data);
        match outcome {
            Ok(_) if self.is(Bug::IgnoresShortWrites) => Ok(data.len()),
            Ok(count) if count < data.len() && self.is(Bug::RepeatsWrites) => {
                Err(ErrorKind::WouldBlock.into())
            }
            Err(error)
                if error.kind() == ErrorKind::WouldBlock && self.is(Bug::SpinsOnFullSocket) =>
            {
                self.is_restless = true;
                Err(error)
            }
            outcome => outcome,
        }
    }

    fn error(&mut self, stream: &mut Socket) -> Option<io::Error> {
        self.net.error(&mut stream.handle)
    }

    fn unsent(&mut self, stream: &mut Socket) -> usize {
        self.net.unsent(&mut stream.handle)
    }

    fn finish(&mut self, stream: &mut Socket) -> io::Result<()> {
        match self.bug {
            Bug::ClosesWithoutLingering => Err(number_of(libc::ENOTCONN)),
            _ => self.net.finish(&mut stream.handle),
        }
    }

    fn close(&mut self, stream: Socket, abort: bool) {
        let forgets = self.is(Bug::LeavesRefusedOpen) && !stream.is_watched;
        if forgets || self.sometimes(Bug::LeaksSockets) {
            return;
        }
        let abort = abort || self.is(Bug::DropsLastOutput);
        self.net.close(stream.handle, abort);
    }

    fn bind(&mut self, at: &Address, config: &Config, token: usize) -> io::Result<(Mail, Address)> {
        let (handle, address) = self.net.bind(at, config, token)?;
        Ok((Mail::new(handle, false), address))
    }

    fn receive(&mut self, socket: &mut Mail, buffer: &mut [u8]) -> io::Result<(usize, Address)> {
        if socket.is_outbound && self.sometimes(Bug::HearsStrangers) {
            let stranger = "udp://192.0.2.99:53".parse().expect("an address");
            buffer[..4].copy_from_slice(b"evil");
            return Ok((4, stranger));
        }
        if socket.is_outbound && self.is(Bug::ShowsAnswersTwice) {
            if let Some((data, from)) = socket.last.take() {
                buffer[..data.len()].copy_from_slice(&data);
                return Ok((data.len(), from));
            }
        }
        let mut outcome = self.net.receive(&mut socket.handle, buffer);
        if let Ok((count, from)) = &outcome {
            socket.last = Some((buffer[..*count].to_vec(), from.clone()));
        }
        if socket.is_outbound && outcome.is_ok() && self.sometimes(Bug::DropsAnswers) {
            outcome = self.net.receive(&mut socket.handle, buffer);
        }
        match outcome {
            Err(error)
                if self.is(Bug::DatagramErrorIsFatal)
                    && error.raw_os_error() == Some(libc::ECONNREFUSED) =>
            {
                Err(number_of(libc::EBADF))
            }
            outcome => outcome,
        }
    }

    fn send(&mut self, socket: &mut Mail, data: &[u8], to: &Address) -> io::Result<()> {
        if self.sometimes(Bug::RepeatsDatagrams) {
            self.net.send(&mut socket.handle, data, to)?;
        }
        self.net.send(&mut socket.handle, data, to)
    }

    fn packet_info(&mut self, socket: &mut Mail) -> Option<PacketInfo> {
        self.net.packet_info(&mut socket.handle)
    }

    fn set_ecn(&mut self, socket: &mut Mail, ecn: Ecn) {
        self.net.set_ecn(&mut socket.handle, ecn);
    }

    fn destination(&mut self, socket: &mut Mail) -> Option<Destination> {
        self.net.destination(&mut socket.handle)
    }

    fn send_from(
        &mut self,
        socket: &mut Mail,
        data: &[u8],
        to: &Address,
        source: Option<Destination>,
    ) -> io::Result<()> {
        let handle = &mut socket.handle;
        let repeats = socket.is_outbound && self.sometimes(Bug::RepeatsQuestions);
        if repeats || self.sometimes(Bug::RepeatsDatagrams) {
            self.net.send_from(handle, data, to, source)?;
        }
        if socket.is_outbound && self.sometimes(Bug::DropsQuestions) {
            return Ok(());
        }
        if self.sometimes(Bug::ForgetsBlockedDatagrams) {
            return match self.net.send_from(handle, data, to, source) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
                outcome => outcome,
            };
        }
        self.net.send_from(handle, data, to, source)
    }

    fn await_room(&mut self, socket: &mut Mail) -> io::Result<()> {
        self.net.await_room(&mut socket.handle)
    }

    fn connect_datagram(
        &mut self,
        to: &Address,
        config: &Config,
        token: usize,
    ) -> io::Result<Mail> {
        let handle = self.net.connect_datagram(to, config, token)?;
        Ok(Mail::new(handle, true))
    }

    fn undelivered(&mut self, socket: &mut Mail) -> Option<Undelivered> {
        self.net.undelivered(&mut socket.handle)
    }

    fn close_datagram(&mut self, socket: Mail) {
        if socket.is_outbound && self.sometimes(Bug::LeaksDatagramSockets) {
            return;
        }
        self.net.close_datagram(socket.handle);
    }
}
