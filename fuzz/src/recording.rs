//! Records of connections: any bytes are a record or a clear error, and what was recorded is read and
//! replayed as it was.

use std::time::{Duration, Instant};

use serveloop::protocols::Echo;
use serveloop::service::recorder::{Happening, Recorded, Recorder, RecorderOptions, Recording};
use serveloop::testing::MemorySession;
use serveloop::{Config, Deadline, Limits, Peer, Protocol, ProtocolError, Result, Transport};

use crate::input::Input;

/// The most steps of a session.
const STEPS_MOST: usize = 64;

/// The parts of a record with right checksums, or the steps of a session that is recorded.
///
/// # Panics
/// When a record is read wrongly, or a replay differs.
pub fn target(data: &[u8]) {
    let mut input = Input::new(data);
    match input.below(3) {
        0 => is_read(input.rest()),
        1 => is_read(&made(&mut input)),
        _ => is_replayed(&mut input),
    }
}

/// Reads bytes, and replays what they are.
fn is_read(record: &[u8]) {
    match Recording::read(record) {
        Ok(recording) => {
            for connection in recording.connections() {
                let count = connection.events().count();
                let text: String = connection
                    .events()
                    .map(|event| event.what.to_string())
                    .collect();
                assert!(count == 0 || !text.is_empty());
            }
            match recording.replay(|_: &Peer| Some(Echo)) {
                Ok(replay) => assert_eq!(replay.connections(), recording.connections().len()),
                Err(_) => assert!(!recording.has_content()),
            }
        }
        Err(error) => {
            let offset = error.offset().expect("memory does not fail");
            assert!(
                offset <= record.len() as u64,
                "{error}: of {} bytes",
                record.len()
            );
            let text = error.to_string();
            assert!(!text.chars().any(char::is_control), "{text:?}");
        }
    }
}

/// A record whose blocks have right checksums, and whatever content.
fn made(input: &mut Input<'_>) -> Vec<u8> {
    let mut record = b"SLREC\r\n\x1a\x01".to_vec();
    let content = u8::from(input.below(4) > 0);
    block(&mut record, b'H', &[content, 0]);
    let count = input.below(4);
    for _ in 0..count {
        let mut connection = Vec::new();
        if input.below(4) > 0 {
            connection.extend(HEAD);
        }
        let length = input.below(128);
        connection.extend((0..length).map(|_| input.byte()));
        block(&mut record, b'C', &connection);
    }
    block(&mut record, b'E', &[count as u8, 0]);
    record
}

/// The beginning of a connection: its number, time, listener, addresses and limits, and that it was made.
const HEAD: &[u8] =
    b"\x07\x00\x01t\x0b127.0.0.1:1\x00\x00\x00\x10\x08\x20\x20\x20\x20\x20\x04\x40\x01\x00\x00\x00";

fn block(record: &mut Vec<u8>, tag: u8, content: &[u8]) {
    let begin = record.len();
    record.push(tag);
    record.extend((content.len() as u32).to_le_bytes());
    record.extend(content);
    let sum = checksum(&record[begin..]);
    record.extend(sum.to_le_bytes());
}

/// CRC32c, bit by bit.
fn checksum(bytes: &[u8]) -> u32 {
    let mut sum = !0_u32;
    for byte in bytes {
        sum ^= u32::from(*byte);
        for _ in 0..8 {
            sum = (sum >> 1) ^ if sum & 1 == 1 { 0x82F6_3B78 } else { 0 };
        }
    }
    !sum
}

/// What a session receives in these steps is in its record, which replays without a difference, and
/// in which no byte can be changed.
fn is_replayed(input: &mut Input<'_>) {
    let high_water = 1 + input.below(64);
    let config = Config {
        messages_per_turn: 1 + input.below(8),
        limits: Limits {
            high_water,
            low_water: input.below(high_water),
            max_output: 200 + input.below(256),
            max_reply: 1_000,
            max_frame: 32,
            ..Limits::default()
        },
        ..Config::default()
    };
    let recorder = Recorder::new(RecorderOptions::default());
    let mut session = MemorySession::with_config(recorder.protocol(Moody::default()), config);
    let mut sent = Vec::new();
    for _ in 0..STEPS_MOST {
        if input.is_empty() {
            break;
        }
        step(&mut session, input);
        sent.extend(session.sent());
    }
    let received = session.ended().map(|ended| ended.received());
    drop(session);

    let mut record = Vec::new();
    recorder.write(&mut record).expect("memory");
    let recording = Recording::read(&record[..]).expect("it was written");
    let connection = &recording.connections()[0];
    let mut wrote = Vec::new();
    let mut shown = 0;
    for event in connection.events() {
        match event.what {
            Happening::Wrote(chunk) => wrote.extend(chunk.bytes.expect("content")),
            Happening::DataReceived(chunk) => shown += chunk.length,
            _ => {}
        }
    }
    assert!(wrote.starts_with(&sent), "{sent:?} of {wrote:?}");
    assert!(received.is_none_or(|received| shown <= received));
    let end = connection.end().map(|end| end.received);
    assert_eq!(end, received);

    let replay = recording.replay(|_: &Peer| Some(Moody::default()));
    replay.expect("content").assert_same();

    let place = usize::from(input.byte()) * record.len() / 256;
    is_read(&record[..place]);
    record[place] ^= 1 << input.below(8);
    let error = Recording::read(&record[..]).expect_err("it was changed");
    assert!(
        error.offset().is_some_and(|offset| offset <= place as u64),
        "{error}: {place}"
    );
}

