//! A thousand clients of four networks behind a real load balancer: each is served, logged and limited by
//! its own address.

use std::collections::BTreeMap;
use std::env;
use std::io::Write;
use std::net::TcpStream;

use rustix::process::Signal;

use crate::serving::crowd::make_room;
use crate::serving::proxied::{Balancer, echoes, exchange};
use crate::support::outside::{require, skip};
use crate::support::served::Served;
use crate::support::sockets::socket_addr;

/// The clients of a crowd.
const CLIENTS: usize = 1_000;

/// Of each address at most this many.
const EACH: usize = 5;

const NETWORKS: usize = 4;

/// Where there is a limit for each loop or process of its own, or none, it is not tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Limit {
    Shared,
    Apart,
}

/// An address in one of the networks. Each is a peer of its own.
fn host(number: usize) -> String {
    let (network, host) = (number % NETWORKS, number / NETWORKS + 1);
    match network {
        0 => format!("192.0.2.{host}"),
        1 => format!("198.51.100.{host}"),
        2 => format!("203.0.113.{host}"),
        // Of IPv6, a network of 64 bits is a peer.
        _ => format!("2001:db8:0:{host:x}::1"),
    }
}

/// A connection through the balancer, which is told who the client is as by another balancer before it.
struct Client {
    stream: TcpStream,
    name: String,
}

impl Client {
    #[track_caller]
    fn new(balancer: &Balancer, host: &str, port: usize) -> Self {
        let (family, to, name) = match host.contains(':') {
            true => ("TCP6", "2001:db8::80", format!("tcp://[{host}]:{port}")),
            false => ("TCP4", "192.0.2.80", format!("tcp://{host}:{port}")),
        };
        // From several addresses, or there would not be a port for all.
        let source = u8::try_from(port % 50 + 2).expect("a small number");
        let mut stream = balancer.connect(source);
        let header = format!("PROXY {family} {host} {to} {port} 80\r\n");
        stream.write_all(header.as_bytes()).expect("a balancer");
        Self { stream, name }
    }
}

/// `count` clients, several of each host.
#[track_caller]
fn crowd(balancer: &Balancer, count: usize) -> Vec<Client> {
    let one = |number| Client::new(balancer, &host(number / EACH), 10_000 + number);
    (0..count).map(one).collect()
}

#[test]
fn a_thousand_clients_of_four_networks_have_their_own_names_and_places() {
    if !require("haproxy") {
        return;
    }
    if !make_room(3 * CLIENTS as u64) {
        skip("room for the descriptors of a thousand clients and as many connections");
        return;
    }

    let full = env::var_os("SERVELOOP_FULL").is_some();
    let processes = if full { CLIENTS } else { 100 };
    for (number, (model, count, limit)) in [
        (&[][..], CLIENTS, Limit::Shared),
        (&["--workers", "2"], CLIENTS, Limit::Apart),
        (&["--model", "threaded"], CLIENTS, Limit::Shared),
        (
            &["--model", "forking", "--max-children", "1100"],
            processes,
            Limit::Shared,
        ),
    ]
    .into_iter()
    .enumerate()
    {
        // One version of the header with each model, and in full both.
        let headers = ["send-proxy", "send-proxy-v2"];
        let headers = if full {
            &headers[..]
        } else {
            &headers[number % 2..][..1]
        };
        for header in headers {
            println!("{model:?} {header}");
            serve(model, header, count, limit);
        }
    }
}

#[track_caller]
fn serve(model: &[&str], header: &str, count: usize, limit: Limit) {
    let each = EACH.to_string();
    let options = [
        &["echo", "-v", "--listen", "tcp://127.0.0.1:0"][..],
        &["--proxy", "required", "--trust", "127.0.0.0/8"],
        &["--max-per-peer", &each],
        model,
    ];
    let served = Served::new(&options.concat());
    let balancer = Balancer::haproxy_at("fd@0 accept-proxy", socket_addr(served.uri(0)), header);

    let mut clients = crowd(&balancer, count);
    for client in &mut clients {
        let text = client.name.repeat(50);
        exchange(&mut client.stream, &text);
    }
    let mut names: Vec<_> = clients.iter().map(|it| it.name.clone()).collect();
    let mut refused = Vec::new();
    if limit == Limit::Shared {
        refused = one_more_of_each_network(&balancer);
        names.extend(refused.iter().cloned());
    }
    drop(clients);

    let mut log = served_lines(&served, names.len());
    drop(balancer);
    served.signal(Signal::TERM);
    let rest = served.status_and_log();
    let last = rest.last().expect("its counters").clone();
    log.extend(rest);
    check_lines(&log, &names, &refused);
    assert!(
        last.contains(&format!("accepted {}, ", names.len())),
        "{last}"
    );
    assert!(last.contains(&format!("closed_by_peer {count}")), "{last}");
    let closed_refused = format!("closed_refused {}", refused.len());
    assert_eq!(
        last.contains(&closed_refused),
        !refused.is_empty(),
        "{last}"
    );
}

/// The first host of each network has all its places. Another of IPv6 in the same network is the same.
/// Returns the names of those that found none.
#[track_caller]
fn one_more_of_each_network(balancer: &Balancer) -> Vec<String> {
    let hosts = (0..NETWORKS)
        .map(host)
        .chain(["2001:db8:0:1::2".to_owned()]);
    let mut names = Vec::new();
    for (number, host) in hosts.enumerate() {
        let mut client = Client::new(balancer, &host, 20_000 + number);
        assert!(!echoes(&mut client.stream), "{}", client.name);
        names.push(client.name);
    }
    names
}

/// Waits for the ends of this many connections.
#[track_caller]
fn served_lines(served: &Served, connections: usize) -> Vec<String> {
    let (mut lines, mut ends) = (Vec::new(), 0);
    while ends < connections {
        let line = served.logged("tcp://");
        let is_end = line.ends_with(": closed by the peer") || line.ends_with(": refused");
        ends += usize::from(is_end);
        lines.push(line);
    }
    lines
}

/// Every line of the log that is about a connection names its client, but for the one that says that a
/// connection of the balancer was accepted. Each client has one line that names the balancer too, or why it
/// was refused, and one of its end.
#[track_caller]
fn check_lines(log: &[String], names: &[String], refused: &[String]) {
    let mut told = BTreeMap::<&str, Vec<&str>>::new();
    for line in log.iter().filter(|line| line.contains("tcp://")) {
        let (_, text) = line.split_once("tcp://").expect("an address");
        let (name, text) = text.split_once(": ").expect("a text");
        if text == "accepted" {
            assert!(name.starts_with("127.0.0.1:"), "{line}");
            continue;
        }
        told.entry(name).or_default().push(text);
    }

    let why = format!("refused: {EACH} connections from this peer are open");
    for name in names {
        let lines = told.remove(name.trim_start_matches("tcp://"));
        match lines.as_deref().unwrap_or_default() {
            [first, "refused"] if refused.contains(name) => assert_eq!(*first, why, "{name}"),
            [named, "closed by the peer"] => {
                assert!(
                    named.starts_with("named by tcp://127.0.0.1:"),
                    "{name}: {named}"
                );
            }
            lines => panic!("{name}: {lines:?}"),
        }
    }
    assert!(told.is_empty(), "lines about others: {told:?}");
}
