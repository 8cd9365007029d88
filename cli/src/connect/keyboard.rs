//! Standard input, read by a separate thread: one piece at a time, and only on request.

use std::io::{self, BufRead, ErrorKind, Read, Write};
use std::sync::mpsc::{self, Receiver, Sender};

use crate::threads;

use serveloop::protocols::counted;

/// How much is read at once if lines do not matter, in bytes.
const PIECE: usize = 32 << 10;

/// The answer to a request for input.
#[derive(Debug)]
pub(crate) enum Typed {
    /// Bytes as they came, or a line without its line end.
    Piece(Vec<u8>),
    /// The end of the input.
    End,
}

/// What one piece of input is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unit {
    /// The bytes that are available. On a terminal, that is a line with its line end.
    Bytes,
    /// A line without its line end, of at most this many bytes.
    Line(usize),
}

/// A handle to the thread that reads. The thread ends once this is dropped, or with the process.
#[derive(Debug)]
pub(crate) struct Keyboard {
    asks: Sender<()>,
    typed: Receiver<io::Result<Typed>>,
}

impl Keyboard {
    /// Starts a thread that reads `input` in pieces of `unit` and writes `prompt` to standard error
    /// before each. It calls `woken` when there is an answer.
    ///
    /// # Errors
    /// Fails if the system has no thread left.
    pub(crate) fn start(
        mut input: impl BufRead + Send + 'static,
        unit: Unit,
        prompt: Option<String>,
        woken: impl Fn() + Send + 'static,
    ) -> io::Result<Self> {
        let (asks, asked) = mpsc::channel();
        let (answers, typed) = mpsc::channel();
        let read_on = move || {
            for () in asked {
                // Input works even if the prompt cannot be shown.
                let text = prompt.as_deref().unwrap_or_default();
                let _ = io::stderr().write_all(text.as_bytes());
                if answers.send(read(&mut input, unit)).is_err() {
                    break;
                }
                woken();
            }
        };

        threads::spawn("standard input", read_on)?;
        Ok(Self { asks, typed })
    }

    /// Requests the next piece. Each call gets one answer.
    pub(crate) fn ask(&self) {
        // A thread that has ended has already answered with the end.
        let _ = self.asks.send(());
    }

    /// Returns the next answer, if there is one.
    pub(crate) fn typed(&self) -> Option<io::Result<Typed>> {
        self.typed.try_recv().ok()
    }
}

fn read(input: &mut impl BufRead, unit: Unit) -> io::Result<Typed> {
    let piece = match unit {
        Unit::Bytes => read_bytes(input),
        Unit::Line(most) => read_line(input, most),
    };
    match piece {
        Ok(piece) => Ok(piece.map_or(Typed::End, Typed::Piece)),
        Err(error) => {
            let problem = format!("standard input: {error}");
            Err(io::Error::new(error.kind(), problem))
        }
    }
}

fn read_bytes(input: &mut impl Read) -> io::Result<Option<Vec<u8>>> {
    let mut piece = vec![0; PIECE];
    loop {
        match input.read(&mut piece) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
            Ok(count) => {
                piece.truncate(count);
                return Ok((count > 0).then_some(piece));
            }
        }
    }
}

fn read_line(input: &mut impl BufRead, most: usize) -> io::Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    // The line end, up to CR LF, does not count.
    let room = (most as u64).saturating_add(2);
    if input.take(room).read_until(b'\n', &mut line)? == 0 {
        return Ok(None);
    }

    if line.ends_with(b"\n") {
        line.pop();
        line.pop_if(|last| *last == b'\r');
    }

    if line.len() > most {
        let most = counted(most, "byte", "bytes");
        let problem = format!("a line is longer than {most}");
        return Err(io::Error::new(ErrorKind::InvalidData, problem));
    }
    Ok(Some(line))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_come_without_their_ends() {
        let mut input = &b"one\ntwo\r\n\nlast"[..];
        for line in ["one", "two", "", "last"] {
            let read = read_line(&mut input, 4).unwrap().unwrap();
            assert_eq!(read, line.as_bytes());
        }
        assert!(read_line(&mut input, 4).unwrap().is_none());
    }

    #[test]
    fn a_line_that_is_too_long_is_refused() {
        let error = read_line(&mut &b"12345\n"[..], 4).unwrap_err();
        assert_eq!(error.to_string(), "a line is longer than 4 bytes");
        let mut endless = io::BufReader::new(io::repeat(b'x'));
        assert!(read_line(&mut endless, 4).is_err());
    }

    #[test]
    fn nothing_is_read_unasked() {
        let (woken, wakes) = mpsc::channel();
        let wake = move || woken.send(()).unwrap();
        let keyboard = Keyboard::start(&b"a\nb\n"[..], Unit::Line(1), None, wake).unwrap();
        assert!(keyboard.typed().is_none());
        for line in [b"a", b"b"] {
            keyboard.ask();
            wakes.recv().unwrap();

            let typed = keyboard.typed();
            assert!(matches!(typed, Some(Ok(Typed::Piece(piece))) if piece == line));
        }

        keyboard.ask();
        wakes.recv().unwrap();
        assert!(matches!(keyboard.typed(), Some(Ok(Typed::End))));
    }
}
