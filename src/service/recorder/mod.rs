//! A flight recorder: what came and went on each connection, with its timing, and how it ended.
//!
//! A [`Recorder`] keeps the records of the last connections in memory and writes them to a file when a
//! handler panics, when the server ends, and on request. A [`Recording`] reads the file. With the feature
//! `testing`, it is replayed: each connection's input runs through the protocol again, in virtual
//! time, and the first difference of its answers is told.
//!
//! # The file
//! Version 1. A *number* is unsigned, in groups of seven bits, lowest first, with the eighth bit set in
//! all bytes but the last. *Bytes* are a number, the length, and as many bytes. *Text* is bytes in UTF-8.
//!
//! - The 8 bytes `SLREC\r\n\x1a`, and a byte with the version.
//! - Blocks: a byte that is the tag, the length of the content as 4 bytes (lowest first), the content, and
//!   the CRC32c of all that, as 4 bytes (lowest first).
//! - The first block, `H`: a byte that is 1 if the record has content and 0 if it has sizes alone; a
//!   number, the nanoseconds from the beginning of 1970 to the beginning of the record plus 1, or 0 if
//!   the date is not known.
//! - A block `C` for each connection, in the order in which they were opened: the number of the connection (`id`),
//!   the nanoseconds from the beginning of the record until it was opened, the listener's number plus
//!   1 or 0 for none; the addresses of the peer, of the proxy in front, and of this side; a
//!   byte that is 1 if three numbers follow for the user, the group and the process plus 1 of a peer on a Unix socket;
//!   the numbers `high_water`, `low_water`, `max_output`, `max_reply`, `max_posted`, `max_frame`, `max_line`,
//!   `messages_per_turn` and `max_buffered`. An address is a byte: 0 for none, or `t` (TCP), `u` (UDP) and a text, or `s`
//!   (Unix stream), `d` (Unix datagram) and bytes. Then events, up to the end of the block.
//! - The last block, `E`: how many connections there are, and how many were evicted, as numbers.
//!
//! An event is a byte for its kind and, for the kinds up to 12 and for 18, three numbers: the nanoseconds since the last
//! of them on this connection, how much larger its place among the events of all connections is than that of the
//! last one, and how many bytes of output waited.
//!
//! | kind | call | what follows |
//! |---|---|---|
//! | 1 | `connection_made` | |
//! | 2 | `data_received`, with bytes that are new | data |
//! | 3 | `data_received`, with bytes that were shown before | |
//! | 4 | `eof_received`, with bytes that are new | data |
//! | 5, 6 | `resume_writing`, `handle_timeout` | |
//! | 7 | `woken` | a byte: 1 if the protocol had asked for it |
//! | 8 | `posted` | data |
//! | 9 | `shutdown_requested` | |
//! | 10 | `deadline_passed` | a byte: 0 connect, 1 handshake, 2 first message, 3 message, 4 idle, 5 write, 6 drain |
//! | 11 | `input_rejected` | text |
//! | 12 | `connection_lost` | a byte for the reason, its text, the numbers of bytes received, sent and dropped |
//! | 13 | the protocol wrote, or one of its sources was read: what waits behind a source may be sent later than it is listed | data |
//! | 14 | it took less than it was shown | the number of bytes |
//! | 15 | what it wants has changed | a byte: 1 closing, 2 its side is finished, 4 paused; or the sum |
//! | 16 | the connection's record is full | |
//! | 17 | its own deadline has changed | a number: 0 for none, or the nanoseconds since the connection was opened plus 1 |
//! | 18 | `datagram_undelivered` | a byte and a number: 0 reported and its `errno`, 1 too long and the MTU, 2 not sent and its `errno`; the number is 0 if it is not known |
//!
//! *Data* is bytes, or only the number of bytes if the record has sizes alone.

mod event;
mod failure;
mod file;
mod format;
mod head;
mod recorded;
mod recording;
mod saver;
mod store;

use std::fmt;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

pub use self::event::{Chunk, Events, Happening, RecordedEnd, RecordedEvent};
#[cfg(feature = "testing")]
pub(crate) use self::event::{PROTOCOL, code_of, deadline_of_code};
pub use self::failure::RecordedFailure;
pub use self::file::Written;
pub use self::format::RecordingError;
pub use self::recorded::Recorded;
pub use self::recording::{RecordedConnection, Recording, RecordingReader};

use crate::LOG_TARGET;
use crate::address::{NetworkList, Peer};
use crate::error::counted;
use crate::service::recorder::saver::{Saver, When};
use crate::service::recorder::store::{Logger, Store};
use crate::session::{Actions, Ended, Factory, Listing, OpenConnection, Refusal, Transport, nanos};
use crate::sys;
use crate::waker::sync::{Mutex, lock};

