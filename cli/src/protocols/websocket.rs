//! `serve websocket`: an echo of messages, or a room in which everybody reads them.
//!
//! The protocol is the crate `serveloop-websocket`.

use std::io;
use std::sync::Arc;

use clap::Args;
use serveloop::service::Lagging;
use serveloop::{Address, ProtocolError, Statistics};
use serveloop_websocket::{
    Accept, Compression, Echo, Message, MessageGroup, MessageProtocol, MessageTransport, Refusal,
    Request, Settings, websocket_with,
};

use crate::failure::Failure;
use crate::protocols::streams::need_streams;
use crate::serving::{BoundServer, Execution};
use crate::units::{Span, Timeout};

/// Sends back each message of WebSocket clients (RFC 6455).
///
///   $ serveloop serve websocket
///   listening on tcp://127.0.0.1:9999
///
/// In the console of a browser (F12), type the first three lines; the last one comes back:
///
///   socket = new WebSocket("ws://127.0.0.1:9999")
///   socket.onmessage = event => console.log(event.data)
///   socket.send("good morning")
///   good morning
///
/// With --room every client gets the messages of all, its own too. A client that does not keep up loses the
/// oldest messages that wait for it, when they are more than --max-posted (8MiB). With --workers there is
/// one room for all:
///
///   $ serveloop serve websocket --room
///
/// Pages that a browser has by https connect to wss, which is WebSocket over TLS:
///
///   $ serveloop serve websocket --listen 'tls://:9999?cert=cert.pem&key=key.pem'
///
/// A text comes back as text, bytes come back as bytes, and a ping is answered. The path of a request
/// does not matter. A message, in one frame or in fragments, has at most
/// --max-frame bytes, and at most --message-timeout from its first byte to its last. The close frame of
/// the server says what is wrong: 1002 for a client that breaks the rules of WebSocket, 1007 for text
/// that is not UTF-8, 1009 for a message that is too long. A request that is no request for a WebSocket
/// is answered with 400, 405 or 426.
///
/// A page of any site can make its visitors' browsers connect to a WebSocket server, also to one on their
/// own machine. --origin lists the pages that may.
#[derive(Args, Debug)]
#[command(verbatim_doc_comment, next_help_heading = "WebSocket")]
pub(crate) struct WebSocketOptions {
    /// Send each message to all clients, instead of back to its sender. Cannot be served with --model
    /// forking
    #[arg(long)]
    room: bool,
    /// Where a page must come from whose browser connects, for example https://example.org. Can be given
    /// several times; without it, from anywhere. Clients that are no browsers need not say any
    #[arg(long, value_name = "ORIGIN", value_parser = origin)]
    origin: Vec<String>,
    /// A subprotocol that is named to clients that offer it, though it changes nothing. Can be given several
    /// times, the preferred one first; some clients leave a server that names none of theirs
    #[arg(long, value_name = "NAME", value_parser = subprotocol)]
    subprotocol: Vec<String>,
    /// After how much silence a client is sent a ping; one that does not answer for as long again is
    /// disconnected. 0: never, and --idle-timeout ends the connections of silent clients
    #[arg(long, value_name = "DURATION", default_value_t = Settings::default().ping_interval.into())]
    ping_interval: Timeout,
    /// How long a client may take to answer a close frame
    #[arg(long, value_name = "DURATION", default_value_t = Settings::default().close_timeout.into())]
    close_timeout: Span,
    /// Compress messages for clients that offer it (permessage-deflate)
    #[arg(long)]
    deflate: bool,
}

impl WebSocketOptions {
    /// Returns whether clients get each other's messages.
    pub(super) fn has_room(&self) -> bool {
        self.room
    }

    /// Returns an error for what cannot be served.
    pub(super) fn check(&self, addresses: &[Address], execution: Execution) -> Result<(), Failure> {
        let why = "websocket is for streams: a datagram cannot become a WebSocket";
        need_streams(addresses, why)?;
        let problem = if self.room && execution.is_forking() {
            "websocket --room cannot be served with --model forking: a process for each connection \
             would be a room for each"
        } else {
            return Ok(());
        };
        Err(Failure::Usage(problem.to_owned()))
    }

