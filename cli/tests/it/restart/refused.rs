//! A new process that does not serve leaves the old one as it is; and restarts that are refused.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::restart::Site;
use crate::support::outside::skip;
use crate::support::served::{MODELS, Outcome, PATIENCE, Served, by_shell, serveloop};
use crate::support::sockets::{Directory, Stream};

#[test]
fn what_does_not_serve_leaves_the_old_process_serving() {
    for model in MODELS {
        let arguments = ["echo", "--restart-timeout", "1s"];
        let site = Site::on_tcp_and_unix(&[&arguments[..], model].concat());
        let unix = site.served.uri(1).to_owned();
        let program = site.directory.path("server");

        site.replace("echo broken >&2; exit 3");
        site.fails("exit status: 3");
        site.replace("kill -KILL $$");
        site.fails("signal: 9");
        site.replace("exec sleep 60");
        site.fails("does not serve within 1s");
        site.replace("exec /nonexistent/interpreter");
        site.fails("exit status: 127");
        fs::set_permissions(&program, fs::Permissions::from_mode(0o644)).unwrap();
        site.fails("cannot be started: Permission denied");
        fs::remove_file(&program).unwrap();
        site.fails("cannot be started: No such file");
        site.change("echo --listen tcp://192.0.2.1:1");
        site.fails("cannot serve: cannot listen on tcp://192.0.2.1:1");
        site.change("nonsense");
        site.fails("exit status: 2");
        // It has taken the sockets over before it failed.
        site.change(&format!(
            "echo --listen '{unix}' --listen tcp://192.0.2.1:1"
        ));
        site.fails("cannot serve: cannot listen on tcp://192.0.2.1:1");

        let listens = format!("--listen tcp://127.0.0.1:0 --listen '{unix}'");
        site.change(&format!("echo {listens} {}", model.join(" ")));
        site.restart();
        assert!(Stream::connect(&unix).echoes(), "{model:?}");
        site.end();
    }
}

/// The old process was asked to end, so the new one is not to serve.
#[test]
fn a_server_that_is_asked_to_end_gives_the_new_process_up() {
    for model in MODELS {
        for delay in ["0", "300ms"] {
            let arguments = [
                "echo",
                "--listen",
                "tcp://127.0.0.1:0",
                "--drain-delay",
                delay,
            ];
            let mut site = Site::new(&[&arguments[..], model].concat());
            let sleeper = site.directory.path("sleeper");
            site.replace(&format!("echo $$ >'{}'; exec sleep 60", sleeper.display()));
            site.signal(Signal::USR2);
            let begun = Instant::now();
            let process = loop {
                let text = fs::read_to_string(&sleeper).unwrap_or_default();
                if text.ends_with('\n') {
                    break text;
                }
                assert!(begun.elapsed() < PATIENCE);
                std::thread::sleep(Duration::from_millis(5));
            };
            // A second one during the restart.
            site.signal(Signal::USR2);
            site.served
                .logged("SIGUSR2 is refused: a new process is being started");

            site.signal(Signal::TERM);
            site.served
                .logged("not restarted: the server was asked to end");
            assert_eq!(site.old_ends().code(), Some(0), "{model:?} {delay}");
            let there = format!("/proc/{}", process.trim());
            assert!(!fs::exists(there).unwrap(), "{model:?} {delay}");
            assert!(!site.file().exists());
        }
    }
}

#[test]
fn a_process_that_was_replaced_is_not_replaced_again() {
    let mut site = Site::new(&["echo", "--listen", "tcp://127.0.0.1:0"]);
    let mut client = site.served.connect();
    assert!(client.echoes());
    site.restart();
    site.served.signal(Signal::USR2);
    site.served
        .logged("SIGUSR2 is refused: a new process serves");
    assert!(client.echoes());
    drop(client);
    assert_eq!(site.old_ends().code(), Some(0));
    site.end();
}

/// A disk may be full, or a file may be forbidden to grow.
#[test]
fn a_file_that_cannot_have_the_number_is_not_there() {
    let directory = Directory::new();
    let file = directory.path("pid");
    let path = file.to_str().expect("a path");
    let arguments = ["serve", "echo", "--listen", "tcp://127.0.0.1:0"];
    let arguments = [&arguments[..], &["--pid-file", path]].concat();
    let outcome = Outcome::of(by_shell("ulimit -f 0", &arguments));
    assert_eq!(outcome.code, Some(1));
    let problem = format!("cannot write the file {path}: File too large");
    assert!(outcome.stderr.contains(&problem), "{}", outcome.stderr);
    assert!(!file.exists());
}

#[test]
fn standard_input_cannot_be_shared() {
    let served = Served::new(&["operator", "--listen", "tcp://127.0.0.1:0"]);
    served.signal(Signal::USR2);
    served.logged("SIGUSR2 is refused: operator reads standard input");
    served.signal(Signal::TERM);
    assert_eq!(served.status().code(), Some(0));
}

/// systemd tells a process that it is the main one of its service. Without a notification it would take
/// its end for that of the service.
#[test]
fn a_service_that_cannot_say_who_goes_on_is_not_replaced() {
    let listen = ["echo", "--listen", "tcp://127.0.0.1:0"];
    let site = Site::after("export SYSTEMD_EXEC_PID=$$", &listen);
    site.signal(Signal::USR2);
    let line = site.served.logged("SIGUSR2 is refused");
    assert!(line.contains("Type=notify"), "{line}");
    assert!(site.served.connect().echoes());
    site.end();

    let site = Site::after("export SYSTEMD_EXEC_PID=1", &listen);
    site.restart();
    site.end();
}

#[test]
fn process_1_is_not_replaced() {
    let unshare = |program: &str| {
        let mut command = Command::new("unshare");
        command.args([
            "--user",
            "--map-root-user",
            "--pid",
            "--fork",
            "--kill-child",
            program,
        ]);
        command
    };
    if !unshare("true").output().is_ok_and(|it| it.status.success()) {
        skip("namespaces of processes");
        return;
    }

    let usual = serveloop(&[]);
    let mut command = unshare(&usual.get_program().to_string_lossy());
    command
        .args(["serve", "echo", "--listen", "tcp://127.0.0.1:0"])
        .stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped());
    let served = Served::spawn(command);
    let children = format!("/proc/{0}/task/{0}/children", served.process_id());
    let child = fs::read_to_string(children).unwrap();
    let status = Command::new("kill").args(["-USR2", child.trim()]).status();
    assert!(status.unwrap().success());
    let line = served.logged("SIGUSR2 is refused: this is process 1");
    assert!(line.contains("init"), "{line}");
    assert!(served.connect().echoes());
}

#[test]
fn a_file_that_cannot_be_written_is_an_error_at_the_start() {
    let output = serveloop(&["serve", "echo", "--listen", "tcp://127.0.0.1:0"])
        .args(["--pid-file", "/nonexistent/pid"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains("/nonexistent/pid"), "{text}");
}

/// Only a former process sets the variable, and what it names has to be there.
#[test]
fn a_variable_without_descriptors_is_an_error() {
    for value in [
        "",
        "x",
        "{}",
        r#"{"control":99,"sockets":[]}"#,
        r#"{"control":1,"sockets":[]}"#,
    ] {
        let output = serveloop(&["serve", "echo", "--listen", "tcp://127.0.0.1:0"])
            .env("SERVELOOP_HANDED_ON", value)
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(1), "{value}");
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(text.contains("SERVELOOP_HANDED_ON"), "{value} {text}");
    }
}
