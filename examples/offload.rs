//! Work that blocks, on a pool of threads: looks up each name that a client sends, while the loop goes
//! on serving.
//!
//! Run `cargo run --example offload`, then `nc 127.0.0.1 9999` and type names such as `localhost`.

use std::io;

use serveloop::framing::{FrameProtocol, FrameTransport, Framed, Lines};
use serveloop::service::{Job, Offload};
use serveloop::{Address, Config, ProtocolError, Server};

struct Lookup {
    pool: Offload,
    /// Dropped with the connection, which cancels a lookup that has not begun.
    job: Option<Job<io::Result<Vec<Address>>>>,
}

impl FrameProtocol for Lookup {
    type Framing = Lines;

    fn frame_received(
        &mut self,
        name: &[u8],
        frames: &mut FrameTransport<'_, Lines>,
    ) -> Result<(), ProtocolError> {
        let uri = format!("tcp://{}:0", String::from_utf8_lossy(name));
        let waker = frames.transport().waker();
        self.job = Some(self.pool.submit(waker, move || Address::resolve(&uri))?);
        // One lookup at a time, so that replies come in the order of requests.
        frames.transport().pause_reading();
        Ok(())
    }

    fn woken(&mut self, frames: &mut FrameTransport<'_, Lines>) {
        let Some(result) = self.job.as_mut().and_then(Job::take) else {
            return;
        };
        let reply = match result {
            Ok(Ok(found)) => found.iter().map(|it| format!("{it} ")).collect(),
            Ok(Err(error)) => error.to_string(),
            Err(error) => error.to_string(),
        };
        if frames.send(reply.trim_end().as_bytes()).is_err() {
            frames.transport().close();
        }
        frames.transport().resume_reading();
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    env_logger::init();
    let at = std::env::args().nth(1);
    let at = at.as_deref().unwrap_or("tcp://127.0.0.1:9999");
    let server = Server::bind(&[at.parse()?], Config::default())?;
    println!("listening on {}", server.addresses()[0]);
    let pool = Offload::default();
    let build = |pool: Offload| Framed::new(Lines::new(253), Lookup { pool, job: None });
    server.serve_forever(move |_| Some(build(pool.clone())))?;
    Ok(())
}
