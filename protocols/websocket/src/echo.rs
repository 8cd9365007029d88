//! An echo of messages.

use serveloop::ProtocolError;

use crate::message::Message;
use crate::protocol::MessageProtocol;
use crate::transport::MessageTransport;

/// Sends back each message, text as text and bytes as bytes.
///
/// ```no_run
/// use serveloop::{Config, Server};
/// use serveloop_websocket::{Accept, Echo, Request, websocket};
///
/// let server = Server::bind(&["tcp://127.0.0.1:9999".parse()?], Config::default())?;
/// server.serve_forever(websocket(|_: &Request<'_>| Ok(Accept::new(Echo))))?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct Echo;

impl MessageProtocol for Echo {
    fn message_received(
        &mut self,
        message: Message<'_>,
        client: &mut MessageTransport<'_>,
    ) -> Result<(), ProtocolError> {
        client.send(message);
        Ok(())
    }
}
