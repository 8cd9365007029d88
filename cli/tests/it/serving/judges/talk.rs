//! What is said on a stream that reaches the server through another program.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{ChildStdin, ChildStdout};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::ioctl_fionbio;

use crate::serving::judges::bulk;
use crate::support::served::PATIENCE;

/// What a client does on its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Act {
    /// Sends a line and reads it again.
    Echo,
    /// Exchanges lines with `hello`, until that closes.
    Frames,
    /// Sends much, then its end, and reads all of it only then.
    HalfClose,
    /// Sends a lot, and reads only while it cannot send.
    Bulk,
    /// Echoes on two connections, one after the other.
    Resume,
}

/// What is sent before our end, and not read until then. All buffers together have room for it.
pub(super) const HALF: usize = 100_000;

/// Returns this many bytes in which no program sees a command.
pub(super) fn filler(count: usize) -> Vec<u8> {
    (0..count).map(|at| b"abcdefghij\n"[at % 11]).collect()
}

/// A stream whose two directions may be two descriptors.
pub(super) struct Talk {
    input: Option<File>,
    output: File,
}

impl Talk {
    pub(super) fn pipes(input: ChildStdin, output: ChildStdout) -> Self {
        Self {
            input: Some(File::from(OwnedFd::from(input))),
            output: File::from(OwnedFd::from(output)),
        }
    }

    pub(super) fn socket(stream: UnixStream) -> io::Result<Self> {
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Self {
            input: Some(File::from(OwnedFd::from(stream.try_clone()?))),
            output: File::from(OwnedFd::from(stream)),
        })
    }

    /// Does this, and says in a word what came of it.
    pub(super) fn act(&mut self, act: Act) -> io::Result<&'static str> {
        match act {
            Act::Echo | Act::Resume => {
                self.exchange(b"hello\n", b"hello\n")?;
                self.ends()?;
                Ok("echo")
            }
            Act::Frames => {
                self.exchange(b"bob\neve\n", b"Welcome!\nHello,bob\nHello,eve\n")?;
                self.exchange(b"exit\n", b"")?;
                self.expect_end()?;
                Ok("frames")
            }
            Act::HalfClose => {
                let sent = filler(HALF);
                self.send(&sent)?;
                self.finish();
                self.expect(&sent)?;
                self.expect_end()?;
                Ok("all came back after the end")
            }
            Act::Bulk => {
                self.pump(&filler(bulk()))?;
                self.ends()?;
                Ok("all came back")
            }
        }
    }

    fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        let input = self.input.as_mut().ok_or(io::ErrorKind::BrokenPipe)?;
        input.write_all(bytes)
    }

    fn expect(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut found = vec![0; bytes.len()];
        self.output.read_exact(&mut found)?;
        same(&found, bytes)
    }

    fn exchange(&mut self, sent: &[u8], expected: &[u8]) -> io::Result<()> {
        self.send(sent)?;
        self.expect(expected)
    }

    /// Ends our side.
    fn finish(&mut self) {
        if let Some(input) = self.input.take() {
            // A pipe is ended by being closed.
            let _ = rustix::net::shutdown(&input, rustix::net::Shutdown::Write);
        }
    }

    fn expect_end(&mut self) -> io::Result<()> {
        let mut rest = Vec::new();
        self.output.read_to_end(&mut rest)?;
        same(&rest, b"")
    }

    /// Ends our side, and waits for the end of the other.
    fn ends(&mut self) -> io::Result<()> {
        self.finish();
        self.expect_end()
    }

    /// Sends `bytes` and reads them again, a piece only when no more can be sent.
    fn pump(&self, bytes: &[u8]) -> io::Result<()> {
        let mut input = self.input.as_ref().ok_or(io::ErrorKind::BrokenPipe)?;
        ioctl_fionbio(input, true)?;
        let (mut sent, mut found, mut piece) = (0, 0, vec![0; 16 << 10]);

        while found < bytes.len() {
            let (can_send, can_read) = ready(input, &self.output, sent < bytes.len())?;
            if can_send {
                let most = bytes.len().min(sent + (64 << 10));
                sent += taken(input.write(&bytes[sent..most]))?;
            } else if can_read {
                let count = (&self.output).read(&mut piece)?;
                let expected = bytes.get(found..found + count).unwrap_or_default();
                same(&piece[..count], expected)?;
                if count == 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                found += count;
            }
        }
        ioctl_fionbio(input, false)?;
        Ok(())
    }
}

/// Waits until one of the two can be used. The input counts only if it is `wanted`.
fn ready(input: &File, output: &File, wanted: bool) -> io::Result<(bool, bool)> {
    let flags = if wanted {
        PollFlags::OUT
    } else {
        PollFlags::empty()
    };
    let mut both = [
        PollFd::new(output, PollFlags::IN),
        PollFd::new(input, flags),
    ];
    let patience = PATIENCE.try_into().map_err(io::Error::other)?;
    if poll(&mut both, Some(&patience))? == 0 {
        return Err(io::ErrorKind::TimedOut.into());
    }
    let [output, input] = both.map(|it| it.revents());
    Ok((input.contains(PollFlags::OUT), !output.is_empty()))
}

fn taken(written: io::Result<usize>) -> io::Result<usize> {
    match written {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
        other => other,
    }
}

fn same(found: &[u8], expected: &[u8]) -> io::Result<()> {
    match found == expected {
        true => Ok(()),
        false => Err(io::Error::other("other bytes came back")),
    }
}
