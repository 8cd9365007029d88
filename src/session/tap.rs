//! A view of what a connection's protocol writes, for a record of the connection.

use std::fmt;
use std::io::{self, Read};
use std::sync::Arc;

/// Is shown what a protocol writes, in order.
pub(crate) trait Tap: Send + Sync {
    fn wrote(&self, data: &[u8]);
}

/// The tap of a session. Its owner has the flag `LIMITED`, so that others do not look for one.
#[derive(Clone)]
pub(super) struct OwnTap(pub(super) Arc<dyn Tap>);

impl OwnTap {
    /// Returns a tap that also shows what it is shown to an `earlier` one.
    pub(super) fn with_earlier(earlier: Option<Self>, tap: Arc<dyn Tap>) -> Self {
        Self(match earlier {
            Some(earlier) => Arc::new(Both(earlier, tap)),
            None => tap,
        })
    }

    /// Returns a source whose bytes the tap is shown when they are read.
    pub(super) fn source(&self, source: impl Read + Send + 'static) -> Box<dyn Read + Send> {
        Box::new(TappedSource {
            source,
            tap: self.clone(),
        })
    }
}

impl fmt::Debug for OwnTap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OwnTap")
    }
}

/// Two taps, of which one was there before.
struct Both(OwnTap, Arc<dyn Tap>);

impl Tap for Both {
    fn wrote(&self, data: &[u8]) {
        self.0.0.wrote(data);
        self.1.wrote(data);
    }
}

/// A source whose bytes a tap is shown when they are read.
struct TappedSource<S> {
    source: S,
    tap: OwnTap,
}

impl<S: Read> Read for TappedSource<S> {
    fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        let count = self.source.read(room)?;
        // A source that claims more than there is room for fails in the queue, not here.
        self.tap.0.wrote(&room[..count.min(room.len())]);
        Ok(count)
    }
}
