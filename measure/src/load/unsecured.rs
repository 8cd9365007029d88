//! What replaces TLS in a build without it.

use std::convert::Infallible;
use std::rc::Rc;

use serveloop::CloseReason;

use crate::load::Stage;
use crate::load::client::{Client, Course};
use crate::load::line::Line;

/// TLS for all connections of a load. In a build without TLS there is none.
#[derive(Clone, Debug)]
pub struct Secured(Infallible);

impl Secured {
    /// Returns whether connections are to resume sessions.
    #[must_use]
    pub fn resumes(&self) -> bool {
        match self.0 {}
    }

    pub(crate) fn opening_most(&self) -> Option<usize> {
        match self.0 {}
    }

    pub(crate) fn explain(&self, _: &CloseReason, _: Stage) -> Option<String> {
        match self.0 {}
    }

    pub(crate) fn around(&self, _: Client, _: &Rc<Course>) -> Line {
        match self.0 {}
    }
}
