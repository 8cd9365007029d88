//! `serveloop fetch` from a real server, and from those that break every rule.

mod files;
mod proxies;
#[cfg(feature = "tls")]
mod secure;

use std::fs::{self, Permissions};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;

use rustix::process::Signal;

use crate::support::outside::skip;
use crate::support::running::{Running, Said, run};
use crate::support::scripts::{Scripted, noise, trickle};
use crate::support::served::{PATIENCE, serveloop};
use crate::support::sockets::Directory;
use crate::support::terminal::terminal;

/// Reads a request's head, and returns it.
#[track_caller]
fn request(stream: &TcpStream) -> String {
    let mut head = String::new();
    let mut lines = BufReader::new(stream);
    while !head.ends_with("\r\n\r\n") {
        let count = lines.read_line(&mut head).expect("a request");
        assert!(count > 0, "{head}");
    }
    head
}

/// A server that answers one request with `response` and closes.
fn answering(response: impl AsRef<[u8]> + Send + 'static) -> Scripted {
    Scripted::new(move |mut stream| {
        request(&stream);
        // The client may have seen enough.
        let _ = stream.write_all(response.as_ref());
    })
}

fn fetch(server: &Scripted, options: &[&str]) -> Said {
    let url = format!("http://{}/resource", server.at());
    let arguments: Vec<_> = ["fetch", &url].iter().chain(options).copied().collect();
    run(&arguments, "")
}

const CHUNKED: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\
    5\r\nhello\r\n7;name=value\r\n, world\r\n0\r\nDigest: none\r\n\r\n";
const SIZED: &str = "HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\nhello, world";
const TO_END: &str = "HTTP/1.0 200 OK\r\n\r\nhello, world";
const INTERIM: &str = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n\r\nhello, world";

#[test]
fn the_request_is_as_it_should_be() {
    let (tell, told) = mpsc::channel();
    let server = Scripted::new(move |mut stream| {
        tell.send(request(&stream)).unwrap();
        stream.write_all(SIZED.as_bytes()).unwrap();
    });
    let url = format!("http://{}/a%20b?c=d#e", server.at());
    assert_eq!(run(&["fetch", &url], "").well(), "hello, world");
    let expected = format!(
        "GET /a%20b?c=d HTTP/1.1\r\nHost: {}\r\nUser-Agent: serveloop/{}\r\nAccept: */*\r\nConnection: close\r\n\r\n",
        server.at(),
        env!("CARGO_PKG_VERSION")
    );
    assert_eq!(told.recv_timeout(PATIENCE).unwrap(), expected);
    server.end();
}

/// What goes out in pieces may arrive in others: the protocol's own tests show it every cut.
#[test]
fn bodies_are_the_same_in_any_fragmentation() {
    for response in [CHUNKED, SIZED, TO_END, INTERIM] {
        let server = Scripted::new(move |stream| {
            request(&stream);
            trickle(&stream, response.as_bytes());
        });
        assert_eq!(fetch(&server, &[]).well(), "hello, world");
        server.end();
    }
}

#[test]
fn bodies_are_the_same_wherever_they_are_cut() {
    let count = CHUNKED.len() - 1;
    let mut cut = 0;
    let server = Scripted::several(count, move |mut stream| {
        cut += 1;
        request(&stream);
        let (first, rest) = CHUNKED.as_bytes().split_at(cut);
        stream.write_all(first).unwrap();
        stream.write_all(rest).unwrap();
    });
    for _ in 0..count {
        assert_eq!(fetch(&server, &[]).well(), "hello, world");
    }
    server.end();
}

#[test]
fn a_file_is_there_when_it_is_complete() {
    let directory = Directory::new();
    let path = directory.path("song");
    let body = noise(3 << 20);
    let sent = body.clone();
    let (half, halfway) = mpsc::channel();
    let (go, gone) = mpsc::channel();
    let server = Scripted::new(move |mut stream| {
        request(&stream);
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", sent.len());
        stream.write_all(head.as_bytes()).unwrap();
        stream.write_all(&sent[..2 << 20]).unwrap();
        half.send(()).unwrap();
        gone.recv_timeout(PATIENCE).unwrap();
        stream.write_all(&sent[2 << 20..]).unwrap();
    });
    fs::write(&path, "what was there before").unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
    let url = format!("http://{}/song", server.at());
    let mut client = Running::new(&["fetch", &url, "-o", path.to_str().unwrap()]);
    halfway.recv_timeout(PATIENCE).unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"what was there before");
    go.send(()).unwrap();
    assert_eq!(client.end().well(), "");
    server.end();
    assert!(fs::read(&path).unwrap() == body, "another body was saved");
    assert_eq!(mode(&path), 0o640, "of the file that it replaces");
    assert_eq!(names(&path), ["song"]);
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).expect("a file").permissions().mode() & 0o777
}

