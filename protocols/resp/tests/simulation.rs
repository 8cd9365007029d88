//! The store under the simulated network, with all its faults, on the loop and in the driver that
//! serves one connection at a time.

use std::sync::Arc;
use std::time::Instant;

use serveloop::testing::{Exchange, Simulation};
use serveloop::{Actions, Factory, Peer};
use serveloop_resp::Resp;
use serveloop_resp::store::{Connection, Settings, Store};

/// A server with a store of its own.
struct Server(Arc<Store>);

impl Server {
    fn new() -> Self {
        Self(Store::new(Settings::default()))
    }
}

impl Factory for Server {
    type Protocol = Resp<Connection>;

    fn build_protocol(&mut self, _: &Peer) -> Option<Self::Protocol> {
        Some(Resp::new(self.0.connection()))
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.0.poll_timeout()
    }

    fn handle_timeout(&mut self, actions: &mut Actions<'_, Self::Protocol>) {
        self.0.handle_timeout(actions.now());
    }
}

fn request(words: &[&str]) -> String {
    let words = words
        .iter()
        .map(|word| format!("${}\r\n{word}\r\n", word.len()));
    let words: Vec<_> = words.collect();
    format!("*{}\r\n{}", words.len(), words.concat())
}

/// A conversation about a key. Several clients may hold it at the same time, so each leaves the key as
/// the others have it.
fn about(name: &str, value: &str) -> Exchange {
    let stored = format!("${}\r\n{value}\r\n", value.len());
    let unknown = "-ERR unknown command 'LPUSH', with args beginning with: 'list' \r\n";
    Exchange::new(request(&["SET", name, value]), "+OK\r\n")
        .then(request(&["GET", name]), &stored)
        .then("\r\n", "")
        .then(
            format!("strlen {name}\r\n"),
            format!(":{}\r\n", value.len()),
        )
        .then(request(&["PEXPIRE", name, "100000000"]), ":1\r\n")
        .then(
            request(&["INCRBY", name, "x"]),
            "-ERR value is not an integer or out of range\r\n",
        )
        .then(request(&["LPUSH", "list"]), unknown)
        .then(request(&["SET", name, value, "GET"]), &stored)
}

/// A client that listens to what nobody publishes.
fn listener() -> Exchange {
    let told =
        |what: &str, count| format!("*3\r\n${}\r\n{what}\r\n$1\r\na\r\n:{count}\r\n", what.len());
    Exchange::new(request(&["SUBSCRIBE", "a"]), told("subscribe", 1))
        .then("psubscribe a\r\n", told("psubscribe", 2))
        .then("ping\r\n", "*2\r\n$4\r\npong\r\n$0\r\n\r\n")
        .then(request(&["UNSUBSCRIBE", "a"]), told("unsubscribe", 1))
        .then("punsubscribe\r\n", told("punsubscribe", 0))
        .then("ping\r\n", "+PONG\r\n")
        .in_turns()
}

/// Transactions. Whatever others that hold this conversation do, between the commands of one there is
/// nothing else, and a client that changes what it watches fails.
fn transactions() -> Exchange {
    let exec = "*4\r\n:1\r\n-ERR value is not an integer or out of range\r\n$1\r\n1\r\n:1\r\n";
    let aborted = "-EXECABORT Transaction discarded because of previous errors.\r\n";
    let arity = "-ERR wrong number of arguments for 'get' command\r\n";
    Exchange::new(request(&["WATCH", "nothing"]), "+OK\r\n")
        .then("multi\r\n", "+OK\r\n")
        .then(request(&["INCR", "t"]), "+QUEUED\r\n")
        .then(request(&["INCRBY", "t", "x"]), "+QUEUED\r\n")
        .then(request(&["GET", "t"]), "+QUEUED\r\n")
        .then(request(&["DEL", "t"]), "+QUEUED\r\n")
        .then("exec\r\n", exec)
        .then("watch v t\r\nset v 1\r\nmulti\r\n", "+OK\r\n+OK\r\n+OK\r\n")
        .then(request(&["SET", "t", "x"]), "+QUEUED\r\n")
        .then("exec\r\n", "*-1\r\n")
        .then(
            "multi\r\nget\r\nexec\r\n",
            ["+OK\r\n", arity, aborted].concat(),
        )
        .then("watch a\r\nmulti\r\ndiscard\r\n", "+OK\r\n+OK\r\n+OK\r\n")
}

/// Leaves in the middle of a transaction.
fn undecided() -> Exchange {
    Exchange::new(
        "watch t v\r\nmulti\r\nset t 1\r\n",
        "+OK\r\n+OK\r\n+QUEUED\r\n",
    )
}

fn simulation() -> Simulation<impl FnMut() -> Server> {
    let long = "x".repeat(300);
    let pipelined = request(&["ECHO", &long]).repeat(20);
    let echoed = format!("$300\r\n{long}\r\n").repeat(20);
    Simulation::new(Server::new)
        .client(about("a", "1"))
        .client(about("b", &long).in_turns())
        .client(Exchange::new(pipelined, echoed))
        .client(Exchange::new("ping\r\nquit\r\n", "+PONG\r\n+OK\r\n").ends_last())
        .client(listener())
        .client(transactions())
        .client(transactions().in_turns())
        .client(undecided())
        .client(Exchange::default())
}

#[test]
fn every_byte_is_accounted_for_on_the_loop() {
    simulation().run(0..400);
}

#[test]
fn every_byte_is_accounted_for_one_connection_at_a_time() {
    simulation().blocking().run(0..200);
}
