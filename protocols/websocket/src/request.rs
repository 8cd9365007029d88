//! The request for a WebSocket: its head, and whether it asks for one.

use std::str;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use httparse::Header;
use serveloop::Peer;
use sha1_smol::Sha1;

use crate::refusal::Refusal;

/// The most header fields of a request.
const FIELDS_MOST: usize = 100;

/// What a server appends to a client's key (RFC 6455, section 1.3).
const SUFFIX: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// The request for a WebSocket. A server accepts or refuses it: see [`websocket`](crate::websocket).
///
/// It is an HTTP/1.1 request that was checked: the method is GET, and everything that RFC 6455 demands
/// of it is there, once and well-formed.
#[derive(Debug)]
pub struct Request<'a> {
    peer: &'a Peer,
    target: &'a str,
    fields: Vec<(&'a str, &'a str)>,
    offered: Vec<&'a str>,
    /// What shows the client that the server has understood its key.
    accept: String,
}

impl<'a> Request<'a> {
    /// Returns the client.
    #[must_use]
    pub fn peer(&self) -> &'a Peer {
        self.peer
    }

    /// Returns the request's target as the client sent it, such as `/chat?room=1`.
    #[must_use]
    pub fn target(&self) -> &'a str {
        self.target
    }

    /// Returns the path of the target, such as `/chat`, with its percent signs as the client sent them.
    #[must_use]
    pub fn path(&self) -> &'a str {
        let target = match self.target.split_once("://") {
            Some((_, rest)) if !self.target.starts_with('/') => {
                rest.find(['/', '?']).map_or("/", |at| &rest[at..])
            }
            _ => self.target,
        };
        let path = target.split_once('?').map_or(target, |(path, _)| path);
        if path.is_empty() { "/" } else { path }
    }

    /// Returns what follows the question mark of the target, such as `room=1`.
    #[must_use]
    pub fn query(&self) -> Option<&'a str> {
        self.target.split_once('?').map(|(_, query)| query)
    }

    /// Returns the value of the first header field with this name, ignoring case. A value that is not
    /// UTF-8 becomes the character U+FFFD.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&'a str> {
        self.fields(name).next()
    }

    /// Returns the values of all header fields with this name, in the order of the request.
    pub fn fields(&self, name: &str) -> impl Iterator<Item = &'a str> {
        let found = self.fields.iter();
        let found = found.filter(move |(field, _)| field.eq_ignore_ascii_case(name));
        found.map(|(_, value)| *value)
    }

    /// Returns the name of the host that the client asked.
    #[must_use]
    pub fn host(&self) -> &'a str {
        self.field("host").unwrap_or_default()
    }

    /// Returns the origin of the page that asks, such as `https://example.org`. Browsers always say it,
    /// and a page cannot change it, so a server that tells browsers apart by cookies or by their network
    /// must look at it. Other clients say none, or anything.
    #[must_use]
    pub fn origin(&self) -> Option<&'a str> {
        self.field("origin")
    }

    /// Returns the subprotocols that the client offers, those that it prefers first.
    #[must_use]
    pub fn offered(&self) -> &[&'a str] {
        &self.offered
    }

    /// Returns the first of `supported` that the client offers.
    #[must_use]
    pub fn select<'s>(&self, supported: &[&'s str]) -> Option<&'s str> {
        let mut supported = supported.iter().copied();
        supported.find(|name| self.offered.contains(name))
    }

    /// Parses a complete head and checks that it asks for a WebSocket.
    pub(crate) fn parse(head: &'a [u8], peer: &'a Peer) -> Result<Self, Refusal> {
        let mut fields = [httparse::EMPTY_HEADER; FIELDS_MOST];
        let mut parsed = httparse::Request::new(&mut fields);
        match parsed.parse(head) {
            Ok(httparse::Status::Complete(_)) => {}
            Ok(httparse::Status::Partial) => return Err(Refusal::malformed("no HTTP request")),
            Err(httparse::Error::TooManyHeaders) => {
                return Err(Refusal::too_large("too many header fields"));
            }
            Err(error) => return Err(Refusal::malformed(error.to_string())),
        }

        let (method, version) = (parsed.method.unwrap_or_default(), parsed.version);
        let target = parsed.path.unwrap_or_default();
        if method != "GET" {
            return Err(Refusal::method());
        }
        if version != Some(1) {
            return Err(Refusal::malformed("only HTTP/1.1 can become WebSocket"));
        }
        if !(target.starts_with('/') || target.contains("://")) {
            return Err(Refusal::malformed("the target is no path"));
        }

        let fields = texts(parsed.headers);
        let mut request = Self {
            peer,
            target,
            fields,
            offered: Vec::new(),
            accept: String::new(),
        };
        request.check()?;
        Ok(request)
    }

    /// Checks what RFC 6455, section 4.2.1, demands.
    fn check(&mut self) -> Result<(), Refusal> {
        let host = self.once("host", "a request has one Host field")?;
        if !is_host(host) {
            return Err(Refusal::malformed("the Host field is no host"));
        }
        let has_body = self.field("transfer-encoding").is_some()
            || self.fields("content-length").any(|length| length != "0");
        if has_body {
            return Err(Refusal::malformed("a request for a WebSocket has no body"));
        }

        if !(self.lists("upgrade", "websocket") && self.lists("connection", "upgrade")) {
            return Err(Refusal::upgrade("this is a WebSocket server"));
        }
        let version = self.once(
            "sec-websocket-version",
            "a request has one Sec-WebSocket-Version field",
        )?;
        if version != "13" {
            return Err(Refusal::upgrade("only version 13 of WebSocket is spoken"));
        }

        let key = self.once(
            "sec-websocket-key",
            "a request has one Sec-WebSocket-Key field",
        )?;
        let accept = accept_key(key)
            .ok_or_else(|| Refusal::malformed("Sec-WebSocket-Key is not 16 bytes in base64"));
        self.accept = accept?;
        if self.fields("origin").count() > 1 {
            return Err(Refusal::malformed("a request has one Origin field at most"));
        }

        self.offered = self.list("sec-websocket-protocol").collect();
        let is_well_formed = self.offered.iter().all(|name| is_token(name));
        if !is_well_formed {
            return Err(Refusal::malformed(
                "Sec-WebSocket-Protocol is no list of names",
            ));
        }
        Ok(())
    }

    /// Returns the extensions that the client offers, each with its parameters.
    pub(crate) fn extensions(&self) -> impl Iterator<Item = &'a str> {
        self.list("sec-websocket-extensions")
    }

    /// Returns the value of a field that must be there, and only once.
    fn once(&self, name: &str, rule: &'static str) -> Result<&'a str, Refusal> {
        let mut values = self.fields(name);
        match (values.next(), values.next()) {
            (Some(value), None) => Ok(value),
            _ => Err(Refusal::malformed(rule)),
        }
    }

    /// Returns the elements of all fields with this name. Empty ones are left out.
    fn list(&self, name: &str) -> impl Iterator<Item = &'a str> {
        let elements = self.fields(name).flat_map(|value| value.split(','));
        let elements = elements.map(|element| element.trim_matches([' ', '\t']));
        elements.filter(|element| !element.is_empty())
    }

    fn lists(&self, name: &str, element: &str) -> bool {
        let mut elements = self.list(name);
        elements.any(|found| found.eq_ignore_ascii_case(element))
    }

    /// Returns what shows the client that the server has understood its key.
    pub(crate) fn accept(&self) -> &str {
        &self.accept
    }
}

