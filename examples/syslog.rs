//! A receiver of syslog over UDP that counts. Run `cargo run --example syslog`, then
//! `logger -d -n 127.0.0.1 -P 5514 -p user.err 'the disk is full'`. On a group, with
//! `udp://239.1.2.3:5514?interface=eth0`, several receivers hear the same senders.
//!
//! Each sender has a session with counters of its own, which are printed when it has been silent for ten
//! seconds. Nothing is ever answered.

use std::time::Duration;

use serveloop::{Config, Ended, Listen, Protocol, Result, Server, Transport};

const SEVERITIES: [&str; 8] = [
    "emerg", "alert", "crit", "err", "warning", "notice", "info", "debug",
];

/// How much one sender has sent, by severity, and what was no message.
#[derive(Default)]
struct Sender {
    counts: [u64; 8],
    malformed: u64,
}

impl Protocol for Sender {
    fn data_received(&mut self, data: &[u8], transport: &mut Transport<'_>) -> Result<usize> {
        match severity(data) {
            Some((severity, text)) => {
                self.counts[severity] += 1;
                let (text, peer) = (String::from_utf8_lossy(text), transport.peer());
                // A message must not forge another line.
                let text = text.trim_end().escape_debug();
                println!("{} {peer} {text}", SEVERITIES[severity]);
            }
            None => self.malformed += 1,
        }
        Ok(data.len())
    }

    fn connection_lost(&mut self, ended: &Ended<'_>) {
        let mut line = format!("total {}", ended.peer());
        for (name, count) in SEVERITIES.iter().zip(self.counts) {
            if count > 0 {
                line += &format!(" {name}={count}");
            }
        }
        println!("{line} malformed={}", self.malformed);
    }
}

/// Splits the priority off, `<PRI>`, whose lowest three bits are the severity: RFC 3164 and RFC 5424.
fn severity(message: &[u8]) -> Option<(usize, &[u8])> {
    let rest = message.strip_prefix(b"<")?;
    let end = rest.iter().take(4).position(|byte| *byte == b'>')?;
    let (digits, text) = (&rest[..end], &rest[end + 1..]);
    let number: usize = std::str::from_utf8(digits).ok()?.parse().ok()?;
    let is_plain = digits.iter().all(u8::is_ascii_digit);
    (is_plain && number < 192).then_some((number % 8, text))
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    env_logger::init();
    let at = std::env::args().nth(1);
    let listen: Listen = at.as_deref().unwrap_or("udp://127.0.0.1:5514").parse()?;

    let mut config = Config {
        sessions: true,
        ..Config::default()
    };
    // Most senders send from a port of their own each time.
    config.limits.first_message_timeout = Some(Duration::from_secs(10));
    config.limits.idle_timeout = Some(Duration::from_secs(10));
    let server = Server::bind_with(&[listen], config)?;
    println!("listening on {}", server.addresses()[0]);
    server.serve_forever(|_| Some(Sender::default()))?;
    Ok(())
}
