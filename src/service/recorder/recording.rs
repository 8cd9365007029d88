//! A record that is read again.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::Path;
use std::time::Duration;

use crate::address::{Address, Credentials, Peer};
use crate::config::Config;
use crate::error::counted;
use crate::layer::proxy::checksum::crc32c;
use crate::service::recorder::event::{Events, Happening, RecordedEnd};
use crate::service::recorder::format::{
    BLOCK_HEAD, CONNECTION, END, Fields, HEAD, MAGIC, RecordingError, VERSION,
};
use crate::service::recorder::head::Head;

/// A record of connections, read from a file that a [`Recorder`](super::Recorder) has written.
///
/// All of it is in memory. A [`RecordingReader`] reads one connection at a time. With the feature
/// `testing`, `replay` runs the connections through a protocol again.
///
/// ```
/// use serveloop::service::recorder::{Happening, Recorder, RecorderOptions, Recording};
/// use serveloop::protocols::Echo;
/// use serveloop::testing::MemorySession;
///
/// let recorder = Recorder::new(RecorderOptions::default());
/// let mut session = MemorySession::new(recorder.protocol(Echo));
/// session.receive(b"hello");
/// session.receive_eof();
///
/// let mut record = Vec::new();
/// recorder.write(&mut record)?;
/// let recording = Recording::read(&record[..])?;
/// let connection = &recording.connections()[0];
/// assert_eq!(connection.end().unwrap().reason, "closed by the peer");
/// let wrote = connection.events().filter_map(|event| match event.what {
///     Happening::Wrote(chunk) => chunk.bytes,
///     _ => None,
/// });
/// assert_eq!(wrote.collect::<Vec<_>>(), [b"hello"]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct Recording {
    content: bool,
    date: Option<Duration>,
    evicted: u64,
    connections: Vec<RecordedConnection>,
}

impl Recording {
    /// Reads the record at `path`.
    ///
    /// # Errors
    /// Fails if the file cannot be read, is no record, or is damaged or incomplete: then the error names
    /// the byte.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, RecordingError> {
        let path = path.as_ref();
        let file = File::open(path).map_err(RecordingError::from);
        let recording = file.and_then(|file| Self::read(BufReader::new(file)));
        recording.map_err(|error| error.of_file(path))
    }

    /// Reads a record.
    ///
    /// # Errors
    /// Fails like [`open`](Self::open).
    pub fn read(input: impl Read) -> Result<Self, RecordingError> {
        let mut reader = RecordingReader::new(input)?;
        let mut connections = Vec::new();
        for connection in &mut reader {
            connections.push(connection?);
        }
        Ok(Self {
            content: reader.content,
            date: reader.date,
            evicted: reader.evicted().unwrap_or_default(),
            connections,
        })
    }

    /// Returns the connections, in the order in which they were opened.
    #[must_use]
    pub fn connections(&self) -> &[RecordedConnection] {
        &self.connections
    }

    /// Returns whether the record has the content of what came and went, and not only its sizes.
    #[must_use]
    pub fn has_content(&self) -> bool {
        self.content
    }

    /// Returns how many connections are not in the record, because others needed the room.
    #[must_use]
    pub fn evicted(&self) -> u64 {
        self.evicted
    }

    /// Returns when the record began, since the beginning of 1970, if the recorder was told the date.
    #[must_use]
    pub fn date(&self) -> Option<Duration> {
        self.date
    }
}

/// Reads a record one connection at a time.
///
/// ```
/// use serveloop::service::recorder::{Recorder, RecorderOptions, RecordingReader};
///
/// let mut record = Vec::new();
/// Recorder::new(RecorderOptions::default()).write(&mut record)?;
///
/// let mut reader = RecordingReader::new(&record[..])?;
/// for connection in &mut reader {
///     println!("{}", connection?.peer());
/// }
/// assert_eq!(reader.evicted(), Some(0));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct RecordingReader<R> {
    input: R,
    /// How many bytes were read.
    position: u64,
    content: bool,
    date: Option<Duration>,
    connections: u64,
    evicted: Option<u64>,
    /// It has ended, or failed.
    is_over: bool,
}

impl<R: Read> RecordingReader<R> {
    /// Reads the beginning of a record.
    ///
    /// # Errors
    /// Fails if this is no record, or one in a version of the format that is not known here.
    pub fn new(input: R) -> Result<Self, RecordingError> {
        let mut reader = Self {
            input,
            position: 0,
            content: false,
            date: None,
            connections: 0,
            evicted: None,
            is_over: false,
        };

        let begin = reader.read_up_to(MAGIC.len() as u64 + 1)?;
        if begin.get(..MAGIC.len()) != Some(&MAGIC[..]) {
            return Err(RecordingError::at(0, "not a record of connections"));
        }
        match begin.get(MAGIC.len()) {
            Some(&VERSION) => {}
            Some(other) => {
                let problem = format!("version {other} of the format, and only {VERSION} is known");
                return Err(RecordingError::at(MAGIC.len() as u64, problem));
            }
            None => return Err(reader.short(MAGIC.len() as u64)),
        }
        reader.read_head()?;
        Ok(reader)
    }

    fn read_head(&mut self) -> Result<(), RecordingError> {
        let begin = self.position;
        let Some((HEAD, content)) = self.block()? else {
            return Err(RecordingError::at(begin, "a record begins with its head"));
        };
        let mut fields = Fields::new(&content, begin + BLOCK_HEAD as u64);
        self.content = fields.byte()? != 0;
        let date = fields.number()?.checked_sub(1);
        self.date = date.map(Duration::from_nanos);
        Ok(())
    }

    /// Returns whether the record has the content of what came and went, and not only its sizes.
    #[must_use]
    pub fn has_content(&self) -> bool {
        self.content
    }

