//! What a protocol is told, and whether that may be now.

use super::{Event, Model};
use crate::session::pattern;

impl Model {
    pub(in super::super) fn tell_open(&mut self) {
        let begins = matches!(self.event, Event::Open | Event::Datagram);
        self.demand(begins && !self.opened, "began twice");
        self.opened = true;
        self.calls += 1;
    }

    pub(in super::super) fn tell(&mut self, event: Event) {
        self.calls += 1;
        let asked = (self.event, event) == (Event::More, Event::Woken) && self.calls == 1;
        let asked = asked || event == Event::Woken && self.take_asked();
        self.demand(self.event == event || asked, &format!("told of {event:?}"));
        self.demand(self.opened, "told something before the beginning");
        self.demand(!self.closing, "told something while closing");
    }

    /// A datagram has the call that its protocol asked for at once. Returns whether there is one.
    fn take_asked(&mut self) -> bool {
        let is_due = self.event == Event::Datagram && std::mem::take(&mut self.again);
        self.asked += usize::from(is_due);
        is_due && self.asked <= self.config.messages_per_turn
    }

    pub(in super::super) fn tell_data(&mut self, data: &[u8]) {
        let is_datagram = self.event == Event::Datagram;
        self.tell(if is_datagram {
            Event::Datagram
        } else {
            Event::Show
        });
        if is_datagram && self.asked == self.config.messages_per_turn {
            // The calls that a datagram may ask for are used up.
            self.again = false;
        }
        self.demand(!self.blocked(), "shown data while paused");
        self.demand(!self.eof_told, "shown data after the end");
        self.demand(!data.is_empty() || is_datagram, "shown nothing");
        self.demand(
            self.calls <= self.config.messages_per_turn || is_datagram,
            "shown too often",
        );
        self.demand_unread(data);
    }

    pub(in super::super) fn take(&mut self, count: usize) {
        self.taken += count;
        self.took |= count > 0;
        self.last_take = Some(count);
    }

    pub(in super::super) fn tell_eof(&mut self, unread: &[u8]) {
        self.end_show();
        let is_datagram = self.event == Event::Datagram;
        if !is_datagram {
            self.event = Event::End;
            self.demand(!self.blocked(), "told the end while paused");
            self.demand(self.eof && !self.pending, "told the end before the rest");
        }
        self.tell(self.event);
        self.demand(!self.eof_told, "told the end twice");
        self.demand_unread(unread);
        self.eof_told = true;
        self.eof = true;
        self.first = false;
        self.incomplete = false;
        self.taken = self.fed;
    }

    fn demand_unread(&mut self, data: &[u8]) {
        self.demand(data.len() == self.unread(), "not shown what is unread");
        let follows = pattern::follows(data, self.taken);
        self.demand(follows, "shown bytes that were not next");
    }
}
