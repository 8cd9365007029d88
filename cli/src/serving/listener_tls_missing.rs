//! What stands for TLS in a command that is built without it.

use serveloop::Peer;

use crate::failure::Failure;
use crate::serving::boxed_factory::Boxed;

/// The TLS of a listener, of which there is none.
#[derive(Clone, Debug)]
pub(crate) enum ListenerTls {}

impl ListenerTls {
    /// Says that there is no TLS.
    pub(crate) fn load(uri: &str, _: &[(String, String)]) -> Result<Self, Failure> {
        let problem = "this serveloop was built without TLS, its feature tls";
        Err(Failure::Usage(format!("{uri:?}: {problem}")))
    }

    pub(crate) fn reload(&self) {
        match *self {}
    }

    pub(super) fn around(&self, _: impl FnMut(&Peer) -> Option<Boxed> + Send + 'static) -> Boxed {
        match *self {}
    }
}
