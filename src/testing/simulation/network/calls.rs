//! The calls that an event loop makes: the `Net` implementation of the simulated network.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, IoSlice};
use std::net::Ipv4Addr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::address::Address;
use crate::config::Config;
use crate::net::{Destination, Ecn, Event, Net, PacketInfo, Sockets, Undelivered};
use crate::shutdown::ShutdownHandle;
use crate::testing::simulation::ledger::{ConnectionRecord, Justification};
use crate::testing::simulation::network::action::Action;
use crate::testing::simulation::network::{Call, Handle, Listener, Network};
use crate::testing::simulation::wire::{Broken, Segment, Standing, Wire};
use crate::testing::simulation::within::Side;
use crate::waker::Wake;

/// The most bytes of a mismatch to show.
const EXCERPT_MOST: usize = 40;

/// What is left of the usual 64 after some routers.
const HOP_LIMIT: u8 = 60;

impl Net for Network {
    type Stream = Handle;
    type Listener = Handle;
    type Datagram = Handle;

    fn now(&mut self) -> Instant {
        self.absorb();
        self.origin + self.elapsed
    }

    fn number(&self, stream: &Handle) -> i32 {
        i32::try_from(stream.0).unwrap_or(-1)
    }

    fn sockets(&self) -> Box<dyn Sockets> {
        Box::new(self.local_addresses.clone())
    }

