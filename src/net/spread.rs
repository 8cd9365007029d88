//! Connections that are accepted on one loop of a server and served on another, so that each loop has as
//! many as the others. The system chooses a loop by the client's address, or lets the loops race, and
//! does neither evenly.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, MutexGuard};

use socket2::Socket;

use crate::address::Address;
use crate::waker::sync::lock;

/// How many connections more than the others a loop may have taken before it hands one over. A handover
/// costs a lock and sometimes a wake, and the system's choice is right in the long run.
const AHEAD: usize = 1;

/// As a share of what a loop has taken: one part in this many.
const AHEAD_PART: usize = 32;

type Accepted = (Socket, Address);

/// What the loops of one server know of each other, for one of its listeners.
#[derive(Debug)]
struct Spread {
    loops: Mutex<Vec<Inbox>>,
}

/// The connections that other loops have accepted for one.
#[derive(Debug)]
struct Inbox {
    waiting: VecDeque<Accepted>,
    /// How many connections the loop has got, from wherever.
    taken: usize,
    /// Ends the loop's wait. None as long as it does not watch its end.
    bell: Option<UnixStream>,
    /// The loop accepts connections.
    is_open: bool,
}

/// One loop's part in the connections of a listener that all loops have.
#[derive(Debug)]
pub(crate) struct Share {
    spread: Arc<Spread>,
    /// The place of the loop.
    own: usize,
    /// What the others ring.
    rung: UnixStream,
}

/// What is to be done with a connection that a loop has accepted.
#[derive(Debug)]
pub(crate) enum Placed {
    /// Serve it.
    Here(Accepted),
    /// Another loop does.
    Elsewhere,
}

impl Share {
    /// Returns the shares of `loops` loops in one listener.
    ///
    /// # Errors
    /// The system has no descriptors left.
    pub(crate) fn of(loops: usize) -> io::Result<Vec<Self>> {
        let (mut inboxes, mut ends) = (Vec::new(), Vec::new());
        for _ in 0..loops {
            let (bell, rung) = UnixStream::pair()?;
            bell.set_nonblocking(true)?;
            rung.set_nonblocking(true)?;
            inboxes.push(Inbox {
                waiting: VecDeque::new(),
                taken: 0,
                bell: Some(bell),
                is_open: true,
            });
            ends.push(rung);
        }

        let spread = Arc::new(Spread {
            loops: Mutex::new(inboxes),
        });
        let shares = ends.into_iter().enumerate();
        Ok(shares
            .map(|(own, rung)| Self {
                spread: Arc::clone(&spread),
                own,
                rung,
            })
            .collect())
    }

    /// Returns a connection that another loop has accepted for this one.
    pub(crate) fn take(&self) -> Option<Accepted> {
        let taken = self.loops()[self.own].waiting.pop_front();
        if taken.is_none() {
            // Rung again for what comes from now on. What came meanwhile has rung before this is read.
            self.silence();
        }
        taken.or_else(|| self.loops()[self.own].waiting.pop_front())
    }

    /// Decides where a connection is served that this loop has accepted.
    pub(crate) fn place(&self, accepted: Accepted) -> Placed {
        let mut loops = self.loops();
        let own = loops[self.own].taken;
        let open = loops.iter().enumerate().filter(|(_, inbox)| inbox.is_open);
        let least = open.min_by_key(|(_, inbox)| inbox.taken);
        let to = match least {
            Some((least, inbox)) if inbox.taken + AHEAD + own / AHEAD_PART <= own => least,
            _ => self.own,
        };

        loops[to].taken += 1;
        if to == self.own {
            return Placed::Here(accepted);
        }
        loops[to].hand_over(accepted);
        Placed::Elsewhere
    }

    /// Notes that this loop accepts nothing more that others might hand over. What they have handed
    /// over already can still be [taken](Self::take).
    pub(crate) fn close(&self) {
        self.loops()[self.own].is_open = false;
    }

    fn silence(&self) {
        let mut bytes = [0; 64];
        // It is not blocking, and others ring only if nothing waits.
        while matches!((&self.rung).read(&mut bytes), Ok(count) if count == bytes.len()) {}
    }

    fn loops(&self) -> MutexGuard<'_, Vec<Inbox>> {
        lock(&self.spread.loops)
    }
}

