//! An outbox: posts from anywhere, in their order, within limits, in every model.

use std::io::{Read, Write};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver};
use std::thread;

use serveloop::framing::{FrameProtocol, FrameTransport, Framed, LengthPrefix};
use serveloop::layer::Layered;
use serveloop::service::{Outbox, PostError};
use serveloop::testing::{MemorySession, Scrambled};
use serveloop::{CloseReason, Config, Limits, Peer, Protocol, Result, Transport};

use super::{Open, open};
use crate::support::model_server::{Model, ModelServer};
use crate::support::{noise, timeless};

fn serve(model: Model, config: Config) -> (ModelServer, Receiver<Outbox>) {
    let (sender, outboxes) = mpsc::channel();
    let make = move |_: &Peer| Some(Open(sender.clone()));
    let server = ModelServer::new(model, &["tcp://127.0.0.1:0"], config, make);
    (server, outboxes)
}

/// Posts as soon as there is room.
fn post_patiently(outbox: &Outbox, data: &[u8]) {
    while outbox.post(data) == Err(PostError::Full) {
        thread::yield_now();
    }
}

#[test]
fn posts_of_other_threads_arrive_in_their_order_in_every_model() {
    for model in Model::ALL {
        let (server, outboxes) = serve(model, timeless());
        let mut client = server.client();
        let outbox = outboxes.recv().unwrap();

        // Three threads post, and the client reads meanwhile.
        let posting = |thread: u8| {
            let outbox = outbox.clone();
            thread::spawn(move || {
                for count in 0..2_000_u16 {
                    let bytes = [&[thread][..], &count.to_be_bytes()].concat();
                    post_patiently(&outbox, &bytes);
                }
            })
        };
        let threads = [0, 1, 2].map(posting);

        let mut next = [0_u16; 3];
        let mut post = [0; 3];
        for _ in 0..6_000 {
            client.read_exact(&mut post).unwrap();
            let count = u16::from_be_bytes([post[1], post[2]]);
            let thread = usize::from(post[0]);
            assert_eq!(count, next[thread], "{model:?}");
            next[thread] += 1;
        }
        for thread in threads {
            thread.join().unwrap();
        }

        outbox.post(&b"bye"[..]).unwrap();
        outbox.close();
        assert_eq!(outbox.post(&b"late"[..]), Err(PostError::Closed));
        let mut rest = String::new();
        client.read_to_string(&mut rest).unwrap();
        assert_eq!(rest, "bye", "{model:?}");
        server.end();
        assert!(outbox.is_closed());
    }
}

#[test]
fn an_aborted_connection_is_reset_in_every_model() {
    for model in Model::ALL {
        let (server, outboxes) = serve(model, timeless());
        let mut client = server.client();
        let outbox = outboxes.recv().unwrap();
        outbox.abort();
        let error = client.read(&mut [0]).unwrap_err();
        assert_eq!(
            error.kind(),
            std::io::ErrorKind::ConnectionReset,
            "{model:?}"
        );
        assert_eq!(server.end().closed_aborted, 1, "{model:?}");
        assert_eq!(outbox.post(&b"late"[..]), Err(PostError::Closed));
        assert_eq!(outbox.pending(), 0);
    }
}

/// A slow reader of long posts, which are shared and not copied.
#[test]
fn long_posts_arrive_whole_at_a_slow_reader_in_every_model() {
    for model in Model::ALL {
        let config = Config {
            send_buffer: Some(4_096),
            limits: Limits {
                max_posted: 8 << 20,
                ..timeless().limits
            },
            ..timeless()
        };
        let (server, outboxes) = serve(model, config);
        let mut client = server.client();
        let outbox = outboxes.recv().unwrap();
        let all: Arc<[u8]> = noise(300_000).into();
        for _ in 0..10 {
            outbox.post(Arc::clone(&all)).unwrap();
        }
        outbox.close();

        let mut got = Vec::new();
        client.read_to_end(&mut got).unwrap();
        assert!(got == all.repeat(10), "{model:?}: {} bytes", got.len());
        server.end();
        assert_eq!(Arc::strong_count(&all), 1, "{model:?}");
    }
}

