//! Drives one of rustls's connections, which decrypt records in a buffer of their caller's and
//! encrypt into another.

use std::mem;

use rustls::client::{ClientConnectionData, UnbufferedClientConnection};
use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{
    ConnectionState, EncodeError, EncodeTlsData, EncryptError, UnbufferedStatus, WriteTraffic,
};
use rustls::{CommonState, Error};

use crate::layer::Wire;

/// The length of a record's header: type, version, length.
pub(super) const HEADER: usize = 5;

/// The most plain bytes of one record.
const RECORD_PLAIN_MOST: usize = 16 * 1024;

/// Bytes that encryption adds to a record, and room for a key update before it.
const RECORD_EXTRA: usize = 64;

/// The longest record that is decrypted on the stack, which is faster than in a buffer.
const SHORT_MOST: usize = 512;

/// The most bytes of records that may wait for the rest of a handshake message. rustls refuses
/// messages of more than 64 KiB; the rest is for what a peer adds by cutting one into many records.
const PENDING_MOST: usize = 160 * 1024;

/// A side of a TLS connection.
pub(super) enum Connection {
    Server(UnbufferedServerConnection),
    Client(UnbufferedClientConnection),
}

/// A TLS connection and the records that it has not finished with.
pub(super) struct Records {
    connection: Connection,
    /// Decrypted records that hold the beginning of a handshake message. rustls keeps positions in
    /// them, so they stay until the message is complete. Otherwise this is empty and owns nothing.
    pending: Vec<u8>,
}

/// What a record held.
#[derive(Debug, Default)]
pub(super) struct Content {
    /// The bytes for the protocol inside.
    pub(super) plain: Vec<u8>,
    /// The peer sent `close_notify`.
    pub(super) ends: bool,
}

/// What to send once the connection can.
enum Output<'a> {
    Nothing,
    Plain(&'a [u8]),
    CloseNotify,
}

/// What one step of a connection came to.
enum Step {
    /// There is more to do without more input.
    Again,
    /// The record's plain bytes were taken.
    Plain,
    PeerClosed,
    /// The output was sent.
    Sent,
    /// Nothing is left to do until a record arrives.
    Waits,
}

impl Records {
    pub(super) fn new(connection: Connection) -> Self {
        Self {
            connection,
            pending: Vec::new(),
        }
    }

    /// Returns what the handshake has agreed upon.
    pub(super) fn common(&self) -> &CommonState {
        match &self.connection {
            Connection::Server(connection) => connection,
            Connection::Client(connection) => connection,
        }
    }

    /// Returns how many bytes of records are kept.
    pub(super) fn held(&self) -> usize {
        self.pending.capacity()
    }

    /// Sends what the connection has to say before it has heard anything.
    pub(super) fn begin(&mut self, wire: &mut Wire<'_>) -> Result<(), Error> {
        self.advance(&mut [], Vec::new(), wire).0.map(drop)
    }

    /// Takes one complete record and sends what it asks for. If that fails, sends the alert that is
    /// owed to the peer.
    pub(super) fn take(&mut self, record: &[u8], wire: &mut Wire<'_>) -> Result<Content, Error> {
        if self.pending.len() + record.len() > PENDING_MOST {
            let problem = "a handshake message in too many records";
            return Err(Error::General(problem.to_owned()));
        }

        let content = if self.pending.is_empty() && record.len() <= SHORT_MOST {
            let mut short = [0; SHORT_MOST];
            let short = &mut short[..record.len()];
            short.copy_from_slice(record);
            let (content, used) = self.advance(short, Vec::new(), wire);
            self.pending.extend_from_slice(&short[used..]);
            content
        } else {
            let mut records = mem::take(&mut self.pending);
            records.extend_from_slice(record);
            // rustls copies the plain bytes to a block of its own first. A block allocated after that
            // one would begin 16 bytes behind it, modulo a page, where some processors copy slowly.
            let plain = Vec::with_capacity(record.len());
            let (content, used) = self.advance(&mut records, plain, wire);
            if used < records.len() {
                records.drain(..used);
                self.pending = records;
            }
            content
        };
        if content.is_err() {
            self.send_alert(wire);
        }
        content
    }

    /// Encrypts `plain` and sends it.
    pub(super) fn send(&mut self, plain: &[u8], wire: &mut Wire<'_>) -> Result<(), Error> {
        for part in plain.chunks(RECORD_PLAIN_MOST) {
            self.put(&Output::Plain(part), wire)?;
        }
        Ok(())
    }

    /// Sends `close_notify`.
    pub(super) fn end(&mut self, wire: &mut Wire<'_>) -> Result<(), Error> {
        self.put(&Output::CloseNotify, wire)
    }

    /// Takes steps until the connection waits. Returns what `records` held, with the plain bytes in
    /// `plain`, and how many bytes at their front the connection has finished with.
    fn advance(
        &mut self,
        records: &mut [u8],
        plain: Vec<u8>,
        wire: &mut Wire<'_>,
    ) -> (Result<Content, Error>, usize) {
        let mut content = Content { plain, ends: false };
        let mut used = 0;
        loop {
            let (left, connection) = (&mut records[used..], &mut self.connection);
            let plain = &mut content.plain;
            let (step, discard) = connection.step(left, plain, &Output::Nothing, wire);
            used += discard;
            match step {
                Ok(Step::Again) => {}
                Ok(Step::Plain) => {
                    // The usual case: another step would find nothing.
                    if used == records.len() && !self.common().wants_write() {
                        return (Ok(content), used);
                    }
                }
                Ok(Step::PeerClosed) => content.ends = true,
                Ok(Step::Sent | Step::Waits) => return (Ok(content), used),
                Err(error) => return (Err(error), used),
            }
        }
    }

