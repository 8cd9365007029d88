//! One client of a chat.

use serde::{Deserialize, Serialize};
use serveloop::framing::{FrameProtocol, FrameTransport};
use serveloop::{Ended, ProtocolError, Transport};

use crate::escaped::for_terminal;
use crate::protocols::chat::room::{Hall, Room};
use crate::serving::Messages;

/// The only command.
const COMMAND: &str = "/nick";

/// A client in the room.
pub(super) struct Member {
    room: Room,
    number: u64,
    name: String,
    /// Its number as a connection, from when it is in the room.
    id: Option<u64>,
    /// A line that is to be heard when the room is open again.
    held: Option<Vec<u8>>,
    /// Whether it is to be woken when the room is open.
    waits: bool,
    /// Whether the server ends, so that no client is told that all others leave.
    is_over: bool,
}

/// What goes along with a client to another process.
#[derive(Debug, Serialize, Deserialize)]
struct Carried {
    /// The number of the client, or 0 if it is not in the room yet.
    number: u64,
    name: String,
    held: Option<Vec<u8>>,
    /// How many clients have come.
    count: u64,
    /// What everybody is still to be told.
    late: Vec<String>,
}

impl Member {
    pub(super) fn new(room: Room) -> Self {
        Self {
            room,
            number: 0,
            name: String::new(),
            id: None,
            held: None,
            waits: false,
            is_over: false,
        }
    }

    /// Enters the room, or waits until it is open.
    fn enter(&mut self, frames: &mut FrameTransport<'_, Messages>) -> Result<(), ProtocolError> {
        let Some(mut hall) = self.room.hall_if_open(|| frames.transport().waker()) else {
            self.wait(frames);
            return Ok(());
        };

        let outbox = frames.transport().outbox();
        self.id = Some(outbox.id());
        self.room.join(&outbox);
        self.number = hall.count_up();
        self.name = self.number.to_string();

        let here = self.room.members();
        let (id, name) = (outbox.id(), &self.name);
        self.room.note(&mut hall, id, format_args!("{name} joins"));
        drop(hall);
        frames.send(format!("you are {name}, {here} here").as_bytes())
    }

    /// Hears no more until the room is open.
    fn wait(&mut self, frames: &mut FrameTransport<'_, Messages>) {
        self.waits = true;
        frames.transport().pause_reading();
        let held = self.held.as_ref().map_or(0, Vec::capacity);
        frames.transport().charge(held);
    }

    /// Leaves the room, and gives the name back.
    fn leave(&self, hall: &mut Hall, id: u64) {
        self.room.leave(id);
        hall.free(self.number, &self.name);
    }

    /// Does what a line that begins with a slash asks for. Returns what the client is told.
    fn command(&mut self, hall: &mut Hall, id: u64, line: &str) -> String {
        let (command, name) = line.split_once(' ').unwrap_or((line, ""));
        if command != COMMAND {
            return "there is only one command: /nick NAME".to_owned();
        }

        let name = name.trim();
        if name == self.name {
            return format!("you are {name}");
        }
        match hall.rename(self.number, &self.name, name) {
            Ok(()) => {
                let before = &self.name;
                self.room
                    .note(hall, id, format_args!("{before} is now {name}"));
                name.clone_into(&mut self.name);
                format!("you are {name}")
            }
            Err(problem) => problem,
        }
    }
}

impl FrameProtocol for Member {
    type Framing = Messages;

    fn connection_made(
        &mut self,
        frames: &mut FrameTransport<'_, Messages>,
    ) -> Result<(), ProtocolError> {
        self.enter(frames)
    }

    fn frame_received(
        &mut self,
        line: &[u8],
        frames: &mut FrameTransport<'_, Messages>,
    ) -> Result<(), ProtocolError> {
        // What comes before the room is open waits there too.
        let room = self.room.clone();
        let hall = room.hall_if_open(|| frames.transport().waker());
        let (Some(mut hall), Some(id)) = (hall, self.id) else {
            self.held = Some(line.to_vec());
            self.wait(frames);
            return Ok(());
        };

        if line.first() == Some(&b'/') {
            let told = self.command(&mut hall, id, &String::from_utf8_lossy(line));
            drop(hall);
            return frames.send(format!("* {told}").as_bytes());
        }
        let name = format!("{}: ", self.name).into_bytes();
        room.say(&hall, id, [name, for_terminal(line)].concat());
        Ok(())
    }

    /// Goes on when the room is open again.
    fn woken(&mut self, frames: &mut FrameTransport<'_, Messages>) {
        if !std::mem::take(&mut self.waits) {
            return;
        }
        let mut outcome = Ok(());
        if self.id.is_none() {
            outcome = self.enter(frames);
        }
        if let Some(line) = self.held.take().filter(|_| outcome.is_ok()) {
            outcome = self.frame_received(&line, frames);
        }
        if outcome.is_err() {
            frames.transport().close();
        }
        if !self.waits {
            frames.transport().charge(0);
            frames.transport().resume_reading();
        }
    }

    fn shutdown_requested(&mut self, frames: &mut FrameTransport<'_, Messages>) {
        self.is_over = true;
        frames.transport().close();
    }

    fn hand_over(&mut self, _: &Transport<'_>) -> Option<Vec<u8>> {
        let mut hall = self.room.hall();
        if let Some(id) = self.id {
            self.leave(&mut hall, id);
        }
        let carried = Carried {
            number: self.number,
            name: self.name.clone(),
            held: self.held.take(),
            count: hall.count(),
            late: hall.take_late(),
        };
        serde_json::to_vec(&carried).ok()
    }

    fn take_over(&mut self, state: &[u8], frames: &mut FrameTransport<'_, Messages>) -> bool {
        let Ok(carried) = serde_json::from_slice::<Carried>(state) else {
            return false;
        };
        let room = self.room.clone();
        let mut hall = room.hall();
        hall.note_count(carried.count.max(carried.number));
        hall.add_late(carried.late);

        if carried.number != 0 {
            let outbox = frames.transport().outbox();
            room.join(&outbox);
            self.id = Some(outbox.id());
            // A client without a name has its number, which no other client has.
            let _ = hall.rename(carried.number, "", &carried.name);
            (self.number, self.name) = (carried.number, carried.name);
        }
        self.held = carried.held;
        self.wait(frames);
        hall.wake_when_open(frames.transport().waker());
        true
    }

    fn connection_lost(&mut self, _: &Ended<'_>) {
        let Some(id) = self.id else {
            return;
        };
        let mut hall = self.room.hall();
        self.leave(&mut hall, id);
        if !self.is_over {
            let name = &self.name;
            self.room.note(&mut hall, id, format_args!("{name} leaves"));
        }
    }
}
