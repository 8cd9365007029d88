//! One connection on a thread of its own: plain blocking reads and writes, as one would write them
//! by hand, around the same session as everywhere.

use std::cell::OnceCell;
use std::io::{self, ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use socket2::Socket;

use crate::address::{Address, Peer};
use crate::clock::{Clock, Tick};
use crate::config::Config;
use crate::error::{CloseReason, Deadline};
use crate::guard::guard;
use crate::linger::Linger;
use crate::mio::Datagram;
use crate::protocol::Protocol;
use crate::responder::{self, NOBODY};
use crate::session::Session;
use crate::shutdown::ShutdownHandle;
use crate::statistics::Statistics;
use crate::system::{self, Interruptible};
use crate::transport::Context;
use crate::waker::{Mailbox, Wake, Waker, Wakers};

/// How many reads a session may still have of what had arrived when the shutdown began.
const DRAINING_READS: usize = 16;

/// How soon an interrupt that came too early, between two system calls, is sent again.
pub(crate) const INTERRUPT_AGAIN: Duration = Duration::from_millis(10);

/// What a server and a connection's thread know of each other.
#[derive(Debug, Default)]
pub(crate) struct Control {
    pub(crate) thread: Interruptible,
    /// The session knows of the shutdown.
    told: AtomicBool,
    /// The session is to end now.
    ended: AtomicBool,
}

impl Control {
    /// Has the thread look at the shutdown, unless it knows of it; or end now.
    pub(crate) fn interrupt(&self, end: bool) {
        self.ended.fetch_or(end, Ordering::SeqCst);
        if end || !self.told.load(Ordering::SeqCst) {
            self.thread.interrupt();
        }
    }
}

/// Serves a session on a blocking socket until its end; one of them at a time on each thread.
pub(crate) struct Blocking<'a, P> {
    stream: &'a Socket,
    session: Session<P>,
    config: &'a Config,
    handle: &'a ShutdownHandle,
    control: &'a Control,
    statistics: &'a mut Statistics,
    clock: Clock,
    wakers: Lazy,
    input: Box<[u8]>,
    read_timeout: Option<Duration>,
    write_timeout: Option<Duration>,
    /// The peer is gone, which poll would say again and again.
    hung_up: bool,
    /// Our side of the stream has been ended, before the connection.
    finished: bool,
    /// Ends a drain that takes too long, where nobody else does.
    drained: Option<Tick>,
}

