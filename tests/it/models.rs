//! The same dialogues in every model and over every transport: what a session promises does not
//! depend on who moves its bytes.

use std::io::{Read, Write};
use std::thread;
use std::time::Instant;

use serveloop::protocols::{Discard, Echo, Hello};
use serveloop::{
    Address, Config, FrameProtocol, Framed, Frames, Framing, LengthPrefix, Lines, Peer, Protocol,
    ProtocolError, Statistics,
};
use socket2::Socket;

use crate::model_server::{End, Model, ModelServer, datagrams, finish, read_to};
use crate::probe::{Log, Probe};
use crate::support::{Scratch, expect, millis, noise, panic_quietly, timeless};

type Any = Box<dyn Protocol + Send>;

enum Step {
    Send(Vec<u8>),
    Expect(Vec<u8>),
    /// The client ends its side.
    Finish,
    /// The factory hears of an error, while the client reads nothing.
    Error,
    /// The server is shut down.
    Shutdown,
}

use Step::{Error, Expect, Finish, Send as Say, Shutdown};

struct Transcript {
    name: &'static str,
    config: Config,
    build: fn() -> Any,
    steps: Vec<Step>,
    end: End,
    counter: &'static str,
}

fn say(text: &str) -> Step {
    Say(text.into())
}

fn hear(text: &str) -> Step {
    Expect(text.into())
}

/// Short enough for a test, long enough for a machine with other things to do.
fn hasty(change: impl FnOnce(&mut Config)) -> Config {
    let mut config = timeless();
    change(&mut config);
    config
}

/// Answers frames in capitals, and says what was wrong with one.
struct Shout;

impl<F: Framing> FrameProtocol<F> for Shout {
    fn frame_received(
        &mut self,
        frame: &[u8],
        frames: &mut Frames<'_, '_, F>,
    ) -> Result<(), ProtocolError> {
        frames.send(&frame.to_ascii_uppercase())
    }

    fn frame_rejected(&mut self, error: &ProtocolError, frames: &mut Frames<'_, '_, F>) {
        let text: &[u8] = match error {
            ProtocolError::TooLong { .. } => b"too long",
            _ => b"bad",
        };
        frames.send(text).unwrap();
    }
}

fn shout() -> Any {
    Box::new(Framed::new(LengthPrefix::u32(16), Shout))
}

fn frame(text: &str) -> Vec<u8> {
    let length = u32::try_from(text.len()).unwrap();
    [&length.to_be_bytes(), text.as_bytes()].concat()
}

fn probe() -> Probe {
    Probe::new(&Log::default())
}

const PRODUCED: usize = 1 << 20;

/// Writes as much as fits, goes on when asked to, and closes at the end.
fn producer() -> Any {
    fn produce(sent: &mut usize, transport: &mut serveloop::Transport<'_>) {
        let all = noise(PRODUCED);
        while !transport.is_full() && *sent < all.len() {
            let next = all.len().min(*sent + 10_000);
            transport.write(&all[*sent..next]);
            *sent = next;
        }
        if *sent == all.len() {
            transport.close();
        }
    }
    let sent = std::sync::Arc::new(std::sync::Mutex::new(0));
    let resumed = std::sync::Arc::clone(&sent);
    let made = move |transport: &mut serveloop::Transport<'_>| {
        produce(&mut sent.lock().unwrap(), transport);
        Ok(())
    };
    Box::new(
        probe()
            .made(made)
            .resume(move |transport| produce(&mut resumed.lock().unwrap(), transport)),
    )
}

/// Has each message answered by another thread, and takes no further one until then.
fn deferring() -> Any {
    let (sender, receiver) = std::sync::mpsc::channel();
    let take = move |data: &[u8], transport: &mut serveloop::Transport<'_>| {
        let Some(end) = data.iter().position(|byte| *byte == b';') else {
            return Ok(0);
        };
        transport.pause_reading();
        let (waker, answers, line) = (transport.waker(), sender.clone(), data[..end].to_vec());
        thread::spawn(move || {
            answers.send(line.to_ascii_uppercase()).unwrap();
            waker.wake();
        });
        Ok(end + 1)
    };
    let answer = move |transport: &mut serveloop::Transport<'_>| {
        for line in receiver.try_iter() {
            transport.write(&line);
            transport.resume_reading();
        }
    };
    Box::new(probe().data(take).woken(answer))
}

