//! An upstream with real sockets, whose peer goes and comes back.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use serveloop::net::Target;
use serveloop::service::{Dialer, Dialing, Link, Reply, Upstream, UpstreamLimits};
use serveloop::{
    Address, Config, Peer, Protocol, Reactor, Result, Server, ShutdownHandle, Statistics, Transport,
};

use crate::support::{PATIENCE, millis};

type Boxed = Box<dyn Protocol + Send>;

/// Answers each line with itself and the number of its server.
struct Back(usize);

impl Protocol for Back {
    fn data_received(&mut self, data: &[u8], transport: &mut Transport<'_>) -> Result<usize> {
        let Some(end) = data.iter().position(|byte| *byte == b'\n') else {
            return Ok(0);
        };
        transport.write(&data[..end]);
        transport.write(format!(" from {}\n", self.0).as_bytes());
        Ok(end + 1)
    }
}

struct ToBack(Link<Vec<u8>>);

impl Protocol for ToBack {
    fn connection_made(&mut self, transport: &mut Transport<'_>) -> Result {
        self.0.ready(transport);
        Ok(())
    }

    fn data_received(&mut self, data: &[u8], transport: &mut Transport<'_>) -> Result<usize> {
        let Some(end) = data.iter().position(|byte| *byte == b'\n') else {
            return Ok(0);
        };
        self.0.answer(data[..=end].to_vec());
        self.0.send(transport);
        Ok(end + 1)
    }

    fn woken(&mut self, transport: &mut Transport<'_>) {
        self.0.send(transport);
    }
}

/// Passes lines to the server behind, one at a time.
struct Front(Upstream<Vec<u8>>, Option<Reply<Vec<u8>>>);

impl Protocol for Front {
    fn data_received(&mut self, line: &[u8], transport: &mut Transport<'_>) -> Result<usize> {
        self.1 = Some(self.0.request(transport.waker(), line)?);
        transport.pause_reading();
        Ok(line.len())
    }

    fn woken(&mut self, transport: &mut Transport<'_>) {
        if let Some(answer) = self.1.as_mut().and_then(Reply::take) {
            let line = answer.unwrap_or_else(|error| format!("{error}\n").into_bytes());
            transport.write(&line);
            transport.resume_reading();
        }
    }
}

struct Running(
    ShutdownHandle,
    Option<JoinHandle<std::io::Result<Statistics>>>,
);

impl Running {
    fn end(mut self) {
        self.0.abort();
        self.1.take().unwrap().join().unwrap().unwrap();
    }
}

/// Starts a server at `at` with that number, and returns where it is.
fn start(at: &Address, number: usize) -> (Running, Address) {
    let begin = Instant::now();
    let server = loop {
        match Server::bind(std::slice::from_ref(at), Config::default()) {
            Ok(server) => break server,
            Err(error) => assert!(begin.elapsed() < PATIENCE, "{error}"),
        }
        thread::sleep(millis(5));
    };
    let (handle, at) = (server.shutdown_handle(), server.addresses()[0].clone());
    let thread = thread::spawn(move || server.serve_forever(move |_| Some(Back(number))));
    (Running(handle, Some(thread)), at)
}

struct Line(TcpStream, BufReader<TcpStream>);

impl Line {
    fn new(at: &Address) -> Self {
        let stream = TcpStream::connect(at.socket_addr().unwrap()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Self(stream.try_clone().unwrap(), BufReader::new(stream))
    }

    fn ask(&mut self, text: &str) -> String {
        self.0.write_all(text.as_bytes()).unwrap();
        let mut answer = String::new();
        self.1.read_line(&mut answer).unwrap();
        answer
    }
}

fn front(at: &Address, workers: usize, loops: &Arc<AtomicUsize>) -> (Running, Address) {
    let anywhere = "tcp://127.0.0.1:0".parse().unwrap();
    let config = Config {
        reuse_port: true,
        ..Config::default()
    };
    let server = Server::bind(&[anywhere], config).unwrap();
    let (handle, own) = (server.shutdown_handle(), server.addresses()[0].clone());
    let port = at.socket_addr().unwrap().port();
    let name: Target = format!("tcp://localhost:{port}").parse().unwrap();
    let loops = Arc::clone(loops);
    let factory = Dialing::new(move |dialer: &Dialer<Boxed>| {
        loops.fetch_add(1, Ordering::Relaxed);
        let make = |link| Box::new(ToBack(link)) as Boxed;
        let upstream = Upstream::new(dialer, name.clone(), UpstreamLimits::default(), make);
        move |_: &Peer| Some(Box::new(Front(upstream.clone(), None)) as Boxed)
    });
    let thread = thread::spawn(move || server.with(factory).serve_workers(workers));
    (Running(handle, Some(thread)), own)
}

#[test]
fn it_connects_again_when_its_server_is_back() {
    for workers in [1, 2] {
        let loops = Arc::default();
        let (behind, at) = start(&"tcp://127.0.0.1:0".parse().unwrap(), 1);
        let (front, own) = front(&at, workers, &loops);
        let mut clients: Vec<_> = (0..6).map(|_| Line::new(&own)).collect();
        for client in &mut clients {
            assert_eq!(client.ask("hello\n"), "hello from 1\n");
        }

        behind.end();
        let (behind, _) = start(&at, 2);
        for client in &mut clients {
            // What was asked before the loss was noticed is lost, and said to be; nothing else is.
            let mut answer = client.ask("again\n");
            if answer == "the connection to the upstream was lost\n" {
                answer = client.ask("again\n");
            }
            assert_eq!(answer, "again from 2\n");
        }
        behind.end();
        front.end();
        // The original is made before it is cloned for each loop.
        assert_eq!(loops.load(Ordering::Relaxed), workers + 1);
    }
}

#[test]
fn requests_wait_for_a_server_that_starts_late() {
    let (behind, at) = start(&"tcp://127.0.0.1:0".parse().unwrap(), 0);
    behind.end();
    let (front, own) = front(&at, 1, &Arc::default());
    let mut client = Line::new(&own);
    let late = thread::spawn(move || {
        thread::sleep(millis(300));
        start(&at, 7).0
    });
    assert_eq!(client.ask("hello\n"), "hello from 7\n");
    late.join().unwrap().end();
    front.end();
}

/// No listener keeps the loop running between two connections, and no wake announces the second one.
#[test]
fn a_loop_that_only_has_an_upstream_connects_again() {
    let far = TcpListener::bind("127.0.0.1:0").unwrap();
    let to: Target = Address::Tcp(far.local_addr().unwrap()).into();
    let mut upstream = None;
    let dialing = Dialing::new(|dialer: &Dialer<Boxed>| {
        let make = |link| Box::new(ToBack(link)) as Boxed;
        let limits = UpstreamLimits::default();
        upstream = Some(Upstream::new(dialer, to.clone(), limits, make));
        |_: &Peer| None::<Boxed>
    });
    let mut reactor = Reactor::new(dialing, Config::default()).unwrap();
    let handle = ShutdownHandle::new().unwrap();
    reactor.obey(handle.clone()).unwrap();

    let accepting = thread::spawn(move || {
        drop(far.accept().unwrap());
        let second = far.accept().unwrap();
        handle.abort();
        drop(second);
    });
    reactor.run().unwrap();
    assert_eq!(reactor.statistics().connected, 2);
    accepting.join().unwrap();
}
