//! A framing whose messages are parsed, and which changes between them: commands are lines, and the text
//! of a mail ends with a line of one dot.
//!
//! Run `cargo run --example mail`, then `nc 127.0.0.1 9999` and type `data`, some lines, a dot, `quit`.

use serveloop::framing::{
    Decoder, Delimited, Encoder, Frame, FrameProtocol, FrameTransport, Framed, Lines,
};
use serveloop::{Config, ProtocolError, Result, Server};

/// What a client sends, as the decoder has found it.
enum Sent<'a> {
    Command { verb: &'a [u8], argument: &'a [u8] },
    Text(&'a [u8]),
}

#[derive(Clone)]
enum Mail {
    Commands(Lines),
    Text(Delimited),
}

impl Mail {
    fn commands() -> Self {
        Self::Commands(Lines::new(512))
    }

    fn text() -> Self {
        Self::Text(Delimited::new(*b"\n.\n", 1 << 20))
    }
}

impl Decoder for Mail {
    type Message<'a> = Sent<'a>;

    fn decode<'a>(&'a mut self, data: &'a [u8]) -> Result<Option<Frame<Sent<'a>>>, ProtocolError> {
        let (found, parse): (_, fn(&'a [u8]) -> Sent<'a>) = match self {
            Self::Commands(lines) => (lines.decode(data)?, |line| {
                let space = line.iter().position(|byte| *byte == b' ');
                let (verb, argument) = line.split_at(space.unwrap_or(line.len()));
                Sent::Command { verb, argument }
            }),
            Self::Text(text) => (text.decode(data)?, Sent::Text),
        };
        Ok(found.map(|Frame { message, taken }| Frame {
            message: parse(message),
            taken,
        }))
    }
}

impl Encoder for Mail {
    fn encode(&self, reply: &[u8], write: impl FnMut(&[u8])) -> Result {
        Lines::new(512).encode(reply, write)
    }
}

#[derive(Default)]
struct Mailbox(Option<Mail>);

impl FrameProtocol for Mailbox {
    type Framing = Mail;

    fn frame_received(&mut self, sent: Sent<'_>, client: &mut FrameTransport<'_, Mail>) -> Result {
        match sent {
            Sent::Command { verb: b"data", .. } => {
                self.0 = Some(Mail::text());
                client.send(b"go on, and end with a dot")
            }
            Sent::Command {
                verb: b"echo",
                argument,
            } => client.send(argument.trim_ascii()),
            Sent::Command { verb: b"quit", .. } => {
                client.transport().close();
                Ok(())
            }
            Sent::Command { .. } => client.send(b"data, echo TEXT or quit"),
            Sent::Text(text) => {
                self.0 = Some(Mail::commands());
                client.send(format!("a mail of {} bytes", text.len()).as_bytes())
            }
        }
    }

    fn next_framing(&mut self) -> Option<Mail> {
        self.0.take()
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    env_logger::init();
    let at = std::env::args()
        .nth(1)
        .unwrap_or_else(|| "tcp://127.0.0.1:9999".to_owned());
    let server = Server::bind(&[at.parse()?], Config::default())?;
    println!("listening on {}", server.addresses()[0]);
    server.serve_forever(|_| Some(Framed::new(Mail::commands(), Mailbox::default())))?;
    Ok(())
}
