//! The least rate of a peer in every model, with real sockets.

use std::io::{ErrorKind, Read, Write};
use std::thread;
use std::time::{Duration, Instant};

use serveloop::framing::{FrameProtocol, FrameTransport, Framed, Lines};
use serveloop::{Config, Limits, Peer, Result};
use socket2::Socket;

use crate::support::model_server::{Model, ModelServer};
use crate::support::{PATIENCE, millis, timeless};

const TCP: &str = "tcp://127.0.0.1:0";

/// Answers each line with two megabytes.
#[derive(Clone)]
struct Talker;

impl FrameProtocol for Talker {
    type Framing = Lines;

    fn frame_received(&mut self, _: &[u8], frames: &mut FrameTransport<'_, Lines>) -> Result {
        frames.transport().write_owned(vec![b'x'; 2 << 20]);
        Ok(())
    }
}

fn server(model: Model) -> ModelServer {
    let config = Config {
        limits: Limits {
            min_bytes_per_second: 1_000,
            min_rate_grace: millis(300),
            max_line: 100_000,
            max_output: 4 << 20,
            ..timeless().limits
        },
        send_buffer: Some(16 << 10),
        ..timeless()
    };
    let build = |_: &Peer| Some(Framed::new(Lines::new(100_000), Talker));
    ModelServer::new(model, &[TCP], config, build)
}

/// Sends `piece` every so often, for `time` or until that fails. Returns whether it was ended.
fn sends(client: &mut Socket, piece: &[u8], every: Duration, time: Duration) -> bool {
    let began = Instant::now();
    client.set_read_timeout(Some(millis(1))).unwrap();
    while began.elapsed() < time {
        let is_ended = match client.read(&mut [0; 1]) {
            Ok(_) => true,
            Err(error) => error.kind() != ErrorKind::WouldBlock,
        };
        if is_ended || client.write_all(piece).is_err() {
            return true;
        }
        thread::sleep(every);
    }
    false
}

#[test]
fn who_sends_too_slowly_is_ended() {
    for model in Model::ALL {
        let server = server(model);
        let mut slow = server.client();
        assert!(sends(&mut slow, b"x", millis(20), PATIENCE), "{model:?}");
        drop(slow);
        let mut fast = server.client();
        let time = millis(1_500);
        let is_ended = sends(&mut fast, &[b'x'; 1_000], millis(20), time);
        assert!(!is_ended, "{model:?}");
        drop(fast);
        let statistics = server.end();
        let late = statistics.closed_timeout_message + statistics.closed_timeout_first_message;
        assert_eq!(late, 1, "{model:?}: {statistics:?}");
    }
}

#[test]
fn who_reads_too_slowly_is_ended() {
    for model in Model::ALL {
        let server = server(model);
        let mut slow = server.client();
        slow.write_all(b"talk\n").unwrap();
        // A byte now and then, as slow reading attacks do.
        let began = Instant::now();
        while server.ends.lost.load(std::sync::atomic::Ordering::SeqCst) == 0 {
            assert!(began.elapsed() < PATIENCE, "{model:?}");
            let _ = slow.read(&mut [0; 1]);
            thread::sleep(millis(20));
        }
        drop(slow);

        let mut fast = server.client();
        fast.write_all(b"talk\n").unwrap();
        let mut left = 2 << 20;
        let mut room = vec![0; 64 << 10];
        while left > 0 {
            left -= fast.read(&mut room).unwrap();
            thread::sleep(millis(5));
        }
        drop(fast);
        let statistics = server.end();
        assert_eq!(
            statistics.closed_timeout_write, 1,
            "{model:?}: {statistics:?}"
        );
    }
}
