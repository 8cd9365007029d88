//! Model checks of what serveloop shares between threads: the pool of [`Offload`], the mailbox of
//! wakers, outboxes and groups, attempts to connect, and the requests of a shutdown.
//!
//! The modules are the library's own, taken in by their paths. Only `waker::sync` is another: the
//! model checker [loom](https://docs.rs/loom) has locks and threads of its own, with which it runs each
//! check once for every order of their steps, up to a number of preemptions. Run them with
//! `cargo run --release -p serveloop-loom`, or one of them with `-- NAME`.
//!
//! [`Offload`]: https://docs.rs/serveloop
#![allow(
    clippy::needless_pass_by_ref_mut,
    dead_code,
    unreachable_pub,
    reason = "modules of the library, of which a part is checked here"
)]

mod checks;
#[path = "../../src/error.rs"]
mod error;
#[path = "../../src/shutdown.rs"]
mod shutdown;
#[path = "../../src/waker/mod.rs"]
mod waker;

// The paths inside count from here.
#[path = "."]
mod service {
    #[path = "../../src/service/group.rs"]
    pub(crate) mod group;
    #[path = "../../src/service/job.rs"]
    pub(crate) mod job;
    #[path = "../../src/service/offload.rs"]
    pub(crate) mod offload;

    pub use crate::session::{Outbox, Post, PostError};
    pub use group::{Group, Lagging};
    pub use job::{Job, JobError};
    pub use offload::{Offload, OffloadLimits, Rejection};
}

#[path = "."]
mod session {
    #[path = "../../src/session/clock.rs"]
    mod clock;
    #[path = "../../src/session/outbox.rs"]
    mod outbox;
    #[path = "../../src/session/ticket.rs"]
    mod ticket;

    use crate::address::Peer;
    use crate::waker::Waker;

    pub use clock::Tick;
    pub use outbox::{Outbox, Post, PostError};
    pub(crate) use ticket::Ticket;

    /// Makes the outbox of a connection with room for `most` bytes.
    pub(crate) fn outbox(waker: &Waker, id: u64, most: usize) -> Outbox {
        Outbox::new(waker, Peer::new(id), most)
    }

    /// Takes the next post, as a connection with room does.
    pub(crate) fn take(outbox: &Outbox) -> Option<Post> {
        outbox.take(false).ok()
    }

    /// Ends the outbox, as a connection that is lost does. Returns how many bytes are dropped.
    pub(crate) fn end(outbox: &Outbox) -> usize {
        outbox.end_all()
    }
}

/// A peer, of which only the number matters here.
mod address {
    #[derive(Clone, Debug)]
    pub struct Peer(u64);

    impl Peer {
        pub(crate) fn new(id: u64) -> Self {
            Self(id)
        }

        pub(crate) fn id(&self) -> u64 {
            self.0
        }
    }
}

/// A system whose sockets take every byte, which is all that a shutdown needs of them here.
mod sys {
    use std::io;
    use std::os::fd::BorrowedFd;
    use std::os::unix::net::UnixStream;

    pub(crate) fn send(_: &UnixStream, data: &[u8]) -> io::Result<usize> {
        Ok(data.len())
    }

    pub(crate) fn has_input(_: BorrowedFd<'_>) -> bool {
        false
    }

    pub(crate) fn is_asked_to_end() -> bool {
        false
    }
}

fn main() {
    let filter = std::env::args().nth(1).unwrap_or_default();
    let chosen = checks::ALL
        .iter()
        .filter(|(name, _)| name.contains(&filter));
    for (name, check) in chosen {
        let begun = std::time::Instant::now();
        check();
        println!("{name}: ok, in {:.1?}", begun.elapsed());
    }
}
