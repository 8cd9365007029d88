//! A socket that another program has opened for this one.

use std::hash::{Hash, Hasher};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;

/// A bound socket, shared by all copies of a [`Listen`](crate::Listen). Two are equal if they are the
/// same descriptor.
#[derive(Clone, Debug)]
pub(crate) struct PassedSocket(pub(crate) Arc<OwnedFd>);

impl PartialEq for PassedSocket {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_raw_fd() == other.0.as_raw_fd()
    }
}

impl Eq for PassedSocket {}

impl Hash for PassedSocket {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.as_raw_fd().hash(state);
    }
}
