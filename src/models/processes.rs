//! A process for each connection, and for each datagram.

use std::cell::Cell;
use std::collections::VecDeque;
use std::io::{self, Read};
use std::mem;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use slab::Slab;
use socket2::Socket;

use crate::address::Peer;
use crate::config::Config;
use crate::error::{CloseReason, Deadline};
use crate::models::blocking::Blocking;
use crate::models::interrupt::{GRACE, INTERRUPT_AGAIN, Interrupt};
use crate::models::{blocking, report};
use crate::net::{Datagram, Mio, Net};
use crate::reactor::{FIRST_OF_MODEL, Hub, Model};
use crate::session::{Protocol, REPEAT, Tick, catch};
use crate::shutdown::ShutdownHandle;
use crate::statistics::Statistics;
use crate::sys;
use crate::sys::Child;

/// How often a server that has all its processes looks whether clients wait, to say so.
const SAY_AGAIN: Duration = Duration::from_secs(1);

pub(crate) struct Processes<P> {
    config: Config,
    handle: ShutdownHandle,
    children: Slab<Served>,
    /// What was accepted and has no process yet: it gets one at the end of the turn, when nobody
    /// else uses what the loop has open, or as soon as there is room. Beyond that room clients wait
    /// in the system's queue, but once the server shuts down, here.
    waiting: VecDeque<Errand<P>>,
    /// Children that something was heard of.
    noted: Vec<usize>,
    look_again: Option<Tick>,
    say_again: Option<Tick>,
    interrupt_at: Option<Tick>,
    kill_at: Option<Tick>,
}

/// What a process is made for.
struct Errand<P> {
    work: Work,
    protocol: P,
    peer: Peer,
}

enum Work {
    Connection(Socket),
    /// The socket to answer by, and what was received.
    Datagram(Datagram, Vec<u8>),
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

/// How much of what a child says has been heard.
enum Heard {
    All,
    Part,
    /// It has to be asked again.
    Interrupted,
}

impl Served {
    /// Whether its session knows of the shutdown.
    fn is_told(&self) -> bool {
        report::is_told(&self.heard)
    }
}

impl<P: Protocol> Processes<P> {
    pub(crate) fn new(config: Config, handle: ShutdownHandle) -> io::Result<Self> {
        sys::check_single_thread()?;
        sys::allow_interrupts()?;
        sys::keep_children()?;
        Ok(Self {
            config,
            handle,
            children: Slab::new(),
            waiting: VecDeque::new(),
            noted: Vec::new(),
            look_again: None,
            say_again: None,
            interrupt_at: None,
            kill_at: None,
        })
    }

    /// Serves a connection, or answers a datagram, in a child. Returns in the parent, which has a
    /// copy of the protocol that is still a protocol.
    fn spawn(
        &mut self,
        errand: Errand<P>,
        hub: &mut Hub<'_, Mio>,
        leave: &mut dyn FnMut(&mut Mio),
    ) {
        let name = errand.peer.clone();
        let stream = matches!(errand.work, Work::Connection(_));
        let made = self.fork(&name, stream, hub.net);
        if let Ok(Some(to_parent)) = made {
            self.run_child(to_parent, errand, hub.net, leave);
        }

        if !hub.check_spawned(&name, made.map(drop)) {
            if stream {
                hub.leave(&name);
                hub.effects.statistics.accepted -= 1;
                hub.effects.statistics.refused_by_system += 1;
            } else {
                hub.effects.statistics.datagrams_dropped += 1;
            }
        }
        // The descriptor goes first: a protocol may take its time to go.
        drop(errand.work);
        hub.drop_caught(errand.protocol);
    }

    /// Makes a child. Gives it, and it alone, its way to the parent.
    fn fork(&mut self, peer: &Peer, stream: bool, net: &Mio) -> io::Result<Option<UnixStream>> {
        let (report, to_parent) = UnixStream::pair()?;
        report.set_nonblocking(true)?;
        let slot = self.children.vacant_key();
        net.watch_child(report.as_fd(), FIRST_OF_MODEL + slot)?;
        let Some(child) = Child::fork()? else {
            return Ok(Some(to_parent));
        };
        self.children.insert(Served {
            child,
            peer: peer.clone(),
            report,
            heard: Vec::new(),
            stream,
        });
        Ok(None)
    }

