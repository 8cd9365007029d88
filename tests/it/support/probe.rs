//! A protocol made of closures, which logs what it is called with.

use std::sync::{Arc, Mutex};
use std::time::Instant;

use serveloop::{Ended, Protocol, ProtocolError, Transport};

/// What a [`Probe`] was called with, in order; shared with the test.
#[derive(Clone, Debug, Default)]
pub(crate) struct Log(Arc<Mutex<Vec<String>>>);

impl Log {
    pub(crate) fn push(&self, entry: impl Into<String>) {
        self.0.lock().unwrap().push(entry.into());
    }

    pub(crate) fn entries(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }

    /// Returns the entries, and removes them.
    pub(crate) fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap())
    }

    pub(crate) fn count(&self, start: &str) -> usize {
        let entries = self.0.lock().unwrap();
        entries
            .iter()
            .filter(|entry| entry.starts_with(start))
            .count()
    }
}

type Outcome = Result<(), ProtocolError>;
type Hook = Box<dyn FnMut(&mut Transport<'_>) -> Outcome + Send>;
type DataHook = Box<dyn FnMut(&[u8], &mut Transport<'_>) -> Result<usize, ProtocolError> + Send>;
type EofHook = Box<dyn FnMut(&[u8], &mut Transport<'_>) -> Outcome + Send>;

/// A protocol that logs every call and does what closures say; without one, what the trait does by
/// default, and data is taken and dropped.
#[derive(Default)]
pub(crate) struct Probe {
    log: Log,
    made: Option<Hook>,
    data: Option<DataHook>,
    eof: Option<EofHook>,
    resume: Option<Hook>,
    timeout: Option<Hook>,
    woken: Option<Hook>,
    shutdown: Option<Hook>,
    lost: Option<Box<dyn FnMut() + Send>>,
    poll: Option<Box<dyn Fn() -> Option<Instant> + Send>>,
    dropped: OnDrop,
}

impl Probe {
    pub(crate) fn new(log: &Log) -> Self {
        Self {
            log: log.clone(),
            ..Self::default()
        }
    }

    /// Logs a call that the probe has no method for.
    pub(crate) fn note(&self, call: &str) {
        self.log.push(call);
    }

    pub(crate) fn made(
        mut self,
        hook: impl FnMut(&mut Transport<'_>) -> Outcome + Send + 'static,
    ) -> Self {
        self.made = Some(Box::new(hook));
        self
    }

    pub(crate) fn data(
        mut self,
        hook: impl FnMut(&[u8], &mut Transport<'_>) -> Result<usize, ProtocolError> + Send + 'static,
    ) -> Self {
        self.data = Some(Box::new(hook));
        self
    }

    pub(crate) fn eof(
        mut self,
        hook: impl FnMut(&[u8], &mut Transport<'_>) -> Outcome + Send + 'static,
    ) -> Self {
        self.eof = Some(Box::new(hook));
        self
    }

    pub(crate) fn resume(
        mut self,
        mut hook: impl FnMut(&mut Transport<'_>) + Send + 'static,
    ) -> Self {
        self.resume = Some(Box::new(move |transport| {
            hook(transport);
            Ok(())
        }));
        self
    }

    pub(crate) fn timeout(
        mut self,
        mut hook: impl FnMut(&mut Transport<'_>) + Send + 'static,
    ) -> Self {
        self.timeout = Some(Box::new(move |transport| {
            hook(transport);
            Ok(())
        }));
        self
    }

    pub(crate) fn woken(
        mut self,
        mut hook: impl FnMut(&mut Transport<'_>) + Send + 'static,
    ) -> Self {
        self.woken = Some(Box::new(move |transport| {
            hook(transport);
            Ok(())
        }));
        self
    }

    pub(crate) fn shutdown(
        mut self,
        mut hook: impl FnMut(&mut Transport<'_>) + Send + 'static,
    ) -> Self {
        self.shutdown = Some(Box::new(move |transport| {
            hook(transport);
            Ok(())
        }));
        self
    }

    pub(crate) fn lost(mut self, hook: impl FnMut() + Send + 'static) -> Self {
        self.lost = Some(Box::new(hook));
        self
    }

    pub(crate) fn poll(mut self, hook: impl Fn() -> Option<Instant> + Send + 'static) -> Self {
        self.poll = Some(Box::new(hook));
        self
    }

    pub(crate) fn dropped(mut self, hook: impl FnMut() + Send + 'static) -> Self {
        self.dropped = OnDrop(Some(Box::new(hook)));
        self
    }
}

impl Protocol for Probe {
    fn connection_made(&mut self, transport: &mut Transport<'_>) -> Outcome {
        self.log.push("made");
        self.made.as_mut().map_or(Ok(()), |hook| hook(transport))
    }

    fn data_received(
        &mut self,
        data: &[u8],
        transport: &mut Transport<'_>,
    ) -> Result<usize, ProtocolError> {
        self.log.push(format!("data {}", data.escape_ascii()));
        match &mut self.data {
            Some(hook) => hook(data, transport),
            None => Ok(data.len()),
        }
    }

    fn eof_received(&mut self, unread: &[u8], transport: &mut Transport<'_>) -> Outcome {
        self.log.push(format!("eof {}", unread.escape_ascii()));
        if let Some(hook) = &mut self.eof {
            return hook(unread, transport);
        }
        if !unread.is_empty() {
            return Err(ProtocolError::Truncated {
                unread: unread.len(),
            });
        }
        transport.close();
        Ok(())
    }

    fn resume_writing(&mut self, transport: &mut Transport<'_>) {
        self.log.push("resume");
        if let Some(hook) = &mut self.resume {
            let _ = hook(transport);
        }
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.poll.as_ref().and_then(|hook| hook())
    }

    fn handle_timeout(&mut self, transport: &mut Transport<'_>) {
        self.log.push("timeout");
        match &mut self.timeout {
            Some(hook) => drop(hook(transport)),
            None => transport.close(),
        }
    }

    fn woken(&mut self, transport: &mut Transport<'_>) {
        self.log.push("woken");
        if let Some(hook) = &mut self.woken {
            let _ = hook(transport);
        }
    }

    fn shutdown_requested(&mut self, transport: &mut Transport<'_>) {
        self.log.push("shutdown");
        match &mut self.shutdown {
            Some(hook) => drop(hook(transport)),
            None => transport.close(),
        }
    }

    fn connection_lost(&mut self, ended: &Ended<'_>) {
        let reason = ended.reason();
        self.log.push(format!("lost {reason}"));
        if let Some(hook) = &mut self.lost {
            hook();
        }
    }
}

/// What happens when the probe is dropped.
#[derive(Default)]
struct OnDrop(Option<Box<dyn FnMut() + Send>>);

impl Drop for OnDrop {
    fn drop(&mut self) {
        if let Some(hook) = &mut self.0 {
            hook();
        }
    }
}