    /// Counts anew in each run, so that the same seed is the same run.
    fn next_id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }

    fn poll(&mut self, events: &mut Vec<Event>, timeout: Option<Duration>) -> io::Result<()> {
        self.absorb();
        self.check_wait(timeout);
        self.wait(timeout);
        self.announce(events);
        self.elapsed += Duration::from_micros(1);
        self.note(1, events.len());
        Ok(())
    }

    fn waker(&mut self, token: usize) -> io::Result<Box<dyn Wake>> {
        self.bell_token = token;
        Ok(Box::new(Arc::clone(&self.bell)))
    }

    fn watch_shutdown(&mut self, handle: &ShutdownHandle, token: usize) -> io::Result<()> {
        self.watched = Some((handle.clone(), token));
        Ok(())
    }

    fn listen(&mut self, at: &Address, _: &Config, token: usize) -> io::Result<(Handle, Address)> {
        self.listener = Some(Listener {
            token,
            address: at.clone(),
            backlog: VecDeque::new(),
            is_changed: false,
        });
        Ok((Handle(token), at.clone()))
    }

    fn accept(&mut self, _: &mut Handle) -> io::Result<(Handle, Address)> {
        self.inject(Call::Accept, None)?;
        let taken = self
            .listener
            .as_mut()
            .and_then(|listener| listener.backlog.pop_front());

        let wire = taken.ok_or(ErrorKind::WouldBlock)?;
        self.trouble.note_success();
        self.progress.accepts += 1;
        self.open += 1;
        self.progress.has_moved = true;
        self.note(2, wire);
        self.accepted = wire;
        if let Some(listener) = &self.listener {
            self.local_addresses.note(wire, listener.address.clone());
        }

        let mut ledger = self.ledger.borrow_mut();
        let account = &mut ledger.accounts[self.wires[wire].number];
        account.began = self.elapsed;
        Ok((Handle(wire), account.address.clone()))
    }

    fn close_listener(&mut self, _: Handle) {
        self.close_door();
    }

    /// No simulated host has a name.
    fn lookup(&mut self, name: &str) -> Option<io::Result<Vec<Address>>> {
        let problem = format!("{name}: the name has no address");
        Some(Err(io::Error::new(ErrorKind::NotFound, problem)))
    }

    fn connect(&mut self, to: &Address, _: &Config) -> io::Result<Handle> {
        let session = self.ledger.borrow_mut().connecting.pop_front();
        self.inject(Call::Connect, None)?;
        self.progress.has_moved = true;

        let known = self.remotes.iter().find(|(address, _)| address == to);
        let Some((address, exchange)) = known else {
            return Err(io::Error::from_raw_os_error(libc::ECONNREFUSED));
        };
        let account = ConnectionRecord::new(address.clone(), Rc::clone(exchange));

        let wire = self.add_wire(account, Standing::Waits, Side::Remote);
        session.inspect(|number| number.set(Some(self.wires[wire].number)));
        self.open += 1;
        self.local_addresses.note(wire, local_address(wire));

        let at = self.elapsed + self.latency(wire);
        if !self.random.chance(self.faults.connect_errors) {
            self.timeline.plan(at, Action::Stand(wire));
        } else {
            self.justification(self.wires[wire].number, Justification::Failed("connect"));
            if self.random.below(2) == 0 {
                self.timeline.plan(at, Action::Refuse(wire));
            } else {
                self.wires[wire].is_done = true;
            }
        }
        Ok(Handle(wire))
    }

    fn connected(&mut self, stream: &mut Handle) -> io::Result<()> {
        self.inject(Call::Connected, Some(stream.0))?;
        match self.wires[stream.0].standing {
            Standing::Waits => Err(ErrorKind::WouldBlock.into()),
            Standing::Refused => Err(io::Error::from_raw_os_error(libc::ECONNREFUSED)),
            Standing::Stands => Ok(()),
        }
    }

    fn register(&mut self, stream: &mut Handle, token: usize) -> io::Result<()> {
        self.inject(Call::Register, Some(stream.0))?;

        self.wires[stream.0].token = Some(token);
        self.wires[stream.0].broken_since = self.elapsed;
        if self.wires[stream.0].has_news() {
            self.change(stream.0);
        }
        Ok(())
    }

    fn read(&mut self, stream: &mut Handle, buffer: &mut [u8]) -> io::Result<usize> {
        let wire = stream.0;
        self.inject(Call::Read, Some(wire))?;
        let up = &self.wires[wire].up;
        if up.waiting() == 0 {
            if let Some(error) = self
                .tell_broken(wire, 0)
                .filter(|error| error.raw_os_error() != Some(0))
            {
                return Err(error);
            }
            let is_over = self.wires[wire].up.end_arrived || self.wires[wire].broken != Broken::No;
            self.progress.has_moved |= is_over;
            return if is_over {
                Ok(0)
            } else {
                Err(ErrorKind::WouldBlock.into())
            };
        }

        let count = self.read_some(wire, buffer);
        self.progress.note_read(wire, count);
        self.note(3, count);
        let it = &self.wires[wire];
        if it.up.waiting() > 0 && count < buffer.len() && !it.has_gaps {
            self.change(wire);
        }
        self.encourage_sender(wire);
        Ok(count)
    }

    fn write(&mut self, stream: &mut Handle, data: &[u8]) -> io::Result<usize> {
        let wire = stream.0;
        self.inject(Call::Write, Some(wire))?;
        if let Some(error) = self.tell_broken(wire, libc::EPIPE) {
            return Err(error);
        }
        if self.wires[wire].down.room() == 0 {
            self.wires[wire].is_starved = true;
            return Err(ErrorKind::WouldBlock.into());
        }

        let count = self.write_some(wire, data);
        self.progress.note_written(wire, count);
        self.note(4, count);
        let Wire {
            down, is_starved, ..
        } = &mut self.wires[wire];
        *is_starved = count < data.len() && down.room() == 0;

        let sent = down.sent;
        if count < data.len() && !*is_starved {
            self.change(wire);
        }
        self.send_down(wire, Segment::Bytes(sent));
        Ok(count)
    }

    /// Writes all slices like one, so that a write may also end at any byte of any of them.
    fn write_vectored(&mut self, stream: &mut Handle, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let data: Vec<u8> = slices
            .iter()
            .flat_map(|slice| slice.iter())
            .copied()
            .collect();
        self.write(stream, &data)
    }

    fn error(&mut self, stream: &mut Handle) -> Option<io::Error> {
        let is_new = self.wires[stream.0].broken == Broken::Untold;
        self.tell_broken(stream.0, 0).filter(|_| is_new)
    }

    fn unsent(&mut self, stream: &mut Handle) -> usize {
        let wire = &self.wires[stream.0];
        if wire.broken == Broken::No {
            wire.down.under_way()
        } else {
            0
        }
    }

    fn finish(&mut self, stream: &mut Handle) -> io::Result<()> {
        self.inject(Call::Finish, Some(stream.0))?;
        if self.wires[stream.0].broken != Broken::No {
            return Err(io::Error::from_raw_os_error(libc::ENOTCONN));
        }
        self.end_down(stream.0);
        Ok(())
    }

    fn close(&mut self, stream: Handle, abort: bool) {
        self.close_wire(stream.0, abort);
    }

    fn bind(&mut self, at: &Address, _: &Config, token: usize) -> io::Result<(Handle, Address)> {
        self.datagram_queue.open(token);
        Ok((Handle(token), at.clone()))
    }

    fn connect_datagram(&mut self, to: &Address, _: &Config, token: usize) -> io::Result<Handle> {
        self.open_outbound(to, token)
    }

    fn receive(&mut self, socket: &mut Handle, buffer: &mut [u8]) -> io::Result<(usize, Address)> {
        if let Some(outbound) = Self::outbound_of(socket) {
            return self.receive_outbound(outbound, buffer);
        }
        self.inject(Call::Receive, None)?;
        self.trouble.note_success();
        self.progress.has_moved |= self.datagram_queue.has_mail();
        let ends = self.is_shutdown();
        let (count, from) = self
            .datagram_queue
            .receive(buffer, ends)
            .ok_or(ErrorKind::WouldBlock)?;
        self.note(5, count);
        Ok((count, from))
    }

    /// Routers are congested now and then.
    fn packet_info(&mut self, _: &mut Handle) -> Option<PacketInfo> {
        let marks = [Ecn::NotEct, Ecn::Ect0, Ecn::Ect0, Ecn::Ce];
        let ecn = self.random.pick(&marks);
        Some(PacketInfo::new(ecn, HOP_LIMIT))
    }

    fn send(&mut self, _: &mut Handle, data: &[u8], to: &Address) -> io::Result<()> {
        self.note(6, data.len());
        let outcome = self.inject(Call::Send, None);
        if outcome
            .as_ref()
            .is_err_and(|error| error.kind() == ErrorKind::Interrupted)
        {
            self.datagram_queue.note_interrupted(to);
            return outcome;
        }

        let noted = self.datagram_queue.note_reply(data, to, outcome.is_err());
        noted.unwrap_or_else(|problem| self.ledger.borrow_mut().object(problem));
        outcome
    }

    fn send_from(
        &mut self,
        socket: &mut Handle,
        data: &[u8],
        to: &Address,
        _: Option<Destination>,
    ) -> io::Result<()> {
        if let Some(outbound) = Self::outbound_of(socket) {
            return self.send_outbound(outbound, data);
        }
        self.note(6, data.len());
        let outcome = self.inject(Call::Send, None);
        let kind = outcome.as_ref().err().map(io::Error::kind);
        let noted = match kind {
            Some(ErrorKind::Interrupted) => {
                self.datagram_queue.note_interrupted(to);
                Ok(())
            }
            Some(ErrorKind::WouldBlock) => self.datagram_queue.note_waits(data, to),
            _ => self.datagram_queue.note_reply(data, to, outcome.is_err()),
        };
        noted.unwrap_or_else(|problem| self.ledger.borrow_mut().object(problem));
        outcome
    }

    fn await_room(&mut self, socket: &mut Handle) -> io::Result<()> {
        match Self::outbound_of(socket) {
            Some(outbound) => self.plan_outbound_room(outbound),
            None => self.plan_room(),
        }
        Ok(())
    }

    fn undelivered(&mut self, socket: &mut Handle) -> Option<Undelivered> {
        self.note(7, 0);
        match Self::outbound_of(socket) {
            Some(outbound) => self.take_outbound_report(outbound),
            None => self.datagram_queue.take_report(),
        }
    }

    fn close_datagram(&mut self, socket: Handle) {
        if let Some(outbound) = Self::outbound_of(&socket) {
            return self.close_outbound(outbound);
        }
        self.datagram_queue.close();
        let mut ledger = self.ledger.borrow_mut();
        if !ledger.may_close {
            ledger.object(
                "the datagram socket was closed though nothing was wrong with it".to_owned(),
            );
        }
    }
}