#[test]
fn the_limit_is_in_bytes_and_one_post_always_fits() {
    let limits = Limits {
        max_posted: 100,
        ..timeless().limits
    };
    let (mut session, outbox) = open(Config {
        limits,
        ..timeless()
    });
    session.stop_taking();
    outbox.post(vec![0; 1_000]).unwrap();
    assert_eq!(
        (outbox.pending(), outbox.post(&b"x"[..])),
        (1_000, Err(PostError::Full))
    );

    // What the session has taken does not wait here any more, and what a stalled peer is owed does.
    session.run();
    assert_eq!((outbox.pending(), session.waiting()), (0, 1_000));
    outbox.post(vec![1; 60]).unwrap();
    outbox.post(vec![2; 40]).unwrap();
    assert_eq!(outbox.post(vec![3; 1]), Err(PostError::Full));
    session.run();
    assert_eq!((outbox.pending(), session.waiting()), (100, 1_000));

    session.take(usize::MAX);
    let expected = [vec![0; 1_000], vec![1; 60], vec![2; 40]].concat();
    assert_eq!(session.sent(), expected);
    assert_eq!((outbox.pending(), session.held()), (0, 0));
}

#[test]
fn posts_count_as_held_until_nobody_has_them() {
    let (mut session, outbox) = open(timeless());
    session.stop_taking();
    outbox.post(vec![0; 50_000]).unwrap();
    assert_eq!(session.held(), 50_000);
    session.run();
    assert!(
        (50_000..52_000).contains(&session.held()),
        "{}",
        session.held()
    );
    session.take(usize::MAX);
    assert_eq!(session.held(), 0);

    let config = Config {
        max_buffered: 2 << 20,
        limits: Limits {
            max_posted: 8 << 20,
            ..timeless().limits
        },
        ..timeless()
    };
    let (mut session, outbox) = open(config);
    session.stop_taking();
    outbox.post(vec![0; 1 << 20]).unwrap();
    outbox.post(vec![0; 1 << 20]).unwrap();
    session.run();
    assert!(matches!(session.reason(), Some(CloseReason::Shed)));
    assert_eq!((session.held(), outbox.is_closed()), (0, true));
}

#[test]
fn an_outbox_is_the_same_each_time_and_ends_with_its_connection() {
    struct Same;

    impl Protocol for Same {
        fn data_received(&mut self, data: &[u8], transport: &mut Transport<'_>) -> Result<usize> {
            let (one, other) = (transport.outbox(), transport.outbox());
            one.post(&b"1"[..]).unwrap();
            other.post(&b"2"[..]).unwrap();
            assert_eq!((one.id(), one.pending()), (transport.id(), 2));
            assert_eq!(one.peer().to_string(), transport.peer().to_string());
            Ok(data.len())
        }
    }
    let mut session = MemorySession::new(Same);
    session.receive(b"x");
    assert_eq!(session.sent(), b"12");

    let (mut session, outbox) = open(timeless());
    session.stop_taking();
    outbox.post(&b"abc"[..]).unwrap();
    session.fail(CloseReason::Aborted);
    assert_eq!(session.ended().map(|ended| ended.unsent()), Some(3));
    assert!(outbox.is_closed());

    // Also one whose driver just drops it.
    let (session, outbox) = open(timeless());
    drop(session);
    assert_eq!(outbox.post(&b"late"[..]), Err(PostError::Closed));
}

