//! A process for each connection, and for each datagram.

use std::collections::VecDeque;
use std::io::{self, Read};
use std::mem;
use std::os::fd::{AsFd, RawFd};
use std::os::unix::net::UnixStream;
use std::thread;

use slab::Slab;
use socket2::Socket;

use crate::address::Peer;
use crate::blocking::{self, Blocking};
use crate::clock::{REPEAT, Tick};
use crate::config::Config;
use crate::control::{Control, GRACE, INTERRUPT_AGAIN};
use crate::error::{CloseReason, Deadline};
use crate::guard::guard;
use crate::mio::{Datagram, Mio};
use crate::model::{FIRST_OF_MODEL, Model};
use crate::net::Net;
use crate::protocol::Protocol;
use crate::shutdown::ShutdownHandle;
use crate::statistics::Statistics;
use crate::system::{self, Child};
use crate::turn::Turn;

pub(crate) struct Processes<P> {
    config: Config,
    handle: ShutdownHandle,
    /// The listeners' descriptors, which a child has no business with.
    private: Vec<RawFd>,
    children: Slab<Served>,
    /// Who was connected before the shutdown, and has to wait for another's process to end. Before
    /// the shutdown they wait in the system's queue.
    waiting: VecDeque<(Socket, P, Peer)>,
    /// Children that something was heard of.
    noted: Vec<usize>,
    look_again: Option<Tick>,
    interrupt_at: Option<Tick>,
    kill_at: Option<Tick>,
}

/// A connection that is served by a child.
struct Served {
    child: Child,
    peer: Peer,
    /// Where the child says what it counted, before it ends.
    report: UnixStream,
    heard: Vec<u8>,
    /// Whether it is a connection, or only a datagram.
    stream: bool,
}

impl<P: Protocol> Processes<P> {
    pub(crate) fn new(
        config: Config,
        handle: ShutdownHandle,
        private: Vec<RawFd>,
    ) -> io::Result<Self> {
        system::check_single_thread()?;
        system::allow_interrupts()?;
        Ok(Self {
            config,
            handle,
            private,
            children: Slab::new(),
            waiting: VecDeque::new(),
            noted: Vec::new(),
            look_again: None,
            interrupt_at: None,
            kill_at: None,
        })
    }

    /// Serves a connection in a child.
    fn serve(
        &mut self,
        stream: Socket,
        (protocol, peer): (P, Peer),
        turn: &mut Turn<'_, Mio>,
    ) -> bool {
        let name = peer.clone();
        let mut served = Some((stream, protocol, peer));
        let work = |this: &Self, statistics: &mut Statistics| {
            let (stream, protocol, peer) = served.take()?;
            let control = Control::default();
            let around = (&this.config, &this.handle, &control);
            Blocking::new(&stream, (protocol, peer), around, statistics).serve()
        };
        let spawned = self.spawn(&name, true, turn.net, work);
        // The parent's copy of a protocol is still a protocol.
        turn.drop_guarded(served);
        turn.check_spawned(&name, spawned)
    }

    /// Runs `work` in a child and returns in the parent.
    fn spawn<W>(&mut self, peer: &Peer, stream: bool, net: &Mio, work: W) -> io::Result<()>
    where
        W: FnOnce(&Self, &mut Statistics) -> Option<(Peer, Box<CloseReason>)>,
    {
        let (report, to_parent) = UnixStream::pair()?;
        report.set_nonblocking(true)?;
        let slot = self.children.vacant_key();
        net.watch_child(report.as_fd(), FIRST_OF_MODEL + slot)?;
        let Some(child) = Child::fork()? else {
            drop(report);
            self.run_child(to_parent, work);
        };
        let heard = Vec::new();
        self.children.insert(Served {
            child,
            peer: peer.clone(),
            report,
            heard,
            stream,
        });
        Ok(())
    }

    fn run_child<W>(&mut self, to_parent: UnixStream, work: W) -> !
    where
        W: FnOnce(&Self, &mut Statistics) -> Option<(Peer, Box<CloseReason>)>,
    {
        self.private.drain(..).for_each(system::close_inherited);
        self.children.clear();
        for (stream, protocol, _) in self.waiting.drain(..) {
            drop(stream);
            // It lives on in the parent.
            mem::forget(protocol);
        }
        let mut statistics = Statistics::default();
        let failure = guard(|| work(self, &mut statistics)).flatten();
        let counts = statistics.iter().flat_map(|(_, count)| count.to_le_bytes());
        let mut report: Vec<u8> = counts.collect();
        if let Some((_, reason)) = failure {
            report.extend(reason.to_string().bytes());
        }
        // Without its report the parent counts this process as killed, which is all it can do.
        let _ = system::send_all(&to_parent, &report);
        system::exit(0)
    }

    /// Reads what a child reports. True if it has said everything.
    fn hear(served: &mut Served) -> bool {
        match served.report.read_to_end(&mut served.heard) {
            Ok(_) => true,
            Err(error) => !matches!(
                error.kind(),
                io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
            ),
        }
    }