/// The steps that the calls are made of.
impl Network {
    /// Returns what a call on a broken wire reports: the failure the first time, and then `later`.
    fn tell_broken(&mut self, wire: usize, later: i32) -> Option<io::Error> {
        let broken = &mut self.wires[wire].broken;
        let number = match broken {
            Broken::No => return None,
            Broken::Untold => libc::ECONNRESET,
            Broken::Told => later,
        };
        *broken = Broken::Told;
        Some(io::Error::from_raw_os_error(number))
    }

    fn read_some(&mut self, wire: usize, buffer: &mut [u8]) -> usize {
        let gap = self.wires[wire].has_gaps && self.random.below(2) == 0;
        let short = gap || self.random.chance(self.faults.short_reads);
        let number = self.wires[wire].number;
        let waiting = self.wires[wire].up.waiting();
        let most = waiting.min(buffer.len());
        let count = if short {
            self.random.between(1, most)
        } else {
            most
        };
        let count = if self.trouble.is_short() { 1 } else { count };
        let mut ledger = self.ledger.borrow_mut();
        let now = self.elapsed;
        let account = &mut ledger.accounts[number];

        let from = self.wires[wire].up.taken;
        buffer[..count].copy_from_slice(&account.sends()[from..from + count]);
        account.moved = now;
        // Bytes that are read after the session has ended are discarded.
        if account.end.is_none() {
            account.read += count;
        }

        self.wires[wire].up.taken += count;
        count
    }

