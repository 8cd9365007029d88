//! What several themes need: servers on a thread, and bytes to send them.

pub(crate) mod again;
pub(crate) mod boxed;
pub(crate) mod model_protocols;
pub(crate) mod model_server;
#[cfg(target_os = "linux")]
pub(crate) mod namespace;
pub(crate) mod outside;
pub(crate) mod probe;
pub(crate) mod scripted;
pub(crate) mod transcripts;

use std::env;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use proptest::test_runner::{Config as ProptestConfig, RngSeed};
use serveloop::net::NetworkList;
use serveloop::server::Refusal;
use serveloop::{
    Actions, Address, Config, Ended, Factory, Limits, Peer, Protocol, Server, ShutdownHandle,
    Statistics,
};

use crate::support::boxed::Boxing;
use crate::support::probe::Log;

/// How long anything may take before a test gives up. Nothing waits for this long when all is well.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// A panic that prints nothing.
pub(crate) fn panic_quietly() -> ! {
    resume_unwind(Box::new("on purpose"))
}

/// Properties are tried on the same cases in every run, this many if `PROPTEST_CASES` does not say
/// otherwise; with `PROPTEST_RNG_SEED` on others. What fails is printed and stored nowhere.
pub(crate) fn cases(count: u32) -> ProptestConfig {
    let asked = ProptestConfig::default();
    ProptestConfig {
        cases: env::var_os("PROPTEST_CASES").map_or(count, |_| asked.cases),
        rng_seed: match asked.rng_seed {
            RngSeed::Random => RngSeed::Fixed(1),
            seed => seed,
        },
        failure_persistence: None,
        ..asked
    }
}

/// The default limits without any deadline.
pub(crate) fn timeless() -> Config {
    Config {
        limits: Limits {
            first_message_timeout: None,
            message_timeout: None,
            idle_timeout: None,
            write_timeout: None,
            ..Limits::default()
        },
        ..Config::default()
    }
}

pub(crate) const fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

pub(crate) const fn millis(count: u64) -> Duration {
    Duration::from_millis(count)
}

/// Bytes in which every position looks different, for all that matters.
pub(crate) fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// A server on a thread of its own. Dropping it ends it.
pub(crate) struct Serving {
    pub(crate) addresses: Vec<Address>,
    pub(crate) handle: ShutdownHandle,
    /// What the factory heard of: peers and reasons.
    pub(crate) errors: Log,
    board: Arc<Board>,
    thread: Option<JoinHandle<io::Result<Statistics>>>,
}

/// Where the loop hangs out its counters after every turn.
#[derive(Default)]
struct Board {
    statistics: Mutex<Statistics>,
    changed: Condvar,
}

impl Serving {
    /// Serves with a closure. A factory with hooks of its own needs
    /// [`with_factory`](Self::with_factory).
    pub(crate) fn at<P: Protocol + 'static>(
        addresses: &[&str],
        config: Config,
        build: impl FnMut(&Peer) -> Option<P> + Send + 'static,
    ) -> Self {
        Self::with(bind_all(addresses, config), build)
    }

    pub(crate) fn tcp<P: Protocol + 'static>(
        config: Config,
        build: impl FnMut(&Peer) -> Option<P> + Send + 'static,
    ) -> Self {
        Self::at(&["tcp://127.0.0.1:0"], config, build)
    }

    pub(crate) fn with<P: Protocol + 'static>(
        server: Server,
        build: impl FnMut(&Peer) -> Option<P> + Send + 'static,
    ) -> Self {
        Self::with_factory(server, Boxing::new(build))
    }

    pub(crate) fn tcp_with_factory<F>(config: Config, factory: F) -> Self
    where
        F: Factory + Send + 'static,
    {
        Self::with_factory(bind_all(&["tcp://127.0.0.1:0"], config), factory)
    }

    pub(crate) fn with_factory<F>(server: Server, factory: F) -> Self
    where
        F: Factory + Send + 'static,
    {
        let board = Arc::<Board>::default();
        let errors = Log::default();
        let watched = Watched {
            factory,
            board: Arc::clone(&board),
            errors: errors.clone(),
        };
        Self {
            addresses: server.addresses().to_vec(),
            handle: server.shutdown_handle(),
            errors,
            board,
            thread: Some(thread::spawn(move || server.with(watched).serve_forever())),
        }
    }

    /// A client of the first listener.
    pub(crate) fn client(&self) -> TcpStream {
        client(&self.addresses[0])
    }

    /// Waits until the counters are as described.
    #[track_caller]
    pub(crate) fn wait(&self, reached: impl Fn(&Statistics) -> bool) -> Statistics {
        let statistics = self.board.statistics.lock().unwrap();
        let (guard, outcome) = self
            .board
            .changed
            .wait_timeout_while(statistics, PATIENCE, |statistics| !reached(statistics))
            .unwrap();
        let statistics = *guard;
        drop(guard);
        assert!(!outcome.timed_out(), "never reached: {statistics:?}");
        statistics
    }

    /// Shuts the server down and waits for it to drain. What was opened must have been closed.
    #[track_caller]
    pub(crate) fn end(mut self) -> Statistics {
        self.handle.shutdown();
        let statistics = self.join();
        let opened = statistics.accepted + statistics.connected;
        assert_eq!(opened, statistics.closed(), "{statistics:?}");
        statistics
    }

    /// Waits for the server to end on its own.
    pub(crate) fn join(&mut self) -> Statistics {
        self.thread.take().unwrap().join().unwrap().unwrap()
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        if let Some(thread) = self.thread.take() {
            self.handle.shutdown();
            self.handle.shutdown();
            let _ = thread.join();
        }
    }
}

