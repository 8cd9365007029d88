//! Output that may never hold up the loop.

use std::io::{self, Write};
use std::os::fd::AsFd;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{retry_on_intr, write};

/// What is ready takes at least this many bytes without blocking: PIPE_BUF of Linux.
const PIECE: usize = 4_096;

/// Writes all of `text`, past any buffer of the library's: what a buffer keeps, it writes at the
/// end of the process, and waits.
///
/// # Errors
/// `WouldBlock` when nobody reads the other end or the terminal is stopped, else what the system
/// says. A part may have been written.
pub(crate) fn write_at_once(out: impl AsFd, text: &[u8]) -> io::Result<()> {
    for piece in text.chunks(PIECE) {
        if !is_ready(&out)? {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        if retry_on_intr(|| write(&out, piece))? < piece.len() {
            return Err(io::ErrorKind::WriteZero.into());
        }
    }
    Ok(())
}

fn is_ready(out: &impl AsFd) -> io::Result<bool> {
    let mut descriptors = [PollFd::new(out, PollFlags::OUT)];
    let ready = retry_on_intr(|| poll(&mut descriptors, Some(&Timespec::default())))?;
    Ok(ready > 0)
}

/// Writes the lines of a log that can be written at once. What cannot, because nobody reads the
/// other end, the disk is full or the terminal is stopped, is dropped and counted.
#[derive(Debug)]
pub(crate) struct Unblocked<W> {
    out: W,
    dropped: u64,
}

impl<W: AsFd> Unblocked<W> {
    pub(crate) fn new(out: W) -> Self {
        Self { out, dropped: 0 }
    }

    fn report_dropped(&mut self) -> io::Result<()> {
        if self.dropped == 0 {
            return Ok(());
        }
        let report = format!("({} lines of the log were dropped)\n", self.dropped);
        write_at_once(&self.out, report.as_bytes())?;
        self.dropped = 0;
        Ok(())
    }
}

impl<W: AsFd> Write for Unblocked<W> {
    /// Takes one line whole; never fails.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let written = self
            .report_dropped()
            .and_then(|()| write_at_once(&self.out, line));
        if written.is_err() {
            self.dropped += 1;
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn what_would_block_is_dropped_and_counted() {
        let (out, mut reader) = UnixStream::pair().unwrap();
        fill(&out);
        let mut log = Unblocked::new(out);
        for _ in 0..3 {
            log.write_all(b"nobody reads this\n").unwrap();
        }
        let mut filling = vec![0; 1 << 20];
        reader.set_nonblocking(true).unwrap();
        while reader.read(&mut filling).is_ok() {}
        log.write_all(b"somebody reads this\n").unwrap();
        drop(log);
        let mut text = String::new();
        reader.set_nonblocking(false).unwrap();
        reader.read_to_string(&mut text).unwrap();
        let expected = "(3 lines of the log were dropped)\nsomebody reads this\n";
        assert_eq!(text, expected);
    }

    #[test]
    fn a_reader_that_is_gone_is_no_error() {
        let (out, reader) = UnixStream::pair().unwrap();
        drop(reader);
        let mut log = Unblocked::new(out);
        log.write_all(b"lost\n").unwrap();
        assert_eq!(log.dropped, 1);
    }

    #[test]
    fn what_would_block_and_what_is_refused_are_told_apart() {
        let (out, reader) = UnixStream::pair().unwrap();
        fill(&out);
        let error = write_at_once(&out, b"nobody reads this\n").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
        drop(reader);
        let error = write_at_once(&out, b"nor this\n").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
    }

    fn fill(mut out: &UnixStream) {
        out.set_nonblocking(true).unwrap();
        while out.write(&[0; 4_096]).is_ok() {}
        out.set_nonblocking(false).unwrap();
    }
}
