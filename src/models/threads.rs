//! The thread model: one thread per connection or datagram.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, SyncSender};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::{self, JoinHandle};
use std::time::Instant;
use std::{io, mem};

use slab::Slab;
use socket2::Socket;

use crate::address::{Address, Peer};
use crate::config::Config;
use crate::error::{CloseReason, Deadline, counted};
use crate::models::blocking::{Blocking, BlockingSocket};
use crate::models::interrupt::{Ask, Descriptors, GRACE, Interrupt};
use crate::models::{blocking, naming};
use crate::net::{Datagram, Mio};
use crate::reactor::{Hub, Model};
use crate::service::monitor::{ConnectionState, ConnectionStatus, Pass, Progress, Snapshot};
use crate::session::{Admitted, End, Protocol, Tick, Traffic, catch};
use crate::shutdown::ShutdownHandle;
use crate::statistics::Statistics;
use crate::sys::DescriptorLimit;
use crate::sys::{INTERRUPT_AGAIN, INTERRUPTS_MOST};
use crate::waker::Waker;
use crate::waker::sync::lock;
use crate::{LOG_TARGET, sys};

pub(crate) struct Threads {
    shared: Arc<Shared>,
    interrupt_at: Option<Tick>,
    give_up_at: Option<Tick>,
    /// How many more times the threads that a monitor ends are interrupted.
    interrupts: u32,
}

struct Shared {
    config: Config,
    handle: ShutdownHandle,
    /// Wakes the server to collect ended threads.
    waker: Waker,
    state: Mutex<State>,
    /// How many bytes are held in the buffers of all connections.
    held: Arc<AtomicUsize>,
    /// The descriptors that connections and their wakers share.
    descriptors: Arc<Descriptors>,
}

#[derive(Default)]
struct State {
    /// The running threads. Each removes itself as its last step.
    threads: Slab<Running>,
    /// The threads that have finished and only need to be joined.
    ended: Vec<(Peer, JoinHandle<()>)>,
    /// The counts of ended threads, until the server collects them.
    statistics: Statistics,
    failures: Vec<End>,
    /// The clients that proxies have named, by the keys of their threads, and where the answers go.
    named: Vec<(usize, Peer, SyncSender<bool>)>,
}

/// A thread that serves a connection or a datagram.
struct Running {
    interrupt: Arc<Interrupt>,
    peer: Peer,
    /// The address on this machine, if there is a monitor that wants to know.
    local_address: Option<Address>,
    began: Instant,
    thread: JoinHandle<()>,
}

impl Threads {
    /// Creates the model. All threads together may use up to `descriptors` descriptors.
    pub(crate) fn new(
        config: Config,
        handle: ShutdownHandle,
        waker: Waker,
        descriptors: usize,
    ) -> io::Result<Self> {
        sys::allow_interrupts()?;
        let state = Mutex::new(State::default());
        let shared = Arc::new(Shared {
            config,
            handle,
            waker,
            state,
            held: Arc::default(),
            descriptors: Arc::new(Descriptors::new(descriptors)),
        });

        Ok(Self {
            shared,
            interrupt_at: None,
            give_up_at: None,
            interrupts: 0,
        })
    }

    /// Runs `work` on a new thread that the server can interrupt, count and join.
    fn spawn(
        &self,
        (peer, local_address, began): (&Peer, Option<Address>, Instant),
        work: impl FnOnce(&Shared, &Interrupt, &mut State) + Send + 'static,
    ) -> io::Result<()> {
        let exhausted = || io::Error::from_raw_os_error(libc::EMFILE);
        let taken = self.shared.descriptors.take().ok_or_else(exhausted)?;
        // Hold the lock until the entry is inserted. The thread needs it to remove that entry.
        let mut state = self.shared.state();
        let entry = state.threads.vacant_entry();
        let key = entry.key();

        let ask = self.shared.ask(key);
        let interrupt = Interrupt::sharing(&self.shared.held, &self.shared.descriptors, ask);
        let interrupt = Arc::new(interrupt);
        let (shared, for_thread) = (Arc::clone(&self.shared), Arc::clone(&interrupt));
        let run = move || {
            let mut counted = State::default();
            let run = || work(&shared, &for_thread, &mut counted);
            catch(|| for_thread.thread.run(run));
            shared.state().collect(key, counted);
            // Give the descriptor back before waking the server, which may then have room for a
            // client.
            drop(taken);
            shared.waker.wake();
        };
        // If there is no thread, the protocol is dropped here, and its destructor may panic.
        let spawned = catch(|| thread::Builder::new().spawn(run));
        let thread = spawned.unwrap_or_else(|| Err(io::Error::other("a protocol panicked")))?;

        let peer = peer.clone();
        entry.insert(Running {
            interrupt,
            peer,
            local_address,
            began,
            thread,
        });
        Ok(())
    }

