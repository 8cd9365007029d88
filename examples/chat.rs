//! A chat room: each line that a member types goes to all others. Run `cargo run --example chat`,
//! then `nc 127.0.0.1 9999` in two or more terminals, and type.
//!
//! A sender never waits for a reader. Each member has a separate queue, and a member whose queue is
//! full loses the oldest lines. `write_timeout` disconnects a member that reads nothing at all.

use serveloop::framing::{FrameProtocol, FrameTransport, Framed, Lines};
use serveloop::{Config, Ended, Limits};
use serveloop::{ProtocolError, Server, Waker};
use std::collections::{BTreeMap, VecDeque};
use std::{cell::RefCell, rc::Rc};

const LINE_BYTES: usize = 1_000;
const QUEUE_LINES: usize = 256;

type Outcome = Result<(), ProtocolError>;

/// The queue and the waker of a member, which the others use.
struct Seat {
    queue: VecDeque<Rc<[u8]>>,
    waker: Waker,
}

struct Member {
    number: usize,
    room: Rc<RefCell<BTreeMap<usize, Seat>>>,
}

impl FrameProtocol for Member {
    type Framing = Lines;

    fn connection_made(&mut self, frames: &mut FrameTransport<'_, Lines>) -> Outcome {
        let (queue, waker) = (VecDeque::new(), frames.transport().waker());
        let mut room = self.room.borrow_mut();
        room.insert(self.number, Seat { queue, waker });
        frames.send(format!("you are {}, {} here", self.number, room.len()).as_bytes())
    }

    fn frame_received(&mut self, text: &[u8], _: &mut FrameTransport<'_, Lines>) -> Outcome {
        let name = format!("{}: ", self.number);
        let line: Rc<[u8]> = [name.as_bytes(), text, b"\n"].concat().into();
        let mut room = self.room.borrow_mut();

        for (_, seat) in room.iter_mut().filter(|(to, _)| **to != self.number) {
            if seat.queue.len() == QUEUE_LINES {
                seat.queue.pop_front();
            }
            seat.queue.push_back(Rc::clone(&line));
            seat.waker.wake();
        }
        Ok(())
    }

    fn woken(&mut self, frames: &mut FrameTransport<'_, Lines>) {
        let mut room = self.room.borrow_mut();
        let mut queue = room.get_mut(&self.number).map(|seat| &mut seat.queue);
        while !frames.transport().is_full() {
            match queue.as_mut().and_then(|queue| queue.pop_front()) {
                Some(line) => frames.transport().write(&line),
                None => return,
            }
        }
    }

    fn resume_writing(&mut self, frames: &mut FrameTransport<'_, Lines>) {
        self.woken(frames);
    }

    fn connection_lost(&mut self, _: &Ended<'_>) {
        self.room.borrow_mut().remove(&self.number);
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    env_logger::init();
    let at = std::env::args().nth(1);
    let at = at.unwrap_or_else(|| "tcp://127.0.0.1:9999".to_owned());

    let config = Config {
        limits: Limits {
            first_message_timeout: None,
            idle_timeout: None,
            ..Limits::default()
        },
        ..Config::default()
    };

    let server = Server::bind(&[at.parse()?], config)?;
    println!("listening on {}", server.addresses()[0]);

    let (members, mut number) = (Rc::default(), 0);
    server.serve_forever(move |_| {
        let room = Rc::clone(&members);
        number += 1;
        Some(Framed::new(Lines::new(LINE_BYTES), Member { number, room }))
    })?;
    Ok(())
}
