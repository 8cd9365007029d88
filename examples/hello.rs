//! A conversation with state and time: the server says `Welcome!` and answers each name one second
//! later, while it serves other clients. `exit` closes the connection.
//!
//! Run `cargo run --example hello`, then `nc 127.0.0.1 9999` and type names.

use std::time::{Duration, Instant};

use serveloop::framing::{FrameProtocol, FrameTransport, Framed, Lines};
use serveloop::{Config, ProtocolError, Server};

#[derive(Default)]
struct Hello {
    /// The name to answer, and when.
    greeting: Option<(String, Instant)>,
}

impl FrameProtocol for Hello {
    type Framing = Lines;

    fn connection_made(
        &mut self,
        frames: &mut FrameTransport<'_, Lines>,
    ) -> Result<(), ProtocolError> {
        frames.send(b"Welcome!")
    }

    fn frame_received(
        &mut self,
        line: &[u8],
        frames: &mut FrameTransport<'_, Lines>,
    ) -> Result<(), ProtocolError> {
        let name = String::from_utf8(line.to_vec()).map_err(ProtocolError::other)?;

        if name == "exit" {
            frames.transport().close();
        } else {
            // Nothing may block here, so the delay is a timeout. Until then, reading is paused.
            self.greeting = Some((name, frames.transport().now() + Duration::from_secs(1)));
            frames.transport().pause_reading();
        }
        Ok(())
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.greeting.as_ref().map(|(_, at)| *at)
    }

    fn handle_timeout(&mut self, frames: &mut FrameTransport<'_, Lines>) {
        if let Some((name, _)) = self.greeting.take() {
            if frames.send(format!("Hello,{name}").as_bytes()).is_err() {
                frames.transport().close();
            }
        }
        frames.transport().resume_reading();
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    env_logger::init();
    let at = std::env::args()
        .nth(1)
        .unwrap_or_else(|| "tcp://127.0.0.1:9999".to_owned());
    let server = Server::bind(&[at.parse()?], Config::default())?;
    println!("listening on {}", server.addresses()[0]);
    server.serve_forever(|_| Some(Framed::new(Lines::new(1_000), Hello::default())))?;
    Ok(())
}
