//! The driver's buffer, which a session writes into for a turn.

use crate::session::buffer::Buffer;
use crate::session::clock::{Clock, Tick};
use crate::session::state::State;

impl State {
    #[inline]
    pub(super) fn lend(&mut self, scratch: &mut Option<Box<Buffer>>) {
        if self.output.is_none() {
            self.output = scratch.take();
        }
    }

    /// Takes the lent buffer back. Returns whether no output waits in a buffer of the session's own.
    #[inline]
    pub(super) fn reclaim(&mut self, scratch: &mut Option<Box<Buffer>>, clock: &Clock) -> bool {
        match &self.output {
            Some(output) if output.is_empty() && scratch.is_none() => {
                *scratch = self.output.take();
                true
            }
            None if scratch.is_some() => true,
            _ => {
                self.settle_output(scratch, clock.tick());
                self.output.is_none()
            }
        }
    }

    /// Handles the rare cases: output is left over, the session's own buffer has become empty, or
    /// the lent buffer was dropped with a failed connection.
    #[cold]
    fn settle_output(&mut self, scratch: &mut Option<Box<Buffer>>, now: Tick) {
        let output = self.output.take().filter(|output| !output.is_empty());
        if let Some(output) = &output {
            self.note_stalled(now);
            if scratch.is_none() {
                let mut own = Box::<Buffer>::default();
                own.push(output.as_slice());
                self.output = Some(own);
            }
        }

        match scratch {
            Some(_) => self.output = output,
            None => *scratch = Some(output.and_then(Buffer::into_scratch).unwrap_or_default()),
        }
    }
}
