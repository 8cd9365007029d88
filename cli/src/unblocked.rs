//! Output that never holds up the loop, whatever it goes to.

use std::cell::Cell;
use std::io::{self, IsTerminal, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use std::{process, thread};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FileType, Mode, OFlags, fcntl_getfl, fcntl_setfl, fstat, major, minor, open};
use rustix::io::{Errno, retry_on_intr, write};
use rustix::net::{SendFlags, send};

use crate::sys::Interrupts;

use serveloop::protocols::counted;

/// How long the command waits for a slow reader when it ends.
pub(crate) const LAST_WAIT: Duration = Duration::from_secs(1);

/// How long a write may wait where only an interrupt ends it.
const AT_MOST: Duration = Duration::from_millis(1);

/// How long to pause writing after such a wait, so that a busy loop loses little time to waits.
const REST: Duration = Duration::from_millis(50);

/// The device number of /dev/ptmx, which makes a new terminal each time that it is opened.
const TERMINAL_MAKER: (u32, u32) = (5, 2);

/// A descriptor that is written to without waiting, or waiting at most for [`AT_MOST`]. Polling
/// first does not suffice: a terminal polls as writable while it has any room, and a longer write
/// then sleeps. Another process that writes to the same pipe may also take its room in between.
#[derive(Debug)]
struct AtOnce<W> {
    out: W,
    means: Means,
    /// When writing may resume after a write that had to be interrupted.
    rests_until: Cell<Option<Instant>>,
}

#[derive(Debug)]
enum Means {
    /// A socket, where a flag of each call keeps it from waiting.
    Socket,
    /// The same terminal or pipe, opened again in non-blocking mode. The mode belongs to the open
    /// file, so setting it on the original would affect every process that shares it.
    Reopened(OwnedFd),
    /// A terminal or pipe that cannot be opened again, where a write that waits is interrupted.
    /// Changing the mode of the original for each write is not safe, because processes that share
    /// it, our own children among them, may change it back meanwhile.
    Interrupted,
    /// A file or a device without a reader to wait for.
    Plain,
}

impl<W: AsFd> AtOnce<W> {
    fn new(out: W) -> Self {
        let means = Means::of(&out);
        Self {
            out,
            means,
            rests_until: Cell::new(None),
        }
    }

    /// Writes what there is room for now. Fails with `AGAIN` if there is none.
    fn write(&self, text: &[u8]) -> Result<usize, Errno> {
        match &self.means {
            Means::Socket => {
                // A reader that has gone is an error and not a signal, because this process ignores
                // SIGPIPE.
                retry_on_intr(|| send(&self.out, text, SendFlags::DONTWAIT))
            }
            Means::Reopened(own) => retry_on_intr(|| write(own, text)),
            Means::Interrupted => self.write_interrupted(text),
            Means::Plain => retry_on_intr(|| write(&self.out, text)),
        }
    }

    fn write_interrupted(&self, text: &[u8]) -> Result<usize, Errno> {
        let rests = self.rest().is_some();
        let mut room = [PollFd::new(&self.out, PollFlags::OUT)];
        if rests || poll(&mut room, Some(&Timespec::default())) != Ok(1) {
            return Err(Errno::AGAIN);
        }

        let Ok(interrupts) = Interrupts::every(AT_MOST) else {
            return self.write_switched(text);
        };
        let written = write(&self.out, text);
        drop(interrupts);

        let waited = match written {
            Ok(count) => count < text.len(),
            Err(error) => error == Errno::INTR,
        };
        if waited {
            self.rests_until.set(Some(Instant::now() + REST));
        }
        written.map_err(|error| {
            if error == Errno::INTR {
                Errno::AGAIN
            } else {
                error
            }
        })
    }

    /// Returns how much longer writing is paused.
    fn rest(&self) -> Option<Duration> {
        let left = self
            .rests_until
            .get()?
            .checked_duration_since(Instant::now());
        left.filter(|left| !left.is_zero())
    }

