//! Listeners with TLS: a protocol without it at some, and the same inside TLS at others.

use std::sync::Arc;

use serveloop::{Ended, Factory, Peer};

use crate::serving::ListenerTls;
use crate::serving::listener_tls::Boxed;

/// The command's own options for TLS in the query of a listener.
pub(crate) const TLS_KEYS: [&str; 5] = ["cert", "key", "client-ca", "client-auth", "alpn"];

/// Makes protocols for the clients of listeners of which some have TLS. The protocols are boxed,
/// since they differ.
pub(super) struct Encrypted {
    /// By the listener's number.
    tls: Arc<[Option<ListenerTls>]>,
    make: Box<dyn Make>,
}

impl Encrypted {
    pub(super) fn new<F>(tls: Arc<[Option<ListenerTls>]>, factory: F) -> Self
    where
        F: Factory + Clone + Send + 'static,
        F::Protocol: Send + 'static,
    {
        let make = Box::new(factory);
        Self { tls, make }
    }
}

impl Clone for Encrypted {
    fn clone(&self) -> Self {
        Self {
            tls: Arc::clone(&self.tls),
            make: self.make.copy(),
        }
    }
}

impl Factory for Encrypted {
    type Protocol = Boxed;

    fn build_protocol(&mut self, peer: &Peer) -> Option<Boxed> {
        let number = peer.listener();
        let Some(tls) = number.and_then(|number| self.tls.get(number)?.as_ref()) else {
            return self.make.build(peer);
        };
        let mut make = self.make.copy();
        Some(tls.around(move |peer: &Peer| make.build(peer)))
    }

    fn handle_error(&mut self, ended: &Ended<'_>) {
        self.make.tell(ended);
    }
}

/// A factory whose protocol is not known, so that the models and the layer are compiled only once for
/// it.
///
/// Its `service_actions` is not called, because that knows the protocol. No factory here has one.
trait Make: Send {
    fn build(&mut self, peer: &Peer) -> Option<Boxed>;

    fn tell(&mut self, ended: &Ended<'_>);

    fn copy(&self) -> Box<dyn Make>;
}

impl<F> Make for F
where
    F: Factory + Clone + Send + 'static,
    F::Protocol: Send + 'static,
{
    fn build(&mut self, peer: &Peer) -> Option<Boxed> {
        let protocol = self.build_protocol(peer)?;
        Some(Box::new(protocol))
    }

    fn tell(&mut self, ended: &Ended<'_>) {
        self.handle_error(ended);
    }

    fn copy(&self) -> Box<dyn Make> {
        Box::new(self.clone())
    }
}