/// The default of [`RecorderOptions::max_bytes`].
const MAX_BYTES: usize = 16 << 20;

/// What a [`Recorder`] keeps, and where it is written.
///
/// ```
/// use serveloop::service::recorder::{Content, RecorderOptions};
///
/// let options = RecorderOptions { content: Content::Sizes, ..RecorderOptions::default() };
/// assert_eq!(options.max_bytes, 16 << 20);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecorderOptions {
    /// The most bytes of memory for the records of all connections. Beyond that, whole connections are
    /// evicted: first those that have ended, the one that ended first before the others, then the oldest. A single connection has at most a
    /// quarter of it; of what comes after that, only its end is recorded. Default 16 MiB.
    pub max_bytes: usize,
    /// Whether the bytes of connections are recorded, or only how many there were. Default
    /// [`Content::Full`].
    pub content: Content,
    /// The file that is written when a handler panics, when the server ends, and by
    /// [`Recorder::save`]. Default none.
    pub file: Option<PathBuf>,
    /// A moment, and how long after the beginning of 1970 it is, so that whoever reads the record knows its
    /// date; its times count from there. The library reads no calendar. Default none: times count from
    /// the first connection.
    pub date: Option<(Instant, Duration)>,
}

impl Default for RecorderOptions {
    fn default() -> Self {
        Self {
            max_bytes: MAX_BYTES,
            content: Content::Full,
            file: None,
            date: None,
        }
    }
}

/// How much of what came and went is recorded.
///
/// ```
/// use serveloop::service::recorder::{Content, Recorder, RecorderOptions, Recording};
/// use serveloop::protocols::Echo;
/// use serveloop::testing::MemorySession;
///
/// let options = RecorderOptions { content: Content::Sizes, ..RecorderOptions::default() };
/// let recorder = Recorder::new(options);
/// MemorySession::new(recorder.protocol(Echo)).receive(b"a secret");
///
/// let mut record = Vec::new();
/// recorder.write(&mut record)?;
/// assert!(!record.windows(6).any(|bytes| bytes == b"secret"));
/// assert!(!Recording::read(&record[..])?.has_content());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// The bytes themselves, as a replay needs them.
    Full,
    /// Only how many bytes there were. The texts of errors are recorded, and may quote a peer.
    Sizes,
}

/// Records connections: who came, every chunk that came and went, when, and how it ended.
///
/// The records are in memory, within a limit. They are written to a file in three cases: when a handler
/// has panicked (by a thread of their own, at most once in 5 s), when the server has ended, and on
/// request ([`save`](Self::save), [`write_to`](Self::write_to)). The file is complete or not there, only
/// its owner may read it, and a warning in the log reminds of what is in it.
///
/// A recorder wraps the factory of a server, in every model whose connections are in one process.
/// Clones are the same recorder, so loops and threads share one. [`serve_forking`](crate::Server::serve_forking)
/// refuses to begin ([`needs_one_process`](Factory::needs_one_process)). Without a recorder, a server
/// pays nothing.
///
/// What is recorded is what the protocol inside is shown and what it writes. To record plain bytes,
/// [`protocol`](Self::protocol) belongs inside of a layer such as TLS. A connection that was refused, or could not be
/// made, is not recorded.
///
/// ```
/// use serveloop::service::recorder::{Recorder, RecorderOptions, Recording};
/// use serveloop::{Config, Peer, Server, protocols::Echo};
/// use std::io::Write;
/// use std::net::TcpStream;
///
/// # let directory = std::env::temp_dir().join(format!("recorder-{}", std::process::id()));
/// # std::fs::create_dir_all(&directory)?;
/// # let path = directory.join("echo.record");
/// let options = RecorderOptions { file: Some(path.clone()), ..RecorderOptions::default() };
/// let recorder = Recorder::new(options);
///
/// let server = Server::bind(&["tcp://127.0.0.1:0".parse()?], Config::default())?;
/// let mut client = TcpStream::connect(server.addresses()[0].socket_addr().unwrap())?;
/// client.write_all(b"good morning")?;
/// drop(client);
/// server.shutdown_handle().shutdown();
/// server.with(recorder.record(|_: &Peer| Some(Echo))).serve_forever()?;
///
/// let recording = Recording::open(&path)?;
/// assert_eq!(recording.connections().len(), 1);
/// let replay = recording.replay(|_: &Peer| Some(Echo))?;
/// assert!(replay.is_same());
/// # std::fs::remove_dir_all(&directory)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Recorder {
    shared: Arc<Shared>,
}

/// What the clones of a recorder share.
struct Shared {
    options: RecorderOptions,
    store: Arc<Store>,
    saver: Saver,
    /// Held while the file is written, which one writer does at a time.
    writing: Mutex<()>,
}

