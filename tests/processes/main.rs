//! Servers that run in a separate process, and so with one thread: forking tests cannot run next to
//! other threads, and what is counted must not be mixed up with a test's own.
//!
//! `SERVELOOP_FULL=1` has crowds of the size that servers are made for.
#![expect(
    clippy::unwrap_used,
    reason = "what cannot be unwrapped is a failure of the test"
)]

use std::error::Error;
use std::io::Write;
use std::net::TcpListener;
use std::os::unix::fs::FileTypeExt;
use std::process::{Command, ExitCode};
use std::sync::{LazyLock, Mutex};
use std::thread;
use std::time::{Duration, Instant};
use std::{env, fmt, fs};

use serveloop::layer::proxy::Proxy;
use serveloop::layer::tls::{ServerTls, Tls, TlsInfo};
use serveloop::layer::{Layered, Prefaced};
use serveloop::service::{Offload, OffloadLimits};
use serveloop::{
    Actions, Address, Config, Ended, Factory, Limits, Peer, ProtocolError, Server, ShutdownHandle,
    Transport, Waker,
};

use isolated::{Isolated, Usage};
use support::model_protocols::{Any, probe};
use support::model_server::{End, connect, finish, read_to};
use support::outside::{require, skip};
use support::transcripts::{Host, Transcript};
use support::{Scratch, echoes, expect, panic_quietly, timeless};
use tls_programs::{beside, openssl, python};

mod isolated;
#[expect(dead_code, reason = "made for several test programs")]
#[path = "../it/support/mod.rs"]
mod support;
#[expect(dead_code, reason = "made for several test programs")]
#[path = "../it/layer/tls/programs.rs"]
mod tls_programs;

const TESTS: [(&str, fn()); 21] = [
    (
        "dialogues_are_the_same_in_processes",
        dialogues_are_the_same_in_processes,
    ),
    ("a_crowd_of_threads", || {
        crowd("threading", size(1_000, 100))
    }),
    ("a_crowd_of_processes", || crowd("forking", size(300, 50))),
    ("threads_leave_nothing_behind", || {
        short_connections("threading")
    }),
    ("processes_leave_nothing_behind", || {
        short_connections("forking")
    }),
    (
        "late_wakes_leave_nothing_behind",
        late_wakes_leave_nothing_behind,
    ),
    ("a_killed_child_is_counted", a_killed_child_is_counted),
    ("processes_speak_tls", processes_speak_tls),
    (
        "a_proxys_client_is_the_peer_of_a_process",
        a_proxys_client_is_the_peer_of_a_process,
    ),
    (
        "a_child_has_the_id_that_its_parent_gave",
        a_child_has_the_id_that_its_parent_gave,
    ),
    (
        "a_child_has_no_other_descriptors",
        a_child_has_no_other_descriptors,
    ),
    (
        "a_child_has_no_outbound_connection",
        a_child_has_no_outbound_connection,
    ),
    (
        "no_more_children_than_allowed",
        no_more_children_than_allowed,
    ),
    (
        "who_waits_for_a_child_is_served_in_the_drain",
        who_waits_for_a_child_is_served_in_the_drain,
    ),
    (
        "without_room_one_connection_is_refused",
        without_room_one_connection_is_refused,
    ),
    (
        "a_drop_that_panics_spares_the_parent",
        a_drop_that_panics_spares_the_parent,
    ),
    (
        "an_error_that_panics_when_it_is_dropped_is_reported",
        an_error_that_panics_when_it_is_dropped_is_reported,
    ),
    (
        "wakers_of_ended_sessions_leave_nothing_behind",
        wakers_of_ended_sessions_leave_nothing_behind,
    ),
    (
        "what_a_protocol_charges_counts_in_its_process",
        what_a_protocol_charges_counts_in_its_process,
    ),
    (
        "each_child_has_pools_of_its_own",
        each_child_has_pools_of_its_own,
    ),
    (
        "a_child_shuts_the_server_down",
        a_child_shuts_the_server_down,
    ),
];

