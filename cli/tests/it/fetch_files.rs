//! Where `serveloop fetch` saves: what it refuses, what it leaves behind, and how long it waits.

use std::fs::{self, Permissions};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc;

use rustix::process::Signal;

use crate::running::{Running, run};
use crate::scripts::Scripted;
use crate::served::{PATIENCE, serveloop};
use crate::sockets::{Directory, clogged};

/// Reads a request to its end, which is an empty line.
#[track_caller]
fn skip_request(stream: &TcpStream) {
    let lines = BufReader::new(stream).lines();
    for line in lines {
        if line.expect("a request").is_empty() {
            return;
        }
    }
}

/// A server that answers one request with `begin`, and then with nothing until the client leaves.
fn stalling(begin: &'static str) -> Scripted {
    Scripted::new(move |mut stream| {
        skip_request(&stream);
        stream.write_all(begin.as_bytes()).expect("a client");
        let _ = stream.read_to_end(&mut Vec::new());
    })
}

const SIZED: &str = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";

#[test]
fn a_replaced_file_gives_no_rights_of_its_owner() {
    let directory = Directory::new();
    let path = directory.path("file");
    fs::write(&path, "old").unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o6755)).unwrap();
    let server = stalling(SIZED);
    let url = format!("http://{}/", server.at());
    run(&["fetch", &url, "-o", path.to_str().unwrap()], "").well();
    server.end();
    assert_eq!(fs::read(&path).unwrap(), b"hello");
    assert_eq!(
        fs::metadata(&path).unwrap().permissions().mode() & 0o7777,
        0o755
    );
}

/// Nobody listens at that port, so that only what is noticed before can be told.
#[track_caller]
fn refused(path: &Path, problem: &str) {
    let path = path.to_str().expect("a path");
    let text = run(&["fetch", "http://127.0.0.1:1/", "-o", path], "").badly();
    assert!(text.starts_with(&format!("serveloop: {path}: ")), "{text}");
    assert!(text.contains(problem), "{text}");
}

#[test]
fn where_nothing_can_be_saved_is_told_before_anybody_is_asked() {
    let directory = Directory::new();
    let link = directory.path("link");
    symlink(directory.path("nothing"), &link).unwrap();
    refused(&link, "a link to a file that is not there");
    refused(&directory.path("new/"), "no such directory");
    refused(&directory.path("no/file"), "No such file or directory");
    assert_eq!(names(&directory), ["link"]);
}

/// What is in the directory.
fn names(directory: &Directory) -> Vec<String> {
    let entries = fs::read_dir(directory.path(".")).expect("a directory");
    let names = entries.map(|entry| entry.expect("a file").file_name());
    names
        .map(|name| name.to_string_lossy().into_owned())
        .collect()
}

/// Begins to save what never ends. Returns when the first of it is in a file.
fn half_saved(directory: &Directory, prepare: impl FnOnce(&mut Command)) -> (Running, Scripted) {
    let at = directory.path(".");
    let (begun, begins) = mpsc::channel();
    let server = Scripted::new(move |mut stream| {
        skip_request(&stream);
        stream
            .write_all(b"HTTP/1.1 200 OK\r\n\r\nhalf")
            .expect("a client");
        while fs::read_dir(&at).expect("a directory").next().is_none() {
            stream.write_all(b".").expect("a client");
        }
        begun.send(()).expect("a test");
        let _ = stream.read_to_end(&mut Vec::new());
    });
    let path = directory.path("file");
    let url = format!("http://{}/", server.at());
    let mut command = serveloop(&["fetch", &url, "-o", path.to_str().expect("a path")]);
    prepare(&mut command);
    let client = Running::spawn(command);
    begins.recv_timeout(PATIENCE).expect("a file");
    (client, server)
}

#[test]
fn a_terminal_that_goes_away_leaves_no_file() {
    let directory = Directory::new();
    let (mut client, server) = half_saved(&directory, |_| ());
    client.signal(Signal::HUP);
    assert_eq!(client.end().code, Some(129));
    assert_eq!(names(&directory), [""; 0]);
    server.end();
}

#[test]
fn nohup_is_respected() {
    let directory = Directory::new();
    let (mut client, server) = half_saved(&directory, |command| {
        let arguments: Vec<_> = command.get_args().map(ToOwned::to_owned).collect();
        let program = command.get_program().to_owned();
        let mut under = Command::new("nohup");
        under.arg(program).args(arguments).env_remove("RUST_LOG");
        under
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        *command = under;
    });
    client.signal(Signal::HUP);
    client.signal(Signal::TERM);
    assert_eq!(client.end().code, Some(143));
    assert_eq!(names(&directory), [""; 0]);
    server.end();
}

#[test]
fn an_output_that_nobody_reads_does_not_outlast_the_limit() {
    let directory = Directory::new();
    let pipe = directory.path("pipe");
    assert!(
        Command::new("mkfifo")
            .arg(&pipe)
            .status()
            .unwrap()
            .success()
    );
    let server = stalling(SIZED);
    let url = format!("http://{}/", server.at());
    let limit = ["--max-time", "100ms"];
    let arguments = ["fetch", &url, "-o", pipe.to_str().unwrap()];
    let text = run(&[&arguments[..], &limit].concat(), "").badly();
    assert_eq!(text, format!("serveloop: {url}: not complete in time\n"));
    server.end();

    let server = stalling(SIZED);
    let url = format!("http://{}/", server.at());
    let (_reader, stdout) = clogged();
    let mut command = serveloop(&["fetch", &url]);
    command.args(limit).stdout(stdout);
    let text = Running::spawn(command).end().badly();
    assert_eq!(text, format!("serveloop: {url}: not complete in time\n"));
    server.end();
}
