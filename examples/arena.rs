//! A game over UDP: every player is told where all of them are, twenty times a second. Run
//! `cargo run --example arena`, then `serveloop connect udp://127.0.0.1:9999` or `nc -u 127.0.0.1 9999` in
//! several terminals: `hello`, then `join` with the ticket that comes, then `move 3 -1`.
//!
//! The ticket shows that a player receives what is sent to its address. Until then it could be the address
//! of a victim, and gets no more than a little. A player that says nothing for a minute is gone, and so is
//! one whose computer reports that no program listens there. Such reports can be forged; what they end here
//! is a game.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serveloop::net::DeliveryError;
use serveloop::service::{Group, Lagging};
use serveloop::{Actions, Config, Ended, Factory, Peer, Protocol, Result, Server, Transport};

const STEP: Duration = Duration::from_millis(50);
const SILENCE_MOST: Duration = Duration::from_secs(60);

/// Where the players are, by the numbers of their sessions.
#[derive(Clone, Default)]
struct Arena(Arc<Mutex<BTreeMap<u64, (i32, i32)>>>);

impl Arena {
    fn players(&self) -> MutexGuard<'_, BTreeMap<u64, (i32, i32)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Player(u64, Group, Arena, Option<Instant>);

impl Protocol for Player {
    fn data_received(&mut self, data: &[u8], transport: &mut Transport<'_>) -> Result<usize> {
        self.3 = Some(transport.now() + SILENCE_MOST);
        let (Self(ticket, group, arena, _), id) = (&*self, transport.id());
        let text = String::from_utf8_lossy(data);
        match *text.split_whitespace().collect::<Vec<_>>() {
            ["hello"] => transport.write(format!("{ticket:x}").as_bytes()),
            ["join", shown] if shown == format!("{ticket:x}") => {
                transport.confirm_address();
                group.join("arena", &transport.outbox());
                arena.players().entry(id).or_default();
            }
            ["move", x, y] => {
                if let Some(at) = arena.players().get_mut(&id) {
                    at.0 = at.0.saturating_add(x.parse().unwrap_or(0));
                    at.1 = at.1.saturating_add(y.parse().unwrap_or(0));
                }
            }
            _ => {}
        }
        Ok(data.len())
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.3
    }

    fn datagram_undelivered(&mut self, _: &DeliveryError, transport: &mut Transport<'_>) {
        transport.close();
    }

    fn connection_lost(&mut self, ended: &Ended<'_>) {
        self.2.players().remove(&ended.peer().id());
    }
}

struct Game(Group, Arena, Option<Instant>);

impl Factory for Game {
    type Protocol = Player;

    fn build_protocol(&mut self, _: &Peer) -> Option<Player> {
        let ticket = RandomState::new().build_hasher().finish();
        Some(Player(ticket, self.0.clone(), self.1.clone(), None))
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.2
    }

    fn started(&mut self, actions: &mut Actions<'_, Player>) {
        self.2 = Some(actions.now() + STEP);
    }

    fn handle_timeout(&mut self, actions: &mut Actions<'_, Player>) {
        self.2 = Some(actions.now() + STEP);
        let mut state = String::new();
        for (id, (x, y)) in &*self.1.players() {
            let _ = write!(state, "{id}:{x},{y} ");
        }
        self.0.publish("arena", state.into_bytes());
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    env_logger::init();
    let at = std::env::args().nth(1);
    let at = at.as_deref().unwrap_or("udp://127.0.0.1:9999");
    let config = Config {
        sessions: true,
        ..Config::default()
    };
    let server = Server::bind(&[at.parse()?], config)?;
    println!("listening on {}", server.addresses()[0]);
    let game = Game(Group::new(Lagging::DropOldest), Arena::default(), None);
    server.with(game).serve_forever()?;
    Ok(())
}