impl Inbox {
    fn hand_over(&mut self, accepted: Accepted) {
        let was_empty = self.waiting.is_empty();
        self.waiting.push_back(accepted);
        if was_empty {
            if let Some(bell) = &mut self.bell {
                // A bell that takes no more bytes was rung often enough.
                let _ = bell.write(&[1]);
            }
        }
    }
}

impl AsFd for Share {
    /// Returns what becomes readable when another loop has handed a connection over.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.rung.as_fd()
    }
}

impl Drop for Share {
    /// Leaves what others have accepted for this loop to those that go on.
    fn drop(&mut self) {
        let mut loops = self.loops();
        loops[self.own].is_open = false;
        loops[self.own].bell = None;
        let left: Vec<_> = loops[self.own].waiting.drain(..).collect();
        for accepted in left {
            let open = loops.iter_mut().filter(|inbox| inbox.is_open);
            if let Some(inbox) = open.min_by_key(|inbox| inbox.taken) {
                inbox.taken += 1;
                inbox.hand_over(accepted);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A socket, as if it had been accepted, with a name to know it by.
    fn accepted(name: usize) -> Accepted {
        let (stream, _) = UnixStream::pair().unwrap();
        (
            Socket::from(std::os::fd::OwnedFd::from(stream)),
            Address::Unix(name.to_string().into()),
        )
    }

    fn is_rung(share: &Share) -> bool {
        crate::sys::has_input(share.as_fd())
    }

    fn taken(share: &Share) -> usize {
        std::iter::from_fn(|| share.take()).count()
    }

    #[test]
    fn whoever_accepts_all_loops_get_as_many() {
        let shares = Share::of(4).unwrap();
        let mut here = 0;
        for name in 0..1_000 {
            here += usize::from(matches!(shares[0].place(accepted(name)), Placed::Here(_)));
        }
        let counts: Vec<_> = shares.iter().map(taken).collect();
        assert_eq!(here + counts.iter().sum::<usize>(), 1_000);
        for count in counts[1..].iter().copied().chain([here]) {
            assert!((225..=275).contains(&count), "{here} and {counts:?}");
        }
    }

    #[test]
    fn a_loop_whose_turn_it_is_keeps_what_it_has_accepted() {
        let shares = Share::of(2).unwrap();
        for name in 0..100 {
            let placed = shares[name % 2].place(accepted(name));
            assert!(matches!(placed, Placed::Here(_)), "{name}");
        }
        assert!(!is_rung(&shares[0]) && !is_rung(&shares[1]));
    }

    /// A loop that ends takes that before it closes its listener, since no other loop may be left to do it.
    #[test]
    fn a_loop_that_accepts_no_more_still_has_what_it_was_given() {
        let shares = Share::of(2).unwrap();
        let place = |name| matches!(shares[0].place(accepted(name)), Placed::Elsewhere);
        let elsewhere = (0..10).filter(|name| place(*name)).count();
        assert!(elsewhere > 0);
        shares[1].close();
        assert!(!(10..20).any(place));
        assert_eq!(taken(&shares[1]), elsewhere);
    }

    #[test]
    fn the_bell_rings_again_when_all_was_taken() {
        let shares = Share::of(2).unwrap();
        for round in 0..3 {
            let mut elsewhere = 0;
            for name in 0..10 {
                let placed = shares[0].place(accepted(name));
                elsewhere += usize::from(matches!(placed, Placed::Elsewhere));
            }
            assert!(is_rung(&shares[1]), "round {round}");
            assert_eq!(taken(&shares[1]), elsewhere);
            assert!(!is_rung(&shares[1]), "round {round}");
        }
    }

    #[test]
    fn what_waits_for_a_loop_that_ends_is_left_to_the_others() {
        let mut shares = Share::of(3).unwrap();
        let mut here = 0;
        for name in 0..30 {
            here += usize::from(matches!(shares[0].place(accepted(name)), Placed::Here(_)));
        }
        drop(shares.remove(1));
        let counts: Vec<_> = shares.iter().map(taken).collect();
        assert_eq!(here + counts.iter().sum::<usize>(), 30);

        // One that is about to end takes what it was given, and gets nothing more.
        shares[1].close();
        for name in 0..10 {
            assert!(matches!(shares[0].place(accepted(name)), Placed::Here(_)));
        }
    }
}
