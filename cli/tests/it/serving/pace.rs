//! Clients that send or read too slowly (`--min-bytes-per-second`), in every model.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use socket2::SockRef;

use crate::support::served::{MODELS, Served};
use crate::support::sockets::{Directory, socket_addr};

/// Far less than any deadline that a client of a byte now and then could miss.
const SOON: Duration = Duration::from_secs(7);
const OFTEN: Duration = Duration::from_millis(20);

const RATE: [&str; 4] = [
    "--min-bytes-per-second",
    "1KiB",
    "--min-rate-grace",
    "300ms",
];

fn connect(served: &Served) -> TcpStream {
    let stream = TcpStream::connect(socket_addr(served.uri(0))).expect("connected");
    stream.set_read_timeout(Some(OFTEN)).expect("a socket");
    stream
}

/// Returns whether the server has ended the connection, after an attempt to read up to `count` bytes.
fn is_ended(mut stream: &TcpStream, count: usize) -> bool {
    match stream.read(&mut vec![0; count]) {
        Ok(read) => read == 0,
        Err(error) => error.kind() != ErrorKind::WouldBlock,
    }
}

/// Sends `piece` now and then for `time`. Returns whether the server has ended the connection.
fn is_ended_sending(stream: &TcpStream, piece: &[u8], time: Duration) -> bool {
    let (mut writer, began) = (stream, Instant::now());
    while began.elapsed() < time {
        if writer.write_all(piece).is_err() || is_ended(stream, 1) {
            return true;
        }
    }
    false
}

#[test]
fn a_client_that_sends_too_slowly_is_ended() {
    for model in MODELS {
        let at = [
            "hello",
            "--framing",
            "line",
            "--listen",
            "tcp://127.0.0.1:0",
        ];
        let served = Served::new(&[&at[..], &RATE, model].concat());
        let slow = connect(&served);
        assert!(is_ended_sending(&slow, b"x", SOON), "{model:?}");
        drop(slow);
        let fast = connect(&served);
        let time = Duration::from_millis(1_500);
        assert!(!is_ended_sending(&fast, &[b'x'; 100], time), "{model:?}");
    }
}

#[test]
fn a_listener_may_have_a_rate_of_its_own() {
    let at = "tcp://127.0.0.1:0?min-bytes-per-second=1KiB&min-rate-grace=300ms";
    let served = Served::new(&["hello", "--framing", "line", "--listen", at]);
    let slow = connect(&served);
    assert!(is_ended_sending(&slow, b"x", SOON));
}

#[test]
fn a_client_that_reads_too_slowly_is_ended() {
    let directory = Directory::new();
    let root = directory.path(".");
    let root = root.to_str().expect("text");
    fs::write(directory.path("large"), vec![b'x'; 16 << 20]).expect("a file");
    let at = ["http", "--listen", "tcp://127.0.0.1:0", "--root", root];
    let served = Served::new(&[&at[..], &RATE, &["--send-buffer", "16KiB"]].concat());

    let mut slow = connect(&served);
    SockRef::from(&slow)
        .set_recv_buffer_size(4 << 10)
        .expect("a socket");
    slow.write_all(b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n")
        .expect("sent");
    // It reads all the time, so that `write_timeout` would never end it. Its buffer is so full that it
    // does not hear of the reset.
    let began = Instant::now();
    thread::scope(|scope| {
        let reading = scope.spawn(|| {
            while began.elapsed() < SOON && !is_ended(&slow, 1) {
                thread::sleep(OFTEN);
            }
        });
        served.logged("the peer accepted no output for too long");
        assert!(began.elapsed() < SOON);
        reading.join().expect("it reads");
    });
}

#[test]
fn averages_need_some_time() {
    let at = ["serve", "echo", "--listen", "tcp://127.0.0.1:0"];
    let mut command =
        crate::support::served::serveloop(&[&at[..], &["--min-rate-grace", "0"]].concat());
    let output = command.output().expect("it runs");
    assert_eq!(output.status.code(), Some(2));
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(
        told.contains("--min-rate-grace must be more than 0"),
        "{told}"
    );
}