#[test]
fn posts_go_through_framings_and_layers() {
    struct Framer(mpsc::Sender<Outbox>);

    impl FrameProtocol for Framer {
        type Framing = LengthPrefix;

        fn connection_made(&mut self, frames: &mut FrameTransport<'_, LengthPrefix>) -> Result {
            let _ = self.0.send(frames.transport().outbox());
            Ok(())
        }

        fn frame_received(&mut self, _: &[u8], _: &mut FrameTransport<'_, LengthPrefix>) -> Result {
            Ok(())
        }
    }

    for length in [3, 10_000] {
        let (sender, outboxes) = mpsc::channel();
        let framed = Framed::new(LengthPrefix::u32(20_000), Framer(sender));
        let layer = Scrambled::new(7);
        let mut session = MemorySession::with_config(Layered::around(layer, framed), timeless());
        let outbox = outboxes.recv().unwrap();
        outbox.post(vec![b'p'; length]).unwrap();
        outbox.post(vec![b'x'; 30_000]).unwrap();
        outbox.post(&b"end"[..]).unwrap();
        outbox.close();
        session.run();

        let header = u32::try_from(length).unwrap().to_be_bytes();
        let plain = [&header[..], &vec![b'p'; length], &[0, 0, 0, 3], b"end"].concat();
        assert!(session.sent() == layer.expect(&plain), "{length}");
        assert!(matches!(session.reason(), Some(CloseReason::Closed)));
    }
}

/// A client that is slow for all of the posts is not sent any of them twice or in part, and its input
/// goes on.
#[test]
fn input_goes_on_while_posts_wait() {
    struct Echoing(mpsc::Sender<Outbox>);

    impl Protocol for Echoing {
        fn connection_made(&mut self, transport: &mut Transport<'_>) -> Result {
            let _ = self.0.send(transport.outbox());
            Ok(())
        }

        fn data_received(&mut self, data: &[u8], transport: &mut Transport<'_>) -> Result<usize> {
            transport.write(data);
            Ok(data.len())
        }
    }

    let (sender, outboxes) = mpsc::channel();
    let server = ModelServer::new(
        Model::EventLoop,
        &["tcp://127.0.0.1:0"],
        timeless(),
        move |_: &Peer| Some(Echoing(sender.clone())),
    );
    let mut client = server.client();
    let outbox = outboxes.recv().unwrap();
    for count in 0..1_000_u32 {
        post_patiently(&outbox, &count.to_be_bytes());
        client.write_all(b"echo").unwrap();
    }
    let mut got = vec![0; 8_000];
    client.read_exact(&mut got).unwrap();
    let echoes = got.chunks(4).filter(|chunk| *chunk == b"echo").count();
    assert_eq!(echoes, 1_000);
    drop(client);
    server.end();
}

/// Also a connection that is closing already can be ended at once, in a layer too.
#[test]
fn an_abort_ends_a_connection_that_is_closing() {
    fn check(mut session: MemorySession<impl Protocol>, outbox: &Outbox) {
        session.stop_taking();
        outbox.post(vec![0; 100_000]).unwrap();
        outbox.close();
        session.run();
        assert!(session.reason().is_none());
        outbox.abort();
        session.run();
        let reason = session.reason();
        assert!(matches!(reason, Some(CloseReason::Aborted)), "{reason:?}");
    }

    let (session, outbox) = open(timeless());
    check(session, &outbox);
    let (sender, outboxes) = mpsc::channel();
    let inside = Layered::around(Scrambled::new(7), Open(sender));
    check(
        MemorySession::with_config(inside, timeless()),
        &outboxes.recv().unwrap(),
    );
}

/// Those that are owed the most are ended first, also in layers.
#[test]
fn laggards_in_layers_are_shed() {
    let (sender, outboxes) = mpsc::channel();
    let config = Config {
        max_buffered: 4 << 20,
        limits: Limits {
            max_posted: 8 << 20,
            ..timeless().limits
        },
        ..timeless()
    };
    let make = move |_: &Peer| {
        let open = Open(sender.clone());
        Some(Layered::around(Scrambled::new(7), open))
    };
    let server = ModelServer::new(Model::EventLoop, &["tcp://127.0.0.1:0"], config, make);
    let clients = [0; 2].map(|_| server.client());
    let outboxes = [0; 2].map(|_| outboxes.recv().unwrap());
    outboxes[0].post(vec![0; 100_000]).unwrap();
    while !outboxes[1].is_closed() {
        let _ = outboxes[1].post(vec![0; 1 << 20]);
        thread::yield_now();
    }
    assert!(!outboxes[0].is_closed());
    drop(clients);
    assert_eq!(server.end().closed_shed, 1);
}
