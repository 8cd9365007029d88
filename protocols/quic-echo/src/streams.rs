//! The echo of the streams of one connection.

use std::collections::HashMap;

use bytes::Bytes;
use quinn_proto::{
    Connection, Dir, ReadError, ReadableError, SendStream, StreamEvent, StreamId, VarInt,
    WriteError,
};

/// The most that is taken from a stream before it is written back.
const PIECE: usize = 64 * 1024;

/// The streams that are open, each with what was read and could not be written yet. While there is
/// any, nothing more is read, so the stream's window stops a peer that does not read the echo.
#[derive(Debug, Default)]
pub(crate) struct Streams {
    open: HashMap<StreamId, Bytes>,
}

/// What is left to do with a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Progress {
    /// It was moved on, and may be moved on again.
    Moved,
    /// It waits for the peer.
    Waits,
    /// Both sides have ended.
    Done,
}

impl Streams {
    /// Handles what has happened to the streams of a connection.
    pub(crate) fn handle(&mut self, event: &StreamEvent, connection: &mut Connection) {
        match event {
            StreamEvent::Opened { dir: Dir::Bi } => {
                while let Some(id) = connection.streams().accept(Dir::Bi) {
                    self.open.insert(id, Bytes::new());
                    self.echo(id, connection);
                }
            }
            StreamEvent::Readable { id }
            | StreamEvent::Writable { id }
            | StreamEvent::Stopped { id, .. } => self.echo(*id, connection),
            StreamEvent::Opened { dir: Dir::Uni }
            | StreamEvent::Finished { .. }
            | StreamEvent::Available { .. } => {}
        }
    }

    /// Forgets all streams, because their connection is lost.
    pub(crate) fn clear(&mut self) {
        self.open = HashMap::new();
    }

    /// Returns how many bytes were read and not written yet.
    pub(crate) fn held(&self) -> usize {
        self.open.values().map(Bytes::len).sum()
    }

    /// Writes what can be read of a stream, as far as it has room.
    fn echo(&mut self, id: StreamId, connection: &mut Connection) {
        let Some(pending) = self.open.get_mut(&id) else {
            return;
        };
        let progress = loop {
            let progress = match pending.is_empty() {
                true => read(id, pending, connection),
                false => write(id, pending, connection),
            };
            if progress != Progress::Moved {
                break progress;
            }
        };

        if progress == Progress::Done {
            self.open.remove(&id);
        }
    }
}

/// Reads the next piece of a stream into `pending`, or passes on how it ended.
fn read(id: StreamId, pending: &mut Bytes, connection: &mut Connection) -> Progress {
    let mut stream = connection.recv_stream(id);
    let read = match stream.read(true) {
        Ok(mut chunks) => {
            let read = chunks.next(PIECE);
            // Whatever is to be sent now is sent when the event is over.
            let _ = chunks.finalize();
            read
        }
        Err(ReadableError::ClosedStream | ReadableError::IllegalOrderedRead) => {
            return Progress::Done;
        }
    };

    let mut echo = connection.send_stream(id);
    match read {
        Ok(Some(chunk)) => {
            *pending = chunk.bytes;
            Progress::Moved
        }
        Ok(None) => {
            end(&mut echo);
            Progress::Done
        }
        Err(ReadError::Blocked) => match echo.stopped() {
            Ok(None) => Progress::Waits,
            Ok(Some(code)) => stop(id, code, connection),
            Err(_) => Progress::Done,
        },
        Err(ReadError::Reset(code)) => {
            // An error says that the stream is closed already.
            let _ = echo.reset(code);
            Progress::Done
        }
    }
}

/// Writes `pending` as far as the stream has room.
fn write(id: StreamId, pending: &mut Bytes, connection: &mut Connection) -> Progress {
    let chunks = std::slice::from_mut(pending);
    match connection.send_stream(id).write_chunks(chunks) {
        Ok(_) => Progress::Moved,
        Err(WriteError::Blocked) => Progress::Waits,
        Err(WriteError::Stopped(code)) => stop(id, code, connection),
        Err(WriteError::ClosedStream) => Progress::Done,
    }
}

/// Ends the echo in order.
fn end(echo: &mut SendStream<'_>) {
    if let Err(quinn_proto::FinishError::Stopped(code)) = echo.finish() {
        let _ = echo.reset(code);
    }
}

/// Asks the peer to send no more, since it wants no echo: with the code that it gave.
fn stop(id: StreamId, code: VarInt, connection: &mut Connection) -> Progress {
    // Errors say that the side is closed already.
    let _ = connection.send_stream(id).reset(code);
    let _ = connection.recv_stream(id).stop(code);
    Progress::Done
}