/// Names the address that a server connects to by itself.
const TO: &str = "SERVELOOP_TEST_CONNECT_TO";

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    if let [word, model, what, uris @ ..] = arguments.as_slice() {
        if word == "serve" {
            serve(model, what, uris);
            return ExitCode::SUCCESS;
        }
    }
    let filter = arguments.iter().find(|argument| !argument.starts_with('-'));
    let chosen = |name: &str| filter.is_none_or(|part| name.contains(part.as_str()));
    let chosen: Vec<_> = TESTS.iter().filter(|(name, _)| chosen(name)).collect();
    if arguments.iter().any(|argument| argument == "--list") {
        chosen.iter().for_each(|(name, _)| println!("{name}: test"));
        return ExitCode::SUCCESS;
    }
    println!("\nrunning {} tests", chosen.len());
    let mut failed = 0;
    for (name, test) in &chosen {
        let passed = thread::spawn(*test).join().is_ok();
        failed += usize::from(!passed);
        println!("test {name} ... {}", if passed { "ok" } else { "FAILED" });
    }
    let outcome = if failed == 0 { "ok" } else { "FAILED" };
    let (passed, others) = (chosen.len() - failed, TESTS.len() - chosen.len());
    println!(
        "\ntest result: {outcome}. {passed} passed; {failed} failed; 0 ignored; 0 measured; \
         {others} filtered out\n"
    );
    ExitCode::from(u8::from(failed > 0))
}

fn size(full: usize, modest: usize) -> usize {
    if env::var_os("SERVELOOP_FULL").is_some() {
        full
    } else {
        modest
    }
}

/// The server's process. Its last listener is for shutting it down.
fn serve(model: &str, what: &str, uris: &[String]) {
    let (config, mut build) = service(what);
    let at: Vec<Address> = uris.iter().map(|uri| uri.parse().unwrap()).collect();
    let server = Server::bind(&at, config).unwrap();
    server.addresses().iter().for_each(|at| println!("at {at}"));
    let last = at.len() - 1;
    let handle = server.shutdown_handle();
    if what == "stopping" {
        let handle = handle.clone();
        build = Box::new(move || stopping(handle.clone()));
    }
    let until = what.split(',').nth(2).map(|until| until.parse().unwrap());
    let factory = Reporting {
        build,
        handle,
        last,
        until,
        to: env::var(TO).ok().map(|uri| uri.parse().unwrap()),
    };
    let statistics = match model {
        "forking" => server.with(factory).serve_forking(),
        "threading" => server.with(factory).serve_threading(),
        _ => panic!("{model} is no model"),
    };
    for (name, count) in statistics.unwrap().iter() {
        println!("count {name} {count}");
    }
}

/// What is served: a transcript by its number, or something else by its name.
fn service(what: &str) -> (Config, Box<dyn Fn() -> Any>) {
    if let Ok(number) = what.parse::<usize>() {
        let transcript = Transcript::all().swap_remove(number);
        return (transcript.config, Box::new(move || (transcript.build)()));
    }
    if let "tls" | "idle tls" = what {
        let config = Config {
            limits: Limits {
                idle_timeout: (what != "tls").then_some(Duration::from_millis(500)),
                ..timeless().limits
            },
            ..timeless()
        };
        return (config, secret());
    }
    let mut words = what.split(',');
    let (name, children) = (words.next().unwrap(), words.next().unwrap_or("400"));
    let mut config = Config {
        max_children: children.parse().unwrap(),
        ..timeless()
    };
    let build: fn() -> Any = match name {
        "echo" => || Box::new(serveloop::protocols::Echo),
        "waker" => late_waker,
        "dropping" => dropping,
        "spoiled" => spoiled,
        "keeper" => keeper,
        "named" => named,
        "charging" => charging,
        "offloading" => {
            LazyLock::force(&POOLS);
            offloading
        }
        "proxied" => {
            config.trusted_proxies = "127.0.0.0/8".parse().unwrap();
            (config.limit_loopback, config.max_per_peer) = (true, 1);
            proxied
        }
        // Built where the server's handle is.
        "stopping" => || unreachable!("needs a handle"),
        _ => panic!("{name} is not served"),
    };
    (config, Box::new(build))
}

