//! Random bytes, to every protocol: nothing breaks, and memory stays what it was.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::thread;

use crate::project::scenarios::{Subject, patient, size};

/// How many bytes go over one connection, unless it ends before.
const EACH: usize = 1 << 20;

const SERVERS: [&[&str]; 4] = [
    &["echo"],
    &["discard"],
    &["hello", "--delay", "0"],
    &["hello", "--delay", "0", "--framing", "line"],
];

/// xorshift64: any bytes will do, but the same each time.
struct Noise(u64);

impl Noise {
    fn fill(&mut self, bytes: &mut [u8]) {
        for piece in bytes.chunks_mut(8) {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            piece.copy_from_slice(&self.0.to_le_bytes()[..piece.len()]);
        }
    }
}

/// Sends noise until there was enough or the server has ended the connection, and takes what comes
/// back. Gives how much was sent.
fn pour(client: TcpStream, noise: &mut Noise) -> usize {
    let mut reader = patient(client.try_clone().expect("a socket"));
    let replies = thread::spawn(move || {
        let mut buffer = vec![0; 64 << 10];
        loop {
            match reader.read(&mut buffer) {
                Ok(0) => return,
                Ok(_) => {}
                // A connection that the server rejects may end by a reset, but not by silence.
                Err(error) => return assert_eq!(error.kind(), ErrorKind::ConnectionReset),
            }
        }
    });
    let mut block = [0; 16 << 10];
    let mut sent = 0;
    while sent < EACH {
        noise.fill(&mut block);
        match (&client).write(&block) {
            Ok(count) => sent += count,
            Err(_) => break,
        }
    }
    let _ = client.shutdown(Shutdown::Write);
    replies.join().expect("an end");
    sent
}

#[test]
fn random_bytes_break_nothing_and_keep_no_memory() {
    for server in SERVERS {
        let subject = Subject::new(&[server, &["-q"]].concat());
        let mut noise = Noise(0x9e37_79b9_7f4a_7c15);
        pour(subject.client(), &mut noise);
        let before = subject.memory();
        let most = size(1 << 30, 4 << 20);
        let mut sent = 0;
        while sent < most {
            sent += pour(subject.client(), &mut noise).max(1_024);
        }
        let grown = subject.memory().saturating_sub(before);
        assert!(grown < 4 << 20, "{server:?}: {grown} bytes more");
        subject.end_quietly();
    }
}
