//! Dialogues between a client and a server, and how each ends.

use std::io::Write;
use std::sync::Arc;

use serveloop::framing::{Framed, Lines};
use serveloop::layer::{Layered, RateLimit, RateLimited};
use serveloop::protocols::{Discard, Echo, Hello};
use serveloop::testing::Scrambled;
use serveloop::{Address, Config, Statistics};
use socket2::Socket;

use crate::support::model_protocols::{
    Any, PRODUCED, aborting, deferring, frame, greeting, panicking, polite, producer, shout,
    ticking, writing,
};
use crate::support::model_server::{End, connect, finish, read_to};
use crate::support::{expect, millis, noise, timeless};

/// A server that a transcript is played with.
pub(crate) trait Host {
    fn address(&self) -> &Address;

    /// Waits until the factory hears of an error.
    fn error(&mut self);

    fn shutdown(&mut self);
}

pub(crate) enum Step {
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

/// Makes the server's protocol.
pub(crate) type Build = Arc<dyn Fn() -> Any + Send + Sync>;

pub(crate) struct Transcript {
    pub(crate) name: String,
    pub(crate) config: Config,
    pub(crate) build: Build,
    pub(crate) steps: Vec<Step>,
    pub(crate) end: End,
    pub(crate) counter: &'static str,
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

fn plain(
    name: &'static str,
    build: fn() -> Any,
    steps: Vec<Step>,
    counter: &'static str,
) -> Transcript {
    Transcript {
        name: name.to_owned(),
        config: timeless(),
        build: Arc::new(build),
        steps,
        end: End::Eof,
        counter,
    }
}

fn dialogues() -> Vec<Transcript> {
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
        plain(
            "echo of too much at a time",
            || {
                let limit = RateLimit::new().with_bytes(400_000).with_burst(millis(5));
                Box::new(RateLimited::new(Echo, limit))
            },
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
    ]
}

fn dialogues_of_others() -> Vec<Transcript> {
    vec![
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
            vec![
                Say([frame("one"), vec![0, 0, 0, 17]].concat()),
                Expect([frame("ONE"), frame("too long")].concat()),
            ],
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
    ]
}

fn goodbyes() -> Vec<Transcript> {
    vec![
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

fn hard(transcript: Transcript) -> Transcript {
    Transcript {
        end: End::Reset,
        ..transcript
    }
}

fn limited(transcript: Transcript, config: Config) -> Transcript {
    Transcript {
        config,
        ..transcript
    }
}

fn ends() -> Vec<Transcript> {
    let stall = hasty(|config| {
        config.limits.write_timeout = Some(millis(100));
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
        hard(limited(
            plain(
                "overflow",
                || writing(2 << 20),
                vec![Error],
                "closed_overflow",
            ),
            hasty(|config| config.limits.max_reply = 1 << 20),
        )),
        hard(limited(
            plain(
                "stalled",
                || writing(900_000),
                vec![Error],
                "closed_timeout_write",
            ),
            stall,
        )),
    ]
}

fn deadlines() -> Vec<Transcript> {
    vec![
        limited(
            plain(
                "idle",
                || Box::new(Echo),
                vec![say("x"), hear("x")],
                "closed_timeout_idle",
            ),
            hasty(|config| config.limits.idle_timeout = Some(millis(50))),
        ),
        limited(
            plain(
                "silent",
                shout,
                vec![say("\0\0"), Error],
                "closed_timeout_first_message",
            ),
            hasty(|config| config.limits.first_message_timeout = Some(millis(50))),
        ),
        limited(
            plain(
                "slow",
                shout,
                vec![Say(frame("one")), Expect(frame("ONE")), say("\0\0"), Error],
                "closed_timeout_message",
            ),
            hasty(|config| config.limits.message_timeout = Some(millis(50))),
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

impl Transcript {
    /// All of them; their places are their numbers.
    pub(crate) fn all() -> Vec<Self> {
        let parts = [
            dialogues(),
            dialogues_of_others(),
            goodbyes(),
            ends(),
            deadlines(),
        ];
        let plain: Vec<Self> = parts.into_iter().flatten().collect();
        let layered = plain.iter().map(Self::in_layer);
        let layered: Vec<Self> = layered.collect();
        plain.into_iter().chain(layered).collect()
    }

    /// The same dialogue through a layer that changes all bytes.
    fn in_layer(&self) -> Self {
        let layer = Scrambled::new(100);
        let mut heard = Vec::new();
        let mut on_wire = |step: &Step| match step {
            Say(bytes) => Say(layer.seal(bytes)),
            Expect(bytes) => {
                let before = layer.expect(&heard).len();
                heard.extend_from_slice(bytes);
                Expect(layer.expect(&heard).split_off(before))
            }
            Finish => Finish,
            Error => Error,
            Shutdown => Shutdown,
        };

        let build = Arc::clone(&self.build);
        Self {
            name: format!("{} in a layer", self.name),
            config: self.config.clone(),
            steps: self.steps.iter().map(&mut on_wire).collect(),
            build: Arc::new(move || Box::new(Layered::around(layer, build()))),
            ..*self
        }
    }

    /// The client's part.
    pub(crate) fn play(&self, host: &mut impl Host) {
        let mut client = connect(host.address());
        for step in &self.steps {
            step.play(&mut client, host);
        }
        let (rest, end) = read_to(&mut client);
        // What had been sent before a reset may come too, and a Unix socket knows no reset.
        let unix = matches!(host.address(), Address::Unix(_));
        if self.end == End::Eof {
            assert_eq!(rest.escape_ascii().to_string(), "");
        }
        assert!(end == self.end || unix && end == End::Eof, "{end:?}");
    }

    pub(crate) fn check(&self, statistics: &Statistics) {
        let mut counters = statistics.iter();
        let ended = counters.find(|(counter, _)| *counter == self.counter);
        assert_eq!(ended, Some((self.counter, 1)), "{statistics:?}");
    }
}

impl Step {
    fn play(&self, client: &mut Socket, host: &mut impl Host) {
        match self {
            Say(bytes) => client.write_all(bytes).unwrap(),
            Expect(bytes) => expect(client, bytes),
            Finish => finish(client),
            Error => host.error(),
            Shutdown => host.shutdown(),
        }
    }
}
