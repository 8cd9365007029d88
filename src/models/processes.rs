//! The process model: one child process per connection or datagram. The end of the socket pair that it
//! reports through tells that it ends.

use std::cell::Cell;
use std::collections::VecDeque;
use std::io;
use std::mem;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use slab::Slab;
use socket2::Socket;

use crate::address::{Address, Peer};
use crate::config::Config;
use crate::error::{CloseReason, Deadline};
use crate::models::blocking::{Blocking, BlockingSocket};
use crate::models::interrupt::{Ask, GRACE, Interrupt};
use crate::models::served::{Heard, Served};
use crate::models::{blocking, naming, report};
use crate::net::{Datagram, Mio, Net};
use crate::reactor::{FIRST_OF_MODEL, Hub, Model};
use crate::service::monitor::{ConnectionState, ConnectionStatus, Pass, Snapshot};
use crate::session::{Admitted, End, Protocol, REPEAT, Tick, Traffic, catch};
use crate::shutdown::ShutdownHandle;
use crate::statistics::Statistics;
use crate::sys;
use crate::sys::{Child, INTERRUPT_AGAIN, INTERRUPTS_MOST};

/// How often a server at its limit of processes checks for waiting clients, to log a warning.
const SAY_AGAIN: Duration = Duration::from_secs(1);

pub(crate) struct Processes<P> {
    config: Config,
    handle: ShutdownHandle,
    children: Slab<Served>,
    /// Accepted work that has no process yet. It gets one at the end of the turn, when nothing else
    /// uses the descriptors that the loop has open, or as soon as there is room. Further clients
    /// wait in the system's queue, but once the server shuts down they wait here.
    waiting: VecDeque<Errand<P>>,
    /// Slots of the children whose report may be readable.
    noted: Vec<usize>,
    look_again: Option<Tick>,
    say_again: Option<Tick>,
    interrupt_at: Option<Tick>,
    kill_at: Option<Tick>,
    /// How many more times the children that a monitor ends are interrupted.
    interrupts: u32,
}

/// The work for one child process.
struct Errand<P> {
    work: Work,
    admitted: Admitted<P>,
    began: Instant,
    /// The address on this machine, if there is a monitor that wants to know.
    local_address: Option<Address>,
}

