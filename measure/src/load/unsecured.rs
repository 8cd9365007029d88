//! What replaces TLS in a build without it.

use std::convert::Infallible;

use serveloop::CloseReason;

use crate::load::stage::Stage;

/// TLS for all connections of a load. In a build without TLS there is none.
#[derive(Clone, Debug)]
pub struct Secured(Infallible);

impl Secured {
    pub(crate) fn opening_most(&self) -> Option<usize> {
        match self.0 {}
    }

    pub(crate) fn explain(&self, _: &CloseReason, _: Stage) -> Option<String> {
        match self.0 {}
    }

    pub(crate) fn never(&self) -> ! {
        match self.0 {}
    }
}
