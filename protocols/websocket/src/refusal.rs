//! The response to a request that is not accepted.

use std::borrow::Cow;

/// The response to a request for a WebSocket that is not accepted. The connection ends after it.
///
/// ```
/// use serveloop_websocket::Refusal;
///
/// let refusal = Refusal::new(404, "there is only /chat");
/// assert_eq!(refusal.status(), 404);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    status: u16,
    text: Cow<'static, str>,
    /// Further fields of the head.
    fields: &'static str,
    /// The request was HEAD, whose response has no body.
    is_head: bool,
}

impl Refusal {
    /// Creates a response with this status, and a text for people. A status outside 400 to 599, which
    /// would accept the request or send it elsewhere, becomes 500.
    pub fn new(status: u16, text: impl Into<Cow<'static, str>>) -> Self {
        let status = if matches!(status, 400..=599) {
            status
        } else {
            500
        };
        Self {
            status,
            text: text.into(),
            fields: "",
            is_head: false,
        }
    }

    /// Creates the response 403, for example to a page of another origin.
    pub fn forbidden(text: impl Into<Cow<'static, str>>) -> Self {
        Self::new(403, text)
    }

    /// Returns the status.
    #[must_use]
    pub fn status(&self) -> u16 {
        self.status
    }

    /// Returns the text for people.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    pub(crate) fn malformed(text: impl Into<Cow<'static, str>>) -> Self {
        Self {
            fields: "Sec-WebSocket-Version: 13\r\n",
            ..Self::new(400, text)
        }
    }

    pub(crate) fn method() -> Self {
        Self {
            fields: "Allow: GET\r\n",
            ..Self::new(405, "a WebSocket is asked for by GET")
        }
    }

    pub(crate) fn upgrade(text: &'static str) -> Self {
        Self {
            fields: "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n",
            ..Self::new(426, text)
        }
    }

    pub(crate) fn too_large(text: &'static str) -> Self {
        Self::new(431, text)
    }

    /// Returns the response without its body if the request `head` asks for that.
    pub(crate) fn in_reply_to(self, head: &[u8]) -> Self {
        Self {
            is_head: head.starts_with(b"HEAD "),
            ..self
        }
    }

    /// Returns the whole response.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let connection = match self.status {
            426 => "Upgrade, close",
            _ => "close",
        };
        let head = format!(
            "HTTP/1.1 {} {}\r\nConnection: {connection}\r\n{}Content-Type: text/plain; charset=utf-8\r\n\
             Content-Length: {}\r\n\r\n",
            self.status,
            phrase(self.status),
            self.fields,
            self.text.len() + 1,
        );
        if self.is_head {
            return head.into_bytes();
        }
        format!("{head}{}\n", self.text).into_bytes()
    }
}

/// Returns the words that usually follow a status.
fn phrase(status: u16) -> &'static str {
    match status {
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        426 => "Upgrade Required",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        503 => "Service Unavailable",
        _ if status < 500 => "Refused",
        _ => "Failed",
    }
}