/// What is in the directory of `path`.
fn names(path: &Path) -> Vec<String> {
    let entries = fs::read_dir(path.parent().expect("a directory")).expect("a directory");
    entries
        .map(|entry| {
            entry
                .expect("a file")
                .file_name()
                .to_string_lossy()
                .into_owned()
        })
        .collect()
}

#[test]
fn a_new_file_has_the_usual_mode() {
    let directory = Directory::new();
    let (path, other) = (directory.path("new"), directory.path("other"));
    fs::write(&other, "").unwrap();
    let server = answering(SIZED);
    assert_eq!(fetch(&server, &["-o", path.to_str().unwrap()]).well(), "");
    assert_eq!(fs::read(&path).unwrap(), b"hello, world");
    assert_eq!(mode(&path), mode(&other));
    server.end();
}

/// A link stays one, a device stays a device, and a directory is refused before any request.
#[test]
fn what_is_no_plain_file_is_left_what_it_is() {
    let directory = Directory::new();
    let (path, link) = (directory.path("file"), directory.path("link"));
    fs::write(&path, "old").unwrap();
    std::os::unix::fs::symlink(&path, &link).unwrap();
    let server = answering(SIZED);
    fetch(&server, &["-o", link.to_str().unwrap()]).well();
    server.end();
    assert_eq!(fs::read(&path).unwrap(), b"hello, world");
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    let server = answering(SIZED);
    fetch(&server, &["-o", "/dev/null"]).well();
    server.end();
    assert!(!fs::metadata("/dev/null").unwrap().is_file());
    let at = path.parent().unwrap().to_str().unwrap();
    let text = run(&["fetch", "http://127.0.0.1:1/", "-o", at], "").badly();
    assert!(text.contains(at) && text.contains("directory"), "{text}");
}

/// Faulty responses, by mistake or on purpose, and the error for each.
const BROKEN: [(&str, &str); 14] = [
    ("", "the connection ended before the head"),
    ("SSH-2.0-OpenSSH_9.6\r\n\r\n", "not an HTTP response"),
    (
        "HTTP/1.1 200 OK\r\nContent-Le",
        "the connection ended before the head",
    ),
    ("HTTP/1.1 404 Not Found\r\n\r\nsorry", "404 Not Found"),
    (
        "HTTP/1.1 500 Internal Server Error\r\n\r\n",
        "500 Internal Server Error",
    ),
    ("HTTP/1.1 304 Not Modified\r\n\r\n", "304 Not Modified"),
    (
        "HTTP/1.1 206 Partial Content\r\nContent-Length: 1\r\n\r\nx",
        "206 Partial Content",
    ),
    (
        "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\nx",
        "bad Content-Length: \"-1\"",
    ),
    (
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n",
        "both Content-Length and Transfer-Encoding",
    ),
    (
        "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello",
        "ended 4 bytes before the end of the body",
    ),
    (
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nFFFFFFFFFFFFFFFF\r\nhello",
        "expected the size of a chunk",
    ),
    (
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
        "the connection ended before the last chunk",
    ),
    (
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello!\r\n0\r\n\r\n",
        "a chunk is longer than its size says",
    ),
    (
        "HTTP/1.1 302 Found\r\nLocation: ftp://127.0.0.1/\r\n\r\n",
        "only http:// and https:// URLs",
    ),
];

#[test]
fn what_is_broken_leaves_no_file() {
    for (response, problem) in BROKEN {
        let directory = Directory::new();
        let path = directory.path("file");
        fs::write(&path, "old").unwrap();
        let server = answering(response);
        let text = fetch(&server, &["-o", path.to_str().unwrap()]).badly();
        assert!(text.contains(problem), "{text}");
        assert!(
            text.starts_with(&format!("serveloop: http://{}/", server.at())),
            "{text}"
        );
        assert_eq!(fs::read(&path).unwrap(), b"old");
        assert_eq!(names(&path), ["file"]);
        server.end();
    }
}

/// A server that never stops talking.
#[track_caller]
fn endless(begin: &'static str, more: &'static str, options: &[&str]) -> String {
    let server = Scripted::new(move |mut stream| {
        request(&stream);
        stream.write_all(begin.as_bytes()).expect("a client");
        while stream.write_all(more.as_bytes()).is_ok() {}
    });
    let text = fetch(&server, options).badly();
    server.end();
    text
}

