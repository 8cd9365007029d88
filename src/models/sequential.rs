//! The sequential model: one connection at a time, on the server's own thread.

use std::io::{self, ErrorKind};
use std::mem;
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use socket2::Socket;

use crate::address::Peer;
use crate::models::blocking::{Blocking, BlockingSocket};
use crate::models::interrupt::Interrupt;
use crate::net::{Datagram, Mio};
use crate::reactor::{Hub, Model, answer_on_loop};
use crate::service::monitor::{Progress, Served};
use crate::session::{Admitted, Protocol, Tick};
use crate::shutdown::ShutdownHandle;
use crate::sys::INTERRUPT_AGAIN;
use crate::waker::sync::lock;
use crate::{LOG_TARGET, sys};

/// Log that a client was kept waiting if the connection before it took at least this long.
const LONG: Duration = Duration::from_secs(1);

/// A client accepted this soon after a connection ended had been waiting for it.
const SOON: Duration = Duration::from_millis(5);

pub(crate) struct Sequential {
    handle: ShutdownHandle,
    watch: Arc<Watch>,
    quit: UnixStream,
    watcher: Option<JoinHandle<()>>,
    /// How long the last connection was served, and until when.
    last: Option<(Duration, Instant)>,
}

/// State shared with the watcher thread.
struct Watch {
    serving: Mutex<Serving>,
    drain_timeout: Option<Duration>,
}

/// What the watcher has last seen and told of the serving thread.
#[derive(Default)]
struct Life {
    waits: usize,
    told: Option<Instant>,
}

#[derive(Default)]
struct Serving {
    interrupt: Option<Arc<Interrupt>>,
    /// The shutdown has been logged.
    said: bool,
    /// The drain is over. Clients still in the system's queue are ended at once.
    over: bool,
}

impl Sequential {
    /// Creates the model, and a thread that only watches for the shutdown. The serving thread
    /// cannot notice it while it is blocked.
    pub(crate) fn new(handle: ShutdownHandle, drain_timeout: Option<Duration>) -> io::Result<Self> {
        sys::allow_interrupts()?;
        let (quit, asked) = UnixStream::pair()?;
        let watch = Arc::new(Watch {
            serving: Mutex::default(),
            drain_timeout,
        });

        let (watched, for_thread) = (handle.clone(), Arc::clone(&watch));
        let watcher = thread::Builder::new()
            .name("serveloop-watcher".to_owned())
            .spawn(move || for_thread.run(&watched, &asked))?;

        Ok(Self {
            handle,
            watch,
            quit,
            watcher: Some(watcher),
            last: None,
        })
    }

    /// Logs that a peer probably waited, if it was accepted as soon as a long connection had ended.
    fn say_waited(&self, peer: &Peer, hub: &mut Hub<'_, Mio>) {
        let Some((took, _)) = self.last.filter(|(_, ended)| ended.elapsed() < SOON) else {
            return;
        };

        if took >= LONG {
            let seconds = took.as_secs();
            hub.warn_of(
                peer,
                "waited",
                format_args!(
                    "{peer}: may have waited for {seconds} s: one connection is served at a time"
                ),
            );
        }
    }
}

impl Watch {
    fn serve(&self, interrupt: Option<Arc<Interrupt>>) {
        let mut serving = self.serving();
        if let Some(interrupt) = interrupt.as_ref().filter(|_| serving.over) {
            interrupt.end();
        }
        serving.interrupt = interrupt;
    }

    fn run(&self, handle: &ShutdownHandle, asked: &UnixStream) {
        let (mut rung_at, mut life) = (None, Life::default());
        loop {
            let rung = handle.is_rung();
            let handle_unheard = (!rung).then(|| handle.as_fd());
            let mut waits = [Some(asked.as_fd()), handle_unheard]
                .map(|descriptor| sys::wait_for(descriptor, libc::POLLIN));
            let most = match rung {
                true => Some(INTERRUPT_AGAIN),
                false => handle.pulse().and_then(|pulse| pulse.interval()),
            };
            if let Err(error) = sys::poll(&mut waits, most) {
                if error.kind() != ErrorKind::Interrupted {
                    // Out of memory, for example. It may work later.
                    thread::sleep(INTERRUPT_AGAIN);
                }
                continue;
            }

            if waits[0].revents != 0 {
                return;
            }

            self.pass_on_life(handle, &mut life);
            if rung {
                self.say_shutdown();
                let drained = rung_at.get_or_insert_with(Instant::now).elapsed();
                let late = self.drain_timeout.is_some_and(|most| drained >= most);
                self.interrupt(late || handle.requests() > 1);
            }
        }
    }

