//! A streamed reply: `GET NAME` on a line is answered with the length and the bytes of the file NAME in a
//! directory. Run `cargo run --example download -- tcp://127.0.0.1:9999 src`, then
//! `printf 'GET lib.rs\n' | nc 127.0.0.1 9999`.
//!
//! However long the file is and however slowly the client reads, one piece of it is in memory. If the file
//! cannot be read to its end, the client sees a reset.

use serveloop::framing::{FrameProtocol, FrameTransport, Framed, Lines};
use serveloop::{Config, ProtocolError, Result, Server};
use std::fs::File;
use std::path::PathBuf;

struct Download(PathBuf);

impl FrameProtocol for Download {
    type Framing = Lines;

    fn frame_received(&mut self, line: &[u8], frames: &mut FrameTransport<'_, Lines>) -> Result {
        let name = line.strip_prefix(b"GET ").ok_or("expected GET NAME")?;
        let name = std::str::from_utf8(name).map_err(ProtocolError::other)?;
        if name.contains(['/', '\\']) || name == ".." {
            return frames.send(b"error: a name has no slash");
        }

        // Regular files are never slow for long. What may be is read by a pool of threads.
        match File::open(self.0.join(name)).and_then(|file| Ok((file.metadata()?.len(), file))) {
            Ok((length, file)) => {
                frames.send(length.to_string().as_bytes())?;
                frames.transport().send(file);
                Ok(())
            }
            Err(error) => frames.send(format!("error: {error}").as_bytes()),
        }
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    env_logger::init();
    let [at, root] = [1, 2].map(|number| std::env::args().nth(number));
    let at = at.as_deref().unwrap_or("tcp://127.0.0.1:9999");
    let root = PathBuf::from(root.as_deref().unwrap_or("."));

    let server = Server::bind(&[at.parse()?], Config::default())?;
    println!("listening on {}", server.addresses()[0]);
    server.serve_forever(move |_| Some(Framed::new(Lines::new(255), Download(root.clone()))))?;
    Ok(())
}
