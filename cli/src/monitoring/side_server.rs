//! The small server next to the server, which serves pages and administrators.

use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread::JoinHandle;
use std::{io, mem};

use serveloop::{Address, Config, Server, ShutdownHandle, Statistics};

use crate::failure::Failure;
use crate::logger::{TARGET, be_aside};
use crate::monitoring::bound::{DESCRIPTORS, bind};
use crate::monitoring::clients::Clients;
use crate::monitoring::retiring::Retiring;
use crate::monitoring::source::Source;
use crate::monitoring::{Inherit, MonitoringOptions, apart, bound, is_local, link};
use crate::restart::SideListeners;
use crate::sys::Apart;
use crate::threads;

/// A server for pages and administrators. Dropping it ends it.
#[derive(Debug, Default)]
pub(crate) struct SideServer {
    stage: Stage,
    /// The addresses of the pages, and those of administrators.
    metrics: Vec<Address>,
    admin: Vec<Address>,
    controls: bool,
    /// The URIs of both, as they were given.
    uris: [String; 2],
    /// A new process has taken over the listeners.
    is_replaced: Arc<AtomicBool>,
}

#[derive(Debug, Default)]
enum Stage {
    /// There is nothing to serve, or no more.
    #[default]
    None,
    Bound(Box<Server>),
    Running(ShutdownHandle, JoinHandle<io::Result<Statistics>>),
    /// It is in a process of its own, which asks through the pipe.
    Apart(Apart, Option<UnixStream>),
}

/// Where the small server runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SidePlace {
    /// On a thread of the server's process.
    Thread,
    /// In a process of its own, because the server's process may have no second thread.
    Process,
}

impl SideServer {
    /// Checks what the options say without listening.
    ///
    /// # Errors
    /// Returns what [`bind`](Self::bind) would return, but for what only the system knows.
    pub(crate) fn check(options: &MonitoringOptions) -> Result<(), Failure> {
        bound::check(&options.places(&mut |_| Ok(Vec::new()))?)
    }

    /// Binds what the options say, if anything. Clients can connect from now on, and are served when it
    /// [starts](Self::start).
    ///
    /// # Errors
    /// Returns a usage error for an address that makes no sense, or the system's for one that it does
    /// not give.
    pub(crate) fn bind(
        options: &MonitoringOptions,
        config: &mut Config,
        place: SidePlace,
        inherit: Inherit<'_>,
    ) -> Result<Self, Failure> {
        if !options.is_given() {
            return Ok(Self::default());
        }
        let places = options.places(inherit)?;
        let (controls, uris) = (places.controls, places.uris.clone());
        config.reserved_descriptors += DESCRIPTORS;

        let mut side = Self::default();
        (side.controls, side.uris) = (controls, uris);
        if place == SidePlace::Process {
            let bind = || bind(places);
            let (process, pipe, [metrics, admin]) = apart::start(bind, controls)?;
            (side.metrics, side.admin) = (metrics, admin);
            side.stage = Stage::Apart(process, Some(pipe));
        } else {
            let bound = bind(places)?;
            (side.metrics, side.admin) = (bound.metrics, bound.admin);
            side.stage = Stage::Bound(Box::new(bound.server));
        }
        side.warn_of_strangers();
        Ok(side)
    }

    /// Returns the lines that tell where the pages and administrators are served.
    pub(crate) fn lines(&self) -> String {
        let metrics = self.metrics.iter().map(|at| format!("metrics on {at}\n"));
        let admin = self.admin.iter().map(|at| format!("admin on {at}\n"));
        metrics.chain(admin).collect()
    }

    /// Returns whether there is anything to serve.
    pub(crate) fn is_needed(&self) -> bool {
        !matches!(self.stage, Stage::None)
    }

    /// Returns what a process that replaces this one goes on with. There is nothing if the server is in a
    /// process of its own.
    pub(crate) fn listeners(&self) -> Option<SideListeners> {
        let Stage::Bound(server) = &self.stage else {
            return None;
        };
        let pages = self.metrics.iter().map(|_| &self.uris[0]);
        let uris = pages.chain(self.admin.iter().map(|_| &self.uris[1]));
        Some(SideListeners {
            sockets: server.open_sockets(),
            uris: uris.cloned().collect(),
            is_replaced: Arc::clone(&self.is_replaced),
            handle: server.shutdown_handle(),
        })
    }

    /// Returns why a process that serves pages cannot be replaced, if it cannot.
    pub(crate) fn objection(&self) -> Option<&'static str> {
        matches!(self.stage, Stage::Apart(..)).then_some(
            "with --model forking, the pages of --metrics and --admin are served by a process of their own, \
             which does not hand its sockets on",
        )
    }

    /// Serves from now on.
    ///
    /// # Errors
    /// Fails if the system has no thread left.
    pub(crate) fn start(&mut self, source: Source) -> io::Result<()> {
        if let Stage::Apart(_, pipe) = &mut self.stage {
            return match pipe.take() {
                Some(pipe) => link::answer_at(pipe, source.on_loop()),
                None => Ok(()),
            };
        }
        let Stage::Bound(server) = mem::take(&mut self.stage) else {
            return Ok(());
        };
        let handle = server.shutdown_handle();
        let clients = Clients::new(&source, self.metrics.len(), self.controls);
        let factory = Retiring::new(clients, Arc::clone(&self.is_replaced));
        let serve = move || {
            be_aside();
            threads::give_way();
            let served = server.with(factory).serve_forever();
            if let Err(error) = &served {
                log::warn!(target: TARGET, "pages and administrators are served no more: {error}");
            }
            served
        };
        let thread = threads::spawn("monitoring", serve)?;
        self.stage = Stage::Running(handle, thread);
        Ok(())
    }

    fn warn_of_strangers(&self) {
        for address in self.metrics.iter().filter(|address| !is_local(address)) {
            log::warn!(
                target: TARGET,
                "metrics on {address}: other machines can see who is connected, and no password keeps them out"
            );
        }
    }
}

impl Drop for SideServer {
    /// Ends the server, also while clients are connected. What they have asked is still answered.
    fn drop(&mut self) {
        match mem::take(&mut self.stage) {
            Stage::None | Stage::Bound(_) => {}
            Stage::Running(handle, thread) => {
                handle.shutdown();
                let _ = thread.join();
            }
            Stage::Apart(process, pipe) => {
                drop(pipe);
                link::close();
                apart::end(&process);
            }
        }
    }
}