    /// Interrupts the threads that do not know of the shutdown, or all of them once they must end.
    /// Returns whether there were any.
    fn interrupt(&self) -> bool {
        let ends = self.give_up_at.is_some();
        let mut unaware = false;
        for (_, running) in &self.shared.state().threads {
            running.interrupt.interrupt(ends);
            unaware |= ends || !running.interrupt.is_told();
        }
        unaware
    }

    /// Interrupts the threads that a monitor ends. Returns whether there were any.
    fn interrupt_ending(&self) -> bool {
        let state = self.shared.state();
        let threads = state.threads.iter().map(|(_, running)| &running.interrupt);
        let ending = threads.filter(|interrupt| interrupt.is_unaware());
        ending
            .inspect(|interrupt| interrupt.thread.interrupt())
            .count()
            > 0
    }

    /// Abandons the threads that have still not ended, because their protocols hang.
    fn give_up(&self, hub: &mut Hub<'_, Mio>) {
        for running in self.shared.state().threads.drain() {
            let reason = CloseReason::TimedOut(Deadline::Drain);
            let (peer, id) = (&running.peer, running.peer.id());
            log::error!(
                target: LOG_TARGET, id = id;
                "{peer}: the protocol hangs: its thread is abandoned"
            );

            if !running.peer.is_datagram() {
                hub.effects.statistics.count_close(&reason);
            }

            hub.leave(&running.peer);
            let traffic = Traffic::until(running.began, hub.instant());
            let end = End::new(running.peer, reason, traffic);
            hub.effects.failures.push(end);
        }
    }
}

impl Shared {
    /// Returns how the thread with that key asks whether its client may have one more connection.
    fn ask(self: &Arc<Self>, key: usize) -> Ask {
        // Weak, because the server keeps the question with the thread.
        let shared = Arc::downgrade(self);
        Ask(Box::new(move |peer| {
            let Some(shared) = shared.upgrade() else {
                return true;
            };
            let (sender, answer) = mpsc::sync_channel(1);
            shared.state().named.push((key, peer.clone(), sender));
            shared.waker.wake();
            answer.recv_timeout(naming::PATIENCE).unwrap_or(true)
        }))
    }