impl Recorder {
    /// Creates a recorder that has recorded nothing.
    #[must_use]
    pub fn new(options: RecorderOptions) -> Self {
        let content = options.content == Content::Full;
        let origin = options.date.map(|(at, _)| at);
        let store = Store::new(options.max_bytes, content, origin);
        let shared = Shared {
            options,
            store: Arc::new(store),
            saver: Saver::default(),
            writing: Mutex::default(),
        };
        Self {
            shared: Arc::new(shared),
        }
    }

    /// Returns a factory whose connections are recorded. When the last clone of it is dropped, because
    /// the server has ended, the record is written to [`RecorderOptions::file`].
    pub fn record<F: Factory>(&self, factory: F) -> RecordedFactory<F> {
        let at_end = AtEnd(self.clone());
        RecordedFactory {
            factory,
            at_end: Arc::new(at_end),
        }
    }

    /// Returns a protocol whose connection is recorded, to be put into a layer, or to be connected by
    /// [`Actions::connect`].
    ///
    /// ```
    /// use serveloop::layer::layered;
    /// use serveloop::service::recorder::{Recorder, RecorderOptions};
    /// use serveloop::testing::{MemorySession, Scrambled};
    /// use serveloop::{Factory, Peer, protocols::Echo};
    ///
    /// let recorder = Recorder::new(RecorderOptions::default());
    /// let inside = recorder.clone();
    /// let mut factory = layered(
    ///     |_: &Peer| Some(Scrambled::new(7)),
    ///     move |_: &Peer, (): &()| Some(inside.protocol(Echo)),
    /// );
    ///
    /// let peer = Peer::new("tcp://192.0.2.1:4711".parse()?, Some(0));
    /// let session = MemorySession::new(factory.build_protocol(&peer).unwrap());
    /// assert_eq!(recorder.connections(), 1);
    /// # drop(session);
    /// # Ok::<(), serveloop::net::AddressError>(())
    /// ```
    pub fn protocol<P>(&self, protocol: P) -> Recorded<P> {
        Recorded::new(protocol, self.clone())
    }

    /// Returns how many connections are recorded at the moment.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.shared.store.counts().0
    }

    /// Returns how many connections were evicted, because others needed the room.
    #[must_use]
    pub fn evicted(&self) -> u64 {
        self.shared.store.counts().1
    }

    /// Returns how many bytes of memory the records hold.
    #[must_use]
    pub fn held(&self) -> usize {
        self.shared.store.held()
    }

    /// Writes the record of all connections, those that are open included, to [`RecorderOptions::file`],
    /// and logs that. It takes as long as the disk does: on a loop, use
    /// [`save_in_background`](Self::save_in_background).
    ///
    /// # Errors
    /// Fails if there is no such file, or it cannot be written. A file that is there stays as it is
    /// then.
    pub fn save(&self) -> io::Result<Written> {
        self.shared.save()
    }

    /// Writes the record like [`save`](Self::save), to a file of your choice.
    ///
    /// # Errors
    /// Fails if it cannot be written.
    pub fn write_to(&self, path: impl AsRef<Path>) -> io::Result<Written> {
        self.shared.write_to(path.as_ref())
    }

    /// Writes the record to anything, without a word in the log.
    ///
    /// # Errors
    /// Fails if that fails.
    pub fn write(&self, output: impl Write) -> io::Result<Written> {
        self.shared.write(output)
    }

    /// Checks that [`RecorderOptions::file`] can be written, so that a mistake shows when a server starts.
    /// The file itself is not touched.
    ///
    /// # Errors
    /// Fails if it cannot be written, or is there and is no file.
    pub fn check(&self) -> io::Result<()> {
        let path = self.shared.path()?;
        file::check(path).map_err(|error| about(path, &error))
    }

    fn open(&self, transport: &Transport<'_>) -> Logger {
        self.shared.store.open(transport)
    }

    /// Writes the record like [`save`](Self::save), on a thread of the recorder's own, and returns at once.
    /// A failure is logged. Does nothing if there is no file for it.
    pub fn save_in_background(&self) {
        self.ask(When::Now);
    }

    /// Asks the thread to write the record, but not too often.
    fn save_soon(&self) {
        self.ask(When::Soon);
    }

    fn ask(&self, when: When) {
        if self.shared.options.file.is_some() {
            saver::save(&self.shared, when);
        }
    }
}

impl Shared {
    fn path(&self) -> io::Result<&Path> {
        let path = self.options.file.as_deref();
        path.ok_or_else(|| {
            let problem = "the recorder has no file to write to";
            io::Error::new(io::ErrorKind::InvalidInput, problem)
        })
    }