    /// Counts what a child that has ended reported.
    fn collect(served: Served, turn: &mut Turn<'_, Mio>) {
        let mut counted = Statistics::default();
        let length = counted.counters().count() * mem::size_of::<u64>();
        let failure = match served.heard.split_at_checked(length) {
            Some((counts, text)) => {
                for (counter, count) in counted.counters().zip(counts.chunks_exact(8)) {
                    *counter = count.try_into().map_or(0, u64::from_le_bytes);
                }
                String::from_utf8_lossy(text).into_owned()
            }
            None => {
                counted.closed_killed = u64::from(served.stream);
                "killed".to_owned()
            }
        };
        turn.add_counts(&counted);
        turn.leave(&served.peer);
        if !failure.is_empty() {
            turn.failures
                .push((served.peer, Box::new(CloseReason::Process(failure))));
        }
    }

    /// Sees to it that children that are blocked notice the shutdown, and that none outstays it.
    fn hurry(&mut self, now: Tick) {
        if self.kill_at.is_some_and(|at| at <= now) {
            self.kill();
        }
        if self.interrupt_at.is_none_or(|at| at <= now) {
            self.children
                .iter()
                .for_each(|(_, served)| served.child.interrupt());
            self.interrupt_at = Some(now.after(INTERRUPT_AGAIN));
        }
    }

    /// Serves those that wait, as far as there is room, or refuses them when it is too late.
    fn serve_waiting(&mut self, turn: &mut Turn<'_, Mio>) {
        while self.kill_at.is_some() || self.children.len() < self.config.max_children {
            let Some((stream, protocol, peer)) = self.waiting.pop_front() else {
                return;
            };
            if self.kill_at.is_some() {
                // Its session has not begun, so there is nobody to tell but the factory.
                let reason = CloseReason::TimedOut(Deadline::Drain);
                turn.statistics.count_close(&reason);
                turn.leave(&peer);
                turn.failures.push((peer, Box::new(reason)));
                turn.drop_guarded(protocol);
                turn.net.close(stream, true);
                continue;
            }
            let name = peer.clone();
            if !self.serve(stream, (protocol, peer), turn) {
                turn.leave(&name);
                turn.statistics.accepted -= 1;
                turn.statistics.refused_by_system += 1;
            }
        }
    }
}

impl<P: Protocol> Model<Mio, P> for Processes<P> {
    fn process(
        &mut self,
        stream: Socket,
        protocol: P,
        peer: Peer,
        turn: &mut Turn<'_, Mio>,
    ) -> bool {
        if stream.set_nonblocking(false).is_err() {
            turn.drop_guarded(protocol);
            return false;
        }
        if turn.draining && self.is_full() {
            self.waiting.push_back((stream, protocol, peer));
            return true;
        }
        self.serve(stream, (protocol, peer), turn)
    }

    fn answer(
        &mut self,
        socket: &mut Datagram,
        count: usize,
        protocol: P,
        peer: Peer,
        turn: &mut Turn<'_, Mio>,
    ) -> bool {
        if self.is_full() {
            turn.drop_guarded(protocol);
            return false;
        }
        let (data, name) = (turn.input[..count].to_vec(), peer.clone());
        let mut asked = Some((protocol, peer));
        let spawned = socket.try_clone().and_then(|socket| {
            self.spawn(&name, false, turn.net, |this, statistics| {
                blocking::answer(&socket, &data, asked.take()?, &this.config, statistics)
            })
        });
        turn.drop_guarded(asked);
        turn.replies.count(name.address(), turn.config);
        turn.check_spawned(&name, spawned)
    }

    fn len(&self) -> usize {
        self.children.len() + self.waiting.len()
    }

    fn is_full(&self) -> bool {
        self.children.len() >= self.config.max_children
    }

    fn note(&mut self, token: usize) {
        self.noted.push(token - FIRST_OF_MODEL);
    }

    fn deadline(&self) -> Option<Tick> {
        let busy = !self.children.is_empty();
        let interrupt_at = self.interrupt_at.filter(|_| busy);
        self.look_again.into_iter().chain(interrupt_at).min()
    }

    fn reap(&mut self, turn: &mut Turn<'_, Mio>) {
        let mut unfinished = Vec::new();
        for slot in mem::take(&mut self.noted) {
            let Some(served) = self.children.get_mut(slot) else {
                continue;
            };
            if !Self::hear(served) {
                continue;
            }
            if served.child.has_ended() {
                Self::collect(self.children.remove(slot), turn);
            } else {
                unfinished.push(slot);
            }
        }
        // A process closes its descriptors a moment before it can be waited for.
        self.look_again = (!unfinished.is_empty()).then(|| turn.now().after(REPEAT));
        self.noted = unfinished;
        if turn.draining {
            self.serve_waiting(turn);
            self.hurry(turn.now());
        }
    }

    fn end(&mut self, now: Tick, at_once: bool) {
        if at_once {
            self.kill();
        }
        // A child ends itself at the deadline, and tells its protocol; one that hangs is killed.
        self.kill_at.get_or_insert(now.after(GRACE));
    }
}

impl<P> Processes<P> {
    fn kill(&self) {
        self.children
            .iter()
            .for_each(|(_, served)| served.child.kill());
    }
}

impl<P> Drop for Processes<P> {
    /// No child outlives its server, and none becomes a zombie.
    fn drop(&mut self) {
        self.kill();
        for (_, served) in &self.children {
            while !served.child.has_ended() {
                thread::yield_now();
            }
        }
    }
}
