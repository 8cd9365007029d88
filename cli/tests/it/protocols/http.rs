//! `serve http`: files and a greeting, as clients see them.

use std::fs;
use std::io::Read;
use std::net::TcpStream;
use std::os::unix::fs::symlink;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::support::memory::kib;
use crate::support::outside::require;
use crate::support::served::{MODELS, Outcome, Served};
use crate::support::sockets::{Directory, socket_addr};

const LOCAL: [&str; 2] = ["--listen", "tcp://127.0.0.1:0"];

/// A directory with a page, a long file and one next to it.
fn site() -> Directory {
    let directory = Directory::new();
    fs::create_dir_all(directory.path("site/sub")).expect("a directory");
    fs::write(directory.path("secret"), "secret").expect("a file");
    fs::write(directory.path("site/index.html"), "<p>index\n").expect("a file");
    fs::write(directory.path("site/digits.txt"), "0123456789").expect("a file");
    fs::write(directory.path("site/long.bin"), long(3_000_000)).expect("a file");
    symlink("../secret", directory.path("site/link")).expect("a link");
    directory
}

fn long(length: u32) -> Vec<u8> {
    (0..length).map(|number| (number / 251) as u8).collect()
}

fn serve(site: &Directory, more: &[&str]) -> Served {
    let root = site.path("site");
    let root = ["http", "--root", root.to_str().expect("a text")];
    Served::new(&[&root[..], &LOCAL, more].concat())
}

fn url(served: &Served, path: &str) -> String {
    format!("http://{}{path}", socket_addr(served.uri(0)))
}

/// What curl prints.
#[track_caller]
fn curl(arguments: &[&str]) -> Vec<u8> {
    let mut command = Command::new("curl");
    command.args(["--silent", "--show-error", "--max-time", "60"]);
    let output = command.args(arguments).output().expect("curl");
    let problem = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {problem}");
    output.stdout
}

#[track_caller]
fn curl_text(arguments: &[&str]) -> String {
    String::from_utf8(curl(arguments)).expect("a text")
}

/// The status of an answer, and a field.
fn status(url: &str, more: &[&str]) -> String {
    let format = ["--output", "/dev/null", "--write-out", "%{http_code}"];
    curl_text(&[&format[..], more, &[url]].concat())
}

fn end(served: Served) {
    served.signal(Signal::TERM);
    served.status_and_log();
}

/// Sends requests as they are, and returns everything that comes until the server closes.
fn raw(served: &Served, text: &str) -> String {
    let mut client = served.connect();
    client.send(text);
    String::from_utf8_lossy(&client.receive_rest()).into_owned()
}

#[test]
fn files_are_served_in_every_model() {
    if !require("curl") {
        return;
    }
    let site = site();
    for model in MODELS {
        let served = serve(&site, model);
        let at = |path: &str| url(&served, path);
        assert_eq!(curl_text(&[&at("/")]), "<p>index\n", "{model:?}");
        assert!(curl(&[&at("/long.bin")]) == long(3_000_000), "{model:?}");
        assert_eq!(curl_text(&["--range", "2-4", &at("/digits.txt")]), "234");
        assert_eq!(status(&at("/digits.txt"), &["--range", "2-4"]), "206");
        assert_eq!(status(&at("/digits.txt"), &["--range", "50-"]), "416");
        assert_eq!(status(&at("/digits.txt"), &["--range", "0-1,3-4"]), "200");
        let part = curl(&["--range", "1000000-2999998", &at("/long.bin")]);
        assert!(part == long(3_000_000)[1_000_000..2_999_999], "{model:?}");

        let head = curl_text(&["--head", &at("/long.bin")]);
        assert!(head.contains("\r\nContent-Length: 3000000\r\n"), "{head}");
        assert!(head.contains("\r\nDate: "), "{head}");
        let tag = head.lines().find_map(|line| line.strip_prefix("ETag: "));
        let condition = format!("If-None-Match: {}", tag.expect("a tag"));
        assert_eq!(status(&at("/long.bin"), &["--header", &condition]), "304");
        let path = site.path("site/digits.txt");
        let newer = ["--time-cond", path.to_str().expect("a text")];
        assert_eq!(status(&at("/digits.txt"), &newer), "304");

        assert_eq!(status(&at("/none"), &[]), "404");
        assert_eq!(status(&at("/sub/"), &[]), "404");
        assert_eq!(status(&at("/link"), &[]), "404");
        for outside in [
            "/../secret",
            "/%2e%2e/secret",
            "/..%2fsecret",
            "/sub/../../secret",
        ] {
            assert_eq!(status(&at(outside), &["--path-as-is"]), "404", "{outside}");
        }
        assert_eq!(status(&at("/digits.txt%00"), &[]), "400");
        assert_eq!(status(&at("/"), &["--data", "x"]), "405");
        assert_eq!(status(&at("/"), &["--request", "BREW"]), "501");
        end(served);
    }
}