    /// Answers the threads that have asked.
    fn answer_named(&self, hub: &mut Hub<'_, Mio>) {
        let named = mem::take(&mut self.state().named);
        for (key, peer, answer) in named {
            let mut state = self.state();
            let running = state.threads.get_mut(key);
            // A thread that waited in vain may have ended since, and left its key to another one.
            let Some(running) = running.filter(|it| it.peer.id() == peer.id()) else {
                continue;
            };
            running.peer = peer;
            // A thread that does not wait any more goes on.
            let _ = answer.send(hub.reseat(&running.peer));
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

impl State {
    fn collect(&mut self, key: usize, counted: Self) {
        // If the entry is gone, the thread was given up and has already been counted.
        let Some(running) = self.threads.try_remove(key) else {
            return;
        };
        self.ended.push((running.peer, running.thread));
        self.statistics.add(&counted.statistics);
        self.failures.extend(counted.failures);
    }
}

impl<P: Protocol + Send + 'static> Model<Mio, P> for Threads {
    fn process(&mut self, stream: Socket, admitted: Admitted<P>, hub: &mut Hub<'_, Mio>) -> bool {
        let (name, began) = (admitted.peer.clone(), hub.instant());
        let local_address = hub.local_address(&stream);
        let spawned = stream.set_nonblocking(false).and_then(|()| {
            self.spawn(
                (&name, local_address, began),
                move |shared, interrupt, counted| {
                    let State {
                        statistics,
                        failures,
                        ..
                    } = counted;
                    let socket = BlockingSocket::new(&stream, &shared.handle, interrupt);
                    let around = (&shared.config, interrupt);
                    let served = Blocking::new(socket, admitted, around, statistics);
                    failures.extend(served.serve());
                },
            )
        });

        hub.check_spawned(&name, spawned)
    }

    fn answer(
        &mut self,
        socket: &mut Datagram,
        count: usize,
        admitted: Admitted<P>,
        hub: &mut Hub<'_, Mio>,
    ) -> bool {
        let peer = admitted.peer.clone();
        // Datagrams are not refused as connections are, so their number needs a limit here.
        let most = hub.env.config.max_connections;
        if self.shared.state().threads.len() >= most {
            let running = counted(most, "thread is running", "threads are running");
            hub.warn_of(
                &peer,
                "no thread",
                format_args!("{peer}: dropped a datagram: {running}"),
            );
            return false;
        }

        if !self.shared.descriptors.has_room() {
            hub.warn_of(
                &peer,
                "no thread",
                format_args!(
                    "{peer}: dropped a datagram: no descriptor is left for it: {DescriptorLimit}"
                ),
            );
            return false;
        }

        let (data, name, began) = (hub.input[..count].to_vec(), peer, hub.instant());

        let spawned = socket.try_clone().and_then(|socket| {
            self.spawn((&name, None, began), move |shared, _, counted| {
                let State {
                    statistics,
                    failures,
                    ..
                } = counted;
                let answer = blocking::answer(&socket, &data, admitted, &shared.config, statistics);
                failures.extend(answer);
            })
        });

        hub.effects
            .reply_limit
            .count(name.address(), &hub.env.config);
        hub.check_spawned(&name, spawned)
    }

    /// Returns the number of threads not yet joined, whose counts are still to be collected.
    fn len(&self) -> usize {
        let state = self.shared.state();
        state.threads.len() + state.ended.len()
    }

    fn has_room(&self) -> bool {
        self.shared.descriptors.has_room()
    }

    fn deadline(&self) -> Option<Tick> {
        self.interrupt_at.into_iter().chain(self.give_up_at).min()
    }

    fn reap(&mut self, hub: &mut Hub<'_, Mio>, _: &mut dyn FnMut(&mut Mio)) {
        self.shared.answer_named(hub);
        let mut state = self.shared.state();
        hub.add_counts(&mem::take(&mut state.statistics));
        hub.effects.failures.append(&mut state.failures);
        let nobody = state.threads.is_empty();
        let ended = mem::take(&mut state.ended);
        drop(state);

        for (peer, thread) in ended {
            hub.leave(&peer);
            // A panic has been caught before.
            let _ = thread.join();
        }

        if nobody {
            (self.interrupt_at, self.give_up_at) = (None, None);
            self.interrupts = 0;
            return;
        }

        if self.give_up_at.is_some_and(|at| at <= hub.now()) {
            return self.give_up(hub);
        }

        let ends = hub.draining || self.interrupts > 0;
        if ends && self.interrupt_at.is_none_or(|at| at <= hub.now()) {
            let again = || hub.now().after(INTERRUPT_AGAIN);
            self.interrupts = self.interrupts.saturating_sub(1);
            let unaware = match hub.draining {
                true => self.interrupt(),
                false => self.interrupt_ending() && self.interrupts > 0,
            };
            self.interrupt_at = unaware.then(again);
        }
    }

    fn count(&self, part: &mut Snapshot) {
        let state = self.shared.state();
        part.statistics.add(&state.statistics);
        let running = state.threads.iter().map(|(_, running)| &running.peer);
        part.open += running.filter(|peer| !peer.is_datagram()).count();
        part.buffered += self.shared.held.load(Ordering::Relaxed);
    }

    fn visit(&mut self, pass: &mut Pass, most: usize, now: Instant) -> bool {
        let state = self.shared.state();
        let keys = pass.next(most);

        for running in keys.filter_map(|key| state.threads.get(key)) {
            if running.peer.is_datagram() {
                continue;
            }
            let age = now.saturating_duration_since(running.began);
            let mut status =
                ConnectionStatus::new(running.peer.clone(), age, ConnectionState::Open);
            status.local_address.clone_from(&running.local_address);
            if let Some(ending) = pass.visit(running.interrupt.fill(status, now)) {
                running.interrupt.end_by(ending);
                (self.interrupts, self.interrupt_at) = (INTERRUPTS_MOST, None);
            }
        }
        pass.cursor >= state.threads.capacity()
    }

    fn end(&mut self, now: Tick, _: bool) {
        self.give_up_at.get_or_insert(now.after(GRACE));
        self.interrupt();
    }
}

impl Drop for Threads {
    /// Ends all threads. If the loop itself failed, some still serve connections. When this
    /// returns, no thread is left unless a protocol hangs.
    fn drop(&mut self) {
        let mut patience = GRACE;
        while !self.shared.state().threads.is_empty() && !patience.is_zero() {
            for (_, running) in &self.shared.state().threads {
                running.interrupt.interrupt(true);
            }
            thread::sleep(INTERRUPT_AGAIN);
            patience = patience.saturating_sub(INTERRUPT_AGAIN);
        }

        let ended = mem::take(&mut self.shared.state().ended);
        for (_, thread) in ended {
            // A panic has been caught before.
            let _ = thread.join();
        }
    }
}
