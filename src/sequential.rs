//! One connection at a time, on the server's own thread.

use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use socket2::Socket;

use crate::address::Peer;
use crate::blocking::{Blocking, Control, INTERRUPT_AGAIN};
use crate::clock::Tick;
use crate::datagram;
use crate::mio::{Datagram, Mio};
use crate::model::Model;
use crate::protocol::Protocol;
use crate::shutdown::ShutdownHandle;
use crate::system;
use crate::turn::Turn;

pub(crate) struct Sequential {
    handle: ShutdownHandle,
    watch: Arc<Watch>,
    quit: UnixStream,
    watcher: Option<JoinHandle<()>>,
}

/// What the watcher knows of the connection that is being served.
struct Watch {
    serving: Mutex<Option<Arc<Control>>>,
}

impl Sequential {
    /// Serves on this thread. A second one only watches for the shutdown, which the first cannot
    /// notice while it is blocked.
    pub(crate) fn new(handle: ShutdownHandle) -> io::Result<Self> {
        system::allow_interrupts()?;
        let (quit, asked) = UnixStream::pair()?;
        let watch = Arc::new(Watch {
            serving: Mutex::new(None),
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
        })
    }
}

impl Watch {
    fn serve(&self, control: Option<Arc<Control>>) {
        *self.serving.lock().unwrap_or_else(PoisonError::into_inner) = control;
    }

    fn run(&self, handle: &ShutdownHandle, asked: &UnixStream) {
        loop {
            let mut waits = [asked.as_fd(), handle.as_fd()].map(system::wait_for_input);
            let rung = handle.is_rung();
            if rung {
                waits[1].fd = -1;
            }
            // A failure is a signal's, and the loop looks again.
            let _ = system::poll(&mut waits, rung.then_some(INTERRUPT_AGAIN));
            if waits[0].revents != 0 {
                return;
            }
            if rung {
                self.interrupt(handle.requests() > 1);
            }
        }
    }

    fn interrupt(&self, end: bool) {
        let serving = self.serving.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(control) = &*serving {
            control.interrupt(end);
        }
    }
}

impl<P: Protocol> Model<Mio, P> for Sequential {
    fn process(
        &mut self,
        stream: Socket,
        protocol: P,
        peer: Peer,
        turn: &mut Turn<'_, Mio>,
    ) -> bool {
        if stream.set_nonblocking(false).is_err() {
            return false;
        }
        let control = Arc::new(Control::default());
        self.watch.serve(Some(Arc::clone(&control)));
        let served = Blocking::new(
            &stream,
            (protocol, peer),
            (turn.config, &self.handle, &control),
            turn.statistics,
        );
        turn.failures.extend(control.thread.run(|| served.serve()));
        self.watch.serve(None);
        true
    }

    fn answer(
        &mut self,
        socket: &mut Datagram,
        count: usize,
        protocol: P,
        peer: Peer,
        turn: &mut Turn<'_, Mio>,
    ) -> bool {
        datagram::answer_here(socket, count, protocol, peer, turn);
        true
    }

    fn len(&self) -> usize {
        0
    }

    fn reap(&mut self, _: &mut Turn<'_, Mio>) {}

    fn end(&mut self, _: Tick, _: bool) {}
}

impl Drop for Sequential {
    fn drop(&mut self) {
        // Closing would do too; either way the watcher sees it.
        let _ = self.quit.write(&[0]);
        if let Some(watcher) = self.watcher.take() {
            let _ = watcher.join();
        }
    }
}
