//! The process that serves the pages of a server that forks.

use std::io::{self, BufRead, BufReader, ErrorKind, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};
use std::{process, thread};

use rustix::net::RecvFlags;
use rustix::process::getppid;
use serveloop::{Actions, Address, Factory, Peer, ShutdownHandle};

use crate::logger::be_aside;
use crate::monitoring::asking::Asking;
use crate::monitoring::bound::Bound;
use crate::monitoring::clients::Clients;
use crate::monitoring::source::Source;
use crate::signals::ignore_all;
use crate::sys::Apart;
use crate::threads::give_way;

/// How often the process looks whether its server is still there.
const EVERY: Duration = Duration::from_millis(200);

/// How often it asks the server for what it needs while the server does not answer.
const REFRESHED_EVERY: Duration = Duration::from_secs(1);

/// How long the process may take to end in order.
const ENDS_WITHIN: Duration = Duration::from_secs(2);
const ENDED_EVERY: Duration = Duration::from_millis(5);

/// Starts the process, which binds what `bind` does. Returns it, the pipe to it, and where it listens.
///
/// # Errors
/// It could not be started, or not bind.
pub(super) fn start(
    bind: impl FnOnce() -> io::Result<Bound>,
    controls: bool,
) -> io::Result<(Apart, UnixStream, [Vec<Address>; 2])> {
    let (ours, theirs) = UnixStream::pair()?;
    let Some(process) = Apart::fork(ignore_all)? else {
        drop(ours);
        serve(bind, controls, theirs);
    };
    drop(theirs);

    // No more than the line is read: questions may follow it, which are for the loop.
    let mut heard = String::new();
    BufReader::with_capacity(1, &ours).read_line(&mut heard)?;
    let bound: Result<[Vec<String>; 2], String> = serde_json::from_str(&heard)?;
    let bound = bound.map_err(io::Error::other)?;
    let addresses = bound.map(|all| all.iter().filter_map(|uri| uri.parse().ok()).collect());
    Ok((process, ours, addresses))
}

/// Waits for the end of the process, and ends it if that takes too long.
pub(super) fn end(process: &Apart) {
    let attempts = ENDS_WITHIN.as_millis() / ENDED_EVERY.as_millis();
    for _ in 0..attempts {
        if process.has_ended() {
            return;
        }
        thread::sleep(ENDED_EVERY);
    }
    process.kill();
}

/// What the process does.
fn serve(bind: impl FnOnce() -> io::Result<Bound>, controls: bool, pipe: UnixStream) -> ! {
    be_aside();
    let served = run(bind, controls, pipe);
    process::exit(i32::from(served.is_err()))
}

fn run(
    bind: impl FnOnce() -> io::Result<Bound>,
    controls: bool,
    mut pipe: UnixStream,
) -> io::Result<()> {
    let bound = bind();
    let told = match &bound {
        Ok(bound) => {
            let uris = |all: &[Address]| all.iter().map(ToString::to_string).collect();
            Ok::<[Vec<String>; 2], String>([uris(&bound.metrics), uris(&bound.admin)])
        }
        Err(error) => Err(error.to_string()),
    };
    let line = serde_json::to_string(&told)? + "\n";
    pipe.write_all(line.as_bytes())?;

    let Bound {
        server, metrics, ..
    } = bound?;
    let source = Source::over(Asking::new(pipe.try_clone()?)?);
    let attentive = Attentive {
        source: source.clone(),
        next: Instant::now(),
        clients: Clients::new(&source, metrics.len(), controls),
        pipe,
        parent: getppid(),
        handle: server.shutdown_handle(),
    };
    give_way();
    server.with(attentive).serve_forever()?;
    Ok(())
}

/// A factory that ends its server when the one that it serves pages of has ended.
struct Attentive {
    source: Source,
    /// When the server is asked again.
    next: Instant,
    clients: Clients,
    pipe: UnixStream,
    parent: Option<rustix::process::Pid>,
    handle: ShutdownHandle,
}

impl Factory for Attentive {
    type Protocol = <Clients as Factory>::Protocol;

    fn build_protocol(&mut self, peer: &Peer) -> Option<Self::Protocol> {
        self.clients.build_protocol(peer)
    }

    fn service_actions(&mut self, actions: &mut Actions<'_, Self::Protocol>) {
        self.clients.service_actions(actions);

        let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
        let peeked = rustix::net::recv(&self.pipe, &mut [0; 1], flags);
        let is_ended = match peeked {
            Ok((_, count)) => count == 0,
            Err(error) => !matches!(
                io::Error::from(error).kind(),
                ErrorKind::WouldBlock | ErrorKind::Interrupted
            ),
        };
        // Children of the server may hold its end of the pipe longer than it lives.
        if is_ended || getppid() != self.parent {
            self.handle.abort();
        }

        if self.next <= actions.now() {
            self.source.refresh();
            self.next = actions.now() + REFRESHED_EVERY;
        }
        actions.call_again(EVERY);
    }
}
