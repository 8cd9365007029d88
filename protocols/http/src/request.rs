//! A request as a handler sees it.

use std::str;
use std::time::Instant;

use httparse::Header;
use serveloop::{Peer, Transport, Waker};

/// The version of HTTP that a request is written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    /// HTTP/1.0: a connection ends after a response unless the client asks that it goes on.
    Http10,
    /// HTTP/1.1.
    Http11,
}

/// The head of a request that keeps to the rules. It is borrowed from the connection's input, so a
/// handler that needs a part of it later keeps a copy of that part.
///
/// ```
/// use serveloop_http::{Request, Response};
///
/// fn greet(request: &Request<'_>) -> Response {
///     let name = request.query().unwrap_or("stranger");
///     match request.path() {
///         "/hello" => Response::text(format!("hello, {name}\n")),
///         _ => Response::new(404),
///     }
/// }
/// ```
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Request<'a> {
    /// The method, in the capitals that the client used.
    pub method: &'a str,
    /// The target as the client wrote it: a path with an optional query, a whole URI, or `*`. Nothing
    /// in it is decoded. It has only visible ASCII characters.
    pub target: &'a str,
    /// The version of HTTP.
    pub version: Version,
    /// The header fields.
    pub headers: Headers<'a>,
    pub(crate) upgrade: Option<&'a str>,
    pub(crate) length: Option<u64>,
    pub(crate) transport: &'a Transport<'a>,
}

impl<'a> Request<'a> {
    /// Returns the part of the target before the query, without the scheme and host that a client of
    /// a proxy adds. Nothing is decoded. `*` stays what it is.
    #[must_use]
    pub fn path(&self) -> &'a str {
        let path = self.after_authority();
        path.split_once('?').map_or(path, |(path, _)| path)
    }

    /// Returns what follows the first question mark of the target, if there is one.
    #[must_use]
    pub fn query(&self) -> Option<&'a str> {
        self.target.split_once('?').map(|(_, query)| query)
    }

    /// Returns the host, and port, that the client asks for: from the target if it is a whole URI,
    /// otherwise from the field `Host`.
    #[must_use]
    pub fn host(&self) -> Option<&'a str> {
        match authority(self.target) {
            Some((authority, _)) => Some(authority),
            None => self.headers.text("host"),
        }
    }

    /// Returns the length of the body in bytes, or `None` if it comes in chunks.
    #[must_use]
    pub fn content_length(&self) -> Option<u64> {
        self.length
    }

    /// Returns the protocols that the client would like to change to, as it wrote them: the field
    /// `Upgrade`. `None` if the request may not lead to another protocol, because it has a body, is
    /// written in HTTP/1.0, or does not name `upgrade` in the field `Connection`.
    #[must_use]
    pub fn upgrade(&self) -> Option<&'a str> {
        self.upgrade
    }

    /// Returns the client.
    #[must_use]
    pub fn peer(&self) -> &'a Peer {
        self.transport.peer()
    }

    /// Returns the driver's time.
    #[must_use]
    pub fn now(&self) -> Instant {
        self.transport.now()
    }

    /// Returns a handle that has what was answered asked again: a [`Reply::later`](crate::Reply::later),
    /// a [`Source`](crate::Source) that had nothing, or a [`Receive`](crate::Receive) that took
    /// nothing.
    #[must_use]
    pub fn waker(&self) -> Waker {
        self.transport.waker()
    }

    fn after_authority(&self) -> &'a str {
        match authority(self.target) {
            Some((_, path)) if path.starts_with('/') => path,
            Some(_) => "/",
            None => self.target,
        }
    }
}

/// Splits a target that is a whole URI of http or https into its authority and the rest.
pub(crate) fn authority(target: &str) -> Option<(&str, &str)> {
    let (scheme, rest) = target.split_once("://")?;
    let is_http = scheme.eq_ignore_ascii_case("http") || scheme.eq_ignore_ascii_case("https");
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    is_http.then(|| rest.split_at(end))
}

/// The header fields of a request, in the order in which they came. Names are compared without regard
/// to case. Values have no control characters except tabs, and no blanks at their ends.
#[derive(Clone, Copy, Debug)]
pub struct Headers<'a>(pub(crate) &'a [Header<'a>]);

impl<'a> Headers<'a> {
    /// Returns the value of the first field with this name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&'a [u8]> {
        self.all(name).next()
    }

    /// Returns the value of the first field with this name, if it is UTF-8.
    #[must_use]
    pub fn text(&self, name: &str) -> Option<&'a str> {
        str::from_utf8(self.get(name)?).ok()
    }

    /// Returns the values of all fields with this name.
    pub fn all(&self, name: &str) -> impl Iterator<Item = &'a [u8]> {
        let named = self
            .0
            .iter()
            .filter(move |field| field.name.eq_ignore_ascii_case(name));
        named.map(|field| field.value)
    }

    /// Returns all names and values.
    pub fn iter(&self) -> impl Iterator<Item = (&'a str, &'a [u8])> {
        self.0.iter().map(|field| (field.name, field.value))
    }

    /// Returns how many fields there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Returns whether there are no fields.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Returns the parts of a value that is a list, such as that of `Connection`. An empty part is left
/// out.
pub(crate) fn list(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    let parts = value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
    parts.filter(|part| !part.is_empty())
}