/// An echo inside TLS, whose tickets all processes know.
fn secret() -> Box<dyn Fn() -> Any> {
    let file = |name| beside("certificates").join(name);
    let tls = ServerTls::builder().certificate(file("localhost.pem"), file("localhost.key"));
    let tls = tls.build().unwrap();
    Box::new(move || {
        let inside = |_: &Peer, _: &TlsInfo| Some(serveloop::protocols::Echo);
        Box::new(Layered::new(Tls::server(&tls), inside))
    })
}

struct Reporting {
    build: Box<dyn Fn() -> Any>,
    handle: ShutdownHandle,
    last: usize,
    /// At which connection, counted down, the server is shut down, if not by its last listener.
    until: Option<usize>,
    /// Where the server connects to by itself.
    to: Option<Address>,
}

impl Factory for Reporting {
    type Protocol = Any;

    fn build_protocol(&mut self, peer: &Peer) -> Option<Any> {
        if peer.listener() == Some(self.last) {
            self.handle.shutdown();
            return None;
        }
        self.until = self.until.and_then(|until| until.checked_sub(1));
        if self.until == Some(0) {
            self.handle.shutdown();
        }
        Some((self.build)())
    }

    fn service_actions(&mut self, actions: &mut Actions<'_, Any>) {
        if let Some(to) = self.to.take() {
            actions.connect(to, (self.build)());
        }
    }

    fn handle_error(&mut self, ended: &Ended<'_>) {
        println!("error {}", ended.reason());
        let (id, received) = (ended.peer().id(), ended.received());
        println!("of {id}: {received} {} {}", ended.sent(), ended.unsent());
    }
}

fn processes_speak_tls() {
    for program in ["openssl", "python3", "timeout"] {
        if !require(program) {
            return;
        }
    }

    let server = Isolated::new("forking", "tls", TCP);
    let at = server.addresses[0].socket_addr().unwrap();
    for (option, version) in [("-tls1_2", "TLSv1.2"), ("-tls1_3", "TLSv1.3")] {
        assert_eq!(openssl(at, &[option]), format!("echo, {version}"));
    }
    for (number, version) in [("version=1.2", "TLSv1.2"), ("version=1.3", "TLSv1.3")] {
        assert_eq!(python(at, "echo", &[number]), format!("echo, {version}"));
        assert_eq!(python(at, "resume", &[number]), "resumed");
    }

    let statistics = server.end();
    assert_eq!(statistics.accepted, 8);
    assert_eq!(statistics.closed_by_peer, 8);

    let server = Isolated::new("forking", "idle tls", TCP);
    let at = server.addresses[0].socket_addr().unwrap();
    assert_eq!(python(at, "wait", &[]), "closed by the server");
    assert_eq!(server.end().closed_timeout_idle, 1);
}

fn dialogues_are_the_same_in_processes() {
    for (number, transcript) in Transcript::all().iter().enumerate() {
        let scratch = Scratch::new();
        let unix = scratch.uri("unix", "socket");
        for at in ["tcp://127.0.0.1:0", "tcp://[::1]:0", &unix] {
            // Threads of a test's own protocol are its own business.
            println!("{} {at}", transcript.name);
            let mut server = Isolated::new("forking", &number.to_string(), at);
            transcript.play(&mut server);
            let statistics = server.end();
            assert_eq!(statistics.accepted, 1);
            transcript.check(&statistics);
        }
        assert!(!scratch.path("socket").exists());
    }
}

const TCP: &str = "tcp://127.0.0.1:0";

fn crowd(model: &str, size: usize) {
    let server = Isolated::new(model, "echo", TCP);
    server.descriptors();
    let before = Usage::of(server.process.id());
    let began = Instant::now();
    let mut clients: Vec<_> = (0..size).map(|_| server.client()).collect();
    for client in &mut clients {
        echoes(client, b"hello");
    }
    let took = began.elapsed();
    let at_once = Usage::of(server.process.id());
    let served = at_once.threads - 1 + at_once.children.len();
    assert_eq!(served, size);
    drop(clients);
    let after = server.wait("quiet", |usage| {
        usage.threads == before.threads
            && usage.descriptors == before.descriptors
            && usage.children.is_empty()
    });
    let statistics = server.end();
    assert_eq!(statistics.closed_by_peer, size as u64 + 1);
    println!(
        "{model}: {size} at once after {took:?}, memory {} KiB before, {} with them, {} after",
        before.memory_kib, at_once.memory_kib, after.memory_kib
    );
}

