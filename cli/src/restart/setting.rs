//! What a server has to know for its restarts.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serveloop::ShutdownHandle;
use serveloop::net::OpenSockets;
use serveloop::service::notify::Notifier;

use crate::restart::attempt::Placed;
use crate::restart::former::Word;
use crate::restart::manifest::PlaceName;
use crate::restart::program::Program;
use crate::signals::Leaving;

/// What a server has to know for its restarts.
#[derive(Debug)]
pub(crate) struct Setting {
    pub(crate) program: Program,
    pub(crate) sockets: OpenSockets,
    /// The number of each listener's place, and the names of the places.
    pub(crate) places: Vec<usize>,
    pub(crate) names: Vec<PlaceName>,
    /// How the connections of each place are served: by which protocol, behind what. Empty if they cannot
    /// move from process to process.
    pub(crate) ways: Vec<String>,
    /// The listeners of the small server for pages and administrators.
    pub(crate) side: Option<SideListeners>,
    pub(crate) handle: ShutdownHandle,
    pub(crate) leaving: Leaving,
    pub(crate) notifier: Option<Notifier>,
    /// How long open connections have at a shutdown.
    pub(crate) drain: Option<Duration>,
    /// Whether there must be no other thread.
    pub(crate) is_forking: bool,
    /// Why this server cannot be restarted.
    pub(crate) objection: Option<&'static str>,
    /// The process that this one replaces.
    pub(crate) former: Option<Word>,
}

/// Listeners of another server of this process that are handed on too.
#[derive(Clone, Debug)]
pub(crate) struct SideListeners {
    pub(crate) sockets: OpenSockets,
    /// The URI of each listener's place, by the numbers of listeners.
    pub(crate) uris: Vec<String>,
    /// Set when the new process serves, so that this one listens there no more.
    pub(crate) is_replaced: Arc<AtomicBool>,
    pub(crate) handle: ShutdownHandle,
}

impl SideListeners {
    pub(super) fn retire(&self) {
        self.is_replaced.store(true, Ordering::SeqCst);
        self.handle.wake();
    }
}

impl Setting {
    /// Returns all sockets that are handed on.
    pub(super) fn open(&self) -> impl Iterator<Item = &OpenSockets> {
        let side = self.side.iter().map(|side| &side.sockets);
        [&self.sockets].into_iter().chain(side)
    }

    /// Returns how the connections of a listener are served, if they can move.
    pub(super) fn way(&self, listener: usize) -> Option<&String> {
        self.ways.get(*self.places.get(listener)?)
    }

    /// Returns how the connections of all listeners are served, if they can move.
    pub(super) fn ways_by_listener(&self) -> Vec<String> {
        let all = 0..self.places.len();
        all.filter_map(|listener| self.way(listener).cloned())
            .collect()
    }

    /// Returns copies of all sockets that are handed on, with where they belong. Those of the small server
    /// for administrators come after the others.
    pub(super) fn placed(&self) -> io::Result<Vec<Placed>> {
        let own = self.sockets.list()?.into_iter().map(|socket| {
            let (listener, place_number) = (socket.listener(), self.places[socket.listener()]);
            Placed {
                socket,
                listener,
                place_number,
                place: self.names[place_number].clone(),
            }
        });
        let mut all: Vec<_> = own.collect();

        let Some(side) = &self.side else {
            return Ok(all);
        };
        let (listeners, names) = (self.places.len(), self.names.len());
        for socket in side.sockets.list()? {
            let number = socket.listener();
            all.push(Placed {
                place: PlaceName::new(names + number, &side.uris[number]),
                listener: listeners + number,
                place_number: names + number,
                socket,
            });
        }
        Ok(all)
    }
}
