//! Scenarios of docs/RELIABILITY.md that no other theme has. `SERVELOOP_FULL=1` has them in full size.

use std::env;
use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use serveloop::testing::MemorySession;
use serveloop::{Ended, Peer, Protocol, ProtocolError, Transport};

use crate::support::{Serving, echoes, millis, panic_quietly, patient, seconds, timeless};

/// Echoes, and panics after a number of calls, in whichever method that is; its drop is one of them.
struct Countdown {
    calls: AtomicU64,
    panics: Arc<AtomicU64>,
    due: Option<Instant>,
}

impl Countdown {
    fn step(&self) {
        let left = self.calls.load(Ordering::Relaxed);
        self.calls.store(left.saturating_sub(1), Ordering::Relaxed);
        if left == 1 {
            self.panics.fetch_add(1, Ordering::Relaxed);
            panic_quietly()
        }
    }
}

impl Protocol for Countdown {
    fn connection_made(&mut self, _: &mut Transport<'_>) -> Result<(), ProtocolError> {
        self.step();
        Ok(())
    }

    fn data_received(
        &mut self,
        data: &[u8],
        transport: &mut Transport<'_>,
    ) -> Result<usize, ProtocolError> {
        self.step();
        transport.write(data);
        transport.waker().wake();
        self.due = Some(transport.now());
        Ok(data.len())
    }

    fn eof_received(
        &mut self,
        _: &[u8],
        transport: &mut Transport<'_>,
    ) -> Result<(), ProtocolError> {
        self.step();
        transport.close();
        Ok(())
    }

    fn woken(&mut self, _: &mut Transport<'_>) {
        self.step();
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.step();
        self.due
    }

    fn handle_timeout(&mut self, _: &mut Transport<'_>) {
        self.step();
        self.due = None;
    }

    fn connection_lost(&mut self, _: &Ended<'_>) {
        self.step();
    }
}

impl Drop for Countdown {
    fn drop(&mut self) {
        self.step();
    }
}

#[test]
fn a_panic_at_any_call_of_any_of_many_ends_its_own_connection_only() {
    const DEEPEST: u64 = 10;
    let many = match env::var_os("SERVELOOP_FULL") {
        Some(_) => 1_000_000,
        None => 10_000,
    };
    let panics = Arc::new(AtomicU64::new(0));
    let shared = Arc::clone(&panics);
    let mut number = 0;
    let serving = Serving::tcp(timeless(), move |_: &Peer| {
        number += 1;
        // The first is the bystander, which never panics.
        let calls = if number == 1 { 0 } else { number % DEEPEST + 1 };
        Some(Countdown {
            calls: calls.into(),
            panics: Arc::clone(&shared),
            due: None,
        })
    });
    let mut bystander = serving.client();
    echoes(&mut bystander, b"before");
    let address = serving.addresses[0].socket_addr().unwrap();
    for number in 0..many {
        // A server that has panicked already resets what comes, and may do so before this thread
        // learns that it is connected.
        let mut client = match TcpStream::connect(address) {
            Err(error) if error.kind() == ErrorKind::ConnectionReset => continue,
            connected => patient(connected.unwrap()),
        };
        let _ = client.write_all(b"x");
        let _ = client.shutdown(Shutdown::Write);
        let end = client.read_to_end(&mut Vec::new());
        assert!(
            !matches!(&end, Err(error) if error.kind() != ErrorKind::ConnectionReset),
            "{end:?}"
        );
        if number % 100 == 0 {
            echoes(&mut bystander, b"meanwhile");
        }
    }
    echoes(&mut bystander, b"after");
    drop(bystander);
    let statistics = serving.end();
    let panics = panics.load(Ordering::Relaxed);
    assert_eq!(statistics.accepted, many + 1);
    assert_eq!(statistics.panics, panics, "{statistics:?}");
    assert!(panics > many / 3, "{panics} panics among {many}");
}

/// The next moment follows from the last one, not from when it was noticed.
#[test]
fn a_tick_does_not_drift_in_an_hour() {
    struct Ticking(Option<Instant>, u64, u128);
    impl Protocol for Ticking {
        fn connection_made(&mut self, transport: &mut Transport<'_>) -> Result<(), ProtocolError> {
            self.0 = Some(transport.now() + millis(10));
            Ok(())
        }

        fn data_received(
            &mut self,
            data: &[u8],
            transport: &mut Transport<'_>,
        ) -> Result<usize, ProtocolError> {
            transport.write(format!("{} {}", self.1, self.2).as_bytes());
            Ok(data.len())
        }

        fn poll_timeout(&self) -> Option<Instant> {
            self.0
        }

        fn handle_timeout(&mut self, transport: &mut Transport<'_>) {
            let due = self.0.unwrap();
            assert!(transport.now() >= due, "early");
            self.1 += 1;
            self.2 = self.2.max((transport.now() - due).as_nanos());
            self.0 = Some(due + millis(10));
        }
    }
    let mut session = MemorySession::with_config(Ticking(None, 0, 0), timeless());
    session.advance(seconds(3_600));
    session.receive(b"?");
    assert_eq!(session.sent(), b"360000 0");
}

/// A table of tests that are called otherwise, or gone, is worth nothing.
#[test]
fn the_table_names_tests_that_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut code = String::new();
    for directory in ["src", "tests", "cli/tests", "protocols"] {
        read_all(&root.join(directory), &mut code);
    }
    let table = fs::read_to_string(root.join("docs/RELIABILITY.md")).unwrap();
    let named = table
        .split('`')
        .skip(1)
        .step_by(2)
        .filter_map(|text| text.rsplit_once("::"))
        .filter(|(module, _)| {
            module
                .chars()
                .all(|c| c.is_ascii_lowercase() || "_:".contains(c))
        });
    let is_missing = |test: &str| {
        let as_function = format!("fn {test}(");
        !code.contains(&as_function) && !code.contains(&format!("\"{test}\""))
    };
    let (mut count, mut missing) = (0, Vec::new());
    for (module, test) in named.filter(|(module, _)| *module != "testing") {
        count += 1;
        if is_missing(test) {
            missing.push(format!("{module}::{test}"));
        }
    }
    assert!(missing.is_empty(), "{missing:#?}");
    assert!(count > 80, "{count} tests only");
}

fn read_all(directory: &Path, into: &mut String) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            read_all(&path, into);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            into.push_str(&fs::read_to_string(&path).unwrap());
        }
    }
}
