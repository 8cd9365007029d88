//! Outbound requests from a handler, `upstream LISTEN TARGET`: each line of a client goes to another
//! server, and its answer comes back. One connection is kept for all clients, and opened again when it is
//! lost; requests wait meanwhile, for up to ten seconds.
//!
//! With the echo example running, start
//! `cargo run --example upstream -- tcp://127.0.0.1:8888 tcp://localhost:9999`, then type lines into
//! `nc 127.0.0.1 8888`. Stop the echo server, type, and start it again.

use serveloop::framing::{FrameProtocol, FrameTransport, Framed, Lines};
use serveloop::net::Target;
use serveloop::service::{Dialer, Dialing, Link, Reply, Upstream, UpstreamLimits};
use serveloop::{Config, Ended, Peer, Protocol, Result, Server};
use std::{env, error::Error};

type Boxed = Box<dyn Protocol + Send>;

/// The other server, which answers in the order of the requests.
struct Backend(Link<Vec<u8>>);

impl FrameProtocol for Backend {
    type Framing = Lines;

    fn connection_made(&mut self, frames: &mut FrameTransport<'_, Lines>) -> Result {
        self.0.ready(frames.transport());
        Ok(())
    }

    fn frame_received(&mut self, line: &[u8], frames: &mut FrameTransport<'_, Lines>) -> Result {
        if !self.0.answer(line.to_vec()) {
            return Err("an answer without a question".into());
        }
        self.0.send(frames.transport());
        Ok(())
    }

    fn woken(&mut self, frames: &mut FrameTransport<'_, Lines>) {
        self.0.send(frames.transport());
    }

    fn resume_writing(&mut self, frames: &mut FrameTransport<'_, Lines>) {
        self.0.send(frames.transport());
    }

    fn shutdown_requested(&mut self, frames: &mut FrameTransport<'_, Lines>) {
        self.0.finish(frames.transport());
    }

    fn connection_lost(&mut self, _: &Ended<'_>) {
        self.0.lost();
    }
}

/// A client, with its question that is not answered yet.
struct Client(Upstream<Vec<u8>>, Option<Reply<Vec<u8>>>);

impl FrameProtocol for Client {
    type Framing = Lines;

    fn frame_received(&mut self, line: &[u8], frames: &mut FrameTransport<'_, Lines>) -> Result {
        let waker = frames.transport().waker();
        self.1 = Some(self.0.request(waker, [line, b"\n"].concat())?);
        frames.transport().pause_reading();
        Ok(())
    }

    fn woken(&mut self, frames: &mut FrameTransport<'_, Lines>) {
        if let Some(answer) = self.1.as_mut().and_then(Reply::take) {
            let line = answer.unwrap_or_else(|error| error.to_string().into_bytes());
            if frames.send(&line).is_err() {
                frames.transport().close();
            }
            frames.transport().resume_reading();
        }
    }
}

fn main() -> std::result::Result<(), Box<dyn Error>> {
    env_logger::init();
    let [at, target] = [1, 2].map(|number| env::args().nth(number).expect("LISTEN and TARGET"));
    let server = Server::bind(&[at.parse()?], Config::default())?;
    println!("listening on {}", server.addresses()[0]);
    let target: Target = target.parse()?;

    let factory = Dialing::new(move |dialer: &Dialer<Boxed>| {
        let backend = |link| Box::new(Framed::new(Lines::new(1_000), Backend(link))) as Boxed;
        let upstream = Upstream::new(dialer, target.clone(), UpstreamLimits::default(), backend);
        move |_: &Peer| {
            let client = Client(upstream.clone(), None);
            Some(Box::new(Framed::new(Lines::new(1_000), client)) as Boxed)
        }
    });
    server.with(factory).serve_forever()?;
    Ok(())
}
