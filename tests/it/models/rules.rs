//! What a model that blocks could get wrong: connections that never pause for breath, wakes that
//! come at a bad moment, clients that wait when the server stops, and protocols that hang.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use serveloop::protocols::{Discard, Echo};
use serveloop::{Config, Factory, Limits, Peer, Server, Transport, Waker};
use socket2::Socket;

use crate::support::model_protocols::probe;
use crate::support::model_server::{
    End, Model, ModelServer, bind, connect, finish, read_to, try_connect,
};
use crate::support::probe::Probe;
use crate::support::{PATIENCE, Scratch, echoes, expect, millis, noise, seconds, timeless};

const TCP: &str = "tcp://127.0.0.1:0";

/// What takes longer has waited for something that did not come in time.
const PROMPT: Duration = Duration::from_secs(5);

/// Writes without end.
fn endless() -> Probe {
    fn fill(transport: &mut Transport<'_>) {
        while !transport.is_full() && !transport.is_closing() {
            transport.write(&[b'x'; 8_192]);
        }
    }
    probe()
        .made(|transport| {
            fill(transport);
            Ok(())
        })
        .resume(fill)
}

/// Reads whatever comes, on a thread, until the end.
fn swallow(mut client: Socket) -> thread::JoinHandle<()> {
    thread::spawn(move || {
        let mut buffer = vec![0; 1 << 16];
        while client.read(&mut buffer).is_ok_and(|count| count > 0) {}
    })
}

#[test]
fn who_reads_without_end_learns_of_the_shutdown() {
    for model in Model::ALL {
        let server = ModelServer::new(model, &[TCP], timeless(), |_: &Peer| Some(endless()));
        let mut client = server.client();
        expect(&mut client, &[b'x'; 100_000]);
        let reader = swallow(client);
        let began = Instant::now();
        let statistics = server.end();
        reader.join().unwrap();
        assert_eq!(statistics.closed_by_shutdown, 1, "{model:?}");
        assert!(began.elapsed() < PROMPT, "{model:?}");
    }
}

#[test]
fn who_reads_without_end_is_cut_off_by_the_drain() {
    for model in Model::ALL {
        let config = Config {
            drain_timeout: Some(millis(100)),
            ..timeless()
        };
        let stubborn = |_: &Peer| Some(endless().shutdown(|_| ()));
        let server = ModelServer::new(model, &[TCP], config, stubborn);
        let mut client = server.client();
        expect(&mut client, &[b'x'; 100_000]);
        let reader = swallow(client);
        let began = Instant::now();
        let statistics = server.end();
        reader.join().unwrap();
        assert_eq!(statistics.closed_timeout_drain, 1, "{model:?}");
        assert!(began.elapsed() < PROMPT, "{model:?}");
    }
}

#[test]
fn who_reads_without_end_does_not_hold_up_wakes_and_timeouts() {
    for model in Model::ALL {
        let (sender, wakers) = mpsc::channel::<Waker>();
        let factory = move |_: &Peer| {
            let (due, sender) = (Instant::now() + millis(20), sender.clone());
            let armed = Arc::new(Mutex::new(Some(due)));
            let polled = Arc::clone(&armed);
            let timeout = move |transport: &mut Transport<'_>| {
                *armed.lock().unwrap() = None;
                sender.send(transport.waker()).unwrap();
            };
            let probe = endless().poll(move || *polled.lock().unwrap());
            Some(probe.timeout(timeout).woken(|transport| transport.close()))
        };
        let server = ModelServer::new(model, &[TCP], timeless(), factory);
        let reader = swallow(server.client());
        wakers.recv_timeout(PATIENCE).unwrap().wake();
        reader.join().unwrap();
        assert_eq!(server.end().closed_by_protocol, 1, "{model:?}");
    }
}

#[test]
fn who_sends_without_end_does_not_hold_up_a_timeout() {
    for model in Model::ALL {
        let factory = |_: &Peer| {
            let due = Instant::now() + millis(50);
            Some(
                probe()
                    .data(|data, _| Ok(data.len()))
                    .poll(move || Some(due)),
            )
        };
        let server = ModelServer::new(model, &[TCP], timeless(), factory);
        let mut client = server.client();
        while client.write(&[0; 65_536]).is_ok() {}
        assert_eq!(server.end().closed_by_protocol, 1, "{model:?}");
    }
}