enum Work {
    Connection(Socket),
    /// The socket to reply through, and the received data.
    Datagram(Datagram, Vec<u8>),
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
            interrupts: 0,
        })
    }

    /// Forks a child that serves the connection or answers the datagram. Returns only in the
    /// parent, which drops its own copy of the protocol.
    fn spawn(
        &mut self,
        errand: Errand<P>,
        hub: &mut Hub<'_, Mio>,
        leave: &mut dyn FnMut(&mut Mio),
    ) {
        let name = errand.admitted.peer.clone();
        let stream = matches!(errand.work, Work::Connection(_));
        let made = self.fork(&errand, hub.net);
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
        // Close the descriptor first, because dropping a protocol may take a while.
        drop(errand.work);
        hub.drop_caught(errand.admitted);
    }

    /// Forks a child. Returns `Some` in the child, with its stream to the parent, and `None` in the
    /// parent.
    fn fork(&mut self, errand: &Errand<P>, net: &Mio) -> io::Result<Option<UnixStream>> {
        let (report, to_parent) = UnixStream::pair()?;
        report.set_nonblocking(true)?;

        let slot = self.children.vacant_key();
        net.watch_child(report.as_fd(), FIRST_OF_MODEL + slot)?;
        let Some(child) = Child::fork()? else {
            return Ok(Some(to_parent));
        };

        self.children.insert(Served {
            child,
            peer: errand.admitted.peer.clone(),
            began: errand.began,
            local_address: errand.local_address.clone(),
            is_asked: false,
            report,
            heard: Vec::new(),
            stream: matches!(errand.work, Work::Connection(_)),
        });
        Ok(None)
    }

    /// Runs the child: drops what belongs to the parent, does the work and exits.
    fn run_child(
        &mut self,
        to_parent: UnixStream,
        errand: Errand<P>,
        net: &mut Mio,
        leave: &mut dyn FnMut(&mut Mio),
    ) -> ! {
        // Nothing may unwind into the parent's frames. Without a report, the parent counts this
        // process as killed, which is all it can do.
        catch(|| {
            leave(net);
            self.children.clear();
            for errand in self.waiting.drain(..) {
                drop(errand.work);
                // The parent still owns the original protocol, so run no destructor here.
                mem::forget(errand.admitted);
            }

            self.serve_errand(errand, &Arc::new(to_parent));
        });
        sys::exit(0)
    }

    /// Does the child's work and sends the report.
    fn serve_errand(&self, errand: Errand<P>, to_parent: &Arc<UnixStream>) {
        let mut statistics = Statistics::default();
        let reported = Cell::new(false);
        let report = |statistics: &mut Statistics, failure: blocking::Failure| {
            reported.set(true);
            report::send(to_parent, statistics, failure);
        };

        catch(|| self.work(errand, to_parent, &mut statistics, report));
        if !reported.get() {
            report::send(to_parent, &mut statistics, None);
        }
    }

    /// Serves the connection or answers the datagram. The report is sent before lingering starts,
    /// so a process that only lingers may be killed.
    fn work(
        &self,
        errand: Errand<P>,
        to_parent: &Arc<UnixStream>,
        statistics: &mut Statistics,
        report: impl FnOnce(&mut Statistics, blocking::Failure),
    ) {
        let served = errand.admitted;
        match errand.work {
            Work::Connection(stream) => {
                let parent = Arc::clone(to_parent);
                let ask = move |peer: &Peer| naming::ask(&parent, peer.address());
                let interrupt = Interrupt::of_child(to_parent, Ask(Box::new(ask)));
                let socket = BlockingSocket::new(&stream, &self.handle, &interrupt);
                let around = (&self.config, &interrupt);
                Blocking::new(socket, served, around, statistics).serve_and(report);
            }
            Work::Datagram(socket, data) => {
                let failure = blocking::answer(&socket, &data, served, &self.config, statistics);
                report(statistics, failure);
            }
        }
    }

    /// Adds the counts that an ended child reported. A child without a report counts as killed.
    fn collect(served: Served, hub: &mut Hub<'_, Mio>) {
        let report = report::read(&served.heard);
        let (counted, failure) = report.unwrap_or_else(|| {
            let counted = Statistics {
                closed_killed: u64::from(served.stream),
                ..Statistics::default()
            };
            let killed = CloseReason::Process("killed".to_owned());
            (counted, Some((killed, report::Bytes::default())))
        });

        hub.add_counts(&counted);
        hub.leave(&served.peer);
        if let Some((reason, bytes)) = failure {
            let mut traffic = Traffic::until(served.began, hub.instant());
            bytes.fill(&mut traffic);
            let end = End::new(served.peer, reason, traffic);
            hub.effects.failures.push(end);
        }
    }

    /// Interrupts children that do not know of the shutdown yet, and kills those that outlast it.
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

    /// Interrupts the children that a monitor ends and that do not know it yet.
    fn hurry_ending(&mut self, now: Tick) {
        if self.interrupt_at.is_some_and(|at| at > now) {
            return;
        }
        self.interrupts = self.interrupts.saturating_sub(1);
        let asked = self.children.iter().map(|(_, served)| served);
        let unaware = asked.filter(|served| served.is_asked && !served.is_told());
        let count = unaware.inspect(|served| served.child.interrupt()).count();
        let again = count > 0 && self.interrupts > 0;
        self.interrupt_at = again.then(|| now.after(INTERRUPT_AGAIN));
    }

    /// Starts children for waiting work while there is room, or refuses it once the drain is over.
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

    /// Refuses work because the drain is over. Its session has not begun, so only the factory is
    /// told.
    fn refuse(errand: Errand<P>, hub: &mut Hub<'_, Mio>) {
        let reason = CloseReason::TimedOut(Deadline::Drain);

        match errand.work {
            Work::Connection(stream) => {
                hub.effects.statistics.count_close(&reason);
                hub.leave(&errand.admitted.peer);
                let traffic = Traffic::until(errand.began, hub.instant());
                let end = End::new(errand.admitted.peer, reason, traffic);
                hub.effects.failures.push(end);
                hub.net.close(stream, true);
            }
            Work::Datagram(..) => hub.effects.statistics.datagrams_dropped += 1,
        }

        hub.drop_caught(errand.admitted.protocol);
    }
}

