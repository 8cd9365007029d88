//! A chat room: each line that a member types goes to all others. Run `cargo run --example chat`,
//! then `nc 127.0.0.1 9999` in two or more terminals, and type.
//!
//! A sender never waits for a reader. A member that does not keep up loses the oldest lines, and
//! `write_timeout` disconnects one that reads nothing at all.

use serveloop::framing::{FrameProtocol, FrameTransport, Framed, Lines};
use serveloop::service::{Group, Lagging};
use serveloop::{Config, Result, Server};

struct Member(usize, Group);

impl FrameProtocol for Member {
    type Framing = Lines;

    fn connection_made(&mut self, frames: &mut FrameTransport<'_, Lines>) -> Result {
        self.1.join("room", &frames.transport().outbox());
        let here = self.1.members("room");
        frames.send(format!("you are {}, {here} here", self.0).as_bytes())
    }

    fn frame_received(&mut self, text: &[u8], frames: &mut FrameTransport<'_, Lines>) -> Result {
        let line = [format!("{}: ", self.0).as_bytes(), text].concat();
        let id = frames.transport().id();
        self.1.publish_to_others("room", id, line);
        Ok(())
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    env_logger::init();
    let at = std::env::args().nth(1);
    let at = at.as_deref().unwrap_or("tcp://127.0.0.1:9999");

    let mut config = Config::default();
    (
        config.limits.first_message_timeout,
        config.limits.idle_timeout,
    ) = (None, None);
    let server = Server::bind(&[at.parse()?], config)?;
    println!("listening on {}", server.addresses()[0]);

    let (room, mut number) = (Group::new(Lagging::DropOldest), 0);
    server.serve_forever(move |_| {
        number += 1;
        let member = Member(number, room.clone());
        Some(Framed::new(Lines::new(1_000), member))
    })?;
    Ok(())
}
