//! A group: each message to each member once, in order, whatever the model, and what becomes of those
//! that do not keep up.

use std::io::{Read, Write};
use std::sync::Arc;
use std::sync::mpsc;
use std::thread;
use std::time::Instant;

use serveloop::driver::{Clock, Context, Mailbox, Session};
use serveloop::framing::{FrameProtocol, FrameTransport, Framed, Lines};
use serveloop::service::{Group, Lagging, Outbox, Published};
use serveloop::testing::MemorySession;
use serveloop::{CloseReason, Config, Limits, Peer, Protocol, Result, Transport};
use socket2::Socket;

use super::Open;
use crate::support::model_server::{Model, ModelServer};
use crate::support::{PATIENCE, timeless};

/// Joins the room, and says so.
#[derive(Clone)]
struct Member(Group);

impl FrameProtocol for Member {
    type Framing = Lines;

    fn connection_made(&mut self, frames: &mut FrameTransport<'_, Lines>) -> Result {
        let outbox = frames.transport().outbox();
        assert!(self.0.join("room", &outbox));
        assert!(!self.0.join("room", &outbox), "it is a member already");
        frames.send(b"joined")
    }

    fn frame_received(&mut self, line: &[u8], frames: &mut FrameTransport<'_, Lines>) -> Result {
        let id = frames.transport().id();
        self.0.publish_to_others("room", id, line);
        Ok(())
    }
}

/// Connects a client that has joined.
fn joined(server: &ModelServer) -> Socket {
    let mut client = server.client();
    let mut line = [0; 7];
    client.read_exact(&mut line).unwrap();
    assert_eq!(&line, b"joined\n");
    client
}

#[test]
fn each_message_reaches_each_other_member_once_and_in_order() {
    const MEMBERS: usize = 20;
    const LINES: usize = 300;
    for model in Model::CONCURRENT {
        let group = Group::new(Lagging::Close);
        let member = Member(group.clone());
        let make = move |_: &Peer| Some(Framed::new(Lines::new(100), member.clone()));
        let server = ModelServer::new(model, &["tcp://127.0.0.1:0"], timeless(), make);
        let mut clients: Vec<_> = (0..MEMBERS).map(|_| joined(&server)).collect();
        assert_eq!(group.members("room"), MEMBERS);

        // Two members write at the same time.
        let publishers: Vec<_> = clients[..2]
            .iter()
            .enumerate()
            .map(|(publisher, client)| {
                let mut client = client.try_clone().unwrap();
                thread::spawn(move || {
                    for line in 0..LINES {
                        client
                            .write_all(format!("{publisher} {line}\n").as_bytes())
                            .unwrap();
                    }
                })
            })
            .collect();

        for (number, client) in clients.iter_mut().enumerate() {
            let expected = if number < 2 { LINES } else { 2 * LINES };
            let mut text = String::new();
            while text.lines().count() < expected || !text.ends_with('\n') {
                let mut piece = [0; 4_096];
                let count = client.read(&mut piece).unwrap();
                assert!(
                    count > 0,
                    "{model:?}: {} lines arrived",
                    text.lines().count()
                );
                text.push_str(std::str::from_utf8(&piece[..count]).unwrap());
            }

            for publisher in 0..2 {
                let start = format!("{publisher} ");
                let lines = text.lines().filter_map(|line| line.strip_prefix(&start));
                let lines: Vec<usize> = lines.map(|line| line.parse().unwrap()).collect();
                let all = if publisher == number { 0 } else { LINES };
                assert!(
                    lines.into_iter().eq(0..all),
                    "{model:?} {number} {publisher}"
                );
            }
        }
        for publisher in publishers {
            publisher.join().unwrap();
        }
        drop(clients);
        server.end();
        assert_eq!(group.members("room"), 0);
    }
}

fn open(most: usize) -> (MemorySession<Open>, Outbox) {
    let limits = Limits {
        max_posted: most,
        ..timeless().limits
    };
    super::open(Config {
        limits,
        ..timeless()
    })
}

/// Publishes messages of ten bytes to a member that takes nothing, and then everything. Returns what it
/// was sent.
fn lag(lagging: Lagging, messages: u8) -> (Vec<u8>, Option<String>, Published) {
    let group = Group::new(lagging);
    let (mut session, outbox) = open(30);
    group.join("t", &outbox);
    session.stop_taking();

    let mut last = Published::default();
    for message in 0..messages {
        last = group.publish("t", vec![message; 10]);
        session.run();
    }
    session.take_in_steps(3);
    let reason = session.reason().map(ToString::to_string);
    (session.sent(), reason, last)
}

#[test]
fn a_member_that_does_not_keep_up_loses_whole_messages_or_its_connection() {
    let messages = |numbers: &[u8]| -> Vec<u8> {
        numbers
            .iter()
            .flat_map(|number| vec![*number; 10])
            .collect()
    };
    // The first is being sent, and three wait.
    let (sent, reason, last) = lag(Lagging::DropOldest, 4);
    assert_eq!((sent, reason), (messages(&[0, 1, 2, 3]), None));
    assert_eq!(
        last,
        Published {
            sent: 1,
            lagging: 0
        }
    );

    let (sent, reason, last) = lag(Lagging::DropOldest, 8);
    assert_eq!((sent, reason), (messages(&[0, 5, 6, 7]), None));
    assert_eq!(
        last,
        Published {
            sent: 1,
            lagging: 1
        }
    );

    let (sent, reason, last) = lag(Lagging::DropNewest, 8);
    assert_eq!((sent, reason), (messages(&[0, 1, 2, 3]), None));
    assert_eq!(
        last,
        Published {
            sent: 0,
            lagging: 1
        }
    );

    let (sent, reason, last) = lag(Lagging::Close, 8);
    let lagging = CloseReason::Lagging.to_string();
    assert!(lagging.contains("max_posted"), "{lagging}");
    assert_eq!((sent.len(), reason), (0, Some(lagging)));
    assert_eq!(last, Published::default(), "it is no member any more");
}