#[test]
fn who_keeps_sending_does_not_put_off_the_write_deadline() {
    for model in Model::ALL {
        let config = Config {
            send_buffer: Some(4_096),
            limits: Limits {
                write_timeout: Some(millis(200)),
                ..timeless().limits
            },
            ..timeless()
        };
        // Too little output to stop the input, too much for the buffers of the system.
        let factory = |_: &Peer| {
            Some(probe().made(|transport| {
                transport.write(&noise(60_000));
                Ok(())
            }))
        };
        let server = ModelServer::new(model, &[TCP], config, factory);
        let client = Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        client.set_recv_buffer_size(2_048).unwrap();
        let to = server.addresses[0].socket_addr().unwrap();
        client.connect(&to.into()).unwrap();
        let began = Instant::now();
        while (&client).write(b"x").is_ok() {
            assert!(began.elapsed() < PROMPT, "{model:?}");
        }
        assert_eq!(server.end().closed_timeout_write, 1, "{model:?}");
    }
}

#[test]
fn no_wake_is_lost() {
    const ROUNDS: usize = 3_000;
    for model in Model::ALL {
        let (sender, wakers) = mpsc::channel::<(Waker, Arc<AtomicU64>)>();
        let factory = move |_: &Peer| {
            let (asked, sender) = (Arc::<AtomicU64>::default(), sender.clone());
            let wakes = Arc::clone(&asked);
            Some(
                probe()
                    .made(move |transport| {
                        sender
                            .send((transport.waker(), Arc::clone(&asked)))
                            .unwrap();
                        Ok(())
                    })
                    .woken(move |transport| {
                        for _ in 0..wakes.swap(0, Ordering::SeqCst) {
                            transport.write(b"w");
                        }
                    }),
            )
        };
        let server = ModelServer::new(model, &[TCP], timeless(), factory);
        let mut client = server.client();
        let (waker, asked) = wakers.recv_timeout(PATIENCE).unwrap();
        for round in 0..ROUNDS {
            // The second wake comes at some moment of the first one's work.
            for pause in [0, round % 200] {
                (0..pause * 20).for_each(|_| std::hint::spin_loop());
                asked.fetch_add(1, Ordering::SeqCst);
                waker.wake();
            }
            expect(&mut client, b"ww");
        }
        drop(client);
        server.end();
    }
}

/// A wake is noticed while the peer takes no output.
#[test]
fn a_stalled_session_can_be_woken() {
    for model in Model::ALL {
        let (sender, wakers) = mpsc::channel::<Waker>();
        let factory = move |_: &Peer| {
            let sender = sender.clone();
            let made = move |transport: &mut Transport<'_>| {
                transport.write(&noise(1 << 20));
                sender.send(transport.waker()).unwrap();
                Ok(())
            };
            Some(probe().made(made).woken(|transport| transport.abort()))
        };
        let config = Config {
            send_buffer: Some(4_096),
            ..timeless()
        };
        let server = ModelServer::new(model, &[TCP], config, factory);
        let mut client = server.client();
        wakers.recv_timeout(PATIENCE).unwrap().wake();
        assert_eq!(read_to(&mut client).1, End::Reset, "{model:?}");
        assert_eq!(server.end().closed_aborted, 1, "{model:?}");
    }
}

#[test]
fn who_was_connected_before_the_shutdown_is_served() {
    for model in Model::ALL {
        let scratch = Scratch::new();
        for at in [TCP, &scratch.uri("unix", "socket")] {
            let config = Config {
                backlog: 20,
                ..timeless()
            };
            let server = bind(model, &[at], config);
            let clients: Vec<_> = (0..21)
                .map(|_| {
                    let mut client = connect(&server.addresses()[0]);
                    client.write_all(b"hello").unwrap();
                    finish(&client);
                    client
                })
                .collect();
            server.shutdown_handle().shutdown();
            let server = ModelServer::with(model, server, |_: &Peer| Some(Echo));
            for mut client in clients {
                assert_eq!(
                    read_to(&mut client),
                    (b"hello".to_vec(), End::Eof),
                    "{model:?}"
                );
            }
            assert_eq!(server.end().accepted, 21);
        }
    }
}