fn bind_all(addresses: &[&str], config: Config) -> Server {
    let addresses: Vec<Address> = addresses.iter().map(|at| at.parse().unwrap()).collect();
    Server::bind(&addresses, config).unwrap()
}

/// A factory that lets the test look at the counters and at the errors.
struct Watched<F> {
    factory: F,
    board: Arc<Board>,
    errors: Log,
}

impl<F: Factory> Factory for Watched<F> {
    type Protocol = F::Protocol;

    fn build_protocol(&mut self, peer: &Peer) -> Option<F::Protocol> {
        self.factory.build_protocol(peer)
    }

    fn handle_error(&mut self, ended: &Ended<'_>) {
        self.errors.push(ended.reason().to_string());
        self.factory.handle_error(ended);
    }

    fn handle_refusal(&mut self, peer: &Peer, why: Refusal) {
        self.factory.handle_refusal(peer, why);
    }

    fn started(&mut self, actions: &mut Actions<'_, F::Protocol>) {
        self.factory.started(actions);
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.factory.poll_timeout()
    }

    fn handle_timeout(&mut self, actions: &mut Actions<'_, F::Protocol>) {
        self.factory.handle_timeout(actions);
    }

    fn woken(&mut self, actions: &mut Actions<'_, F::Protocol>) {
        self.factory.woken(actions);
    }

    fn needs_loop(&self) -> bool {
        self.factory.needs_loop()
    }

    fn trusted_proxies(&self, listener: usize) -> Option<NetworkList> {
        self.factory.trusted_proxies(listener)
    }

    fn needs_one_process(&self) -> bool {
        self.factory.needs_one_process()
    }

    fn service_actions(&mut self, actions: &mut Actions<'_, F::Protocol>) {
        *self.board.statistics.lock().unwrap() = *actions.statistics();
        self.board.changed.notify_all();
        self.factory.service_actions(actions);
    }
}

/// A TCP connection that fails rather than waits without end.
pub(crate) fn client(address: &Address) -> TcpStream {
    patient(TcpStream::connect(address.socket_addr().unwrap()).unwrap())
}

/// Makes a connection fail rather than wait without end.
pub(crate) fn patient(stream: TcpStream) -> TcpStream {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

/// The same over a Unix socket.
pub(crate) fn unix_client(path: &Path) -> UnixStream {
    let stream = UnixStream::connect(path).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// Sends `message` and expects it back.
#[track_caller]
pub(crate) fn echoes(stream: &mut (impl Read + Write), message: &[u8]) {
    stream.write_all(message).unwrap();
    expect(stream, message);
}

/// Reads exactly what is expected.
#[track_caller]
pub(crate) fn expect(stream: &mut impl Read, expected: &[u8]) {
    let mut got = vec![0; expected.len()];
    stream.read_exact(&mut got).unwrap();
    assert!(got == expected, "other bytes than expected");
}

/// Reads to the end of the stream. A reset is not an end.
#[track_caller]
pub(crate) fn read_to_end(stream: &mut impl Read) -> Vec<u8> {
    let mut got = Vec::new();
    stream.read_to_end(&mut got).unwrap();
    got
}

/// A directory for socket files, removed with all that is in it.
pub(crate) struct Scratch(PathBuf);

impl Scratch {
    pub(crate) fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("serveloop-test-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir(&path).unwrap();
        Self(path)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// A place to listen at.
    pub(crate) fn uri(&self, scheme: &str, name: &str) -> String {
        format!("{scheme}://{}", self.path(name).display())
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