#[test]
fn what_never_ends_is_ended() {
    let ok = "HTTP/1.1 200 OK\r\n";
    let text = endless(ok, "X: and so on\r\n", &[]);
    assert!(text.contains("message too long"), "{text}");
    let text = endless("", "HTTP/1.1 100 Continue\r\n\r\n", &[]);
    assert!(text.contains("too many interim responses"), "{text}");
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;";
    let text = endless(chunked, "and so on", &[]);
    assert!(text.contains("chunk's size is longer than"), "{text}");
    let trailers = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n";
    let text = endless(trailers, "A: and so on\r\n", &[]);
    assert!(
        text.contains("bytes of trailers after the last chunk"),
        "{text}"
    );
    let null = ["-o", "/dev/null", "--max-size", "1MiB"];
    let text = endless("HTTP/1.1 200 OK\r\n\r\n", "more", &null);
    assert!(text.contains("at most 1048576 allowed"), "{text}");
    let null = ["-o", "/dev/null", "--max-time", "300ms"];
    let text = endless("HTTP/1.1 200 OK\r\n\r\n", "more", &null);
    assert!(text.contains("not complete within --max-time"), "{text}");
}

#[test]
fn a_body_that_is_announced_too_large_is_not_begun() {
    let server = answering("HTTP/1.1 200 OK\r\nContent-Length: 9999999999999\r\n\r\nx");
    let said = fetch(&server, &["--max-size", "1MiB"]);
    assert_eq!(said.stdout, b"");
    assert!(
        said.badly()
            .contains("9999999999999 bytes, at most 1048576 allowed")
    );
    server.end();
}

#[test]
fn a_silent_server_is_left() {
    let server = Scripted::new(|mut stream| {
        request(&stream);
        let _ = stream.read_to_end(&mut Vec::new());
    });
    let text = fetch(&server, &["--timeout", "100ms"]).badly();
    assert!(text.contains("idle for too long"), "{text}");
    server.end();
}

#[test]
fn nobody_there_is_a_failure_that_names_the_url() {
    let free = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let url = format!("http://{free}/");
    let text = run(&["fetch", &url], "").badly();
    assert!(
        text.starts_with(&format!("serveloop: {url}: cannot connect: ")),
        "{text}"
    );
}

#[test]
fn the_head_is_shown_if_it_is_asked_for() {
    let server = answering("HTTP/1.1 200 OK\r\nX: \"a\tb\"\r\nContent-Length: 2\r\n\r\nhi");
    let said = fetch(&server, &["--head"]);
    assert_eq!((said.code, &*said.stdout), (Some(0), &b"hi"[..]));
    assert_eq!(
        said.stderr,
        "HTTP/1.1 200 OK\nX: \"a\\tb\"\nContent-Length: 2\n"
    );
    server.end();
}

/// The progress is for people: a pipe gets nothing of it.
#[test]
fn a_terminal_sees_how_far_it_is() {
    for (options, is_shown) in [("", true), ("--quiet", false)] {
        let server = answering(SIZED);
        let (mut person, terminal) = terminal();
        let url = format!("http://{}/", server.at());
        let mut command = serveloop(&["fetch", &url]);
        command.args(options.split_terminator(' ')).stderr(terminal);
        let mut client = Running::spawn(command);
        assert_eq!(client.end().stdout, b"hello, world");
        server.end();
        drop(client);
        let mut shown = Vec::new();
        // A terminal without a program at it ends with an error.
        let _ = person.read_to_end(&mut shown);
        let shown = String::from_utf8_lossy(&shown);
        assert_eq!(shown.contains("12 B"), is_shown, "{shown:?}");
    }
}

#[test]
fn redirections_are_followed_so_far() {
    let server = Scripted::several(3, move |mut stream| {
        let path = request(&stream).split(' ').nth(1).unwrap().to_owned();
        let response = match path.as_str() {
            "/resource" => {
                "HTTP/1.1 302 Found\r\nLocation: /else/where?x\r\nContent-Length: 5\r\n\r\nthere"
            }
            _ => SIZED,
        };
        stream.write_all(response.as_bytes()).unwrap();
    });
    assert_eq!(fetch(&server, &[]).well(), "hello, world");
    let text = fetch(&server, &["--max-redirects", "0"]).badly();
    assert!(text.contains("more than 0 redirections"), "{text}");
    server.end();
}

#[test]
fn a_closed_output_ends_it_quietly() {
    let server = Scripted::new(|mut stream| {
        request(&stream);
        stream.write_all(TO_END.as_bytes()).unwrap();
        while stream.write_all(b"more").is_ok() {}
    });
    let mut client = Running::new(&["fetch", &format!("http://{}/", server.at())]);
    drop(client.stdout());
    assert_eq!(client.end().well(), "");
    server.end();
}

#[test]
fn an_output_that_takes_nothing_is_a_failure() {
    let Ok(full) = fs::File::options().write(true).open("/dev/full") else {
        return skip("/dev/full");
    };
    let server = answering(SIZED);
    let mut command = serveloop(&["fetch", &format!("http://{}/", server.at())]);
    command.stdout(full);
    let text = Running::spawn(command).end().badly();
    assert!(text.contains("standard output: "), "{text}");
    server.end();
}