    /// The life of a child, which begins with dropping what is the parent's.
    fn run_child(
        &mut self,
        to_parent: UnixStream,
        errand: Errand<P>,
        net: &mut Mio,
        leave: &mut dyn FnMut(&mut Mio),
    ) -> ! {
        // Nothing may unwind into what is the parent's. Without a report the parent counts this process
        // as killed, which is all it can do.
        catch(|| {
            leave(net);
            self.children.clear();
            for errand in self.waiting.drain(..) {
                drop(errand.work);
                // It lives on in the parent.
                mem::forget(errand.protocol);
            }
            self.serve_errand(errand, &Arc::new(to_parent));
        });
        sys::exit(0)
    }

    /// Does in a child what it was made for, and reports.
    fn serve_errand(&self, errand: Errand<P>, to_parent: &Arc<UnixStream>) {
        let mut statistics = Statistics::default();
        let reported = Cell::new(false);
        let report = |statistics: &mut Statistics, failure: blocking::Failure| {
            reported.set(true);
            report::send(to_parent, statistics, failure.map(|(_, reason)| reason));
        };
        catch(|| self.work(errand, to_parent, &mut statistics, report));
        if !reported.get() {
            report::send(to_parent, &mut statistics, None);
        }
    }

    /// Serves the connection, or answers the datagram. The report does not wait for the peer's end: a
    /// process that only lingers may be killed.
    fn work(
        &self,
        errand: Errand<P>,
        to_parent: &Arc<UnixStream>,
        statistics: &mut Statistics,
        report: impl FnOnce(&mut Statistics, blocking::Failure),
    ) {
        let served = (errand.protocol, errand.peer);
        match errand.work {
            Work::Connection(stream) => {
                let interrupt = Interrupt::of_child(to_parent);
                let around = (&self.config, &self.handle, &interrupt);
                Blocking::new(&stream, served, around, statistics).serve_and(report);
            }
            Work::Datagram(socket, data) => {
                let failure = blocking::answer(&socket, &data, served, &self.config, statistics);
                report(statistics, failure);
            }
        }
    }

    /// Reads what a child reports. Says whether it has said everything, as far as that can be told.
    fn hear(served: &mut Served) -> Heard {
        let mut piece = [0; 1_024];
        loop {
            match served.report.read(&mut piece) {
                Ok(0) => return Heard::All,
                Ok(count) => served.heard.extend_from_slice(&piece[..count]),
                Err(error) => match error.kind() {
                    io::ErrorKind::WouldBlock => return Heard::Part,
                    // Some filters of system calls interrupt each.
                    io::ErrorKind::Interrupted => return Heard::Interrupted,
                    _ => return Heard::All,
                },
            }
        }
    }

    /// Counts what a child that has ended reported.
    fn collect(served: Served, hub: &mut Hub<'_, Mio>) {
        let report = report::read(&served.heard);
        let (counted, failure) = report.unwrap_or_else(|| {
            let counted = Statistics {
                closed_killed: u64::from(served.stream),
                ..Statistics::default()
            };
            let killed = CloseReason::Process("killed".to_owned());
            (counted, Some(killed))
        });
        hub.add_counts(&counted);
        hub.leave(&served.peer);
        if let Some(reason) = failure {
            hub.effects.failures.push((served.peer, Box::new(reason)));
        }
    }

    /// Sees to it that children that are blocked notice the shutdown, and that none outstays it.
    fn hurry(&mut self, now: Tick) {
        if self.kill_at.is_some_and(|at| at <= now) {
            self.kill();
            self.kill_at = Some(now.after(GRACE));
        }
        if self.interrupt_at.is_some_and(|at| at > now) {
            return;
        }
        let unaware = || self.children.iter().filter(|(_, served)| !served.is_told());
        unaware().for_each(|(_, served)| served.child.interrupt());
        self.interrupt_at = unaware().next().map(|_| now.after(INTERRUPT_AGAIN));
    }