/// Something that happens to a session.
fn step(session: &mut MemorySession<Recorded<Moody>>, input: &mut Input<'_>) {
    match input.below(16) {
        0 => session.advance(Duration::from_millis(1 + input.below(64) as u64)),
        1 => session.advance(Duration::from_secs(1 + input.below(16) as u64)),
        2 => session.stop_taking(),
        3 | 4 => session.take(1 + input.below(128)),
        5 => session.take_in_steps(1 + input.below(32)),
        6 => session.receive_eof(),
        7 if input.below(4) == 0 => session.shutdown(),
        _ => {
            let length = 1 + input.below(24);
            let data: Vec<_> = (0..length)
                .map(|_| b"xxxxx2357pawcesfdo!"[input.below(19)])
                .collect();
            session.receive(&data);
        }
    }
}

/// Does what each byte says.
#[derive(Default)]
struct Moody {
    until: Option<Instant>,
    again: usize,
    more: usize,
    resumed: usize,
}

impl Protocol for Moody {
    fn connection_made(&mut self, transport: &mut Transport<'_>) -> Result {
        transport.write(b"hi");
        Ok(())
    }

    fn data_received(&mut self, data: &[u8], transport: &mut Transport<'_>) -> Result<usize> {
        match data[0] {
            digit @ b'2'..=b'9' => {
                let length = usize::from(digit - b'0');
                if data.len() < length {
                    return Ok(0);
                }
                transport.write(&data[..length]);
                return Ok(length);
            }
            b'p' => {
                transport.pause_reading();
                self.until = transport.now().checked_add(Duration::from_millis(10));
            }
            b'd' => self.until = transport.now().checked_add(Duration::from_millis(700)),
            b'a' => {
                self.again = 3;
                transport.call_again();
            }
            b'w' => {
                self.more += 90;
                self.produce(transport);
            }
            b'o' => transport.write_owned(vec![b'o'; 150]),
            b'c' => transport.close(),
            b'f' => transport.finish(),
            b'e' => return Err("an e".into()),
            b's' => {
                let mut taken = 1;
                while taken < data.len() && transport.has_turn() {
                    taken += 1;
                }
                transport.write(&[b'0' + taken as u8]);
                return Ok(taken);
            }
            b'!' => std::panic::resume_unwind(Box::new("on purpose")),
            _ => transport.write(&data[..1]),
        }
        Ok(1)
    }

    fn resume_writing(&mut self, transport: &mut Transport<'_>) {
        // Under the smallest marks each byte is followed by another call.
        self.resumed += 1;
        if self.resumed < 20 {
            transport.write(&[b'0' + (transport.waiting() % 10) as u8]);
        }
        self.produce(transport);
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.until
    }

    fn handle_timeout(&mut self, transport: &mut Transport<'_>) {
        self.until = None;
        transport.write(b"t");
        transport.resume_reading();
    }

    fn woken(&mut self, transport: &mut Transport<'_>) {
        transport.write(b"w");
        self.again = self.again.saturating_sub(1);
        if self.again > 0 {
            transport.call_again();
        }
    }

    fn deadline_passed(&mut self, deadline: Deadline, transport: &mut Transport<'_>) {
        if deadline != Deadline::Idle {
            transport.write(b"late");
        }
    }

    fn input_rejected(&mut self, error: &ProtocolError, transport: &mut Transport<'_>) {
        transport.write(error.to_string().as_bytes());
    }

    fn shutdown_requested(&mut self, transport: &mut Transport<'_>) {
        transport.write(b"bye");
        transport.close();
    }
}

impl Moody {
    fn produce(&mut self, transport: &mut Transport<'_>) {
        while self.more > 0 {
            let taken = transport.write_some(&vec![b'.'; self.more]);
            self.more -= taken;
            if taken == 0 {
                return;
            }
        }
    }
}
