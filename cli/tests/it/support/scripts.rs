//! Servers that say exactly what a test has them say.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread::{self, JoinHandle};

use crate::support::served::PATIENCE;

/// A server of one connection, which ends with its script. Its panic is the test's.
pub(crate) struct Scripted {
    at: String,
    thread: Option<JoinHandle<()>>,
}

impl Scripted {
    pub(crate) fn new(script: impl FnOnce(TcpStream) + Send + 'static) -> Self {
        Self::several(1, {
            let mut script = Some(script);
            move |stream| script.take().expect("one connection")(stream)
        })
    }

    /// Serves `count` connections, one after the other.
    pub(crate) fn several(
        count: usize,
        mut script: impl FnMut(TcpStream) + Send + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let at = listener.local_addr().expect("a socket").to_string();
        let serve = move || {
            for _ in 0..count {
                let (stream, _) = listener.accept().expect("a client");
                stream.set_nodelay(true).expect("a socket");
                stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
                stream.set_write_timeout(Some(PATIENCE)).expect("a socket");
                script(stream);
            }
        };
        Self {
            at,
            thread: Some(thread::spawn(serve)),
        }
    }

    /// Host and port.
    pub(crate) fn at(&self) -> &str {
        &self.at
    }

    pub(crate) fn uri(&self) -> String {
        format!("tcp://{}", self.at)
    }

    /// Waits for the end of the script.
    #[track_caller]
    pub(crate) fn end(mut self) {
        if let Some(thread) = self.thread.take() {
            assert!(thread.join().is_ok(), "the server saw something else");
        }
    }
}

/// Waits for exactly `bytes`.
#[track_caller]
pub(crate) fn expect(mut stream: &TcpStream, bytes: &[u8]) {
    let mut found = vec![0; bytes.len()];
    stream.read_exact(&mut found).expect("this many bytes");
    assert_eq!(
        found.escape_ascii().to_string(),
        bytes.escape_ascii().to_string()
    );
}

/// Sends `bytes`, each as a piece of its own.
#[track_caller]
pub(crate) fn trickle(mut stream: &TcpStream, bytes: &[u8]) {
    for byte in bytes {
        stream.write_all(&[*byte]).expect("a client");
    }
}

/// Everything up to the client's end.
#[track_caller]
pub(crate) fn rest(mut stream: &TcpStream) -> Vec<u8> {
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).expect("an orderly end");
    rest
}

/// Bytes without a pattern, the same at each call.
pub(crate) fn noise(count: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    };
    std::iter::repeat_with(next).take(count).collect()
}