    /// Takes steps until `output` is sent.
    fn put(&mut self, output: &Output<'_>, wire: &mut Wire<'_>) -> Result<(), Error> {
        loop {
            match self.step_pending(output, wire)? {
                Step::Again | Step::PeerClosed => {}
                Step::Sent => return Ok(()),
                // Both sides have ended, or the handshake is not done.
                Step::Plain | Step::Waits => return Err(Error::HandshakeNotComplete),
            }
        }
    }

    /// Sends what is queued after an error, which is an alert at most.
    fn send_alert(&mut self, wire: &mut Wire<'_>) {
        // The connection itself would only say again what failed.
        while self.common().wants_write() {
            if self.step_pending(&Output::Nothing, wire).is_err() {
                return;
            }
        }
    }

    /// Takes a step with the records that are kept.
    fn step_pending(&mut self, output: &Output<'_>, wire: &mut Wire<'_>) -> Result<Step, Error> {
        let Self {
            connection,
            pending,
        } = self;
        let (step, discard) = connection.step(pending, &mut Vec::new(), output, wire);
        if discard > 0 {
            pending.drain(..discard);
        }
        step
    }
}

impl Connection {
    /// Takes a step with `records`, and returns how many bytes at their front are done with. What
    /// they hold for the protocol inside is appended to `plain`.
    #[inline]
    fn step(
        &mut self,
        records: &mut [u8],
        plain: &mut Vec<u8>,
        output: &Output<'_>,
        wire: &mut Wire<'_>,
    ) -> (Result<Step, Error>, usize) {
        match self {
            Self::Server(connection) => step(connection, records, plain, output, wire),
            Self::Client(connection) => step(connection, records, plain, output, wire),
        }
    }
}

/// What rustls's two kinds of connections have in common.
trait Engine {
    type Data;

    fn process<'c, 'i>(&'c mut self, records: &'i mut [u8])
    -> UnbufferedStatus<'c, 'i, Self::Data>;
}

impl Engine for UnbufferedServerConnection {
    type Data = ServerConnectionData;

    fn process<'c, 'i>(
        &'c mut self,
        records: &'i mut [u8],
    ) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(records)
    }
}

impl Engine for UnbufferedClientConnection {
    type Data = ClientConnectionData;

    fn process<'c, 'i>(
        &'c mut self,
        records: &'i mut [u8],
    ) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(records)
    }
}

/// Lets a connection do one thing with `records`, and returns how many bytes at their front it has
/// finished with.
fn step<E: Engine>(
    engine: &mut E,
    records: &mut [u8],
    plain: &mut Vec<u8>,
    output: &Output<'_>,
    wire: &mut Wire<'_>,
) -> (Result<Step, Error>, usize) {
    let UnbufferedStatus { discard, state } = engine.process(records);

    let step = match state {
        Ok(ConnectionState::ReadTraffic(mut traffic)) => match traffic.next_record() {
            Some(record) => record.map(|record| {
                plain.extend_from_slice(record.payload);
                Step::Plain
            }),
            None => Ok(Step::Again),
        },
        Ok(ConnectionState::EncodeTlsData(data)) => encode(data, wire),
        Ok(ConnectionState::TransmitTlsData(data)) => {
            data.done();
            Ok(Step::Again)
        }
        Ok(ConnectionState::PeerClosed) => Ok(Step::PeerClosed),
        Ok(ConnectionState::WriteTraffic(traffic)) => write(traffic, output, wire),
        Ok(ConnectionState::BlockedHandshake | ConnectionState::Closed) => Ok(Step::Waits),
        // Early data, which no connection here allows.
        Ok(_) => Err(Error::General("an unexpected state".to_owned())),
        Err(error) => Err(error),
    };

    (step, discard)
}

/// Puts a handshake record or an alert on the wire.
fn encode<D>(mut data: EncodeTlsData<'_, D>, wire: &mut Wire<'_>) -> Result<Step, Error> {
    let size = match data.encode(&mut []) {
        Err(EncodeError::InsufficientSize(missing)) => missing.required_size,
        _ => 0,
    };

    let mut outcome = Ok(0);
    wire.write_with(size, |out| {
        outcome = data.encode(out);
        outcome.as_ref().map_or(0, |count| *count)
    });
    outcome
        .map(|_| Step::Again)
        .map_err(|error| Error::General(error.to_string()))
}

/// Encrypts the output onto the wire.
fn write<D>(
    mut traffic: WriteTraffic<'_, D>,
    output: &Output<'_>,
    wire: &mut Wire<'_>,
) -> Result<Step, Error> {
    let mut size = RECORD_EXTRA;
    match output {
        Output::Nothing => return Ok(Step::Waits),
        Output::Plain(plain) => size += plain.len(),
        Output::CloseNotify => {}
    }

    loop {
        let mut outcome = Ok(0);
        wire.write_with(size, |out| {
            outcome = match output {
                Output::Plain(plain) => traffic.encrypt(plain, out),
                _ => traffic.queue_close_notify(out),
            };
            outcome.as_ref().map_or(0, |count| *count)
        });

        match outcome {
            Ok(_) => return Ok(Step::Sent),
            Err(EncryptError::InsufficientSize(missing)) => size = missing.required_size,
            Err(EncryptError::EncryptExhausted) => return Err(Error::EncryptError),
        }
    }
}