#[test]
fn uploads_are_counted_in_every_model() {
    if !require("curl") {
        return;
    }
    let directory = Directory::new();
    let upload = directory.path("upload");
    fs::write(&upload, long(700_000)).expect("a file");
    let file = upload.to_str().expect("a text");
    for model in MODELS {
        let served = Served::new(&[&["http"], &LOCAL[..], model].concat());
        let at = url(&served, "/");
        assert_eq!(curl_text(&[&at]), "hello\n", "{model:?}");
        let chunked = [
            "--upload-file",
            file,
            "--header",
            "Transfer-Encoding: chunked",
        ];
        assert_eq!(
            curl_text(&[&chunked[..], &[&at]].concat()),
            "700000 bytes\n"
        );

        // curl waits for 100 itself, and says what it got.
        let expecting = [
            "--verbose",
            "--expect100-timeout",
            "30",
            "--upload-file",
            file,
        ];
        let expecting = [&expecting[..], &["--header", "Expect: 100-continue", &at]].concat();
        let began = Instant::now();
        let mut command = Command::new("curl");
        let output = command
            .arg("--silent")
            .args(&expecting)
            .output()
            .expect("curl");
        assert_eq!(String::from_utf8_lossy(&output.stdout), "700000 bytes\n");
        assert!(String::from_utf8_lossy(&output.stderr).contains("< HTTP/1.1 100 Continue"));
        assert!(
            began.elapsed() < Duration::from_secs(20),
            "it was not asked for"
        );
        end(served);
    }
}

#[test]
fn requests_are_pipelined() {
    let site = site();
    let served = serve(&site, &[]);
    let get = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n");
    let all: String = (0..500)
        .map(|_| get("/digits.txt") + &get("/none"))
        .collect();
    let last = "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    let seen = raw(&served, &(all + last));
    assert_eq!(seen.matches("\r\n\r\n0123456789HTTP/1.1 404").count(), 500);
    assert!(seen.ends_with("\r\n\r\n<p>index\n"));
    end(served);
}

#[test]
fn limits_have_their_statuses() {
    let site = site();
    let limits = [
        "--max-line",
        "100",
        "--max-frame",
        "1KiB",
        "--first-message-timeout",
        "300ms",
    ];
    for model in MODELS {
        let served = serve(
            &site,
            &[&limits[..], &["--message-timeout", "300ms"], model].concat(),
        );
        let long = "a".repeat(200);
        let slow = "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\na";
        let cases = [
            (format!("GET /{long} HTTP/1.1\r\nHost: x\r\n\r\n"), 414),
            (format!("GET / HTTP/1.1\r\nHost: x\r\nX: {long}\r\n\r\n"), 431),
            ("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1025\r\n\r\n".to_owned(), 413),
            ("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n".to_owned(), 400),
            ("GET / HTTP/1.1\nHost: x\r\n\r\n".to_owned(), 400),
            ("GET / HTTP/2.0\r\nHost: x\r\n\r\n".to_owned(), 505),
            ("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\n".to_owned(), 501),
            ("GET / HT".to_owned(), 408),
            ("POST / HTTP/1.1\r\nHost: x\r\nExpect: x\r\n\r\n".to_owned(), 417),
        ];
        for (request, status) in cases {
            let seen = raw(&served, &request);
            let start = format!("HTTP/1.1 {status} ");
            assert!(seen.starts_with(&start), "{model:?} {request:?}: {seen}");
            assert!(seen.contains("\r\nConnection: close\r\n"), "{seen}");
        }
        // The answer is there at once, and the body that does not come ends the connection.
        let seen = raw(&served, slow);
        assert!(seen.starts_with("HTTP/1.1 405 "), "{seen}");
        served.signal(Signal::TERM);
        served.status();
    }
}