    /// Writes in non-blocking mode, where the system has no timer for us. Another process that
    /// changes the mode at the same moment can still make this wait.
    fn write_switched(&self, text: &[u8]) -> Result<usize, Errno> {
        let before = fcntl_getfl(&self.out)?;
        fcntl_setfl(&self.out, before | OFlags::NONBLOCK)?;
        let written = retry_on_intr(|| write(&self.out, text));
        // The mode could be changed above, so it can be changed back.
        let _ = fcntl_setfl(&self.out, before);
        written
    }

    /// Waits for room until `end` at most. Returns false if there is none by then, or if polling
    /// cannot work.
    fn wait_until(&self, end: Instant) -> bool {
        let left = end.saturating_duration_since(Instant::now());

        if let Some(rest) = self.rest() {
            thread::sleep(rest.min(left));
            return Instant::now() < end;
        }

        let Ok(left) = Timespec::try_from(left) else {
            return false;
        };
        let ready = poll(&mut [PollFd::new(&self.out, PollFlags::OUT)], Some(&left));
        // The deadline counts even after a successful poll: a terminal may poll as ready with less
        // room than one more byte takes.
        Instant::now() < end && ready != Err(Errno::INVAL)
    }
}

impl Means {
    fn of(out: &impl AsFd) -> Self {
        let Ok(status) = fstat(out) else {
            return Self::Plain;
        };

        let waits = match FileType::from_raw_mode(status.st_mode) {
            FileType::Socket => return Self::Socket,
            FileType::Fifo => true,
            FileType::CharacterDevice => out.as_fd().is_terminal(),
            _ => false,
        };
        // A pipe's read end must not be opened again: writing there would turn our output into our
        // own input.
        let writes = fcntl_getfl(out).is_ok_and(|mode| mode & OFlags::ACCMODE != OFlags::RDONLY);
        if !waits || !writes {
            return Self::Plain;
        }

        if (major(status.st_rdev), minor(status.st_rdev)) == TERMINAL_MAKER {
            return Self::Interrupted;
        }
        reopen(out).map_or(Self::Interrupted, Self::Reopened)
    }
}

fn reopen(out: &impl AsFd) -> Result<OwnedFd, Errno> {
    // Not /dev/fd: where /proc is missing, opening that would return the original.
    let path = format!("/proc/self/fd/{}", out.as_fd().as_raw_fd());
    let flags = OFlags::WRONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    open(path, flags, Mode::empty())
}

/// Writes all of `text`, unbuffered. A buffer would keep a part and write it at the end of the
/// process, which may wait.
///
/// # Errors
/// Fails with `WouldBlock` when the reader takes nothing or the terminal is stopped, otherwise with
/// the system's error. A part may have been written.
pub(crate) fn write_at_once(out: impl AsFd, text: &[u8]) -> io::Result<()> {
    write_within(out, text, Duration::ZERO)
}