fn short_connections(model: &str) {
    let number = size(10_000, 600);
    let server = Isolated::new(model, "echo", TCP);
    let descriptors = server.descriptors();
    let serve = |count: usize| {
        let crew: Vec<_> = (0..8)
            .map(|_| {
                let address = server.addresses[0].clone();
                thread::spawn(move || {
                    for _ in 0..count / 8 {
                        let mut client = connect(&address);
                        client.write_all(b"hello").unwrap();
                        finish(&client);
                        assert_eq!(read_to(&mut client), (b"hello".to_vec(), End::Eof));
                    }
                })
            })
            .collect();
        crew.into_iter().for_each(|thread| thread.join().unwrap());
        server.wait("alone", |usage| {
            usage.threads == 1 && usage.children.is_empty() && usage.descriptors == descriptors
        })
    };
    let before = serve(200);
    let began = Instant::now();
    let after = serve(number);
    let took = began.elapsed();
    let grown = after.memory_kib.saturating_sub(before.memory_kib);
    println!("{model}: {number} short ones in {took:?}, memory grown by {grown} KiB");
    assert!(grown < 4_096, "{before:?} {after:?}");
    assert_eq!(server.end().closed_by_peer, number as u64 + 201);
}

/// Keeps its waker beyond its end, and uses it then.
fn late_waker() -> Any {
    let kept = std::sync::Arc::new(std::sync::Mutex::new(None));
    let late = std::sync::Arc::clone(&kept);
    let made = move |transport: &mut Transport<'_>| {
        *kept.lock().unwrap() = Some(transport.waker());
        Ok(())
    };
    let lost = move || {
        if let Some(waker) = late.lock().unwrap().take() {
            waker.wake();
        }
    };
    Box::new(probe().made(made).lost(lost))
}

fn late_wakes_leave_nothing_behind() {
    let server = Isolated::new("threading", "waker", TCP);
    let before = server.descriptors();
    for _ in 0..100 {
        let mut client = server.client();
        finish(&client);
        assert_eq!(read_to(&mut client).1, End::Eof);
    }
    server.wait("alone", |usage| {
        usage.threads == 1 && usage.descriptors == before
    });
    assert_eq!(server.end().closed_by_peer, 101);
}

/// Charges a multiple of 16 MiB, given by a digit, and answers with the same digit.
fn charging() -> Any {
    Box::new(probe().data(|data, transport| {
        transport.charge(usize::from(data[0] - b'0') << 24);
        transport.write(&data[..1]);
        Ok(1)
    }))
}

/// Each process may keep 256 MiB, whatever the others keep.
fn what_a_protocol_charges_counts_in_its_process() {
    let server = Isolated::new("forking", "charging", TCP);
    let mut clients: Vec<_> = (0..3).map(|_| server.client()).collect();
    clients.iter_mut().for_each(|client| echoes(client, b"9"));
    clients.iter_mut().for_each(|client| echoes(client, b"1"));
    let mut greedy = server.client();
    greedy.write_all(b"@").unwrap();
    let _ = read_to(&mut greedy);
    assert!(server.line("error ").contains("keep buffers"));
    clients.iter_mut().for_each(|client| echoes(client, b"0"));
    drop((clients, greedy));
    let statistics = server.end();
    assert_eq!((statistics.accepted, statistics.closed_shed), (4, 1));
}

/// Two pools of the parent's, of which the second had a thread there that has ended.
static POOLS: LazyLock<[Offload; 2]> = LazyLock::new(|| {
    let limits = OffloadLimits {
        idle_timeout: Some(Duration::ZERO),
        ..OffloadLimits::default()
    };
    let pools = [(); 2].map(|()| Offload::new(limits.clone()));
    let job = pools[1].submit(|| (), || ()).unwrap();
    job.wait(None).unwrap().unwrap();
    while fs::read_dir("/proc/self/task").unwrap().count() > 1 {
        thread::yield_now();
    }
    pools
});