#[test]
fn who_connects_just_before_the_shutdown_is_served() {
    for model in Model::ALL {
        for _ in 0..60 {
            // With no grace, a shutdown ends sessions whose peer has not said anything yet.
            let config = Config {
                drain_grace: Duration::ZERO,
                ..timeless()
            };
            let server = ModelServer::new(model, &[TCP], config, |_: &Peer| Some(Echo));
            let clients = [server.client(), server.client()];
            server.handle.shutdown();
            for mut client in clients {
                let end = read_to(&mut client);
                assert_eq!(end, (Vec::new(), End::Eof), "{model:?}");
            }
            assert_eq!(server.end().accepted, 2, "{model:?}");
        }
    }
}

#[test]
fn a_drain_has_one_deadline_for_all() {
    for model in Model::ALL {
        let config = Config {
            drain_timeout: Some(millis(300)),
            ..timeless()
        };
        let server = bind(model, &[TCP], config);
        let clients: Vec<_> = (0..20).map(|_| connect(&server.addresses()[0])).collect();
        let stubborn = |_: &Peer| Some(probe().shutdown(|_| ()));
        server.shutdown_handle().shutdown();
        let began = Instant::now();
        let server = ModelServer::with(model, server, stubborn);
        assert_eq!(server.end().closed_timeout_drain, 20, "{model:?}");
        assert!(began.elapsed() < seconds(3), "{model:?}");
        drop(clients);
    }
}

#[test]
fn a_second_request_ends_at_once() {
    for model in Model::ALL {
        let stubborn = |_: &Peer| {
            Some(probe().shutdown(|_| ()).data(|data, transport| {
                transport.write(data);
                Ok(data.len())
            }))
        };
        let mut server = ModelServer::new(model, &[TCP], timeless(), stubborn);
        let mut client = server.client();
        echoes(&mut client, b"x");
        let began = Instant::now();
        server.handle.shutdown();
        server.handle.shutdown();
        assert_eq!(read_to(&mut client).1, End::Reset, "{model:?}");
        assert_eq!(server.join().closed_timeout_drain, 1, "{model:?}");
        assert!(began.elapsed() < PROMPT, "{model:?}");
    }
}

#[test]
fn one_connection_too_many_is_refused() {
    for model in Model::CONCURRENT {
        let scratch = Scratch::new();
        let config = Config {
            max_connections: 1,
            ..timeless()
        };
        // One path, so that workers share the listener and each takes one connection.
        let at = scratch.uri("unix", "socket");
        let server = ModelServer::new(model, &[&at], config, |_: &Peer| Some(Echo));
        let room = if model == Model::Workers { 2 } else { 1 };
        let mut clients: Vec<_> = (0..200).map(|_| server.client()).collect();
        // A client that was refused sees the end; one that was not, its echo.
        let served = clients.iter_mut().filter_map(|client| {
            let _ = client.write_all(b"x");
            matches!(client.read(&mut [0]), Ok(1)).then_some(())
        });
        let served = served.count();
        assert!((1..=room).contains(&served), "{model:?} {served}");
        let statistics = server.end();
        assert_eq!(statistics.accepted, served as u64, "{model:?}");
        assert_eq!(statistics.refused_max_connections, 200 - served as u64);
    }
}

#[test]
fn a_protocol_that_hangs_does_not_keep_its_server_from_ending() {
    let (sender, hung) = mpsc::channel();
    let (release, released) = mpsc::channel::<()>();
    let released = Arc::new(Mutex::new(released));
    let factory = move |_: &Peer| {
        let (sender, released) = (sender.clone(), Arc::clone(&released));
        Some(probe().data(move |data, _| {
            sender.send(()).unwrap();
            // Fails when the test is over.
            let _ = released.lock().unwrap().recv();
            Ok(data.len())
        }))
    };
    let config = Config {
        drain_timeout: Some(millis(50)),
        ..timeless()
    };
    let server = Server::bind(&[TCP.parse().unwrap()], config).unwrap();
    let (mut client, handle) = (connect(&server.addresses()[0]), server.shutdown_handle());
    let serving = thread::spawn(move || server.serve_threading(factory));
    client.write_all(b"x").unwrap();
    hung.recv_timeout(PATIENCE).unwrap();
    handle.shutdown();
    let statistics = serving.join().unwrap().unwrap();
    assert_eq!(
        (statistics.accepted, statistics.closed_timeout_drain),
        (1, 1)
    );
    drop(release);
    // The thread goes its way when it can.
    assert_eq!(read_to(&mut client).0, b"");
}

