//! What the service manager hears, by a socket that stands for it.

use std::io;
use std::io::{ErrorKind, Write};
use std::os::unix::net::UnixDatagram;
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use serveloop::protocols::Echo;
use serveloop::service::notify::{Notified, Notifier};
use serveloop::{
    Address, Config, Factory, Peer, Protocol, Result, ShutdownHandle, Statistics, Transport,
};

use crate::support::model_server::{Model, bind};
use crate::support::{PATIENCE, Scratch, client, echoes};

/// How long the manager waits for a sign of life in these tests.
const WATCHDOG: Duration = Duration::from_millis(400);

/// Stands for the service manager.
struct Manager {
    socket: UnixDatagram,
    path: String,
    _scratch: Scratch,
}

impl Manager {
    fn new() -> Self {
        let scratch = Scratch::new();
        let path = scratch.path("manager");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let path = path.to_str().unwrap().to_owned();
        Self {
            socket,
            path,
            _scratch: scratch,
        }
    }

    fn notifier(&self, watchdog: Option<Duration>) -> Notifier {
        Notifier::new(&self.path).unwrap().with_watchdog(watchdog)
    }

    #[track_caller]
    fn hear(&self) -> String {
        let mut room = [0; 256];
        let count = self.socket.recv(&mut room).expect("a message");
        String::from_utf8(room[..count].to_vec()).unwrap()
    }

    /// Gives up after `patience`.
    fn hears_within(&self, patience: Duration) -> Option<String> {
        self.socket.set_read_timeout(Some(patience)).unwrap();
        let mut room = [0; 256];
        let heard = self.socket.recv(&mut room);
        self.socket.set_read_timeout(Some(PATIENCE)).unwrap();
        match heard {
            Ok(count) => Some(String::from_utf8(room[..count].to_vec()).unwrap()),
            Err(error) if error.kind() == ErrorKind::WouldBlock => None,
            Err(error) => panic!("{error}"),
        }
    }

    /// The next message that is no sign of life.
    #[track_caller]
    fn hear_news(&self) -> String {
        loop {
            let heard = self.hear();
            if heard != "WATCHDOG=1" {
                return heard;
            }
        }
    }

    /// Waits until no sign of life has come for longer than the server may take between two.
    #[track_caller]
    fn expect_silence(&self) {
        let end = Instant::now() + PATIENCE;
        while Instant::now() < end {
            if self.hears_within(WATCHDOG).is_none() {
                return;
            }
        }
        panic!("it goes on");
    }
}

struct Notifying {
    address: Address,
    handle: ShutdownHandle,
    thread: JoinHandle<io::Result<Statistics>>,
}

impl Notifying {
    fn new<F>(model: Model, notifier: Notifier, factory: F) -> Self
    where
        F: Factory + Clone + Send + 'static,
        F::Protocol: Send + 'static,
    {
        let server = bind(model, &["tcp://127.0.0.1:0"], Config::default());
        let (address, handle) = (server.addresses()[0].clone(), server.shutdown_handle());
        let factory = Notified::new(Some(notifier), handle.clone(), factory);
        let thread = thread::spawn(move || model.serve(server, factory));
        Self {
            address,
            handle,
            thread,
        }
    }

    fn end(self) {
        self.handle.shutdown();
        self.thread.join().unwrap().unwrap();
    }
}

#[test]
fn the_manager_hears_of_the_beginning_and_of_the_end_in_every_model() {
    for model in Model::ALL {
        let manager = Manager::new();
        let served = Notifying::new(model, manager.notifier(None), |_: &Peer| Some(Echo));
        assert_eq!(manager.hear(), "READY=1", "{model:?}");
        let mut open = client(&served.address);
        echoes(&mut open, b"hello");

        // The end is announced while a connection is still open.
        served.handle.shutdown();
        assert_eq!(manager.hear(), "STOPPING=1", "{model:?}");
        drop(open);
        served.end();
        let rest = manager.hears_within(Duration::from_millis(20));
        assert_eq!(rest, None, "{model:?}");
    }
}

#[test]
fn an_idle_server_and_a_waiting_one_give_signs_of_life_in_every_model() {
    for model in Model::ALL {
        let manager = Manager::new();
        let notifier = manager.notifier(Some(WATCHDOG));
        let served = Notifying::new(model, notifier, |_: &Peer| Some(Echo));
        assert_eq!(manager.hear(), "READY=1");
        let hear_regularly = |what: &str| {
            for _ in 0..5 {
                let heard = manager.hears_within(WATCHDOG);
                assert_eq!(heard.as_deref(), Some("WATCHDOG=1"), "{model:?} {what}");
            }
        };
        hear_regularly("idle");

        let mut open = client(&served.address);
        echoes(&mut open, b"hello");
        hear_regularly("waiting for a client");
        drop(open);
        served.end();
        assert_eq!(manager.hear_news(), "STOPPING=1");
    }
}

/// Blocks when it is told to, until the test lets it go.
struct Stuck(Arc<Mutex<Receiver<()>>>);

impl Protocol for Stuck {
    fn data_received(&mut self, data: &[u8], transport: &mut Transport<'_>) -> Result<usize> {
        if data.starts_with(b"block") {
            self.0.lock().unwrap().recv().unwrap();
        }
        transport.write(data);
        Ok(data.len())
    }
}