/// Another process may have said of an output that we share that it does not wait.
#[test]
fn an_output_that_does_not_wait_is_waited_for() {
    let body = noise(1 << 20);
    let response = [b"HTTP/1.1 200 OK\r\n\r\n", &*body].concat();
    let server = answering(response);
    let (output, theirs) = UnixStream::pair().unwrap();
    theirs.set_nonblocking(true).unwrap();
    let mut command = serveloop(&["fetch", &format!("http://{}/", server.at())]);
    command.stdout(OwnedFd::from(theirs));
    let mut client = Running::spawn(command);
    output.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut printed = vec![0; body.len()];
    (&output).read_exact(&mut printed).unwrap();
    assert!(printed == body, "another body came");
    assert_eq!(client.end().well(), "");
    server.end();
}

#[test]
fn an_interrupt_leaves_no_file() {
    let directory = Directory::new();
    let path = directory.path("file");
    let at = path.clone();
    let (begun, begins) = mpsc::channel();
    let server = Scripted::new(move |mut stream| {
        request(&stream);
        stream.write_all(b"HTTP/1.1 200 OK\r\n\r\nhalf").unwrap();
        while names(&at).is_empty() {
            stream.write_all(b".").unwrap();
        }
        begun.send(()).unwrap();
        let _ = stream.read_to_end(&mut Vec::new());
    });
    let url = format!("http://{}/", server.at());
    let mut client = Running::new(&["fetch", &url, "-o", path.to_str().unwrap()]);
    begins.recv_timeout(PATIENCE).unwrap();
    assert!(!path.exists());
    client.signal(Signal::INT);
    assert_eq!(client.end().code, Some(130));
    assert_eq!(names(&path), [""; 0]);
    server.end();
}

#[test]
fn what_cannot_be_fetched_is_a_mistake() {
    let cases = [
        ("https://:443/", "empty host"),
        ("ftp://127.0.0.1/", "only http:// and https:// URLs"),
        ("127.0.0.1/x", "a URL that begins with http://"),
        (
            "http://user:secret@127.0.0.1/",
            "a user name and password in a URL",
        ),
    ];
    for (url, problem) in cases {
        let said = run(&["fetch", url], "");
        assert_eq!(said.code, Some(2), "{said:?}");
        assert!(said.stderr.contains(problem), "{said:?}");
    }
}

/// Python's own server, for as long as the test runs.
struct Python(Child);

impl Drop for Python {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn python_serves_what_is_fetched() {
    let directory = Directory::new();
    let body = noise(1_000_003);
    fs::write(directory.path("resource"), &body).unwrap();
    let spawned = Command::new("python3")
        .args([
            "-u",
            "-m",
            "http.server",
            "0",
            "--bind",
            "127.0.0.1",
            "--directory",
        ])
        .arg(directory.path("."))
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn();
    let Ok(child) = spawned else {
        return skip("python3");
    };
    let mut python = Python(child);
    let mut line = String::new();
    let mut stdout = BufReader::new(python.0.stdout.take().unwrap());
    stdout.read_line(&mut line).unwrap();
    let port = line
        .split_whitespace()
        .nth(5)
        .expect("Serving HTTP on ... port N ...");
    let saved = directory.path("saved");
    let url = format!("http://127.0.0.1:{port}/resource");
    let said = run(
        &["fetch", &url, "--head", "-o", saved.to_str().unwrap()],
        "",
    );
    assert_eq!((said.code, &*said.stdout), (Some(0), &b""[..]));
    assert!(
        said.stderr.starts_with("HTTP/1.0 200 OK\n"),
        "{}",
        said.stderr
    );
    assert!(fs::read(&saved).unwrap() == body, "another body was saved");
    let text = run(&["fetch", &format!("{url}s")], "").badly();
    assert!(text.ends_with(": 404 File not found\n"), "{text}");
    let mut command = serveloop(&["fetch", &url]);
    command.stdin(Stdio::null());
    assert!(Running::spawn(command).end().stdout == body);
}

/// What a server sends does not command the terminal that it is shown on.
#[test]
fn a_terminal_gets_no_escape_sequences() {
    let server = answering("HTTP/1.1 200 OK\r\n\r\n\x1b[31mred\tor not\n");
    let (mut person, terminal) = terminal();
    let mut command = serveloop(&["fetch", &format!("http://{}/", server.at())]);
    command.stdout(terminal);
    let mut client = Running::spawn(command);
    assert_eq!(client.end().code, Some(0));
    server.end();
    drop(client);
    let mut shown = Vec::new();
    // A terminal without a program at it ends with an error.
    let _ = person.read_to_end(&mut shown);
    let shown = String::from_utf8_lossy(&shown);
    assert!(shown.starts_with(r"\u{1b}[31mred"), "{shown:?}");
    assert!(!shown.contains('\x1b'), "{shown:?}");
}
