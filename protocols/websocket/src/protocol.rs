//! What users implement: a protocol of messages.

use std::time::Instant;

use serveloop::{Ended, ProtocolError};

use crate::close_code::CloseCode;
use crate::message::Message;
use crate::transport::MessageTransport;

/// A protocol of messages, as a state machine. One value serves one WebSocket.
///
/// Frames, fragments, pings and the closing handshake are taken care of. The methods are called in
/// this order:
///
/// ```text
/// opened (message_received | pong_received | resume_writing | handle_timeout | woken |
/// shutdown_requested)* closed
/// ```
///
/// After [`MessageTransport::close`] only `closed` follows. What else the client sends is discarded.
///
/// ```
/// use serveloop::Result;
/// use serveloop_websocket::{CloseCode, Message, MessageProtocol, MessageTransport};
///
/// /// Adds up numbers.
/// #[derive(Default)]
/// struct Sum(i64);
///
/// impl MessageProtocol for Sum {
///     fn message_received(&mut self, message: Message<'_>, client: &mut MessageTransport<'_>) -> Result {
///         let Message::Text(text) = message else {
///             client.close(CloseCode::UNSUPPORTED, "numbers are text");
///             return Ok(());
///         };
///         let number: i64 = text.parse().map_err(|error| format!("{text}: {error}"))?;
///         self.0 = self.0.saturating_add(number);
///         client.send(&self.0.to_string());
///         Ok(())
///     }
/// }
/// ```
pub trait MessageProtocol {
    /// Called when the WebSocket is open. A protocol whose server speaks first sends here.
    ///
    /// # Errors
    /// An error closes the connection, as in every method that returns a `Result`: with the code 1009
    /// for [`TooLong`](ProtocolError::TooLong), 1011 for [`Other`](ProtocolError::Other), and 1008 and
    /// the text of the error for all others.
    fn opened(&mut self, client: &mut MessageTransport<'_>) -> Result<(), ProtocolError> {
        let _ = client;
        Ok(())
    }

    /// Called when one message has arrived, whole.
    ///
    /// # Errors
    /// Returns an error if the message breaks the protocol.
    fn message_received(
        &mut self,
        message: Message<'_>,
        client: &mut MessageTransport<'_>,
    ) -> Result<(), ProtocolError>;

    /// Called when a pong has arrived, whether it answers a ping of this protocol, one of
    /// [`ping_interval`](crate::Settings::ping_interval), which has no payload, or none.
    ///
    /// # Errors
    /// Returns an error if the pong breaks the protocol.
    fn pong_received(
        &mut self,
        payload: &[u8],
        client: &mut MessageTransport<'_>,
    ) -> Result<(), ProtocolError> {
        let _ = (payload, client);
        Ok(())
    }

    /// Called when waiting output has fallen to `low_water` after it was full
    /// ([`is_full`](MessageTransport::is_full)). Producers continue here.
    fn resume_writing(&mut self, client: &mut MessageTransport<'_>) {
        let _ = client;
    }

    /// Returns when `handle_timeout` is to be called, or `None` for never. It is queried after every
    /// call, so a protocol keeps the moment in a field.
    fn poll_timeout(&self) -> Option<Instant> {
        None
    }

    /// Called when the moment of `poll_timeout` has come. The protocol moves or clears that moment. By
    /// default closes the WebSocket with the code 1001.
    fn handle_timeout(&mut self, client: &mut MessageTransport<'_>) {
        client.close(CloseCode::GOING_AWAY, "");
    }

    /// Called after a [`Waker`](serveloop::Waker) of this connection was used. It may also be called
    /// spuriously.
    fn woken(&mut self, client: &mut MessageTransport<'_>) {
        let _ = client;
    }

    /// Called when the server begins to shut down. The protocol should send what it still owes and
    /// close before the drain's deadline. By default closes the WebSocket with the code 1001.
    fn shutdown_requested(&mut self, client: &mut MessageTransport<'_>) {
        client.close(CloseCode::GOING_AWAY, "");
    }

    /// Called once, as the last method, when the connection has ended for any reason, with the code and
    /// the text of the client's close frame. The code is [`CloseCode::NO_STATUS`] if the frame had none,
    /// and [`CloseCode::ABNORMAL`] if the connection ended without a close frame of the client.
    fn closed(&mut self, code: CloseCode, reason: &str, ended: &Ended<'_>) {
        let _ = (code, reason, ended);
    }
}
