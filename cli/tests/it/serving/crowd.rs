//! A thousand clients at once, each of which waits for a second: all of them wait for that one second.

use std::env;
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::support::outside::skip;
use crate::support::served::Served;
use crate::support::sockets::Stream;

const CLIENTS: u64 = 1_000;

const DELAY: Duration = Duration::from_secs(1);

/// One after the other they would need 1,000 s. What is between this and the delay is left to a
/// machine that has other things to do.
const PATIENCE: Duration = Duration::from_secs(20);

/// What a machine with nothing else to do needs, asked for by `SERVELOOP_FULL=1`.
const PROMPT: Duration = Duration::from_millis(1_500);

/// Makes room for the descriptors of this many clients; false if the system has none.
pub(crate) fn make_room(clients: u64) -> bool {
    let limit = getrlimit(Resource::Nofile);
    let enough = |limit: Option<u64>| limit.is_none_or(|limit| limit > clients + 100);
    let raised = Rlimit {
        current: limit.maximum,
        ..limit
    };
    enough(limit.current) || (enough(limit.maximum) && setrlimit(Resource::Nofile, raised).is_ok())
}

#[test]
fn a_thousand_delays_pass_at_the_same_time() {
    if !make_room(CLIENTS) {
        skip("room for the descriptors of a thousand clients");
        return;
    }
    let served = Served::new(&["hello", "-q", "--listen", "tcp://127.0.0.1:0"]);
    let mut clients: Vec<_> = (0..CLIENTS).map(|_| served.connect()).collect();
    clients.iter_mut().for_each(|it| it.expect("Welcome!"));
    let began = Instant::now();
    for (number, client) in clients.iter_mut().enumerate() {
        client.send(&format!("number {number}"));
    }
    let sent = began.elapsed();
    for (number, client) in clients.iter_mut().enumerate() {
        client.expect(&format!("Hello,number {number}"));
    }
    let took = began.elapsed();
    println!("{CLIENTS} requests sent in {sent:?}, all replies there after {took:?}");
    assert!(took >= DELAY, "{took:?}");
    let full = env::var_os("SERVELOOP_FULL").is_some();
    let most = if full { PROMPT } else { PATIENCE };
    assert!(took < most, "{took:?}");
    for client in &mut clients {
        client.send("exit");
    }
    clients.iter_mut().for_each(Stream::expect_end);
}