/// Says of each pool what became of a job.
fn offloading() -> Any {
    let ask = |pool: &Offload| match pool.submit(|| (), || 2 + 2) {
        Ok(job) => job.wait(None).unwrap().unwrap().to_string(),
        Err(rejected) => rejected.to_string(),
    };
    Box::new(probe().data(move |data, transport| {
        for pool in &*POOLS {
            transport.write(format!("{}\n", ask(pool)).as_bytes());
        }
        Ok(data.len())
    }))
}

fn each_child_has_pools_of_its_own() {
    let server = Isolated::new("forking", "offloading", TCP);
    for _ in 0..2 {
        let mut client = server.client();
        client.write_all(b"go").unwrap();
        expect(&mut client, b"4\n4\n");
        finish(&client);
        assert_eq!(read_to(&mut client), (Vec::new(), End::Eof));
    }
    assert_eq!(server.end().closed_by_peer, 2);
}

fn a_killed_child_is_counted() {
    let server = Isolated::new("forking", "echo", TCP);
    let mut clients: Vec<_> = (0..5).map(|_| server.client()).collect();
    clients
        .iter_mut()
        .for_each(|client| echoes(client, b"hello"));
    let children = Usage::of(server.process.id()).children;
    assert_eq!(children.len(), 5);
    let kill = Command::new("kill").arg("-9").args(&children).status();
    assert!(kill.unwrap().success());
    for client in &mut clients {
        assert_eq!(read_to(client).0, b"");
        assert_eq!(server.line("error "), "in its own process: killed");
    }
    echoes(&mut server.client(), b"still here");
    let statistics = server.end();
    assert_eq!((statistics.accepted, statistics.closed_killed), (6, 5));
}

/// Echoes behind a proxy that names the client, and then fails.
fn proxied() -> Any {
    let proxy = Proxy::required("127.0.0.0/8".parse().unwrap());
    let reader = proxy.reader(&Peer::new("tcp://127.0.0.1:1".parse().unwrap(), None));
    let build = |_: &Peer, _: &Option<_>| {
        Some(probe().data(|data, transport| {
            transport.write(data);
            if data == b"fail" {
                return Err(ProtocolError::malformed(transport.peer().to_string()));
            }
            Ok(data.len())
        }))
    };
    Box::new(Prefaced::new(reader.unwrap(), build))
}

fn a_proxys_client_is_the_peer_of_a_process() {
    let server = Isolated::new("forking", "proxied", TCP);
    let client = |address: &str, says: &str| {
        let mut client = server.client();
        let line = format!("PROXY TCP4 {address} 198.51.100.1 4000 443\r\n{says}");
        client.write_all(line.as_bytes()).unwrap();
        client
    };

    let mut first = client("192.0.2.1", "");
    echoes(&mut first, b"hello");
    // The same client may have one connection only, and another one too.
    assert_eq!(read_to(&mut client("192.0.2.1", "more")).0, b"");
    assert_eq!(read_to(&mut client("192.0.2.2", "fail")).0, b"fail");
    assert_eq!(
        server.line("error "),
        "in its own process: protocol error: malformed: tcp://192.0.2.2:4000"
    );
    echoes(&mut first, b"still here");

    drop(first);
    let statistics = server.end();
    assert_eq!((statistics.accepted, statistics.closed_refused), (3, 1));
    assert_eq!(statistics.refused_max_per_peer, 0);
}

/// Says its connection's id, and then fails.
fn named() -> Any {
    Box::new(probe().data(|_, transport| {
        let id = transport.id().to_string();
        transport.write(id.as_bytes());
        Err(ProtocolError::other("as asked"))
    }))
}

fn a_child_has_the_id_that_its_parent_gave() {
    let server = Isolated::new("forking", "named", TCP);
    let mut ids = Vec::new();
    for _ in 0..3 {
        let mut client = server.client();
        client.write_all(b"hello").unwrap();
        let (id, _) = read_to(&mut client);
        let id = String::from_utf8(id).unwrap();
        let told = format!("{id}: 5 {} 0", id.len());
        assert_eq!(server.line("of "), told, "what the parent tells");
        ids.push(id.parse::<u64>().unwrap());
    }
    assert!(
        ids[0] > 0 && ids.is_sorted_by(|one, next| one < next),
        "{ids:?}"
    );
    server.end();
}

