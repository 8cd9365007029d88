//! A server whose connections are recorded, and the replay of the record. Run
//! `cargo run --example recorded` and talk to it with `nc 127.0.0.1 9999`. A line `exit` ends the server.
//!
//! The protocol has a bug: it panics if a line arrives in two pieces, which happens rarely. The record is
//! written to `recorded.record` in the directory of temporary files when it does, and when the server ends. Run
//! `cargo run --example recorded -- replay` to see the bug again, from the file alone.
//!
//! `serveloop transcript FILE` shows what was recorded. The file holds what was said.

use serveloop::service::recorder::{Recorder, RecorderOptions};
use serveloop::testing::Simulation;
use serveloop::{Config, Peer, Protocol, Result, Server, ShutdownHandle, Transport};

/// Answers each line with its length.
#[derive(Default)]
struct Lengths {
    is_begun: bool,
    server: Option<ShutdownHandle>,
}

impl Protocol for Lengths {
    fn data_received(&mut self, data: &[u8], transport: &mut Transport<'_>) -> Result<usize> {
        let Some(end) = data.iter().position(|byte| *byte == b'\n') else {
            self.is_begun = true;
            return Ok(0);
        };
        assert!(!self.is_begun, "a line in two pieces was not thought of");

        transport.write(format!("{end}\n").as_bytes());
        if data.starts_with(b"exit\n") {
            self.server.iter().for_each(ShutdownHandle::shutdown);
        }
        Ok(end + 1)
    }
}

fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
    env_logger::init();
    let path = std::env::temp_dir().join("recorded.record");
    if std::env::args().nth(1).as_deref() == Some("replay") {
        let make = || |_: &Peer| Some(Lengths::default());
        let replay = Simulation::new(make).replay(&path)?;
        println!("{replay}");
        replay.ends().for_each(|end| println!("{end}"));
        return Ok(());
    }

    let uri = std::env::args().nth(1);
    let uri = uri.as_deref().unwrap_or("tcp://127.0.0.1:9999");
    let server = Server::bind(&[uri.parse()?], Config::default())?;
    println!("listening on {}", server.addresses()[0]);

    let handle = server.shutdown_handle();
    let recorder = Recorder::new(RecorderOptions {
        file: Some(path),
        ..RecorderOptions::default()
    });
    server
        .with(recorder.record(move |_: &Peer| {
            Some(Lengths {
                is_begun: false,
                server: Some(handle.clone()),
            })
        }))
        .serve_forever()?;
    Ok(())
}
