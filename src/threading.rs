//! A thread for each connection, and for each datagram.

use std::io;
use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use slab::Slab;
use socket2::Socket;

use crate::address::Peer;
use crate::blocking::{self, Blocking, Control, INTERRUPT_AGAIN};
use crate::clock::Tick;
use crate::config::Config;
use crate::error::CloseReason;
use crate::guard::guard;
use crate::mio::{Datagram, Mio};
use crate::model::Model;
use crate::protocol::Protocol;
use crate::shutdown::ShutdownHandle;
use crate::statistics::Statistics;
use crate::system;
use crate::turn::Turn;
use crate::waker::Waker;

pub(crate) struct Threads {
    shared: Arc<Shared>,
    interrupt_at: Option<Tick>,
    ended: bool,
}

struct Shared {
    config: Config,
    handle: ShutdownHandle,
    /// Has the server look at what has ended.
    waker: Waker,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// The threads that live: each takes itself out as the last thing it does.
    threads: Slab<Arc<Control>>,
    /// What those have counted that ended, until the server collects it.
    statistics: Statistics,
    failures: Vec<(Peer, Box<CloseReason>)>,
}

impl Threads {
    pub(crate) fn new(config: Config, handle: ShutdownHandle, waker: Waker) -> io::Result<Self> {
        system::allow_interrupts()?;
        let state = Mutex::new(State::default());
        let shared = Arc::new(Shared {
            config,
            handle,
            waker,
            state,
        });
        Ok(Self {
            shared,
            interrupt_at: None,
            ended: false,
        })
    }

    /// Runs `work` on a thread that the server can interrupt, count and wait for.
    fn spawn(
        &self,
        work: impl FnOnce(&Shared, &Control, &mut State) + Send + 'static,
    ) -> io::Result<()> {
        let control = Arc::new(Control::default());
        let key = self.shared.state().threads.insert(Arc::clone(&control));
        let shared = Arc::clone(&self.shared);
        let spawned = thread::Builder::new().spawn(move || {
            let mut counted = State::default();
            let run = || work(&shared, &control, &mut counted);
            guard(|| control.thread.run(run));
            shared.state().collect(key, counted);
            shared.waker.wake();
        });
        if spawned.is_err() {
            self.shared.state().threads.remove(key);
        }
        spawned.map(drop)
    }

    fn interrupt(&self) {
        for (_, control) in &self.shared.state().threads {
            control.interrupt(self.ended);
        }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn collect(&mut self, key: usize, counted: Self) {
        self.threads.remove(key);
        self.statistics.add(&counted.statistics);
        self.failures.extend(counted.failures);
    }
}

impl<P: Protocol + Send + 'static> Model<Mio, P> for Threads {
    fn process(
        &mut self,
        stream: Socket,
        protocol: P,
        peer: Peer,
        turn: &mut Turn<'_, Mio>,
    ) -> bool {
        let name = peer.clone();
        let spawned = stream.set_nonblocking(false).and_then(|()| {
            self.spawn(move |shared, control, counted| {
                let State {
                    statistics,
                    failures,
                    ..
                } = counted;
                let around = (&shared.config, &shared.handle, control);
                let served = Blocking::new(&stream, (protocol, peer), around, statistics);
                failures.extend(served.serve());
            })
        });
        turn.check_spawned(&name, spawned)
    }

    fn answer(
        &mut self,
        socket: &mut Datagram,
        count: usize,
        protocol: P,
        peer: Peer,
        turn: &mut Turn<'_, Mio>,
    ) -> bool {
        let (data, name) = (turn.input[..count].to_vec(), peer.clone());
        let spawned = socket.try_clone().and_then(|socket| {
            self.spawn(move |shared, _, counted| {
                let State {
                    statistics,
                    failures,
                    ..
                } = counted;
                let answer =
                    blocking::answer(&socket, &data, (protocol, peer), &shared.config, statistics);
                failures.extend(answer);
            })
        });
        turn.check_spawned(&name, spawned)
    }

    fn len(&self) -> usize {
        self.shared.state().threads.len()
    }

    fn deadline(&self) -> Option<Tick> {
        self.interrupt_at
    }

    fn reap(&mut self, turn: &mut Turn<'_, Mio>) {
        let mut state = self.shared.state();
        turn.statistics.add(&mem::take(&mut state.statistics));
        turn.failures.append(&mut state.failures);
        let nobody = state.threads.is_empty();
        drop(state);
        if !turn.draining || nobody {
            self.interrupt_at = None;
        } else if self.interrupt_at.is_none_or(|at| at <= turn.now()) {
            self.interrupt();
            self.interrupt_at = Some(turn.now().after(INTERRUPT_AGAIN));
        }
    }

    fn end(&mut self, _: Tick, _: bool) {
        self.ended = true;
        self.interrupt();
    }
}