    /// Serves those that wait, as far as there is room, or refuses them when it is too late.
    fn serve_waiting(&mut self, hub: &mut Hub<'_, Mio>, leave: &mut dyn FnMut(&mut Mio)) {
        while self.kill_at.is_some() || self.children.len() < self.config.max_children {
            let Some(errand) = self.waiting.pop_front() else {
                return;
            };
            if self.kill_at.is_some() {
                Self::refuse(errand, hub);
            } else {
                self.spawn(errand, hub, leave);
            }
        }
    }

    /// The drain is over. The session has not begun, so there is nobody to tell but the factory.
    fn refuse(errand: Errand<P>, hub: &mut Hub<'_, Mio>) {
        let reason = CloseReason::TimedOut(Deadline::Drain);
        match errand.work {
            Work::Connection(stream) => {
                hub.effects.statistics.count_close(&reason);
                hub.leave(&errand.peer);
                hub.effects.failures.push((errand.peer, Box::new(reason)));
                hub.net.close(stream, true);
            }
            Work::Datagram(..) => hub.effects.statistics.datagrams_dropped += 1,
        }
        hub.drop_caught(errand.protocol);
    }
}

impl<P: Protocol> Model<Mio, P> for Processes<P> {
    fn process(&mut self, stream: Socket, protocol: P, peer: Peer, hub: &mut Hub<'_, Mio>) -> bool {
        if stream.set_nonblocking(false).is_err() {
            hub.drop_caught(protocol);
            return false;
        }
        let work = Work::Connection(stream);
        self.waiting.push_back(Errand {
            work,
            protocol,
            peer,
        });
        true
    }

    fn answer(
        &mut self,
        socket: &mut Datagram,
        count: usize,
        protocol: P,
        peer: Peer,
        hub: &mut Hub<'_, Mio>,
    ) -> bool {
        let socket = match socket.try_clone() {
            // Once the server shuts down, what waits may be more than it should.
            Ok(socket) if hub.draining || !self.is_full() => socket,
            cloned => {
                hub.check_spawned(&peer, cloned.map(drop));
                hub.drop_caught(protocol);
                return false;
            }
        };
        hub.effects
            .reply_limit
            .count(peer.address(), &hub.env.config);
        let work = Work::Datagram(socket, hub.input[..count].to_vec());
        self.waiting.push_back(Errand {
            work,
            protocol,
            peer,
        });
        true
    }

    fn len(&self) -> usize {
        self.children.len() + self.waiting.len()
    }

    fn is_full(&self) -> bool {
        self.len() >= self.config.max_children
    }

    fn note(&mut self, token: usize) {
        self.noted.push(token - FIRST_OF_MODEL);
    }

    fn deadline(&self) -> Option<Tick> {
        let busy = !self.children.is_empty();
        let hurries = [self.interrupt_at, self.kill_at].map(|at| at.filter(|_| busy));
        let others = [self.look_again, self.say_again];
        hurries.into_iter().chain(others).flatten().min()
    }

    fn reap(&mut self, hub: &mut Hub<'_, Mio>, leave: &mut dyn FnMut(&mut Mio)) {
        let mut unfinished = Vec::new();
        for slot in mem::take(&mut self.noted) {
            let Some(served) = self.children.get_mut(slot) else {
                continue;
            };
            let heard = match Self::hear(served) {
                // What cannot be heard until then is given up.
                Heard::Interrupted if self.kill_at.is_some_and(|at| at <= hub.now()) => Heard::All,
                heard => heard,
            };
            match heard {
                Heard::Part => {}
                Heard::All if served.child.has_ended() => {
                    Self::collect(self.children.remove(slot), hub);
                }
                Heard::All | Heard::Interrupted => unfinished.push(slot),
            }
        }
        // A process closes its descriptors a moment before it can be waited for.
        self.look_again = (!unfinished.is_empty()).then(|| hub.now().after(REPEAT));
        self.noted = unfinished;

        self.serve_waiting(hub, leave);
        if hub.draining {
            self.hurry(hub.now());
        }
        let says = !hub.draining && self.is_full();
        self.say_again = says.then(|| hub.now().after(SAY_AGAIN));
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
            served.child.wait();
        }
    }
}