    /// Returns when the record began, since the beginning of 1970, if the recorder was told the date.
    #[must_use]
    pub fn date(&self) -> Option<Duration> {
        self.date
    }

    /// Returns how many connections are not in the record, because others needed the room. `None`
    /// before the last connection was read.
    #[must_use]
    pub fn evicted(&self) -> Option<u64> {
        self.evicted
    }

    /// Reads up to `count` bytes; fewer only if the input ends. Takes only as much memory as there
    /// are bytes.
    fn read_up_to(&mut self, count: u64) -> Result<Vec<u8>, RecordingError> {
        let mut bytes = Vec::new();
        self.input.by_ref().take(count).read_to_end(&mut bytes)?;
        self.position += bytes.len() as u64;
        Ok(bytes)
    }

    fn short(&self, begin: u64) -> RecordingError {
        RecordingError::at(begin, "the record ends within a block")
    }

    /// Reads a block and checks it. Returns `None` at the end of the input.
    fn block(&mut self) -> Result<Option<(u8, Vec<u8>)>, RecordingError> {
        let begin = self.position;
        let head = self.read_up_to(BLOCK_HEAD as u64)?;
        if head.is_empty() {
            return Ok(None);
        }
        let Ok(head) = <[u8; BLOCK_HEAD]>::try_from(head) else {
            return Err(self.short(begin));
        };

        let [tag, length @ ..] = head;
        let length = u64::from(u32::from_le_bytes(length));
        let content = self.read_up_to(length)?;
        let sum = self.read_up_to(4)?;
        let Ok(sum) = <[u8; 4]>::try_from(&sum[..]) else {
            return Err(self.short(begin));
        };
        if u32::from_le_bytes(sum) != crc32c(&[&head, &content]) {
            let problem = "the record is damaged: the checksum of this block is wrong";
            return Err(RecordingError::at(begin, problem));
        }
        Ok(Some((tag, content)))
    }

    /// Reads the next connection. Returns `None` at the end of the record.
    fn connection(&mut self) -> Result<Option<RecordedConnection>, RecordingError> {
        let begin = self.position;
        match self.block()? {
            Some((CONNECTION, content)) => {
                self.connections += 1;
                let at = begin + BLOCK_HEAD as u64;
                RecordedConnection::read(content, at, self.content).map(Some)
            }
            Some((END, content)) => {
                let mut fields = Fields::new(&content, begin + BLOCK_HEAD as u64);
                let (count, evicted) = (fields.number()?, fields.number()?);
                if count != self.connections {
                    let count = counted(count, "connection", "connections");
                    let problem = format!("{count} expected, {} read", self.connections);
                    return Err(RecordingError::at(begin, problem));
                }
                if !self.read_up_to(1)?.is_empty() {
                    let problem = "something follows the end of the record";
                    return Err(RecordingError::at(self.position - 1, problem));
                }
                self.evicted = Some(evicted);
                Ok(None)
            }
            Some((tag, _)) => {
                let problem = format!("an unknown kind of block, {tag}");
                Err(RecordingError::at(begin, problem))
            }
            None => Err(RecordingError::at(
                begin,
                "the end of the record is missing",
            )),
        }
    }
}

impl<R: Read> Iterator for RecordingReader<R> {
    type Item = Result<RecordedConnection, RecordingError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.is_over {
            return None;
        }
        let read = self.connection().transpose();
        self.is_over = !matches!(read, Some(Ok(_)));
        read
    }
}

/// One connection of a record.
#[derive(Clone, Debug)]
pub struct RecordedConnection {
    head: Head,
    content: bool,
    bytes: Vec<u8>,
    /// Where in `bytes` the events begin.
    events: usize,
}

impl RecordedConnection {
    /// Reads and checks the connection in a block whose content begins at byte `begin` of the file.
    fn read(bytes: Vec<u8>, begin: u64, content: bool) -> Result<Self, RecordingError> {
        let mut fields = Fields::new(&bytes, begin);
        let head = Head::read(&mut fields)?;
        let events = fields.position();
        Events::new(fields, content).check()?;
        Ok(Self {
            head,
            content,
            bytes,
            events,
        })
    }

    /// Returns the connection's number, which lines of the log have as the key `id`.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.head.peer.id()
    }

    /// Returns the peer.
    #[must_use]
    pub fn peer(&self) -> &Peer {
        &self.head.peer
    }

    /// Returns the address of this side, if the system told it.
    #[must_use]
    pub fn local_address(&self) -> Option<&Address> {
        self.head.local.as_ref()
    }

    /// Returns the credentials of the peer, if it was on a Unix socket and the system told them.
    #[must_use]
    pub fn credentials(&self) -> Option<Credentials> {
        self.head.credentials
    }

    /// Returns when the connection was opened, after the record began.
    #[must_use]
    pub fn opened(&self) -> Duration {
        self.head.opened
    }

    /// Returns a configuration with the sizes that were in force, and without deadlines.
    #[must_use]
    pub fn config(&self) -> Config {
        self.head.sizes.config()
    }

    /// Returns the events, in order.
    #[must_use]
    pub fn events(&self) -> Events<'_> {
        Events::new(Fields::new(&self.bytes[self.events..], 0), self.content)
    }

    /// Returns how the connection ended, or `None` if it was open when the record was written.
    #[must_use]
    pub fn end(&self) -> Option<RecordedEnd<'_>> {
        self.events().find_map(|event| match event.what {
            Happening::ConnectionLost(end) => Some(end),
            _ => None,
        })
    }
}

impl From<RecordingError> for io::Error {
    fn from(error: RecordingError) -> Self {
        Self::new(io::ErrorKind::InvalidData, error)
    }
}
