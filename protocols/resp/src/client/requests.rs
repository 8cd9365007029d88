//! The protocol of a connection for requests.

use std::{fmt, mem};

use serveloop::service::Link;
use serveloop::{Ended, Protocol, ProtocolError, Transport};

use crate::client::scanner::Scanner;
use crate::client::{Value, request};

/// The protocol of an upstream's connection to a Redis. It writes requests, made by [`request`], and
/// answers each with a [`Value`], an error of the server too. See the [module](crate::client) for an
/// example.
///
/// An answer has at most [`max_frame`](serveloop::Limits::max_frame) bytes. Whatever is no answer ends
/// the connection. Requests that change what the server sends, such as `SUBSCRIBE`, `MONITOR` and
/// `CLIENT REPLY`, must not be made: a [`Subscription`](crate::client::Subscription) is for channels.
pub struct Requests {
    link: Link<Value>,
    scanner: Scanner,
    login: Vec<u8>,
    /// How many answers to the login are missing.
    missing: usize,
}

impl Requests {
    /// Creates the protocol around the upstream's link.
    #[must_use]
    pub fn new(link: Link<Value>) -> Self {
        Self {
            link,
            scanner: Scanner::default(),
            login: Vec::new(),
            missing: 0,
        }
    }

    /// Adds a request that is made on each connection before all others, such as `AUTH` or `SELECT`. If it
    /// fails, the connection does, and the upstream tries again later.
    ///
    /// ```no_run
    /// # use serveloop::service::Link;
    /// use serveloop_resp::client::{Requests, Value};
    ///
    /// fn make(link: Link<Value>) -> Requests {
    ///     Requests::new(link).with_login(&[b"AUTH", b"secret"]).with_login(&[b"SELECT", b"2"])
    /// }
    /// # let _ = make;
    /// ```
    #[must_use]
    pub fn with_login(mut self, words: &[&[u8]]) -> Self {
        self.login.extend(request(words));
        self.missing += 1;
        self
    }

    fn handle(&mut self, value: Value, transport: &mut Transport<'_>) -> Result<(), ProtocolError> {
        if self.missing > 0 {
            if let Value::Error(text) = value {
                return Err(format!("the login failed: {}", text.escape_ascii()))?;
            }
            self.missing -= 1;
            if self.missing == 0 {
                self.link.ready(transport);
            }
            return Ok(());
        }

        match value {
            Value::Push(_) => Ok(()),
            value => match self.link.answer(value) {
                true => Ok(()),
                false => Err("an answer to no request")?,
            },
        }
    }
}

impl Protocol for Requests {
    fn connection_made(&mut self, transport: &mut Transport<'_>) -> Result<(), ProtocolError> {
        if self.missing == 0 {
            self.link.ready(transport);
        } else {
            transport.write(&self.login);
        }
        Ok(())
    }

    fn data_received(
        &mut self,
        data: &[u8],
        transport: &mut Transport<'_>,
    ) -> Result<usize, ProtocolError> {
        let mut scanner = mem::take(&mut self.scanner);
        let taken = scanner.take(data, transport, |value, transport| {
            self.handle(value, transport)
        })?;
        self.scanner = scanner;
        self.link.send(transport);
        Ok(taken)
    }

    fn resume_writing(&mut self, transport: &mut Transport<'_>) {
        self.link.send(transport);
    }

    fn woken(&mut self, transport: &mut Transport<'_>) {
        self.link.send(transport);
    }

    fn shutdown_requested(&mut self, transport: &mut Transport<'_>) {
        self.link.finish(transport);
    }

    fn connection_lost(&mut self, _: &Ended<'_>) {
        self.link.lost();
    }

    fn needs_stream() -> bool {
        true
    }
}

impl fmt::Debug for Requests {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Requests")
            .field("link", &self.link)
            .finish_non_exhaustive()
    }
}
