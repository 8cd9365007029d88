//! The last word of a protocol reaches its peer in every model.

use std::io::{ErrorKind, Write};

use serveloop::{Config, Deadline, Limits, Peer, Protocol, ProtocolError, Result, Transport};

use crate::support::model_server::{End, Model, ModelServer, read_to};
use crate::support::{echoes, expect, millis, seconds, timeless};

const TCP: &str = "tcp://127.0.0.1:0";

/// Takes lines of up to 1,000 bytes, and says why it ends.
struct Polite;

impl Protocol for Polite {
    fn data_received(&mut self, data: &[u8], transport: &mut Transport<'_>) -> Result<usize> {
        match data.iter().position(|byte| *byte == b'\n') {
            Some(end) => {
                transport.write(&data[..=end]);
                Ok(end + 1)
            }
            None if data.len() > 1_000 => Err(ProtocolError::malformed("too large")),
            None => Ok(0),
        }
    }

    fn deadline_passed(&mut self, _: Deadline, transport: &mut Transport<'_>) {
        transport.write(b"408\n");
    }

    fn input_rejected(&mut self, _: &ProtocolError, transport: &mut Transport<'_>) {
        transport.write(b"413\n");
    }
}

#[test]
fn a_deadline_says_why() {
    for model in Model::ALL {
        let config = Config {
            limits: Limits {
                message_timeout: Some(millis(50)),
                linger_timeout: Some(seconds(20)),
                ..timeless().limits
            },
            ..timeless()
        };
        let server = ModelServer::new(model, &[TCP], config, |_: &Peer| Some(Polite));
        let mut client = server.client();
        echoes(&mut client, b"hello\n");
        client.write_all(b"hel").unwrap();
        assert_eq!(
            read_to(&mut client),
            (b"408\n".to_vec(), End::Eof),
            "{model:?}"
        );
        drop(client);
        assert_eq!(server.end().closed_timeout_message, 1, "{model:?}");
    }
}

/// A client that goes on sending can read why it is refused.
#[test]
fn an_answer_reaches_a_client_that_goes_on_sending() {
    for model in Model::ALL {
        let config = Config {
            limits: Limits {
                linger_timeout: Some(seconds(20)),
                ..timeless().limits
            },
            ..timeless()
        };
        let server = ModelServer::new(model, &[TCP], config, |_: &Peer| Some(Polite));
        let mut client = server.client();
        for _ in 0..50 {
            match client.write_all(&[b'x'; 4_000]) {
                Err(error) if error.kind() == ErrorKind::BrokenPipe => break,
                written => written.unwrap(),
            }
        }
        expect(&mut client, b"413\n");
        drop(client);
        server.await_error();
        server.end();
    }
}

/// Closes without waiting until there was room for all: what `write_some` had not taken is lost, and
/// counted. One that waits for it loses nothing.
struct Hasty {
    waits: bool,
    left: usize,
}

impl Hasty {
    fn go_on(&mut self, transport: &mut Transport<'_>) {
        self.left -= transport.write_some(&vec![b'x'; self.left]);
        if self.left == 0 || !self.waits {
            transport.close();
        }
    }
}

impl Protocol for Hasty {
    fn data_received(&mut self, data: &[u8], transport: &mut Transport<'_>) -> Result<usize> {
        self.waits = data == b"w";
        self.go_on(transport);
        Ok(data.len())
    }

    fn resume_writing(&mut self, transport: &mut Transport<'_>) {
        self.go_on(transport);
    }
}

#[test]
fn a_close_that_cuts_output_short_is_counted() {
    for model in Model::ALL {
        for (sent, is_whole) in [(b"w", true), (b"h", false)] {
            let build = |_: &Peer| {
                Some(Hasty {
                    waits: false,
                    left: 3_000_000,
                })
            };
            let server = ModelServer::new(model, &[TCP], timeless(), build);
            let mut client = server.client();
            client.write_all(sent).unwrap();
            let (got, _) = read_to(&mut client);
            assert_eq!(got.len() == 3_000_000, is_whole, "{model:?}: {}", got.len());
            drop(client);
            assert_eq!(server.end().cut_short, u64::from(!is_whole), "{model:?}");
        }
    }
}
