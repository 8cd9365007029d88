//! A protocol that connects two connections with each other.

use std::any::Any;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::error::ProtocolError;
use crate::session::{Ended, Protocol, Transport};
use crate::waker::Waker;

/// One of two ends, each on a connection of its own: what comes in at one goes out at the other. It is
/// what a proxy or a tunnel has when it has found out where a client wants to go.
///
/// - A slow side slows the other down: while `high_water` bytes wait for one side, the other is not read.
/// - The end of a stream is passed on, after all bytes before it, while the other direction goes on.
/// - If a connection fails, or is never established, the other one is reset, because half a stream must
///   not look complete.
///
/// The two may be on different threads.
///
/// ```
/// use serveloop::protocols::Relay;
/// use serveloop::service::{Dialer, Dialing};
/// use serveloop::testing::MemoryServer;
/// use serveloop::{Address, Peer};
///
/// let target: Address = "tcp://192.0.2.1:7".parse()?;
/// let mut proxy = MemoryServer::new(Dialing::new(|dialer: &Dialer<Relay>| {
///     let (dialer, target) = (dialer.clone(), target.clone());
///     move |_: &Peer| {
///         let (near, far) = Relay::pair();
///         Some(near.keeping(dialer.connect(target.clone(), far)))
///     }
/// }));
///
/// let client = proxy.connect();
/// let (_, server) = proxy.next_outbound().expect("it connects");
/// proxy.send(client, b"question");
/// assert_eq!(proxy.received(server), b"question");
/// proxy.send(server, b"answer");
/// assert_eq!(proxy.received(client), b"answer");
/// # Ok::<(), serveloop::net::AddressError>(())
/// ```
pub struct Relay {
    sides: Arc<Mutex<[Side; 2]>>,
    /// Which of the two this is.
    here: usize,
    kept: Option<Box<dyn Any + Send>>,
}

/// What one connection is to do for the other.
#[derive(Default)]
struct Side {
    output: Vec<u8>,
    /// The stream of the other connection has ended, after that output.
    has_end: bool,
    /// The other connection is lost.
    is_cut: bool,
    waker: Option<Waker>,
}

impl Relay {
    /// Creates both ends.
    #[must_use]
    pub fn pair() -> (Self, Self) {
        let sides = Arc::<Mutex<[Side; 2]>>::default();
        let end = |here| Self {
            sides: Arc::clone(&sides),
            here,
            kept: None,
        };
        (end(0), end(1))
    }

    /// Keeps `value` until this end is dropped, which is when its connection is lost: for example the
    /// [`Dial`](crate::service::Dial) of the other end.
    #[must_use]
    pub fn keeping(mut self, value: impl Any + Send) -> Self {
        self.kept = Some(Box::new(value));
        self
    }

    /// Adds bytes that go out on this end before what comes in on the other: before the connection is
    /// made, or between two calls. For a header, or for what was read from a client to find out where it
    /// wants to go.
    pub fn push(&self, data: &[u8]) {
        let mut sides = self.sides();
        sides[self.here].output.extend_from_slice(data);
        wake(&sides[self.here]);
    }

    fn sides(&self) -> MutexGuard<'_, [Side; 2]> {
        self.sides.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Passes on what has come, and does what this connection is to do now.
    fn pass(&self, data: &[u8], ends: bool, transport: &mut Transport<'_>) {
        let mut sides = self.sides();
        let [near, far] = &mut *sides;
        let (mine, other) = match self.here {
            0 => (near, far),
            _ => (far, near),
        };

        other.output.extend_from_slice(data);
        other.has_end |= ends;
        let sent = transport.write_some(&mine.output);
        mine.output.drain(..sent);
        transport.charge(mine.output.len());
        let wakes = sent > 0 || ends || !data.is_empty();
        let waker = other.waker.clone().filter(|_| wakes);

        if other.output.len() < transport.limits().high_water {
            transport.resume_reading();
        } else {
            transport.pause_reading();
        }
        if mine.is_cut {
            transport.abort();
        } else if mine.has_end && mine.output.is_empty() {
            // With both ends passed on there is nothing left to do.
            if other.has_end {
                transport.close();
            } else {
                transport.finish();
            }
        }

        // Unlock first, because a driver may run its sessions in its wake.
        drop(sides);
        waker.iter().for_each(Waker::wake);
    }
}

/// Wakes the connection of a side, which may not be established yet.
fn wake(side: &Side) {
    side.waker.iter().for_each(Waker::wake);
}

impl Protocol for Relay {
    fn connection_made(&mut self, transport: &mut Transport<'_>) -> Result<(), ProtocolError> {
        self.sides()[self.here].waker = Some(transport.waker());
        self.pass(&[], false, transport);
        Ok(())
    }

    fn data_received(
        &mut self,
        data: &[u8],
        transport: &mut Transport<'_>,
    ) -> Result<usize, ProtocolError> {
        self.pass(data, false, transport);
        Ok(data.len())
    }

    fn eof_received(
        &mut self,
        _: &[u8],
        transport: &mut Transport<'_>,
    ) -> Result<(), ProtocolError> {
        self.pass(&[], true, transport);
        Ok(())
    }

    fn resume_writing(&mut self, transport: &mut Transport<'_>) {
        self.pass(&[], false, transport);
    }

    fn woken(&mut self, transport: &mut Transport<'_>) {
        self.pass(&[], false, transport);
    }

    fn connection_lost(&mut self, ended: &Ended<'_>) {
        let mut sides = self.sides();
        let [mine, other] = [self.here, 1 - self.here];
        let has_all = sides[mine].has_end && sides[mine].output.is_empty();
        let is_whole = has_all && sides[other].has_end && ended.unsent() == 0;
        sides[other].is_cut = !is_whole;
        wake(&sides[other]);
    }

    fn needs_stream() -> bool {
        true
    }
}

impl fmt::Debug for Relay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Relay")
            .field("here", &self.here)
            .finish_non_exhaustive()
    }
}