fn a_child_has_no_other_descriptors() {
    let scratch = Scratch::new();
    let server = Isolated::new("forking", "echo", &scratch.uri("unix", "socket"));
    let alone = server.descriptors();
    let mut clients: Vec<_> = (0..10).map(|_| server.client()).collect();
    clients
        .iter_mut()
        .for_each(|client| echoes(client, b"hello"));
    let usage = Usage::of(server.process.id());
    assert_eq!(usage.children.len(), 10);
    for child in &usage.children {
        let descriptors: Vec<_> = fs::read_dir(format!("/proc/{child}/fd"))
            .unwrap()
            .map(|entry| fs::read_link(entry.unwrap().path()).unwrap())
            .collect();
        // Its connection and its report come in place of the two listeners.
        assert_eq!(descriptors.len(), alone, "{descriptors:?}");
    }
    let file = fs::metadata(scratch.path("socket")).unwrap();
    assert!(file.file_type().is_socket());
    drop(clients);
    server.wait("alone", |usage| usage.children.is_empty());
    assert!(scratch.path("socket").exists(), "a child removes nothing");
    server.end();
    assert!(!scratch.path("socket").exists());
}

/// What the loop itself has open is not the child's: it would keep it open beyond its end.
fn a_child_has_no_outbound_connection() {
    let upstream = TcpListener::bind("127.0.0.1:0").unwrap();
    let to = format!("tcp://{}", upstream.local_addr().unwrap());
    let mut command = Command::new(env::current_exe().unwrap());
    let mut server = Isolated::run(command.env(TO, to), "forking", "echo", TCP);
    let (outbound, _) = upstream.accept().unwrap();
    let alone = server.descriptors();
    let mut client = server.client();
    echoes(&mut client, b"hello");
    let [child] = &Usage::of(server.process.id()).children[..] else {
        panic!("not one child");
    };
    let descriptors = fs::read_dir(format!("/proc/{child}/fd")).unwrap().count();
    // A connection and a report in place of two listeners and the outbound connection.
    assert_eq!(descriptors, alone - 1);
    drop((client, outbound));
    server.wait("alone", |usage| {
        usage.children.is_empty() && usage.descriptors == alone - 1
    });
    Host::shutdown(&mut server);
    assert!(server.process.wait().unwrap().success());
}

fn no_more_children_than_allowed() {
    let server = Isolated::new("forking", "echo,3", TCP);
    let mut clients: Vec<_> = (0..8).map(|_| server.client()).collect();
    for client in &mut clients {
        client.write_all(b"hello").unwrap();
    }
    for (number, mut client) in clients.into_iter().enumerate() {
        expect(&mut client, b"hello");
        let children = Usage::of(server.process.id()).children.len();
        assert!(children <= 3, "{children} children at client {number}");
    }
    assert_eq!(server.end().closed_by_peer, 8);
}

fn who_waits_for_a_child_is_served_in_the_drain() {
    // The second connection shuts the server down, when the others are in its queue.
    let mut server = Isolated::new("forking", "echo,1,2", TCP);
    let mut first = server.client();
    echoes(&mut first, b"first");
    let clients: Vec<_> = (0..9)
        .map(|_| {
            let mut client = server.client();
            client.write_all(b"hello").unwrap();
            client
        })
        .collect();
    drop(first);
    for mut client in clients {
        assert_eq!(read_to(&mut client), (b"hello".to_vec(), End::Eof));
    }
    assert_eq!(server.counts().accepted, 10);
}

/// The system has no room for a thread or a process: `strace` says so in its place.
fn without_room_one_connection_is_refused() {
    let inject = "inject=clone,clone3,fork,vfork:error=EAGAIN:when=2";
    let itself = env::current_exe().unwrap();
    for model in ["threading", "forking"] {
        let mut command = Command::new("strace");
        command.args([
            "-qq",
            "-o",
            "/dev/null",
            "-e",
            "trace=clone,clone3,fork,vfork",
            "-e",
            inject,
        ]);
        let probe = Command::new("strace")
            .args(["-qq", "-o", "/dev/null", "true"])
            .status();
        if !probe.is_ok_and(|status| status.success()) {
            return skip("strace");
        }
        let server = Isolated::run(command.arg(&itself), model, "echo", TCP);
        echoes(&mut server.client(), b"first");
        assert_eq!(read_to(&mut server.client()).0, b"");
        echoes(&mut server.client(), b"third");
        let statistics = server.end();
        assert_eq!(
            (statistics.accepted, statistics.refused_by_system),
            (2, 1),
            "{model}"
        );
    }
}

