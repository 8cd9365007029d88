//! How a session shows a tap what its protocol writes.

use std::io::Read;
use std::sync::Arc;

use crate::session::Transport;
use crate::session::state::{FINISHED, LIMITED, State};
use crate::session::tap::{OwnTap, Tap};

impl State {
    /// Shows a tap all that is written from now on.
    pub(super) fn set_tap(&mut self, tap: Arc<dyn Tap>) {
        let extra = self.extra();
        extra.tap = Some(OwnTap::with_earlier(extra.tap.take(), tap));
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
            Some(tap) => tap.source(source),
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