#[test]
fn a_handler_that_blocks_stops_the_signs_of_life() {
    for model in [Model::EventLoop, Model::Workers, Model::Sequential] {
        let (release, released) = mpsc::channel();
        let released = Arc::new(Mutex::new(released));
        let factory = move |_: &Peer| Some(Stuck(Arc::clone(&released)));

        let manager = Manager::new();
        let served = Notifying::new(model, manager.notifier(Some(WATCHDOG)), factory);
        assert_eq!(manager.hear(), "READY=1");
        let mut open = client(&served.address);
        echoes(&mut open, b"hello");
        assert_eq!(manager.hear(), "WATCHDOG=1");

        open.write_all(b"block").unwrap();
        manager.expect_silence();
        assert_eq!(manager.hears_within(WATCHDOG * 2), None, "{model:?}");

        release.send(()).unwrap();
        crate::support::expect(&mut open, b"block");
        assert_eq!(manager.hear(), "WATCHDOG=1", "{model:?}");
        drop(open);
        served.end();
    }
}

/// With a thread for each connection, what blocks in one holds up nothing else.
#[test]
fn a_thread_that_blocks_is_not_the_server() {
    let (release, released) = mpsc::channel();
    let released = Arc::new(Mutex::new(released));
    let factory = move |_: &Peer| Some(Stuck(Arc::clone(&released)));
    let manager = Manager::new();
    let served = Notifying::new(Model::Threading, manager.notifier(Some(WATCHDOG)), factory);
    assert_eq!(manager.hear(), "READY=1");
    let mut open = client(&served.address);
    open.write_all(b"block").unwrap();
    for _ in 0..8 {
        assert_eq!(manager.hear(), "WATCHDOG=1");
    }
    release.send(()).unwrap();
    drop(open);
    served.end();
}

#[test]
fn clones_that_never_serve_do_not_keep_a_server_from_being_ready() {
    let manager = Manager::new();
    let server = bind(Model::EventLoop, &["tcp://127.0.0.1:0"], Config::default());
    let handle = server.shutdown_handle();
    let notifier = Some(manager.notifier(None));
    let factory = Notified::new(notifier, handle.clone(), |_: &Peer| Some(Echo));
    let spare = factory.clone();
    let thread = thread::spawn(move || server.with(factory).serve_forever());
    assert_eq!(manager.hears_within(Duration::from_millis(50)), None);
    drop(spare);
    assert_eq!(manager.hear(), "READY=1");
    handle.shutdown();
    thread.join().unwrap().unwrap();
    assert_eq!(manager.hear(), "STOPPING=1");
}

#[test]
fn a_reload_names_the_time_of_the_monotonic_clock() {
    let manager = Manager::new();
    let notifier = manager.notifier(None);
    let since_boot = || {
        let text = std::fs::read_to_string("/proc/uptime").unwrap_or_default();
        let seconds = text
            .split(' ')
            .next()
            .and_then(|text| text.parse::<f64>().ok());
        seconds.map_or(0.0, |seconds| seconds * 1e6)
    };
    let before = since_boot();
    notifier.reloading();
    let heard = manager.hear();
    let micros = heard.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").unwrap();
    let micros: f64 = micros.parse().unwrap();
    // A machine that slept has a clock of uptime that is ahead.
    if cfg!(target_os = "linux") {
        assert!(micros > 0.0 && micros <= before + 60e6, "{micros} {before}");
    }
}

#[test]
fn a_status_is_one_line() {
    let manager = Manager::new();
    manager.notifier(None).status("one\nREADY=1\u{1b}");
    assert_eq!(manager.hear(), "STATUS=one READY=1 ");
}

/// What a manager that does not read has no room for comes later.
#[test]
fn a_manager_that_is_slow_hears_the_last_word() {
    let manager = Manager::new();
    let notifier = manager.notifier(None);
    for number in 0..1_000 {
        notifier.status(&number.to_string());
    }
    let served = Notifying::new(Model::EventLoop, notifier, |_: &Peer| Some(Echo));
    let end = Instant::now() + PATIENCE;
    while manager.hear() != "READY=1" {
        assert!(Instant::now() < end);
    }
    served.end();
    assert_eq!(manager.hear(), "STOPPING=1");
}

#[cfg(target_os = "linux")]
#[test]
fn a_name_outside_the_file_system_is_an_address_too() {
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::net::SocketAddr;
    let name = format!("serveloop-notify-{}", std::process::id());
    let at = SocketAddr::from_abstract_name(&name).unwrap();
    let socket = UnixDatagram::bind_addr(&at).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    Notifier::new(&format!("@{name}")).unwrap().ready();
    let mut room = [0; 16];
    let count = socket.recv(&mut room).unwrap();
    assert_eq!(&room[..count], b"READY=1");
}

#[test]
fn without_a_manager_the_server_goes_on() {
    let notifier = Notifier::new("/nonexistent/manager").unwrap();
    let served = Notifying::new(Model::EventLoop, notifier, |_: &Peer| Some(Echo));
    echoes(&mut client(&served.address), b"hello");
    served.end();
}