#[test]
fn topics_and_members_come_and_go() {
    let group = Group::new(Lagging::DropNewest);
    let (mut one, first) = open(1_000);
    let (mut two, second) = open(1_000);
    assert_eq!(group.publish("a", &b"nobody"[..]), Published::default());
    assert!(group.join("a", &first) && group.join("a", &second) && group.join("b", &second));
    assert_eq!(
        (group.members("a"), group.members("b"), group.members("c")),
        (2, 1, 0)
    );
    let topics: Vec<Box<[u8]>> = vec![b"a"[..].into(), b"b"[..].into()];
    assert_eq!(group.topics_with_members(), topics);

    assert_eq!(group.publish("a", &b"1"[..]).sent, 2);
    assert_eq!(group.publish("b", &b"2"[..]).sent, 1);
    assert!(group.leave("a", second.id()) && !group.leave("a", second.id()));
    assert!(!group.leave("none", second.id()));
    assert_eq!(group.publish("a", &b"3"[..]).sent, 1);
    one.run();
    two.run();
    assert_eq!((one.sent(), two.sent()), (b"13".to_vec(), b"12".to_vec()));

    drop((one, two));
    assert_eq!(group.publish("a", &b"4"[..]).sent, 0);
    assert_eq!((group.members("a"), group.members("b")), (0, 0));
    assert!(group.topics_with_members().is_empty());
}

/// Connections come and go without a message: those that are gone are forgotten.
#[test]
fn members_that_are_gone_cost_nothing_for_long() {
    let group = Group::new(Lagging::DropNewest);
    let (_kept, member) = open(1_000);
    group.join("t", &member);
    let mut gone = Vec::new();
    for _ in 0..1_000 {
        let (session, outbox) = open(1_000);
        // As on a loop, all are members with one mailbox or with their own.
        group.join("t", &outbox);
        drop(session);
        gone.push(Arc::new(outbox));
    }
    assert_eq!(group.members("t"), 1);
}

/// Ten thousand bytes to each of many that never read cost the bytes once.
#[test]
fn what_members_are_owed_is_shared() {
    let group = Group::new(Lagging::DropOldest);
    let (sender, outboxes) = mpsc::channel();
    let config = Config {
        send_buffer: Some(4_096),
        max_per_peer: 1_000,
        limits: Limits {
            max_posted: 200_000,
            ..timeless().limits
        },
        max_buffered: 8 << 20,
        ..timeless()
    };
    let make = move |_: &Peer| Some(Open(sender.clone()));
    let server = ModelServer::new(Model::EventLoop, &["tcp://127.0.0.1:0"], config, make);
    let clients: Vec<_> = (0..200).map(|_| server.client()).collect();
    for _ in &clients {
        group.join("t", &outboxes.recv().unwrap());
    }

    // Copied for each member this would be 400 MB, of which 8 MiB are allowed.
    for _ in 0..200 {
        assert_eq!(group.publish("t", vec![7; 10_000]).sent, clients.len());
        thread::yield_now();
    }
    assert_eq!(group.members("t"), clients.len());
    drop(clients);
    assert_eq!(server.end().closed_shed, 0);
}

/// Topics that only ended connections have joined are forgotten, also if nobody publishes to them.
#[test]
fn topics_without_members_cost_nothing_for_long() {
    let group = Group::new(Lagging::DropNewest);
    for topic in 0..1_000_u32 {
        let (session, outbox) = open(1_000);
        group.join(topic.to_be_bytes(), &outbox);
        drop(session);
    }
    assert!(group.topics_with_members().is_empty());
    let shown = format!("{group:?}");
    let topics = (1..=200).any(|topics| shown.contains(&format!("topics: {topics},")));
    assert!(topics, "{shown}");
}

/// A driver may run its sessions in its wake, and they may use the group.
#[test]
fn nobody_is_woken_under_the_lock_of_the_group() {
    struct Joins(Group);

    impl Protocol for Joins {
        fn connection_made(&mut self, transport: &mut Transport<'_>) -> Result {
            self.0.join("room", &transport.outbox());
            Ok(())
        }

        fn data_received(&mut self, data: &[u8], _: &mut Transport<'_>) -> Result<usize> {
            Ok(data.len())
        }
    }

    let (sender, done) = mpsc::channel();
    thread::spawn(move || {
        let group = Group::new(Lagging::Close);
        let asked = group.clone();
        let (clock, config) = (Clock::new(Instant::now()), Config::default());
        let mailbox = Mailbox::new(Box::new(move || {
            let _ = asked.members("room");
        }));
        let peer = Peer::new("tcp://192.0.2.1:1".parse().unwrap(), Some(0));
        let mut session = Session::new(Joins(group.clone()), peer, clock.tick());
        session.handle_open(&Context::new(&clock, &config, &mailbox, 7));

        group.publish("room", vec![0; 500_000]);
        mailbox.take().for_each(drop);
        let published = group.publish("room", vec![0; 500_000]);
        let _ = sender.send((published, mailbox.take().collect::<Vec<_>>()));
    });

    let (published, woken) = done.recv_timeout(PATIENCE).expect("no deadlock");
    assert_eq!((published.sent, published.lagging), (0, 1));
    assert_eq!(woken, [7], "it is woken, to end");
}