    fn write_some(&mut self, wire: usize, data: &[u8]) -> usize {
        let short = self.random.chance(self.faults.short_writes);
        let is_least = self.trouble.is_short();
        let Wire {
            number, down, far, ..
        } = &mut self.wires[wire];
        let most = down.room().min(data.len());
        let count = if short {
            self.random.between(1, most)
        } else {
            most
        };
        let count = if is_least { 1 } else { count };
        let mut ledger = self.ledger.borrow_mut();
        let account = &mut ledger.accounts[*number];

        let from = account.written;
        let right = match far {
            // What it means is seen when the client takes it.
            Some(far) => {
                far.written.extend_from_slice(&data[..count]);
                true
            }
            None => account.admit(from, &data[..count]),
        };
        account.written += count;
        account.note_written(self.elapsed);

        if !right {
            let end = account.exchange.expects.len().min(from + EXCERPT_MOST);
            let expected = account.exchange.expects[from.min(end)..end].escape_ascii();
            let written = data[..count.min(EXCERPT_MOST)].escape_ascii();
            let problem = format!("byte {from} on: \"{written}\" was written, not \"{expected}\"");
            ledger.object_to(*number, &problem);
        }

        down.sent += count;
        count
    }
}

/// Returns the address from which the loop opens a connection: of this machine, each with another
/// port.
fn local_address(wire: usize) -> Address {
    let port = 1_024 + wire % 60_000;
    let port = u16::try_from(port).unwrap_or(u16::MAX);
    Address::Tcp((Ipv4Addr::LOCALHOST, port).into())
}