#[test]
fn each_listener_has_its_limits() {
    let uris = [
        "tcp://127.0.0.1:0?max-line=100",
        "tcp://127.0.0.1:0?max-frame=10",
    ];
    let served = Served::new(&["http", "--listen", uris[0], "--listen", uris[1]]);
    let long = format!(
        "GET /{} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        "a".repeat(200)
    );
    let body =
        "PUT / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 11\r\n\r\nhello world";
    for (request, statuses) in [(&*long, [414, 200]), (body, [200, 413])] {
        for (number, status) in statuses.into_iter().enumerate() {
            let mut client = crate::support::sockets::Stream::connect(served.uri(number));
            client.send(request);
            let seen = String::from_utf8_lossy(&client.receive_rest()).into_owned();
            assert!(
                seen.starts_with(&format!("HTTP/1.1 {status} ")),
                "{number}: {seen}"
            );
        }
    }
    served.signal(Signal::TERM);
    served.status();
}

/// A file of 100 MB for a client that takes its time needs no more memory than a short one.
#[test]
fn a_slow_reader_costs_no_memory() {
    let site = site();
    let file = fs::File::create(site.path("site/huge")).expect("a file");
    file.set_len(100 << 20).expect("room");
    for model in [&[][..], &["--model", "threaded"]] {
        let served = serve(&site, model);
        let process = served.process_id();
        let mut client = TcpStream::connect(socket_addr(served.uri(0))).expect("a server");
        std::io::Write::write_all(
            &mut client,
            b"GET /huge HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        )
        .expect("a server");
        let (mut total, mut buffer) = (0, vec![0; 1 << 20]);
        loop {
            let count = client.read(&mut buffer).expect("an orderly end");
            total += count;
            if count == 0 {
                break;
            }
            if total < 5 << 20 {
                thread::sleep(Duration::from_millis(5));
            }
        }
        assert!(total > 100 << 20 && total < (100 << 20) + 1_000, "{total}");
        if let Some(most) = kib(process, "VmHWM") {
            assert!(most < 40 << 10, "{most} KiB");
        }
        end(served);
    }
}

/// A shutdown lets a download finish, and an idle connection end.
#[test]
fn a_shutdown_finishes_what_was_asked_for() {
    let site = site();
    let served = serve(&site, &[]);
    let mut idle = served.connect();
    idle.send("GET /digits.txt HTTP/1.1\r\nHost: x\r\n\r\n");
    while !idle.receive_line().trim().is_empty() {}
    idle.expect("0123456789");
    let mut busy = served.connect();
    busy.send("GET /long.bin HTTP/1.1\r\nHost: x\r\n\r\n");
    busy.receive(1);
    served.signal(Signal::TERM);
    idle.expect_end();
    assert!(busy.receive_rest().ends_with(&long(3_000_000)));
    served.status_and_log();
}

#[test]
fn what_cannot_be_served_is_an_error() {
    let outcome = Outcome::new(&[
        "serve",
        "http",
        "--root",
        "/nothing/here",
        LOCAL[0],
        LOCAL[1],
    ]);
    assert_eq!((outcome.code, &*outcome.stdout), (Some(1), ""));
    assert!(
        outcome.stderr.contains("--root /nothing/here: "),
        "{}",
        outcome.stderr
    );
    let outcome = Outcome::new(&["serve", "http", "--listen", "udp://127.0.0.1:0"]);
    assert_eq!(outcome.code, Some(2));
    assert!(
        outcome.stderr.contains("http is for streams"),
        "{}",
        outcome.stderr
    );
}

/// Files are served while the generator of requests has 100 connections.
#[test]
fn a_load_has_no_errors() {
    if !require("h2load") {
        return;
    }
    let site = site();
    for model in [&[][..], &["--workers", "2"], &["--model", "threaded"]] {
        let served = serve(&site, model);
        for path in ["/digits.txt", "/none"] {
            let mut command = Command::new("h2load");
            command.args(["--h1", "-c", "50", "-n", "3000", &url(&served, path)]);
            let output = command.stderr(Stdio::null()).output().expect("h2load");
            let text = String::from_utf8_lossy(&output.stdout);
            assert!(text.contains("3000 done"), "{text}");
            assert!(text.contains("0 errored, 0 timeout"), "{text}");
        }
        end(served);
    }
}