    fn save(&self) -> io::Result<Written> {
        self.write_to(self.path()?)
    }

    fn write_to(&self, path: &Path) -> io::Result<Written> {
        let writing = lock(&self.writing);
        let written = file::replace(path, |output| self.write(output));
        drop(writing);
        let written = written.map_err(|error| about(path, &error))?;

        let Written {
            connections, bytes, ..
        } = written;
        let connections = counted(connections, "connection", "connections");
        let bytes = counted(bytes, "byte", "bytes");
        let content = match self.options.content {
            Content::Full => "it holds what was said",
            Content::Sizes => "it holds no content",
        };
        log::warn!(
            target: LOG_TARGET,
            "{path:?}: the record of {connections} was written, {bytes}: {content}"
        );
        Ok(written)
    }

    fn write(&self, output: impl Write) -> io::Result<Written> {
        let date = self.options.date;
        let date = date.map_or(0, |(_, since)| nanos(since).saturating_add(1));
        file::write(output, &self.store, date)
    }
}

fn about(path: &Path, error: &io::Error) -> io::Error {
    let problem = format!("{path:?}: cannot write the record: {error}");
    io::Error::new(error.kind(), problem)
}

impl fmt::Debug for Recorder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recorder")
            .field("options", &self.shared.options)
            .field("connections", &self.connections())
            .finish_non_exhaustive()
    }
}

/// Writes the record when the server has ended.
struct AtEnd(Recorder);

impl Drop for AtEnd {
    fn drop(&mut self) {
        let shared = &self.0.shared;
        if shared.options.file.is_none() || sys::is_child() {
            return;
        }
        saver::end(shared);
        if let Err(error) = shared.save() {
            log::error!(target: LOG_TARGET, "{error}");
        }
    }
}

/// A factory whose connections are recorded: see [`Recorder::record`]. Its hooks are those of the factory
/// inside.
#[derive(Clone)]
pub struct RecordedFactory<F> {
    factory: F,
    at_end: Arc<AtEnd>,
}

/// The open connections, as the factory inside sees them.
struct Inside<'a, P>(&'a dyn Listing<Recorded<P>>);

impl<P> Listing<P> for Inside<'_, P> {
    fn list(&self) -> Box<dyn Iterator<Item = OpenConnection<'_, P>> + '_> {
        Box::new(self.0.list().map(|it| OpenConnection {
            peer: it.peer,
            age: it.age,
            protocol: it.protocol.protocol(),
        }))
    }
}

impl<F: Factory> RecordedFactory<F> {
    fn act(
        &mut self,
        actions: &mut Actions<'_, Recorded<F::Protocol>>,
        hook: fn(&mut F, &mut Actions<'_, F::Protocol>),
    ) {
        let open = Inside(actions.open);
        for connect in actions.inside_showing(&mut self.factory, &open, hook) {
            actions.ask(connect.map(|protocol| self.at_end.0.protocol(protocol)));
        }
    }
}

impl<F: Factory> Factory for RecordedFactory<F> {
    type Protocol = Recorded<F::Protocol>;

    fn build_protocol(&mut self, peer: &Peer) -> Option<Self::Protocol> {
        let protocol = self.factory.build_protocol(peer)?;
        Some(self.at_end.0.protocol(protocol))
    }

    fn needs_stream(&self, listener: usize) -> bool {
        self.factory.needs_stream(listener)
    }

    fn needs_loop(&self) -> bool {
        self.factory.needs_loop()
    }

    fn trusted_proxies(&self, listener: usize) -> Option<NetworkList> {
        self.factory.trusted_proxies(listener)
    }

    fn needs_one_process(&self) -> bool {
        true
    }

    fn handle_error(&mut self, ended: &Ended<'_>) {
        self.factory.handle_error(ended);
    }

    fn handle_refusal(&mut self, peer: &Peer, why: Refusal) {
        self.factory.handle_refusal(peer, why);
    }

    fn started(&mut self, actions: &mut Actions<'_, Self::Protocol>) {
        self.act(actions, F::started);
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.factory.poll_timeout()
    }

    fn handle_timeout(&mut self, actions: &mut Actions<'_, Self::Protocol>) {
        self.act(actions, F::handle_timeout);
    }

    fn woken(&mut self, actions: &mut Actions<'_, Self::Protocol>) {
        self.act(actions, F::woken);
    }

    fn service_actions(&mut self, actions: &mut Actions<'_, Self::Protocol>) {
        self.act(actions, F::service_actions);
    }
}

impl<F: fmt::Debug> fmt::Debug for RecordedFactory<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RecordedFactory")
            .field("factory", &self.factory)
            .finish_non_exhaustive()
    }
}