    pub(super) fn serve(self, server: BoundServer, execution: Execution) -> io::Result<Statistics> {
        if !self.room {
            return self.serve_each(server, execution, |_| Echo);
        }
        let room = MessageGroup::new(Lagging::DropOldest);
        self.serve_each(server, execution, move |_| Member(room.clone()))
    }

    /// Serves with a handler for each request that is accepted.
    fn serve_each<H>(
        self,
        server: BoundServer,
        execution: Execution,
        handler: impl Fn(&Request<'_>) -> H + Clone + Send + 'static,
    ) -> io::Result<Statistics>
    where
        H: MessageProtocol + Send + 'static,
    {
        let settings = Settings {
            ping_interval: self.ping_interval.into(),
            close_timeout: self.close_timeout.into(),
            compression: match self.deflate {
                true => Compression::Deflate,
                false => Compression::Off,
            },
            ..Settings::default()
        };
        let origins: Arc<[String]> = self.origin.into();
        let names: Arc<[String]> = self.subprotocol.into();
        let accept = move |request: &Request<'_>| {
            admit(&origins, request)?;
            let accept = Accept::new(handler(request));
            let names: Vec<_> = names.iter().map(String::as_str).collect();
            Ok(match request.select(&names) {
                Some(name) => accept.with_subprotocol(name),
                None => accept,
            })
        };
        execution.serve(server, websocket_with(settings, accept))
    }
}

/// The only topic of the room.
const ROOM: &str = "room";

/// A client in the room.
struct Member(MessageGroup);

impl MessageProtocol for Member {
    fn opened(&mut self, client: &mut MessageTransport<'_>) -> Result<(), ProtocolError> {
        self.0.join(ROOM, client);
        Ok(())
    }

    fn message_received(
        &mut self,
        message: Message<'_>,
        _: &mut MessageTransport<'_>,
    ) -> Result<(), ProtocolError> {
        self.0.publish(ROOM, message);
        Ok(())
    }
}

/// Refuses the browsers of pages that are not listed, if any are.
fn admit(origins: &[String], request: &Request<'_>) -> Result<(), Refusal> {
    let Some(origin) = request.origin() else {
        return Ok(());
    };
    let is_listed = |listed: &String| listed.eq_ignore_ascii_case(origin);
    if origins.is_empty() || origins.iter().any(is_listed) {
        return Ok(());
    }
    Err(Refusal::forbidden("pages of this origin may not connect"))
}

/// Checks an origin, which browsers say without a path.
fn origin(text: &str) -> Result<String, String> {
    let place = text.split_once("://").filter(|(scheme, host)| {
        let is_scheme = |byte: u8| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte);
        let is_host = |byte: u8| byte.is_ascii_graphic() && !b"/?#@".contains(&byte);
        !scheme.is_empty()
            && scheme.bytes().all(is_scheme)
            && !host.is_empty()
            && host.bytes().all(is_host)
    });
    if place.is_some() || text == "null" {
        return Ok(text.to_owned());
    }
    Err(
        "an origin is a scheme and a host, and a port that is not the usual one, such as \
         https://example.org or http://localhost:8080"
            .to_owned(),
    )
}

/// Checks the name of a subprotocol, a token of HTTP.
fn subprotocol(text: &str) -> Result<String, String> {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    if text.is_empty() || !text.bytes().all(is_allowed) {
        return Err("a subprotocol has letters, digits and some signs, such as chat.v1".to_owned());
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_has_no_path() {
        for text in [
            "https://example.org",
            "http://[::1]:8080",
            "null",
            "app://x",
        ] {
            assert_eq!(origin(text).as_deref(), Ok(text));
        }
        for text in [
            "",
            "example.org",
            "https://",
            "https://a/",
            "https://a b",
            "://a",
            "https://u@a",
        ] {
            assert!(origin(text).is_err(), "{text}");
        }
    }
}
