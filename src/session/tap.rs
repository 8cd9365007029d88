//! A view of what a connection's protocol writes, for a record of the connection.

use std::fmt;
use std::io::{self, Read};
use std::sync::Arc;

use crate::session::Transport;
use crate::session::state::{FINISHED, LIMITED, State};

/// Is shown what a protocol writes, in order.
pub(crate) trait Tap: Send + Sync {
    fn wrote(&self, data: &[u8]);
}

/// The tap of a session. Its owner has the flag [`LIMITED`], so that nobody else looks for one.
#[derive(Clone)]
pub(super) struct OwnTap(Arc<dyn Tap>);

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

impl State {
    /// Shows a tap all that is written from now on.
    pub(super) fn set_tap(&mut self, tap: Arc<dyn Tap>) {
        let extra = self.extra();
        extra.tap = Some(OwnTap(match extra.tap.take() {
            Some(earlier) => Arc::new(Both(earlier, tap)),
            None => tap,
        }));
        self.flags.set(LIMITED);
    }

    #[inline]
    pub(super) fn tap(&self) -> Option<&OwnTap> {
        if !self.flags.any(LIMITED) {
            return None;
        }
        self.extra.as_ref().and_then(|extra| extra.tap.as_ref())
    }

    /// Shows the tap what was written, if there is one.
    #[inline]
    pub(super) fn note_written(&self, data: &[u8]) {
        if let Some(tap) = self.tap() {
            tap.0.wrote(data);
        }
    }
}

impl Transport<'_> {
    /// Shows a tap all that the protocol writes from now on. An earlier tap is shown it too.
    pub(crate) fn set_tap(&mut self, tap: Arc<dyn Tap>) {
        self.state.set_tap(tap);
    }

    /// Returns a source whose bytes the tap is shown, if there is one.
    pub(super) fn tapped(
        &self,
        source: impl Read + Send + 'static,
    ) -> Box<dyn Read + Send + 'static> {
        match self.state.tap() {
            Some(tap) => Box::new(TappedSource {
                source,
                tap: tap.clone(),
            }),
            None => Box::new(source),
        }
    }

    /// Shows the tap the output behind its first `count` bytes, which a session inside has written.
    #[inline]
    pub(crate) fn note_passed(&self, count: usize) {
        if self.state.tap().is_some() {
            let output = self.state.output.as_ref();
            let output = output.map_or(&[][..], |output| output.as_slice());
            let passed = output.get(count..).unwrap_or_default();
            if !passed.is_empty() {
                self.state.note_written(passed);
            }
        }
    }

    /// Returns whether our side of the stream ends when all output is sent, by
    /// [`finish`](Transport::finish).
    pub(crate) fn is_finishing(&self) -> bool {
        self.state.flags.any(FINISHED)
    }
}
