//! A way out for a log that may never hold up the loop.

use std::io::{self, Write};
use std::os::fd::AsFd;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// What is ready takes at least this many bytes without blocking: PIPE_BUF of Linux.
const PIECE: usize = 4_096;

/// Writes what can be written at once. What cannot, because nobody reads the other end, the disk is
/// full or the terminal is stopped, is dropped and counted.
#[derive(Debug)]
pub(crate) struct Unblocked<W> {
    out: W,
    dropped: u64,
}

impl<W: Write + AsFd> Unblocked<W> {
    pub(crate) fn new(out: W) -> Self {
        Self { out, dropped: 0 }
    }

    fn report_dropped(&mut self) -> bool {
        if self.dropped == 0 {
            return true;
        }
        let report = format_args!("({} lines of the log were dropped)\n", self.dropped).to_string();
        let reported = self.offer(report.as_bytes());
        if reported {
            self.dropped = 0;
        }
        reported
    }

    /// Writes all of `text`, or stops at the first piece that would block or fails.
    fn offer(&mut self, text: &[u8]) -> bool {
        text.chunks(PIECE).all(|piece| {
            self.is_ready()
                && self
                    .out
                    .write(piece)
                    .is_ok_and(|count| count == piece.len())
        })
    }

    fn is_ready(&self) -> bool {
        let mut descriptors = [PollFd::new(&self.out, PollFlags::OUT)];
        poll(&mut descriptors, Some(&Timespec::default())).is_ok_and(|ready| ready > 0)
    }
}

impl<W: Write + AsFd> Write for Unblocked<W> {
    /// Takes one line whole; never fails.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if !(self.report_dropped() && self.offer(line)) {
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

    fn fill(mut out: &UnixStream) {
        out.set_nonblocking(true).unwrap();
        while out.write(&[0; 4_096]).is_ok() {}
        out.set_nonblocking(false).unwrap();
    }
}
