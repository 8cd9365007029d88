//! A chat room that several servers share through the channels of a Redis: each line that a member of any
//! of them types goes to all members of all of them.
//!
//! With a redis-server running, start two of these, for example
//! `cargo run -p serveloop-resp --example chat_backplane -- tcp://127.0.0.1:9998 tcp://localhost:6379` and
//! the same with port 9999. Then `nc 127.0.0.1 9998` and `nc 127.0.0.1 9999`, and type.
//!
//! A line is heard at most once. While Redis cannot be reached, members stay, and lines wait for it for a
//! few seconds; a line is lost if its connection fails on the way, and what others say is not heard
//! while this server is not subscribed.

use serveloop::framing::{FrameProtocol, FrameTransport, Framed, Lines};
use serveloop::net::Target;
use serveloop::service::{Dialer, Dialing, Group, Lagging, Upstream, UpstreamLimits};
use serveloop::{Config, Peer, Protocol, Result, Server};
use serveloop_resp::client::{Requests, Subscriber, Subscription, Value, request};

type Boxed = Box<dyn Protocol + Send>;

struct Member {
    number: usize,
    room: Group,
    redis: Upstream<Value>,
}

impl FrameProtocol for Member {
    type Framing = Lines;

    fn connection_made(&mut self, frames: &mut FrameTransport<'_, Lines>) -> Result {
        self.room.join("room", &frames.transport().outbox());
        frames.send(format!("you are {}", self.number).as_bytes())
    }

    fn frame_received(&mut self, text: &[u8], frames: &mut FrameTransport<'_, Lines>) -> Result {
        let line = [format!("{}: ", self.number).as_bytes(), text].concat();
        match self.redis.send(request(&[b"PUBLISH", b"room", &line])) {
            Ok(()) => Ok(()),
            Err(error) => frames.send(format!("not sent: {error}").as_bytes()),
        }
    }
}

/// Passes what is published on to the members of this server.
struct Feed(Group);

impl Subscriber for Feed {
    fn message(&mut self, _: &[u8], line: &[u8]) {
        self.0.publish("room", line);
    }

    fn subscribed(&mut self) {
        self.0.publish("room", &b"* the room is whole"[..]);
    }

    fn lost(&mut self) {
        self.0
            .publish("room", &b"* other servers are not heard"[..]);
    }
}

fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let mut next = |usual: &str| arguments.next().unwrap_or_else(|| usual.to_owned());
    let (at, redis) = (next("tcp://127.0.0.1:9999"), next("tcp://localhost:6379"));
    let target: Target = redis.parse()?;

    let mut config = Config::default();
    let limits = &mut config.limits;
    (limits.first_message_timeout, limits.idle_timeout) = (None, None);
    let server = Server::bind(&[at.parse()?], config)?;
    println!("listening on {}", server.addresses()[0]);

    let limits = UpstreamLimits {
        max_in_flight: 100,
        max_delay: std::time::Duration::from_secs(1),
        ..UpstreamLimits::default()
    };
    let factory = Dialing::new(move |dialer: &Dialer<Boxed>| {
        let (room, mut number) = (
            Group::new(Lagging::DropOldest),
            std::process::id() as usize * 1000,
        );
        let heard = room.clone();
        let hear =
            move |link| Box::new(Subscription::new(link, &[b"room"], Feed(heard.clone()))) as Boxed;
        let feed = Upstream::new(dialer, target.clone(), limits.clone(), hear);
        let ask = |link| Box::new(Requests::new(link)) as Boxed;
        let redis = Upstream::new(dialer, target.clone(), limits.clone(), ask);

        move |_: &Peer| {
            // Dropping the feed would end it.
            let _ = &feed;
            number += 1;
            let (room, redis) = (room.clone(), redis.clone());
            let member = Member {
                number,
                room,
                redis,
            };
            Some(Box::new(Framed::new(Lines::new(1_000), member)) as Boxed)
        }
    });
    server.with(factory).serve_forever()?;
    Ok(())
}
