//! The TLS sessions that the connections of a load resume.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serveloop::layer::tls::rustls::NamedGroup;
use serveloop::layer::tls::rustls::client::{
    ClientSessionStore, Resumption, Tls12ClientSessionValue, Tls13ClientSessionValue,
};
use serveloop::layer::tls::rustls::pki_types::ServerName;

/// The sessions with one server that can be resumed. rustls's own store keeps eight tickets, too few
/// for a load whose connections come and go together: a ticket of TLS 1.3 is used only once.
#[derive(Debug)]
pub struct Tickets {
    most: usize,
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    group: Option<NamedGroup>,
    /// The session of TLS 1.2, which any number of connections can resume.
    session: Option<Tls12ClientSessionValue>,
    /// The tickets of TLS 1.3, the oldest first.
    tickets: VecDeque<Tls13ClientSessionValue>,
}

impl Tickets {
    /// Returns a store that keeps up to `most` tickets, and drops the oldest to keep a new one.
    #[must_use]
    pub fn new(most: usize) -> Arc<Self> {
        Arc::new(Self {
            most: most.max(1),
            kept: Mutex::default(),
        })
    }

    /// Returns what makes a client's configuration use these tickets, for
    /// [`ClientTlsBuilder::resumption`](serveloop::layer::tls::ClientTlsBuilder::resumption).
    #[must_use]
    pub fn resumption(self: &Arc<Self>) -> Resumption {
        Resumption::store(Arc::clone(self) as _)
    }

    /// Returns how many connections could resume a session now. It is at most `most`.
    #[must_use]
    pub fn usable(&self) -> usize {
        let kept = self.kept();
        match kept.session {
            Some(_) => self.most,
            None => kept.tickets.len(),
        }
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// All connections are to one server, so its name is not looked at.
impl ClientSessionStore for Tickets {
    fn set_kx_hint(&self, _: ServerName<'static>, group: NamedGroup) {
        self.kept().group = Some(group);
    }

    fn kx_hint(&self, _: &ServerName<'_>) -> Option<NamedGroup> {
        self.kept().group
    }

    fn set_tls12_session(&self, _: ServerName<'static>, value: Tls12ClientSessionValue) {
        self.kept().session = Some(value);
    }

    fn tls12_session(&self, _: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        self.kept().session.clone()
    }

    fn remove_tls12_session(&self, _: &ServerName<'static>) {
        self.kept().session = None;
    }

    fn insert_tls13_ticket(&self, _: ServerName<'static>, value: Tls13ClientSessionValue) {
        let mut kept = self.kept();
        if kept.tickets.len() >= self.most {
            kept.tickets.pop_front();
        }
        kept.tickets.push_back(value);
    }

    fn take_tls13_ticket(&self, _: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        self.kept().tickets.pop_back()
    }
}