/// Says something three times on its own, then closes.
fn ticking() -> Any {
    let next = std::sync::Arc::new(std::sync::Mutex::new((Instant::now() + millis(10), 0)));
    let due = std::sync::Arc::clone(&next);
    let tick = move |transport: &mut serveloop::Transport<'_>| {
        let mut next = next.lock().unwrap();
        transport.write(b"tick;");
        *next = (transport.now() + millis(10), next.1 + 1);
        if next.1 == 3 {
            transport.close();
        }
    };
    Box::new(
        probe()
            .poll(move || Some(due.lock().unwrap().0))
            .timeout(tick),
    )
}

fn greeting() -> Any {
    Box::new(probe().made(|transport| {
        transport.write(b"we are closed");
        transport.close();
        Ok(())
    }))
}

fn panicking() -> Any {
    Box::new(probe().data(|_, _| panic_quietly()))
}

fn polite() -> Any {
    let take = |data: &[u8], transport: &mut serveloop::Transport<'_>| {
        transport.write(data);
        Ok(data.len())
    };
    Box::new(probe().data(take).shutdown(|transport| {
        transport.write(b"farewell");
        transport.close();
    }))
}

fn writing(length: usize) -> Any {
    Box::new(probe().made(move |transport| {
        transport.write(&noise(length));
        Ok(())
    }))
}

fn aborting() -> Any {
    Box::new(probe().data(|data, transport| {
        transport.abort();
        Ok(data.len())
    }))
}

fn plain(
    name: &'static str,
    build: fn() -> Any,
    steps: Vec<Step>,
    counter: &'static str,
) -> Transcript {
    Transcript {
        name,
        config: timeless(),
        build,
        steps,
        end: End::Eof,
        counter,
    }
}

fn dialogues() -> Vec<Transcript> {
    let too_long = [frame("one"), vec![0, 0, 0, 17]].concat();
    let replies = [frame("ONE"), frame("too long")].concat();
    vec![
        plain(
            "echo",
            || Box::new(Echo),
            vec![say("he"), say("llo"), hear("hello"), Finish],
            "closed_by_peer",
        ),
        plain(
            "echo of much",
            || Box::new(Echo),
            vec![Say(noise(40_000)), Expect(noise(40_000)), Finish],
            "closed_by_peer",
        ),
        plain("nothing", || Box::new(Echo), vec![Finish], "closed_by_peer"),
        plain(
            "discard",
            || Box::new(Discard),
            vec![Say(noise(300_000)), Finish],
            "closed_by_peer",
        ),
        plain(
            "hello",
            || Box::new(Hello::new(millis(20))),
            vec![hear("Welcome!"), say("bob"), hear("Hello,bob"), say("exit")],
            "closed_by_protocol",
        ),
        plain(
            "hello, half-closed",
            || Box::new(Hello::new(millis(20))),
            vec![hear("Welcome!"), say("bob"), Finish, hear("Hello,bob")],
            "closed_by_peer",
        ),
        plain(
            "hello in lines",
            || Box::new(Framed::new(Lines::new(80), Hello::new(millis(5)))),
            vec![
                hear("Welcome!\n"),
                say("bob\nann\nex"),
                hear("Hello,bob\nHello,ann\n"),
                say("it\n"),
            ],
            "closed_by_protocol",
        ),
        plain(
            "frames",
            shout,
            vec![
                Say(frame("one")),
                Say(frame("two")),
                Expect([frame("ONE"), frame("TWO")].concat()),
                Finish,
            ],
            "closed_by_peer",
        ),
        plain(
            "too long",
            shout,
            vec![Say(too_long), Expect(replies)],
            "closed_too_long",
        ),
        plain(
            "truncated",
            shout,
            vec![
                Say(frame("one")[..6].to_vec()),
                Finish,
                Expect(frame("bad")),
            ],
            "closed_truncated",
        ),
        plain(
            "greeting",
            greeting,
            vec![hear("we are closed")],
            "closed_by_protocol",
        ),
        plain(
            "greeting to one who talks",
            greeting,
            vec![Say(noise(1_000)), hear("we are closed")],
            "closed_by_protocol",
        ),
        plain(
            "producer",
            producer,
            vec![Expect(noise(PRODUCED))],
            "closed_by_protocol",
        ),
        plain(
            "deferring",
            deferring,
            vec![say("a;b;c"), hear("AB"), say(";"), hear("C"), Finish],
            "closed_by_peer",
        ),
        plain(
            "ticking",
            ticking,
            vec![hear("tick;tick;tick;")],
            "closed_by_protocol",
        ),
        plain(
            "polite",
            polite,
            vec![say("x"), hear("x"), Shutdown, hear("farewell")],
            "closed_by_shutdown",
        ),
        plain(
            "owing",
            || Box::new(Hello::new(millis(50))),
            vec![hear("Welcome!"), say("bob"), Shutdown, hear("Hello,bob")],
            "closed_by_shutdown",
        ),
    ]
}

