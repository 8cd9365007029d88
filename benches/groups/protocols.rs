//! This library's servers: members of a group, and, as before there were groups, members that have a
//! queue and a waker each.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

use serveloop::service::Group;
use serveloop::{Ended, Protocol, Result, Transport, Waker};

use crate::message::{GREETING, first};

const TOPIC: &[u8] = b"all";
const QUEUED_MOST: usize = 256;

pub(crate) struct InGroup(pub(crate) Group);

impl Protocol for InGroup {
    fn connection_made(&mut self, transport: &mut Transport<'_>) -> Result {
        self.0.join(TOPIC, &transport.outbox());
        transport.write(GREETING);
        Ok(())
    }

    fn data_received(&mut self, data: &[u8], _: &mut Transport<'_>) -> Result<usize> {
        let Some(message) = first(data) else {
            return Ok(0);
        };
        self.0.publish(TOPIC, message);
        Ok(message.len())
    }
}

pub(crate) type Room = RefCell<BTreeMap<usize, Seat>>;

/// The queue and the waker of a member, which the others use.
pub(crate) struct Seat {
    queue: VecDeque<Rc<[u8]>>,
    waker: Waker,
}

pub(crate) struct Seated {
    number: usize,
    room: Rc<Room>,
}

impl Seated {
    pub(crate) fn new(number: usize, room: &Rc<Room>) -> Self {
        let room = Rc::clone(room);
        Self { number, room }
    }
}

impl Protocol for Seated {
    fn connection_made(&mut self, transport: &mut Transport<'_>) -> Result {
        let (queue, waker) = (VecDeque::new(), transport.waker());
        let seat = Seat { queue, waker };
        self.room.borrow_mut().insert(self.number, seat);
        transport.write(GREETING);
        Ok(())
    }

    fn data_received(&mut self, data: &[u8], _: &mut Transport<'_>) -> Result<usize> {
        let Some(message) = first(data) else {
            return Ok(0);
        };
        let shared: Rc<[u8]> = message.into();
        for seat in self.room.borrow_mut().values_mut() {
            if seat.queue.len() == QUEUED_MOST {
                seat.queue.pop_front();
            }
            seat.queue.push_back(Rc::clone(&shared));
            seat.waker.wake();
        }
        Ok(message.len())
    }

    fn woken(&mut self, transport: &mut Transport<'_>) {
        let mut room = self.room.borrow_mut();
        let mut queue = room.get_mut(&self.number).map(|seat| &mut seat.queue);
        while !transport.is_full() {
            match queue.as_mut().and_then(|queue| queue.pop_front()) {
                Some(message) => transport.write(&message),
                None => return,
            }
        }
    }

    fn resume_writing(&mut self, transport: &mut Transport<'_>) {
        self.woken(transport);
    }

    fn connection_lost(&mut self, _: &Ended<'_>) {
        self.room.borrow_mut().remove(&self.number);
    }
}
