//! Clients whose bytes go through a layer: what they say and hear there.

use std::mem;

use crate::testing::simulation::far::Far;
use crate::testing::simulation::ledger::{ConnectionRecord, Justification, LayeredRecord};
use crate::testing::simulation::network::Network;
use crate::testing::simulation::within::Side;

/// How many chunks of the wire a client says at once, at most: smaller units take too long in total.
const CHUNKS: usize = 8;

impl Network {
    /// Makes the client's end of a new connection, if the connections go through a layer.
    pub(super) fn make_far(&mut self, account: &mut ConnectionRecord, side: Side) -> Option<Far> {
        let make = self.far_ends.as_mut()?;
        let mut far = Far::new(make(side));
        let mut sends = match side {
            Side::Client => account.exchange.preface.clone(),
            _ => Vec::new(),
        };
        sends.extend(far.take_output());
        account.layered = Some(LayeredRecord {
            sends,
            ..LayeredRecord::default()
        });
        Some(far)
    }

    /// Lets a client say some of what it has to say, once everything before it is on the wire.
    pub(super) fn client_says(&mut self, wire: usize) {
        let it = &mut self.wires[wire];
        let Some(far) = &mut it.far else {
            return;
        };
        let mut ledger = self.ledger.borrow_mut();
        let account = &mut ledger.accounts[it.number];
        let may = account
            .exchange
            .may_send(account.received, it.habits.in_turns);
        let Some(layered) = &mut account.layered else {
            return;
        };

        let most = (may - layered.said).min(it.habits.chunk * CHUNKS);
        if most == 0 || it.up.sent < layered.sends.len() || !far.is_open() {
            return;
        }
        let end = layered.said + self.random.between(1, most);
        far.say(&account.exchange.sends[layered.said..end]);
        layered.said = end;
        layered.sends.extend(far.take_output());
    }

    /// Says the end mark of a client's layer, if it has one. Returns whether everything is on the
    /// wire, so that the stream can end.
    pub(super) fn has_finished(&mut self, wire: usize) -> bool {
        let it = &mut self.wires[wire];
        let Some(far) = &mut it.far else {
            return true;
        };
        let mut ledger = self.ledger.borrow_mut();
        let Some(layered) = &mut ledger.accounts[it.number].layered else {
            return true;
        };

        if !layered.is_finished && far.is_open() {
            far.finish();
            layered.sends.extend(far.take_output());
            layered.is_finished = true;
        }
        let is_sent = it.up.sent == layered.sends.len();
        let lingers = it.habits.lingers && !it.is_half_closed;
        let ends = layered.is_finished && is_sent && !lingers;
        drop(ledger);
        if !is_sent {
            self.encourage_sender(wire);
        }
        ends
    }

    /// Passes on what a client has taken from the wire, or the end if there are 0 bytes, and checks
    /// what becomes of it.
    pub(super) fn client_hears(&mut self, wire: usize, count: usize) {
        let it = &mut self.wires[wire];
        let mut ledger = self.ledger.borrow_mut();
        let account = &mut ledger.accounts[it.number];
        let (Some(far), Some(layered)) = (&mut it.far, &mut account.layered) else {
            account.received += count;
            return;
        };

        far.hear(count);
        layered.sends.extend(far.take_output());
        let mut client = far.client().borrow_mut();
        layered.is_cut |= client.is_cut;

        let heard = mem::take(&mut client.heard);
        let from = account.received;
        account.received += heard.len();
        let is_right = account.admit(from, &heard);
        let problem = match &client.refusal {
            Some(refusal) => format!("its layer refused what it got: {refusal}"),
            None if !is_right => {
                let heard = heard.escape_ascii();
                format!("byte {from} on: it was told \"{heard}\", which it does not expect")
            }
            None => return,
        };
        ledger.object_to(it.number, &problem);
    }

    /// Ends the stream of a client that leaves out the end mark, if it is time to do so.
    pub(super) fn truncates(&mut self, wire: usize) {
        let it = &self.wires[wire];
        let moved = it.up.sent + it.down.taken;
        let is_time = it.habits.truncates_at.is_some_and(|at| moved >= at);
        if is_time && !it.up.ended && self.excuse_truncation(wire) {
            self.end_up(wire);
        }
    }

    /// Notes that a client ends its stream now, if its end mark is not on the wire. Returns whether
    /// that is so.
    pub(super) fn excuse_truncation(&self, wire: usize) -> bool {
        let it = &self.wires[wire];
        let mut ledger = self.ledger.borrow_mut();
        let account = &mut ledger.accounts[it.number];
        let Some(layered) = &account.layered else {
            return false;
        };

        let is_short = !layered.is_finished || it.up.sent < layered.sends.len();
        if is_short {
            account.justification(Justification::Truncated);
        }
        is_short
    }
}
