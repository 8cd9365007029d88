//! What goes on: sockets of every kind, open connections, and what a changed program listens on.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::fs::symlink;
use std::process::Stdio;
use std::time::Instant;

use rustix::process::Signal;

use crate::restart::Site;
use crate::support::served::{MODELS, PATIENCE, Served, by_shell};
use crate::support::sockets::{Datagrams, Directory, Stream, socket_addr};

/// Each file has the number of a process that runs.
#[test]
fn the_file_of_the_number_may_be_another_in_the_new_process() {
    let program = env!("CARGO_BIN_EXE_serveloop");
    let serve = format!("exec '{program}' serve echo --listen tcp://127.0.0.1:0");
    let site = Site::new(&["echo", "--listen", "tcp://127.0.0.1:0"]);
    let other = site.directory.path("other");
    site.replace(&format!("{serve} --pid-file '{}'", other.display()));
    site.signal(Signal::USR2);
    site.served.logged("serves now");
    assert!(!site.file().exists());

    let until = Instant::now() + PATIENCE;
    let number = loop {
        let text = fs::read_to_string(&other).unwrap_or_default();
        if let Ok(number) = text.trim().parse() {
            break number;
        }
        assert!(Instant::now() < until, "the new process writes no file");
    };
    site.current.set(number);
    site.end();
    assert!(!other.exists());
}

#[test]
fn sockets_of_every_kind_go_on_in_every_model() {
    for model in MODELS {
        let directory = Directory::new();
        let [stream, datagram] = [("unix", "stream"), ("unixgram", "datagram")]
            .map(|(scheme, name)| directory.uri(scheme, name));
        let restricted = format!("{}?mode=0600", directory.uri("unix", "other"));
        let listens = [
            "tcp://127.0.0.1:0",
            "tcp://:0?keepalive=60s",
            "tcp://127.0.0.1:0",
            "udp://127.0.0.1:0",
            &stream,
            &restricted,
            &datagram,
        ];
        let mut arguments = vec!["echo"];
        listens
            .iter()
            .for_each(|uri| arguments.extend(["--listen", uri]));
        arguments.extend(model);
        let mut site = Site::in_directory(directory, "", &arguments);
        let uris = site.served.uris().to_vec();

        for round in 0..3 {
            site.restart();
            let again: Vec<_> = uris.iter().map(|_| site.served.printed()).collect();
            let expected: Vec<_> = uris
                .iter()
                .map(|uri| format!("listening on {uri}"))
                .collect();
            assert_eq!(again, expected, "{model:?}");
            if round == 0 {
                assert_eq!(site.old_ends().code(), Some(0), "{model:?}");
            }
            for uri in [&uris[0], &uris[2], &uris[4], &uris[5]] {
                assert!(Stream::connect(uri).echoes(), "{model:?} {uri}");
            }
            for uri in [&uris[3], &uris[6]] {
                let client = Datagrams::connect(uri, &site.directory);
                client.send("datagram");
                client.expect("datagram");
                let _ = fs::remove_file(site.directory.path("client"));
            }
        }

        let files = ["stream", "other", "datagram"].map(|name| site.directory.path(name));
        assert!(files.iter().all(|path| path.exists()), "{model:?}");
        let address = socket_addr(&uris[0]);
        site.end();
        assert!(!files.iter().any(|path| path.exists()), "{model:?}");
        assert!(TcpStream::connect(address).is_err(), "{model:?}");
    }
}

/// A client that is connected stays so for half of --drain-timeout. Then it is asked to finish.
#[test]
fn open_connections_go_on_in_the_old_process() {
    for model in MODELS {
        let listen = [
            "echo",
            "--listen",
            "tcp://127.0.0.1:0",
            "--drain-timeout",
            "2s",
        ];
        let mut site = Site::new(&[&listen[..], model].concat());
        let uri = site.served.uri(0).to_owned();
        let mut old = Stream::connect(&uri);
        assert!(old.echoes(), "{model:?}");
        // It is accepted, where there is room for it, and has said nothing yet.
        let is_sequential = model.contains(&"sequential");
        let mut silent = (!is_sequential).then(|| Stream::connect(&uri));

        let begun = Instant::now();
        site.restart();
        for _ in 0..10 {
            assert!(old.echoes(), "{model:?}");
            assert!(Stream::connect(&uri).echoes(), "{model:?}");
        }
        assert!(silent.as_mut().is_none_or(Stream::echoes), "{model:?}");
        old.expect_end();
        assert!(begun.elapsed().as_millis() > 900, "{model:?}");
        assert_eq!(site.old_ends().code(), Some(0), "{model:?}");
        drop(silent);
        site.end();
    }
}

/// To the old process the signal is the first one.
#[test]
fn a_signal_ends_the_old_process_in_order() {
    let mut site = Site::new(&["hello", "--delay", "300ms", "--listen", "tcp://127.0.0.1:0"]);
    let mut client = site.served.connect();
    client.expect("Welcome!");
    site.restart();
    client.send("bob");
    std::thread::sleep(std::time::Duration::from_millis(100));
    site.served.signal(Signal::TERM);
    client.expect("Hello,bob");
    client.expect_end();
    assert_eq!(site.old_ends().code(), Some(0));
    let mut other = site.served.connect();
    other.expect("Welcome!");
    other.send("eve");
    other.expect("Hello,eve");
    drop(other);
    site.end();
}

