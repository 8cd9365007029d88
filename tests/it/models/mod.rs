//! The same dialogues in every model and over every transport: what a session promises does not
//! depend on what moves its bytes.

mod failures;
mod farewells;
mod hooks;
mod limits;
mod pace;
mod rules;

use std::io::Read;
use std::thread;

use serveloop::protocols::{Echo, Hello};
use serveloop::{Address, Peer, ProtocolError};
use socket2::Socket;

use crate::support::model_protocols::{Any, frame, probe, shout};
use crate::support::model_server::{Model, ModelServer, datagrams};
use crate::support::transcripts::{Host, Transcript};
use crate::support::{Scratch, millis, panic_quietly, timeless};

impl Host for ModelServer {
    fn address(&self) -> &Address {
        &self.addresses[0]
    }

    fn error(&mut self) {
        self.await_error();
    }

    fn shutdown(&mut self) {
        self.handle.shutdown();
    }
}

#[test]
fn dialogues_are_the_same_in_every_model() {
    let threads = Model::ALL.map(|model| thread::spawn(move || run_all(model)));
    for thread in threads {
        thread.join().unwrap();
    }
}

fn run_all(model: Model) {
    for transcript in Transcript::all() {
        let scratch = Scratch::new();
        let unix = scratch.uri("unix", "socket");
        for at in ["tcp://127.0.0.1:0", "tcp://[::1]:0", &unix] {
            println!("{model:?} {} {at}", transcript.name);
            let (build, config) = (transcript.build.clone(), transcript.config.clone());
            let mut server = ModelServer::new(model, &[at], config, move |_: &Peer| Some(build()));
            transcript.play(&mut server);
            let statistics = server.end();
            assert_eq!(statistics.accepted, 1);
            transcript.check(&statistics);
        }
    }
}

/// Datagrams and the replies to them, each in a session of its own.
#[test]
fn datagrams_are_answered_the_same_in_every_model() {
    let picky = || -> Any {
        Box::new(probe().data(|data, transport| match data {
            b"panic" => panic_quietly(),
            b"error" => Err(ProtocolError::malformed("an error")),
            b"silence" => Ok(data.len()),
            _ => {
                transport.write(data);
                Ok(data.len())
            }
        }))
    };
    let framed = frame("one");
    let shouted = frame("ONE");
    let rejected = frame("bad");
    type Row<'a> = (fn() -> Any, Vec<&'a [u8]>, Vec<&'a [u8]>, u64);
    let table: Vec<Row<'_>> = vec![
        (
            || Box::new(Echo),
            vec![b"ping", b"", b"pong"],
            vec![b"ping", b"", b"pong"],
            0,
        ),
        (
            || Box::new(Hello::new(millis(0))),
            vec![b"bob\n"],
            vec![b"Hello,bob"],
            0,
        ),
        (
            shout,
            vec![&framed, &framed[..5]],
            vec![&shouted, &rejected],
            1,
        ),
        (
            picky,
            vec![b"panic", b"error", b"silence", b"well"],
            vec![b"well"],
            2,
        ),
    ];
    for model in Model::ALL {
        for (build, sent, replies, failed) in &table {
            let scratch = Scratch::new();
            let unixgram = scratch.uri("unixgram", "socket");
            for at in ["udp://127.0.0.1:0", "udp://[::1]:0", &unixgram] {
                let build = *build;
                let server =
                    ModelServer::new(model, &[at], timeless(), move |_: &Peer| Some(build()));
                let client = datagrams(&server.addresses[0], &scratch.path("client"));
                exchange(&client, sent, replies);
                let statistics = server.end();
                assert_eq!(statistics.datagrams_received, sent.len() as u64);
                assert_eq!(
                    statistics.datagrams_failed, *failed,
                    "{model:?} {at} {statistics:?}"
                );
                // The socket's file is gone with the server; the client's is ours.
                assert!(!scratch.path("socket").exists());
                let _ = std::fs::remove_file(scratch.path("client"));
            }
        }
    }
}

/// Each datagram is sent when the reply to the one before has come, if there is one.
fn exchange(client: &Socket, sent: &[&[u8]], replies: &[&[u8]]) {
    let in_step = sent.len() == replies.len();
    for (number, datagram) in sent.iter().enumerate() {
        client.send(datagram).unwrap();
        if in_step || number + 1 == sent.len() {
            let reply = replies[if in_step { number } else { 0 }];
            let mut buffer = [0; 100];
            let mut client = client;
            let count = client.read(&mut buffer).unwrap();
            assert_eq!(
                buffer[..count].escape_ascii().to_string(),
                reply.escape_ascii().to_string()
            );
        }
    }
}