/// Writes all of `text`, and waits for its reader at most for `patience`.
///
/// # Errors
/// Fails as [`write_at_once`] does.
pub(crate) fn write_within(out: impl AsFd, text: &[u8], patience: Duration) -> io::Result<()> {
    let out = AtOnce::new(out);
    let end = Instant::now() + patience;
    let mut rest = text;

    while !rest.is_empty() {
        match out.write(rest) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => rest = &rest[count..],
            Err(Errno::AGAIN) if out.wait_until(end) => {}
            Err(Errno::AGAIN) => return Err(io::ErrorKind::WouldBlock.into()),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Prints all of `text`, which is the command's purpose. Returns false if the reader closed the pipe early,
/// because it has seen enough.
///
/// # Errors
/// The message says that standard output took no more.
pub(crate) fn print_in_full(text: &[u8]) -> io::Result<bool> {
    match write_in_full(io::stdout(), text) {
        Ok(()) => Ok(true),
        Err((_, error)) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        Err((_, error)) => {
            let problem = format!("cannot write to standard output: {error}");
            Err(io::Error::new(error.kind(), problem))
        }
    }
}

/// Writes all of `text`, however long that takes, for output that is the command's purpose.
///
/// # Errors
/// Returns the system's error, with the number of bytes that were not written.
pub(crate) fn write_in_full(out: impl AsFd, text: &[u8]) -> Result<(), (usize, io::Error)> {
    let mut rest = text;
    while !rest.is_empty() {
        match write(&out, rest) {
            Ok(0) => return Err((rest.len(), io::ErrorKind::WriteZero.into())),
            Ok(count) => rest = &rest[count..],
            Err(Errno::INTR) => {}
            // Another process that shares the descriptor may have made it non-blocking.
            Err(Errno::AGAIN) => {
                let _ = poll(&mut [PollFd::new(&out, PollFlags::OUT)], None);
            }
            Err(error) => return Err((rest.len(), error.into())),
        }
    }

    Ok(())
}

/// Writes log lines that can be written at once. Drops and counts the others, such as when the
/// reader is slow, the disk is full or the terminal is stopped. Clones share one destination.
#[derive(Debug)]
pub(crate) struct Unblocked<W>(Arc<Mutex<Lines<W>>>);

#[derive(Debug)]
struct Lines<W> {
    out: AtOnce<W>,
    /// The rest of a line that was only written in part.
    rest: Vec<u8>,
    dropped: u64,
    /// Makes the line about dropped lines.
    report: fn(u64) -> String,
    /// The process that wrote `rest` and counted `dropped`. A forked process starts without either.
    owner: u32,
}

impl<W: AsFd> Unblocked<W> {
    pub(crate) fn new(out: W) -> Self {
        Self(Arc::new(Mutex::new(Lines {
            out: AtOnce::new(out),
            rest: Vec::new(),
            dropped: 0,
            report: |count| {
                let dropped = counted(count, "log line was dropped", "log lines were dropped");
                format!("({dropped})\n")
            },
            owner: process::id(),
        })))
    }

    /// Sets how the number of dropped lines is told.
    pub(crate) fn with_report(self, report: fn(u64) -> String) -> Self {
        self.lock().report = report;
        self
    }

    /// Writes what is pending: the rest of a line that was cut, and the number of dropped lines.
    /// Waits for a slow reader at most for `patience`.
    pub(crate) fn finish(&self, patience: Duration) {
        let end = Instant::now() + patience;
        let mut lines = self.lock();
        while !lines.catch_up() && lines.out.wait_until(end) {}
    }

    fn lock(&self) -> MutexGuard<'_, Lines<W>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<W> Clone for Unblocked<W> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<W: AsFd> Lines<W> {
    /// Writes what comes before the next line. Returns false if there is no room for all of it.
    fn catch_up(&mut self) -> bool {
        if self.owner != process::id() {
            self.owner = process::id();
            self.rest.clear();
            self.dropped = 0;
        }
        self.write_rest() && self.report_dropped() && self.rest.is_empty()
    }

    fn write_rest(&mut self) -> bool {
        while !self.rest.is_empty() {
            match self.out.write(&self.rest) {
                Ok(count) if count > 0 => drop(self.rest.drain(..count)),
                _ => return false,
            }
        }
        true
    }

    fn report_dropped(&mut self) -> bool {
        if self.dropped == 0 {
            return true;
        }
        let report = (self.report)(self.dropped);
        let begun = self.begin(report.as_bytes());
        if begun {
            self.dropped = 0;
        }
        begun
    }

    /// Writes a line or its beginning, whose rest then comes before everything else. Returns false
    /// if there is not even room for one byte.
    fn begin(&mut self, line: &[u8]) -> bool {
        let count = self.out.write(line).unwrap_or(0);
        if count > 0 {
            self.rest.extend_from_slice(&line[count..]);
            self.write_rest();
        }
        count > 0
    }
}

impl<W: AsFd> Write for Unblocked<W> {
    /// Takes one whole line, and never fails.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let mut lines = self.lock();
        if !(lines.catch_up() && lines.begin(line)) {
            lines.dropped += 1;
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Read;
    use std::os::unix::net::UnixStream;

    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

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

        let expected = "(3 log lines were dropped)\nsomebody reads this\n";
        assert_eq!(text, expected);
    }

    /// The rest of a line that was only written in part comes before everything else.
    #[test]
    fn a_line_is_written_whole_or_not_at_all() {
        let (mut reader, writer) = io::pipe().unwrap();
        let mut log = Unblocked::new(writer);
        let long = [vec![b'.'; 9_000], vec![b'\n']].concat();
        for _ in 0..20 {
            log.write_all(&long).unwrap();
        }

        let mut text = vec![0; 1 << 20];
        let mut count = reader.read(&mut text).unwrap();
        log.finish(Duration::ZERO);
        drop(log);
        count += reader.read(&mut text[count..]).unwrap();

        let lines: Vec<_> = text[..count]
            .split_inclusive(|byte| *byte == b'\n')
            .collect();
        let (report, whole) = lines.split_last().unwrap();
        assert!(whole.iter().all(|line| *line == long));
        let expected = format!("({} log lines were dropped)\n", 20 - whole.len());
        assert_eq!(String::from_utf8_lossy(report), expected);
    }

    #[test]
    fn the_number_of_dropped_lines_is_the_last_thing_that_is_said() {
        let (out, mut reader) = UnixStream::pair().unwrap();
        fill(&out);
        let mut log = Unblocked::new(out);
        log.write_all(b"nobody reads this\n").unwrap();
        log.finish(Duration::ZERO);

        reader.set_nonblocking(true).unwrap();
        let mut filling = vec![0; 1 << 20];
        while reader.read(&mut filling).is_ok() {}
        log.finish(Duration::ZERO);

        drop(log);
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(text, "(1 log line was dropped)\n");
    }

    /// Another user's terminal cannot be opened again.
    #[test]
    fn a_terminal_that_cannot_be_opened_again_is_not_waited_for_either() {
        let person = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&person).unwrap();
        unlockpt(&person).unwrap();
        let name = ptsname(&person, Vec::new()).unwrap();
        let terminal = File::options()
            .write(true)
            .open(name.to_str().unwrap())
            .unwrap();

        let mut out = AtOnce::new(&terminal);
        out.means = Means::Interrupted;
        let mut taken = 0;
        while let Ok(count) = out.write(&[b'.'; 1_000]) {
            taken += count;
        }

        assert!(taken > 1_000);
        assert_eq!(out.write(b"no room"), Err(Errno::AGAIN));
        let mode = fcntl_getfl(&terminal).unwrap();
        assert!(!mode.contains(OFlags::NONBLOCK));
    }

    #[test]
    fn what_has_no_reader_is_left_as_it_is() {
        let null = File::options().write(true).open("/dev/null").unwrap();
        assert!(matches!(Means::of(&null), Means::Plain));

        let (_reader, writer) = io::pipe().unwrap();
        assert!(matches!(Means::of(&writer), Means::Reopened(_)));
        let (socket, _other) = UnixStream::pair().unwrap();
        assert!(matches!(Means::of(&socket), Means::Socket));

        let (reader, _writer) = io::pipe().unwrap();
        assert!(matches!(Means::of(&reader), Means::Plain));
    }

    #[test]
    fn a_reader_that_is_gone_is_no_error() {
        let (out, reader) = UnixStream::pair().unwrap();
        drop(reader);
        let mut log = Unblocked::new(out);
        log.write_all(b"lost\n").unwrap();
        assert_eq!(log.lock().dropped, 1);
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