impl<P: Protocol> Model<Mio, P> for Processes<P> {
    fn process(&mut self, stream: Socket, admitted: Admitted<P>, hub: &mut Hub<'_, Mio>) -> bool {
        if stream.set_nonblocking(false).is_err() {
            hub.drop_caught(admitted);
            return false;
        }

        let local_address = hub.local_address(&stream);
        let work = Work::Connection(stream);
        self.waiting.push_back(Errand {
            work,
            admitted,
            began: hub.instant(),
            local_address,
        });
        true
    }

    fn answer(
        &mut self,
        socket: &mut Datagram,
        count: usize,
        admitted: Admitted<P>,
        hub: &mut Hub<'_, Mio>,
    ) -> bool {
        let socket = match socket.try_clone() {
            // During a shutdown, more work than `max_children` may wait.
            Ok(socket) if hub.draining || !self.is_full() => socket,
            cloned => {
                hub.check_spawned(&admitted.peer, cloned.map(drop));
                hub.drop_caught(admitted);
                return false;
            }
        };

        hub.effects
            .reply_limit
            .count(admitted.peer.address(), &hub.env.config);

        let work = Work::Datagram(socket, hub.input[..count].to_vec());
        self.waiting.push_back(Errand {
            work,
            admitted,
            began: hub.instant(),
            local_address: None,
        });
        true
    }

    fn forks(&self) -> bool {
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

            let heard = match served.hear() {
                // After the deadline, give up a report that cannot be read.
                Heard::Interrupted if self.kill_at.is_some_and(|at| at <= hub.now()) => Heard::All,
                heard => heard,
            };
            // A child whose first question was not answered in time may have asked another one.
            while let Some(client) = naming::take(&mut served.heard) {
                served.peer.stand_for(client, true);
                naming::answer(&served.report, hub.reseat(&served.peer));
            }
            match heard {
                Heard::Part => {}
                Heard::All if served.child.has_ended() => {
                    Self::collect(self.children.remove(slot), hub);
                }
                Heard::All | Heard::Interrupted => unfinished.push(slot),
            }
        }
        // A process closes its descriptors shortly before it can be waited for.
        self.look_again = (!unfinished.is_empty()).then(|| hub.now().after(REPEAT));
        self.noted = unfinished;

        self.serve_waiting(hub, leave);
        if hub.draining {
            self.hurry(hub.now());
        } else if self.interrupts > 0 {
            self.hurry_ending(hub.now());
        }
        let says = !hub.draining && self.is_full();
        self.say_again = says.then(|| hub.now().after(SAY_AGAIN));
    }

    fn count(&self, part: &mut Snapshot) {
        let served = self.children.iter().filter(|(_, served)| served.stream);
        let is_stream = |errand: &&Errand<P>| matches!(errand.work, Work::Connection(_));
        part.open += served.count() + self.waiting.iter().filter(is_stream).count();
    }

    fn visit(&mut self, pass: &mut Pass, most: usize, now: Instant) -> bool {
        let slots = pass.next(most);
        for slot in slots {
            let served = self.children.get_mut(slot).filter(|served| served.stream);
            let Some(served) = served else {
                continue;
            };
            if let Some(ending) = pass.visit(served.status(now)) {
                served.end(ending);
                (self.interrupts, self.interrupt_at) = (INTERRUPTS_MOST, None);
            }
        }

        let is_over = pass.cursor >= self.children.capacity();
        if is_over {
            // At most as many wait as processes may run.
            for errand in &self.waiting {
                if let Work::Connection(_) = errand.work {
                    let peer = errand.admitted.peer.clone();
                    let age = now.saturating_duration_since(errand.began);
                    let mut status = ConnectionStatus::new(peer, age, ConnectionState::Queued);
                    status.local_address.clone_from(&errand.local_address);
                    pass.list(status);
                }
            }
        }
        is_over
    }

    fn end(&mut self, now: Tick, at_once: bool) {
        if at_once {
            self.kill();
        }
        // A child ends itself at the deadline and tells its protocol. A child that hangs is killed.
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
    /// Kills and reaps all children, so that none outlives the server or becomes a zombie.
    fn drop(&mut self) {
        self.kill();
        for (_, served) in &self.children {
            served.child.wait();
        }
    }
}