fn ends() -> Vec<Transcript> {
    let hard = |transcript: Transcript| Transcript {
        end: End::Reset,
        ..transcript
    };
    let limited = |transcript: Transcript, config| Transcript {
        config,
        ..transcript
    };
    let stall = hasty(|config| {
        config.write_timeout = Some(millis(100));
        config.send_buffer = Some(4_096);
    });
    vec![
        hard(plain(
            "panicking",
            panicking,
            vec![say("x"), Error],
            "closed_panicked",
        )),
        hard(plain(
            "aborting",
            aborting,
            vec![say("x")],
            "closed_aborted",
        )),
        hard(plain(
            "overflow",
            || writing(2 << 20),
            vec![Error],
            "closed_overflow",
        )),
        hard(limited(
            plain(
                "stalled",
                || writing(1 << 20),
                vec![Error],
                "closed_timeout_write",
            ),
            stall,
        )),
        limited(
            plain(
                "idle",
                || Box::new(Echo),
                vec![say("x"), hear("x")],
                "closed_timeout_idle",
            ),
            hasty(|config| config.idle_timeout = Some(millis(50))),
        ),
        limited(
            plain(
                "silent",
                shout,
                vec![say("\0\0"), Error],
                "closed_timeout_first_message",
            ),
            hasty(|config| config.first_message_timeout = Some(millis(50))),
        ),
        limited(
            plain(
                "slow",
                shout,
                vec![Say(frame("one")), Expect(frame("ONE")), say("\0\0"), Error],
                "closed_timeout_message",
            ),
            hasty(|config| config.message_timeout = Some(millis(50))),
        ),
        hard(limited(
            plain(
                "cut off",
                || Box::new(Hello::new(millis(30_000))),
                vec![hear("Welcome!"), say("bob"), Shutdown, Error],
                "closed_timeout_drain",
            ),
            hasty(|config| config.drain_timeout = Some(millis(100))),
        )),
    ]
}

const TCP: [&str; 2] = ["tcp://127.0.0.1:0", "tcp://[::1]:0"];

#[test]
fn dialogues_are_the_same_in_every_model() {
    run_all(dialogues);
}

#[test]
fn ends_are_the_same_in_every_model() {
    run_all(ends);
}

fn run_all(transcripts: fn() -> Vec<Transcript>) {
    let run_model = move |model| {
        for transcript in transcripts() {
            let scratch = Scratch::new();
            let unix = scratch.uri("unix", "socket");
            for at in [TCP[0], TCP[1], &unix] {
                println!("{model:?} {} {at}", transcript.name);
                run(model, at, &transcript);
            }
        }
    };
    let threads = Model::ALL.map(|model| thread::spawn(move || run_model(model)));
    for thread in threads {
        thread.join().unwrap();
    }
}

fn run(model: Model, at: &str, transcript: &Transcript) {
    let build = transcript.build;
    let config = transcript.config.clone();
    let mut server = ModelServer::new(model, &[at], config, move |_: &Peer| Some(build()));
    let mut client = server.client();
    for step in &transcript.steps {
        play(step, &mut client, &server);
    }
    let (rest, end) = read_to(&mut client);
    // What had been sent before a reset may come too, and a Unix socket knows no reset.
    let unix = matches!(server.addresses[0], Address::Unix(_));
    if transcript.end == End::Eof {
        assert_eq!(rest.escape_ascii().to_string(), "");
    }
    assert!(end == transcript.end || unix && end == End::Eof, "{end:?}");
    drop(client);
    server.handle.shutdown();
    let statistics = server.join();
    assert_eq!(statistics.accepted, 1);
    assert_eq!(
        counter(&statistics, transcript.counter),
        1,
        "{statistics:?}"
    );
}

fn play(step: &Step, client: &mut Socket, server: &ModelServer) {
    match step {
        Say(bytes) => client.write_all(bytes).unwrap(),
        Expect(bytes) => expect(client, bytes),
        Finish => finish(client),
        Error => drop(server.error()),
        Shutdown => server.handle.shutdown(),
    }
}

fn counter(statistics: &Statistics, name: &str) -> u64 {
    let mut counters = statistics.iter();
    counters.find(|(counter, _)| *counter == name).unwrap().1
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
    let table: Vec<(fn() -> Any, Vec<&[u8]>, Vec<&[u8]>, u64)> = vec![
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