impl<'a, P: Protocol> Blocking<'a, P> {
    pub(crate) fn new(
        stream: &'a Socket,
        (protocol, peer): (P, Peer),
        (config, handle, control): (&'a Config, &'a ShutdownHandle, &'a Control),
        statistics: &'a mut Statistics,
    ) -> Self {
        let clock = Clock::new(Instant::now());
        Self {
            stream,
            session: Session::new(protocol, peer, clock.tick()),
            config,
            handle,
            control,
            statistics,
            clock,
            wakers: Lazy::default(),
            input: vec![0; config.read_per_turn].into(),
            read_timeout: None,
            write_timeout: None,
            hung_up: false,
            finished: false,
            drained: None,
        }
    }

    /// Serves the session to its end, and returns what an operator wants to hear of it.
    pub(crate) fn serve(mut self) -> Option<(Peer, Box<CloseReason>)> {
        self.call(Session::handle_open);
        loop {
            self.flush();
            if self.session.is_closing() {
                break;
            }
            if self.session.is_finished() && !self.finished {
                self.finished = true;
                // A socket that has failed says so to the next read, with the reason.
                let _ = self.stream.shutdown(Shutdown::Write);
            }
            if self.wakers.take() {
                self.call(Session::handle_woken);
            } else if self.session.has_more() {
                self.call(Session::handle_more);
            } else if self.wait() {
                self.read();
            }
        }
        self.end()
    }

    fn end(mut self) -> Option<(Peer, Box<CloseReason>)> {
        let lingers = !self.session.is_aborted() && !self.session.is_eof();
        let reason = self.session.handle_lost()?;
        self.statistics.count_close(&reason);
        self.statistics.panics += u64::from(self.session.has_panicked_last());
        if lingers {
            self.linger();
        } else if reason.is_hard() {
            // Without the reset it is a plain close, which is as final.
            let _ = self.stream.set_linger(Some(Duration::ZERO));
        }
        let failure = reason
            .is_error()
            .then(|| (self.session.peer().clone(), reason));
        let Self {
            session,
            statistics,
            ..
        } = self;
        statistics.panics += u64::from(guard(|| drop(session)).is_none());
        failure
    }

    /// Sends all output, however long the peer takes, within the deadlines.
    fn flush(&mut self) {
        while !self.session.output().is_empty() {
            self.call(|session, context| session.note_stalled(context));
            let timeout = self.until_deadline();
            if timeout != self.write_timeout {
                self.write_timeout = timeout;
                // A socket that refuses the option fails with the write.
                let _ = self.stream.set_write_timeout(timeout);
            }
            let mut stream = self.stream;
            let sent = stream.write(self.session.output());
            self.now();
            match sent {
                Ok(count) => {
                    self.statistics.bytes_written += count as u64;
                    self.call(|session, context| session.output_sent(count, context));
                }
                Err(error) => self.interrupted(error),
            }
        }
    }

    fn read(&mut self) {
        let timeout = self.until_deadline();
        if timeout != self.read_timeout {
            self.read_timeout = timeout;
            let _ = self.stream.set_read_timeout(timeout);
        }
        let mut stream = self.stream;
        let received = stream.read(&mut self.input);
        self.now();
        match received {
            Ok(count) => self.take(count),
            Err(error) => self.interrupted(error),
        }
    }

    fn take(&mut self, count: usize) {
        if count == 0 {
            return self.call(Session::handle_eof);
        }
        self.statistics.bytes_read += count as u64;
        let context = Context {
            clock: &self.clock,
            config: self.config,
            wakers: &self.wakers,
            id: 0,
        };
        self.session.handle_data(&self.input[..count], &context);
    }

    /// A read or a write ended without bytes: a deadline, a signal, or a failure.
    #[cold]
    fn interrupted(&mut self, error: io::Error) {
        match error.kind() {
            ErrorKind::WouldBlock | ErrorKind::TimedOut => self.call(Session::handle_timeout),
            ErrorKind::Interrupted => {}
            _ => return self.session.fail(CloseReason::Io(error)),
        }
        let late = self.drained.is_some_and(|at| at <= self.clock.tick());
        if late || self.control.ended.load(Ordering::SeqCst) {
            self.session.fail(CloseReason::TimedOut(Deadline::Drain));
        } else if self.handle.is_rung() && !self.control.told.load(Ordering::SeqCst) {
            self.drain();
        }
    }

    /// The server is shutting down: what has arrived is still taken, then the session is asked to
    /// finish.
    fn drain(&mut self) {
        self.control.told.store(true, Ordering::SeqCst);
        let timeout = self.config.drain_timeout;
        self.drained = timeout.map(|timeout| self.clock.tick().after(timeout));
        for _ in 0..DRAINING_READS {
            if self.session.has_more() {
                self.call(Session::handle_more);
                continue;
            }
            if !self.session.wants_input() || !system::has_input(self.stream.as_fd()) {
                break;
            }
            self.read();
            self.flush();
        }
        self.call(Session::handle_shutdown);
    }

    /// Waits until something can be read, in the cases in which that is not left to the read itself:
    /// the protocol wants no input now, or somebody has its waker. False if it is not to be read.
    fn wait(&mut self) -> bool {
        let reads = self.session.wants_input();
        if reads && self.wakers.made.get().is_none() {
            return true;
        }
        let timeout = self.until_deadline();
        let bell = match self.wakers.bell() {
            Ok(bell) => &bell.heard,
            Err(error) => {
                self.session.fail(CloseReason::Io(error));
                return false;
            }
        };
        let mut waits =
            [bell.as_fd(), self.handle.as_fd(), self.stream.as_fd()].map(system::wait_for_input);
        if self.control.told.load(Ordering::SeqCst) {
            waits[1].fd = -1;
        }
        if !reads {
            waits[2].events = 0;
            waits[2].fd = if self.hung_up { -1 } else { waits[2].fd };
        }
        let outcome = system::poll(&mut waits, timeout);
        self.now();
        let [bell, handle, stream] = waits.map(|wait| wait.revents != 0);
        match outcome {
            Err(error) => self.interrupted(error),
            Ok(()) if handle => self.interrupted(ErrorKind::Interrupted.into()),
            Ok(()) if !bell && !stream => self.interrupted(ErrorKind::TimedOut.into()),
            Ok(()) if !reads && stream => self.hang_up(),
            Ok(()) => return reads && stream,
        }
        false
    }

    /// The connection failed while the protocol wanted no input, or the peer closed it altogether;
    /// in that case what it had sent still counts.
    #[cold]
    fn hang_up(&mut self) {
        self.hung_up = true;
        if let Some(error) = self.stream.take_error().unwrap_or_else(Some) {
            self.session.fail(CloseReason::Io(error));
        }
    }

    /// Waits for the peer's end after ours.
    fn linger(&mut self) {
        let draining = self.control.told.load(Ordering::SeqCst);
        if self.config.linger_timeout.is_none() || self.stream.shutdown(Shutdown::Write).is_err() {
            return;
        }
        let mut linger = Linger::new(self.clock.tick(), self.config);
        loop {
            let draining = draining || self.handle.is_rung();
            let left = linger.end(self.config, draining).since(self.clock.tick());
            if left.is_zero() || self.stream.set_read_timeout(Some(left)).is_err() {
                return;
            }
            let mut stream = self.stream;
            let received = stream.read(&mut self.input);
            self.now();
            match received {
                Ok(count) if count > 0 && linger.hear(count, self.clock.tick(), self.config) => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                _ => return,
            }
            if self.control.ended.load(Ordering::SeqCst) {
                return;
            }
        }
    }

    /// How long a read or write may block; never zero, which would be for ever.
    fn until_deadline(&mut self) -> Option<Duration> {
        let context = Context {
            clock: &self.clock,
            config: self.config,
            wakers: &self.wakers,
            id: 0,
        };
        let at = self
            .session
            .deadline(&context)
            .into_iter()
            .chain(self.drained)
            .min();
        at.map(|at| at.since(self.clock.tick()).max(Duration::from_millis(1)))
    }

    fn now(&mut self) {
        self.clock.set(Instant::now());
    }

    fn call(&mut self, event: impl FnOnce(&mut Session<P>, &Context<'_>)) {
        let context = Context {
            clock: &self.clock,
            config: self.config,
            wakers: &self.wakers,
            id: 0,
        };
        event(&mut self.session, &context);
    }
}

/// Answers one datagram, away from the loop.
pub(crate) fn answer<P: Protocol>(
    socket: &Datagram,
    data: &[u8],
    (protocol, peer): (P, Peer),
    config: &Config,
    statistics: &mut Statistics,
) -> Option<(Peer, Box<CloseReason>)> {
    let clock = Clock::new(Instant::now());
    let context = Context {
        clock: &clock,
        config,
        wakers: &Mailbox::silent(),
        id: NOBODY,
    };
    let send = |reply: &[u8], to: &Address| socket.send_to(reply, to);
    responder::answer(
        (protocol, peer),
        data,
        &context,
        statistics,
        &mut None,
        send,
    )
}

/// Wakers for the one session of a thread, and what its waits listen to: made when first needed.
#[derive(Default)]
struct Lazy {
    made: OnceCell<Bell>,
}

struct Bell {
    mailbox: Arc<Mailbox>,
    heard: UnixStream,
}

impl Lazy {
    fn bell(&self) -> io::Result<&Bell> {
        if let Some(bell) = self.made.get() {
            return Ok(bell);
        }
        let (rung, heard) = UnixStream::pair()?;
        rung.set_nonblocking(true)?;
        heard.set_nonblocking(true)?;
        let mailbox = Mailbox::new(Box::new(Ring(rung)));
        Ok(self.made.get_or_init(|| Bell { mailbox, heard }))
    }

    /// Whether the session was woken since the last call.
    fn take(&self) -> bool {
        self.made.get().is_some_and(|bell| {
            let woken = bell.mailbox.take().count() > 0;
            // What is heard has been asked for already, and nothing more comes of it.
            let _ = (&bell.heard).read(&mut [0; 8]);
            woken
        })
    }
}

impl Wakers for Lazy {
    /// # Panics
    /// When the system has no descriptor left, which ends this one connection.
    fn waker(&self, id: usize) -> Waker {
        self.bell()
            .expect("two descriptors for a waker")
            .mailbox
            .waker(id)
    }
}

struct Ring(UnixStream);

impl Wake for Ring {
    fn wake(&self) {
        // A full bell has been rung already, and nobody can hear one whose listener is gone.
        let _ = (&self.0).write(&[0]);
    }
}
