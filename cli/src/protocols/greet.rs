//! `serve greet`: sends `connected` and closes.

use std::io;

use clap::Args;
use serveloop::{Peer, Protocol, ProtocolError, Statistics, Transport};

use crate::serving::{BoundServer, Execution};

const GREETING: &[u8] = b"connected";

/// Sends `connected` and closes: nine bytes without a newline, whatever the client sends.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Greet;

impl Protocol for Greet {
    fn connection_made(&mut self, transport: &mut Transport<'_>) -> Result<(), ProtocolError> {
        transport.write(GREETING);
        transport.close();
        Ok(())
    }

    fn data_received(
        &mut self,
        data: &[u8],
        _: &mut Transport<'_>,
    ) -> Result<usize, ProtocolError> {
        Ok(data.len())
    }
}

/// Sends the word connected, and closes the connection.
///
///   $ serveloop serve greet
///   listening on tcp://127.0.0.1:9999
///
/// In another terminal:
///
///   $ nc 127.0.0.1 9999
///   connected
///
/// The reply is nine bytes without a newline, followed by the end of the stream. Whatever the client
/// sends is discarded, and does not keep the reply from arriving. Each datagram is answered with the
/// same nine bytes; but for another machine's datagram the reply is dropped if it is longer than
/// --reply-factor times the datagram.
///
/// Serve each client by its own thread or process:
///
///   $ serveloop serve greet --model threaded
///   $ serveloop serve greet --model forking
#[derive(Args, Debug)]
#[command(verbatim_doc_comment)]
pub(crate) struct GreetOptions {}

impl GreetOptions {
    pub(crate) fn serve(self, server: BoundServer, execution: Execution) -> io::Result<Statistics> {
        execution.serve(server, |_: &Peer| Some(Greet))
    }
}

#[cfg(test)]
mod tests {
    use serveloop::CloseReason;
    use serveloop::testing::MemorySession;

    use super::*;

    #[test]
    fn a_greeting_and_the_end() {
        let mut session = MemorySession::new(Greet);
        assert_eq!(session.sent(), b"connected");
        session.receive(b"not looked at");
        session.receive_eof();
        assert_eq!(session.sent(), b"");
        assert!(matches!(session.reason(), Some(CloseReason::Closed)));
    }
}
