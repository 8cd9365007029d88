//! What a protocol does when it is shown a post has the same effect whether its connection was idle or
//! not, and in every model.

use std::io::Read;
use std::panic::resume_unwind;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use serveloop::service::{Group, Lagging, Outbox, Post};
use serveloop::testing::MemorySession;
use serveloop::{Peer, Protocol, Result, Transport};

use crate::support::model_server::{Model, ModelServer};
use crate::support::timeless;

/// Does what a post says.
struct Obeys {
    outboxes: mpsc::Sender<Outbox>,
    deadline: Option<Instant>,
}

impl Protocol for Obeys {
    fn connection_made(&mut self, transport: &mut Transport<'_>) -> Result {
        let _ = self.outboxes.send(transport.outbox());
        Ok(())
    }

    fn data_received(&mut self, data: &[u8], _: &mut Transport<'_>) -> Result<usize> {
        Ok(data.len())
    }

    fn posted(&mut self, post: &Post, transport: &mut Transport<'_>) {
        transport.write_post(post);
        match &post[..] {
            b"close" => transport.close(),
            b"panic" => resume_unwind(Box::new("quietly")),
            b"later" => self.deadline = Some(Instant::now() + Duration::from_millis(20)),
            b"charge" => transport.charge(1_000),
            b"pause" => transport.pause_reading(),
            b"more" => transport.send(&b" and more"[..]),
            _ => {}
        }
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.deadline
    }

    fn handle_timeout(&mut self, transport: &mut Transport<'_>) {
        self.deadline = None;
        transport.write(b" than this");
    }
}

fn serve(model: Model) -> (ModelServer, Receiver<Outbox>) {
    let (sender, outboxes) = mpsc::channel();
    let make = move |_: &Peer| {
        Some(Obeys {
            outboxes: sender.clone(),
            deadline: None,
        })
    };
    let server = ModelServer::new(model, &["tcp://127.0.0.1:0"], timeless(), make);
    (server, outboxes)
}

#[test]
fn a_protocol_that_is_shown_a_post_can_do_what_it_can_do_otherwise() {
    for model in Model::ALL {
        let (server, outboxes) = serve(model);
        let mut client = server.client();
        let outbox = outboxes.recv().unwrap();

        let mut sent = 0;
        let cases = [
            ("later", "later than this"),
            ("charge", "charge"),
            ("pause", "pause"),
            ("more", "more and more"),
            ("close", "close"),
        ];
        for (post, expected) in cases {
            outbox.post(post.as_bytes()).unwrap();
            let mut received = vec![0; expected.len()];
            client.read_exact(&mut received).unwrap();
            let received = String::from_utf8(received).unwrap();
            assert_eq!(received, expected, "{model:?}");
            sent += expected.len();
        }

        assert_eq!(client.read(&mut [0]).unwrap(), 0, "{model:?}");
        drop(client);
        assert_eq!(server.end().bytes_written, sent as u64, "{model:?}");
        assert!(outbox.is_closed());
    }
}

#[test]
fn a_protocol_that_panics_over_a_post_ends_its_own_connection() {
    for model in Model::CONCURRENT {
        let (server, outboxes) = serve(model);
        let mut clients: Vec<_> = (0..5).map(|_| server.client()).collect();
        let group = Group::new(Lagging::DropOldest);
        let members: Vec<_> = clients.iter().map(|_| outboxes.recv().unwrap()).collect();
        for (number, member) in members.iter().enumerate() {
            group.join("all", member);
            if number == 2 {
                group.join("some", member);
            }
        }

        assert_eq!(group.publish("all", &b"one"[..]).sent, 5);
        assert_eq!(group.publish("some", &b"panic"[..]).sent, 1);
        while !members[2].is_closed() {
            thread::yield_now();
        }
        assert_eq!(group.publish("all", &b"two"[..]).sent, 4);

        let mut whole = 0;
        for client in &mut clients {
            let mut received = [0; 6];
            whole +=
                usize::from(client.read_exact(&mut received).is_ok() && &received == b"onetwo");
        }
        assert_eq!(whole, 4, "{model:?}");
        drop(clients);
        assert_eq!(server.end().closed_panicked, 1, "{model:?}");
    }
}

/// What one publishes and what it posts to a member itself arrive in the order of its calls, however
/// busy the member is.
#[test]
fn a_group_and_an_outbox_keep_one_order() {
    const COUNT: usize = 2_000;
    for model in Model::CONCURRENT {
        let (server, outboxes) = serve(model);
        let mut client = server.client();
        let outbox = outboxes.recv().unwrap();
        let group = Group::new(Lagging::DropNewest);
        group.join("all", &outbox);

        let publisher = thread::spawn(move || {
            for number in 0..COUNT {
                let post = format!("{number:08}").into_bytes();
                if number % 3 == 0 {
                    outbox.post(post).unwrap();
                } else {
                    assert_eq!(group.publish("all", post).sent, 1);
                }
                if number % 50 == 0 {
                    thread::sleep(Duration::from_micros(200));
                }
            }
        });

        for number in 0..COUNT {
            let mut received = [0; 8];
            client.read_exact(&mut received).unwrap();
            assert_eq!(received, *format!("{number:08}").as_bytes(), "{model:?}");
        }
        publisher.join().unwrap();
        drop(client);
        server.end();
    }
}

/// Counts how often its session was woken.
struct Counts {
    outboxes: mpsc::Sender<Outbox>,
    woken: Arc<AtomicUsize>,
}

impl Protocol for Counts {
    fn connection_made(&mut self, transport: &mut Transport<'_>) -> Result {
        let _ = self.outboxes.send(transport.outbox());
        Ok(())
    }

    fn data_received(&mut self, data: &[u8], _: &mut Transport<'_>) -> Result<usize> {
        Ok(data.len())
    }

    fn woken(&mut self, _: &mut Transport<'_>) {
        self.woken.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn a_member_that_does_not_read_is_not_woken_for_every_message() {
    let woken = |messages: u8| {
        let (sender, outboxes) = mpsc::channel();
        let woken = Arc::<AtomicUsize>::default();
        let protocol = Counts {
            outboxes: sender,
            woken: Arc::clone(&woken),
        };
        let mut session = MemorySession::with_config(protocol, timeless());
        let group = Group::new(Lagging::DropNewest);
        group.join("all", &outboxes.recv().unwrap());

        session.stop_taking();
        for message in 0..messages {
            assert_eq!(group.publish("all", vec![message; 100]).sent, 1);
            session.run();
        }
        session.take(usize::MAX);
        assert_eq!(session.sent().len(), 100 * usize::from(messages));
        woken.load(Ordering::Relaxed)
    };
    assert_eq!(woken(3), woken(200));
}
