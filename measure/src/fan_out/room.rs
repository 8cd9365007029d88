//! What subscribers and publishers say in a protocol in which one publishes for many.

use std::process;

use crate::load::exchange::{handshake, masked, opened, pong};

/// The channel in a server of Redis's protocol.
const CHANNEL: &str = "serveloop.bench";

/// The place in which a message for all is published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Room {
    /// Whoever connects is sent the lines of all others, as by `serveloop serve chat`.
    Lines,
    /// Whoever connects is sent the messages of all, as by `serveloop serve websocket --room`.
    WebSocket {
        /// The host that the handshake names.
        host: String,
        /// The path that the handshake names.
        path: String,
    },
    /// `SUBSCRIBE` and `PUBLISH` of Redis.
    Resp,
}

impl Room {
    /// Returns what a client sends first.
    pub(super) fn opening(&self, is_publisher: bool) -> Result<Vec<u8>, String> {
        match self {
            Self::WebSocket { host, path } => handshake(host, path),
            Self::Resp if !is_publisher => Ok(command(&[b"SUBSCRIBE", channel().as_bytes()])),
            Self::Lines | Self::Resp => Ok(Vec::new()),
        }
    }

    /// Returns how long the server's answer to the first thing is, if it answers that before anything else.
    /// It is `None` while that is incomplete.
    pub(super) fn opened(&self, data: &[u8]) -> Result<Option<usize>, String> {
        match self {
            Self::WebSocket { .. } => opened(data),
            Self::Lines | Self::Resp => Ok(Some(0)),
        }
    }

    /// Returns what has a text sent to all.
    pub(super) fn publishing(&self, text: &[u8]) -> Vec<u8> {
        match self {
            Self::Lines => [text, b"\n"].concat(),
            Self::WebSocket { .. } => masked(text),
            Self::Resp => command(&[b"PUBLISH", channel().as_bytes(), text]),
        }
    }

    /// Returns what shows a server now and then that a silent client is there, if it wants to know.
    pub(super) fn sign_of_life(&self) -> Option<Vec<u8>> {
        match self {
            Self::WebSocket { .. } => Some(pong()),
            Self::Lines | Self::Resp => None,
        }
    }
}

/// Returns a channel of this process, so that two benchmarks do not hear each other.
fn channel() -> String {
    format!("{CHANNEL}.{}", process::id())
}

fn command(words: &[&[u8]]) -> Vec<u8> {
    let mut command = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        command.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
        command.extend_from_slice(word);
        command.extend_from_slice(b"\r\n");
    }
    command
}