    /// Tells that the server lives if its thread serves a connection and waits for it, or has done so
    /// since the last time. While it serves none, its loop tells that itself.
    fn pass_on_life(&self, handle: &ShutdownHandle, life: &mut Life) {
        let Some(pulse) = handle.pulse() else {
            return;
        };
        if handle.is_rung() {
            pulse.stopping();
        }

        let waits = self.serving().interrupt.as_ref().map(|it| it.waits());
        let (Some(waits), Some(interval)) = (waits, pulse.interval()) else {
            return;
        };
        let is_early = life.told.is_some_and(|told| told.elapsed() < interval);
        let is_waiting = waits % 2 == 1;
        if !is_early && (is_waiting || waits != life.waits) {
            *life = Life {
                waits,
                told: Some(Instant::now()),
            };
            pulse.beat();
        }
    }

    /// Logs the shutdown while a connection blocks the loop, which would otherwise log it.
    fn say_shutdown(&self) {
        let mut serving = self.serving();
        if serving.interrupt.is_some() && !mem::replace(&mut serving.said, true) {
            log::info!(target: LOG_TARGET, "shutting down: 1 connection open");
        }
    }

    fn interrupt(&self, end: bool) {
        let mut serving = self.serving();
        serving.over |= end;
        if let Some(interrupt) = &serving.interrupt {
            interrupt.interrupt(end);
        }
    }

    fn serving(&self) -> MutexGuard<'_, Serving> {
        lock(&self.serving)
    }
}

impl<P: Protocol> Model<Mio, P> for Sequential {
    fn process(&mut self, stream: Socket, admitted: Admitted<P>, hub: &mut Hub<'_, Mio>) -> bool {
        if stream.set_nonblocking(false).is_err() {
            hub.drop_caught(admitted);
            return false;
        }

        self.say_waited(&admitted.peer, hub);
        let began = Instant::now();
        let name = admitted.peer.clone();
        let interrupt = Arc::new(Interrupt::default());
        let served = Served {
            peer: name.clone(),
            local_address: hub.local_address(&stream),
            began,
            progress: Arc::clone(&interrupt) as Arc<dyn Progress>,
        };
        hub.tell_monitor(Some(served));
        self.watch.serve(Some(Arc::clone(&interrupt)));
        let served = Blocking::new(
            BlockingSocket::new(&stream, &self.handle, &interrupt),
            admitted,
            (&hub.env.config, &interrupt),
            &mut hub.effects.statistics,
        );
        hub.effects
            .failures
            .extend(interrupt.thread.run(|| served.serve()));

        self.watch.serve(None);
        hub.tell_monitor(None);
        self.last = Some((began.elapsed(), Instant::now()));
        hub.leave(&name);
        true
    }

    fn answer(
        &mut self,
        socket: &mut Datagram,
        count: usize,
        admitted: Admitted<P>,
        hub: &mut Hub<'_, Mio>,
    ) -> bool {
        answer_on_loop(socket, count, admitted, hub);
        true
    }

    fn len(&self) -> usize {
        0
    }

    fn open(&self) -> Option<usize> {
        let said = mem::replace(&mut self.watch.serving().said, true);
        (!said).then_some(0)
    }

    fn reap(&mut self, _: &mut Hub<'_, Mio>, _: &mut dyn FnMut(&mut Mio)) {}

    fn end(&mut self, _: Tick, _: bool) {}
}

impl Drop for Sequential {
    fn drop(&mut self) {
        // The end of the stream always arrives, while writing a byte could fail.
        let _ = self.quit.shutdown(Shutdown::Both);

        if let Some(watcher) = self.watcher.take() {
            let _ = watcher.join();
        }
    }
}