/// A factory that counts what each of its clones builds.
struct PerWorker {
    own: Arc<AtomicU64>,
    all: Arc<Mutex<Vec<Arc<AtomicU64>>>>,
}

impl Clone for PerWorker {
    fn clone(&self) -> Self {
        let own = Arc::<AtomicU64>::default();
        self.all.lock().unwrap().push(Arc::clone(&own));
        let all = Arc::clone(&self.all);
        Self { own, all }
    }
}

impl Factory for PerWorker {
    type Protocol = Echo;

    fn build_protocol(&mut self, _: &Peer) -> Option<Echo> {
        self.own.fetch_add(1, Ordering::SeqCst);
        Some(Echo)
    }
}

#[test]
fn connections_are_spread_over_workers() {
    let all = Arc::<Mutex<Vec<Arc<AtomicU64>>>>::default();
    let factory = PerWorker {
        own: Arc::default(),
        all: Arc::clone(&all),
    };
    let server = ModelServer::of_factory(Model::Workers, &[TCP], timeless(), factory);
    // A client that is answered knows that all workers listen.
    echoes(&mut server.client(), b"hello");
    let mut clients: Vec<_> = (0..100).map(|_| server.client()).collect();
    for client in &mut clients {
        echoes(client, b"hello");
    }
    // What was sent before the shutdown is answered, by whichever worker has it.
    for client in &mut clients {
        client.write_all(b"last").unwrap();
    }
    server.handle.shutdown();
    for mut client in clients {
        assert_eq!(read_to(&mut client), (b"last".to_vec(), End::Eof));
    }
    assert_eq!(server.end().accepted, 101);
    let mut counts: Vec<u64> = all
        .lock()
        .unwrap()
        .iter()
        .map(|own| own.load(Ordering::SeqCst))
        .collect();
    counts.retain(|count| *count > 0);
    assert_eq!(counts.len(), 2, "{counts:?}");
    // Fair coins would leave one side with fewer than 45 in one of six runs.
    assert!(counts.iter().all(|count| *count >= 45), "{counts:?}");
}

#[test]
fn workers_need_a_port_that_can_be_shared() {
    let server = Server::bind(&[TCP.parse().unwrap()], Config::default()).unwrap();
    let error = server.serve_workers(2, |_: &Peer| Some(Echo)).unwrap_err();
    assert_eq!(
        error.to_string(),
        "several workers on one port need reuse_port"
    );
    let server = Server::bind(&[TCP.parse().unwrap()], Config::default()).unwrap();
    let error = server.serve_workers(0, |_: &Peer| Some(Echo)).unwrap_err();
    assert_eq!(error.to_string(), "at least one worker is needed");
}

#[test]
fn a_socket_file_goes_with_its_server() {
    for model in Model::ALL {
        let scratch = Scratch::new();
        let at = [
            scratch.uri("unix", "stream"),
            scratch.uri("unixgram", "datagram"),
        ];
        let server = ModelServer::new(model, &[&at[0], &at[1]], timeless(), |_: &Peer| {
            Some(Discard)
        });
        let client = server.client();
        client.shutdown(Shutdown::Both).unwrap();
        let address = server.addresses[0].clone();
        server.end();
        assert!(!scratch.path("stream").exists(), "{model:?}");
        assert!(!scratch.path("datagram").exists(), "{model:?}");
        assert!(try_connect(&address).is_err());
    }
}

/// Other threads run in this process, whatever the test harness does.
#[test]
fn a_process_with_threads_is_not_forked() {
    let (end, ended) = mpsc::channel::<()>();
    let other = thread::spawn(move || ended.recv());
    let server = Server::bind(&[TCP.parse().unwrap()], Config::default()).unwrap();
    let error = server.serve_forking(|_: &Peer| Some(Echo)).unwrap_err();
    assert!(
        error
            .to_string()
            .ends_with("threads cannot be forked safely"),
        "{error}"
    );
    drop(end);
    assert!(other.join().unwrap().is_err());
}