#[test]
fn a_file_or_link_that_was_replaced_is_what_is_started() {
    let mut site = Site::new(&["echo", "--listen", "tcp://127.0.0.1:0"]);
    let uri = site.served.uri(0).to_owned();
    site.replace(&format!(
        "echo replaced >&2; exec '{}' \"$@\"",
        env!("CARGO_BIN_EXE_serveloop")
    ));
    site.restart();
    assert_eq!(site.old_ends().code(), Some(0));
    assert!(Stream::connect(&uri).echoes());
    site.end();

    let site = Site::new(&["echo", "--listen", "tcp://127.0.0.1:0"]);
    let program = site.directory.path("server");
    fs::remove_file(&program).unwrap();
    symlink("/bin/false", &program).unwrap();
    site.fails("exit status: 1");
    fs::remove_file(&program).unwrap();
    symlink(env!("CARGO_BIN_EXE_serveloop"), &program).unwrap();
    site.restart();
    assert!(site.served.connect().echoes());
    site.end();
}

/// New arguments, as a changed configuration has them, keep the sockets that both have.
#[test]
fn a_new_process_may_listen_elsewhere_too_and_have_other_loops() {
    for (before, after) in [(1, 3), (2, 1), (3, 2), (2, 2)] {
        let directory = Directory::new();
        let (kept, gone) = (directory.uri("unix", "kept"), directory.uri("unix", "gone"));
        let new = directory.uri("unix", "new");
        let workers = before.to_string();
        let mut site = Site::in_directory(
            directory,
            "",
            &[
                "echo",
                "--workers",
                &workers,
                "--listen",
                "tcp://127.0.0.1:0",
                "--listen",
                &gone,
                "--listen",
                &kept,
                "--drain-timeout",
                "1s",
            ],
        );
        let uri = site.served.uri(0).to_owned();
        let silent: Vec<_> = (0..20).map(|_| Stream::connect(&uri)).collect();
        site.change(&format!(
            "echo --workers {after} --listen '{kept}?idle-timeout=5m' --listen '{new}' --listen tcp://127.0.0.1:0"
        ));
        site.restart();
        let printed: Vec<_> = (0..3).map(|_| site.served.printed()).collect();
        assert_eq!(printed[2], format!("listening on {uri}"));
        for mut client in silent {
            assert!(client.echoes(), "{before} {after}");
        }
        for _ in 0..20 {
            assert!(Stream::connect(&uri).echoes(), "{before} {after}");
        }
        for there in [&kept, &new] {
            assert!(Stream::connect(there).echoes(), "{before} {after}");
        }
        assert_eq!(site.old_ends().code(), Some(0));
        assert!(
            !site.directory.path("gone").exists(),
            "no server listens there"
        );
        site.end();
    }
}

#[test]
fn passed_sockets_are_handed_on() {
    for listen in [
        &["--listen", "fd://3"][..],
        &["--listen", "systemd://"],
        &[],
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let uri = format!("tcp://{}", listener.local_addr().unwrap());
        let prepare = "exec 3<&0 </dev/null; export LISTEN_FDS=1 LISTEN_PID=$$";
        let mut command = by_shell(prepare, &[&["serve", "echo"], listen].concat());
        command.stdin(Stdio::from(OwnedFd::from(listener)));
        let mut served = Served::spawn_unheard(command);
        assert_eq!(served.printed(), format!("listening on {uri}"));
        served.signal(Signal::USR2);
        let line = served.logged("serves now");
        assert_eq!(served.wait_for_exit().code(), Some(0));
        assert_eq!(served.printed(), format!("listening on {uri}"));
        assert!(Stream::connect(&uri).echoes());

        let number = line.split("process ").nth(1).expect("a process");
        let number = number.split(' ').next().and_then(|it| it.parse().ok());
        let process = number.and_then(rustix::process::Pid::from_raw);
        rustix::process::kill_process(process.expect("a number"), Signal::TERM).unwrap();
        let log = served.log();
        assert!(!log.iter().any(|line| line.contains("WARN")), "{log:?}");
    }
}

#[cfg(feature = "tls")]
#[test]
fn a_listener_with_tls_has_the_new_certificate_after_a_restart() {
    use crate::support::running::run;
    use crate::support::secure::certificate;

    let directory = Directory::new();
    let [cert, key] = ["cert", "key"].map(|name| directory.path(name));
    fs::copy(certificate("localhost.pem"), &cert).unwrap();
    fs::copy(certificate("localhost.key"), &key).unwrap();
    let listen = format!(
        "tls://127.0.0.1:0?cert={}&key={}",
        cert.display(),
        key.display()
    );
    let mut site = Site::in_directory(directory, "", &["echo", "--listen", &listen]);
    let uri = site.served.uri(0).to_owned();
    let speaks = || run(&["connect", "--insecure", &uri], "over TLS\n").well();
    assert_eq!(speaks(), "over TLS\n");

    let good = fs::read(&cert).unwrap();
    fs::write(&cert, "no certificate").unwrap();
    site.fails(&cert.display().to_string());
    assert_eq!(speaks(), "over TLS\n");
    fs::write(&cert, good).unwrap();
    site.restart();
    assert_eq!(site.old_ends().code(), Some(0));
    assert_eq!(speaks(), "over TLS\n");
    site.end();
}

/// Signals that come while a new process starts end neither of the two.
#[test]
fn other_signals_during_a_restart_do_no_harm() {
    let site = Site::new(&["echo", "--listen", "tcp://127.0.0.1:0"]);
    let program = env!("CARGO_BIN_EXE_serveloop");
    // Each of them ends a shell that does not ignore it.
    let signals = "kill -HUP $$ $PPID; kill -USR1 $$ $PPID; kill -USR2 $$";
    site.replace(&format!("{signals}; exec '{program}' \"$@\""));
    site.restart();
    assert!(site.served.connect().echoes());
    let begun = Instant::now();
    while !site.file().exists() && begun.elapsed() < PATIENCE {}
    site.end();
}