/// Returns the value of the field Sec-WebSocket-Accept for the value of a client's Sec-WebSocket-Key, or
/// `None` if that is not 16 bytes in base64. It is for servers that read the request themselves, and
/// then let a [`WebSocket`](crate::WebSocket) take over.
///
/// ```
/// use serveloop_websocket::accept_key;
///
/// let accept = accept_key("dGhlIHNhbXBsZSBub25jZQ==");
/// assert_eq!(accept.as_deref(), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
/// assert_eq!(accept_key("short"), None);
/// ```
#[must_use]
pub fn accept_key(key: &str) -> Option<String> {
    let bytes = STANDARD.decode(key).ok()?;
    if bytes.len() != 16 {
        return None;
    }
    let mut hash = Sha1::new();
    hash.update(key.as_bytes());
    hash.update(SUFFIX.as_bytes());
    Some(STANDARD.encode(hash.digest().bytes()))
}

/// Returns the fields as text.
fn texts<'a>(fields: &[Header<'a>]) -> Vec<(&'a str, &'a str)> {
    let texts = fields.iter().map(|field| {
        let value = str::from_utf8(field.value).unwrap_or("\u{fffd}");
        (field.name, value.trim_matches([' ', '\t']))
    });
    texts.collect()
}

/// Returns whether `host` can be the name of a host, with or without a port. It may be empty.
fn is_host(host: &str) -> bool {
    let is_allowed = |byte: u8| byte.is_ascii_graphic() && !b"/?#@,\\\"<>".contains(&byte);
    host.bytes().all(is_allowed)
}

/// Returns whether `name` is a token of HTTP (RFC 9110, section 5.6.2).
fn is_token(name: &str) -> bool {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !name.is_empty() && name.bytes().all(is_allowed)
}