fn dropping() -> Any {
    Box::new(probe().dropped(|| panic_quietly()))
}

fn a_drop_that_panics_spares_the_parent() {
    for model in ["forking", "threading"] {
        let server = Isolated::new(model, "dropping", TCP);
        for _ in 0..3 {
            let mut client = server.client();
            finish(&client);
            assert_eq!(read_to(&mut client).1, End::Eof);
        }
        let statistics = server.end();
        assert_eq!(statistics.closed_by_peer, 3);
        assert!(statistics.panics >= 3, "{statistics:?}");
    }
}

/// An error of a user's that panics when it is described or dropped.
#[derive(Debug)]
struct Spoiled;

impl fmt::Display for Spoiled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("so far")?;
        panic_quietly()
    }
}

impl Error for Spoiled {}

impl Drop for Spoiled {
    fn drop(&mut self) {
        panic_quietly();
    }
}

fn spoiled() -> Any {
    Box::new(probe().data(|_, _| Err(ProtocolError::other(Spoiled))))
}

fn an_error_that_panics_when_it_is_dropped_is_reported() {
    let server = Isolated::new("forking", "spoiled", TCP);
    let mut client = server.client();
    client.write_all(b"hello").unwrap();
    assert_eq!(read_to(&mut client).0, b"");
    let error = server.line("error ");
    assert_eq!(error, "in its own process: protocol error: so far");
    let statistics = server.end();
    assert_eq!(statistics.closed_killed, 0, "{statistics:?}");
    assert_eq!(statistics.bytes_read, 5, "{statistics:?}");
    assert_eq!(statistics.panics, 1, "{statistics:?}");
}

/// Keeps every session's waker without end, and uses them all.
fn keeper() -> Any {
    static KEPT: Mutex<Vec<Waker>> = Mutex::new(Vec::new());
    let made = |transport: &mut Transport<'_>| {
        let mut kept = KEPT.lock().unwrap();
        kept.push(transport.waker());
        kept.iter().for_each(Waker::wake);
        Ok(())
    };
    Box::new(probe().made(made))
}

fn wakers_of_ended_sessions_leave_nothing_behind() {
    let server = Isolated::new("threading", "keeper", TCP);
    let before = server.descriptors();
    for _ in 0..100 {
        let mut client = server.client();
        finish(&client);
        assert_eq!(read_to(&mut client).1, End::Eof);
    }
    server.wait("alone", |usage| {
        usage.threads == 1 && usage.descriptors == before
    });
    assert_eq!(server.end().closed_by_peer, 101);
}

/// Shuts its server down when it is told to, twice; a session that was not told goes on.
fn stopping(handle: ShutdownHandle) -> Any {
    let take = move |data: &[u8], transport: &mut Transport<'_>| {
        if data == b"stop" {
            handle.shutdown();
            handle.shutdown();
        }
        transport.write(data);
        Ok(data.len())
    };
    Box::new(probe().data(take).shutdown(|transport| {
        transport.write(b"farewell");
        transport.close();
    }))
}

/// A child counts in memory of its own: all that its parent hears is the bell, and that is one
/// request, which drains.
fn a_child_shuts_the_server_down() {
    let mut server = Isolated::new("forking", "stopping", TCP);
    let mut clients = [server.client(), server.client()];
    clients
        .iter_mut()
        .for_each(|client| echoes(client, b"hello"));
    clients[0].write_all(b"stop").unwrap();
    let [mut first, mut second] = clients;
    assert_eq!(read_to(&mut first), (b"stopfarewell".to_vec(), End::Eof));
    assert_eq!(read_to(&mut second), (b"farewell".to_vec(), End::Eof));
    let statistics = server.counts();
    assert_eq!((statistics.accepted, statistics.closed_by_shutdown), (2, 2));
}
