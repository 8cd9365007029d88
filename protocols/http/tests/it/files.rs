//! Files below a directory.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::fs::{CWD, FileType, Mode, mknodat};
use serveloop::service::{Offload, OffloadLimits};
use serveloop::testing::MemorySession;
use serveloop_http::Http;
use serveloop_http::files::Files;
use tempfile::TempDir;

use crate::support::{Seen, http, read_responses};

/// A directory `site`, with a secret next to it.
fn site() -> TempDir {
    let directory = tempfile::tempdir().expect("a site");
    let at = |name: &str| directory.path().join("site").join(name);
    fs::create_dir_all(at("sub/empty")).expect("a site");
    fs::write(directory.path().join("secret"), "secret").expect("a site");
    fs::write(at("index.html"), "<p>index").expect("a site");
    fs::write(at("sub/index.html"), "<p>sub").expect("a site");
    fs::write(at("a b.txt"), "blank").expect("a site");
    fs::write(at("digits"), "0123456789").expect("a site");
    fs::write(at("none.css"), "").expect("a site");
    let long: Vec<u8> = (0..200_000_u32).map(|number| (number / 7) as u8).collect();
    fs::write(at("long.bin"), long).expect("a site");

    let change = UNIX_EPOCH + Duration::new(1_000_000_000, 5);
    let digits = fs::File::options()
        .append(true)
        .open(at("digits"))
        .expect("a site");
    digits.set_modified(change).expect("a site");
    directory
}

type Session = MemorySession<Http<Files>>;

fn session(site: &TempDir, pool: &Offload) -> Session {
    let files = Files::new(site.path().join("site"), pool.clone()).expect("a site");
    MemorySession::new(http(files))
}

fn ask(session: &mut Session, method: &str, target: &str, fields: &str) -> Seen {
    let request = format!("{method} {target} HTTP/1.1\r\nHost: x\r\n{fields}\r\n");
    session.receive(request.as_bytes());
    let heads: &[usize] = if method == "HEAD" { &[0] } else { &[] };
    let mut seen = read_responses(&session.sent(), heads);
    assert_eq!(seen.len(), 1, "{target}: {seen:?}");
    seen.remove(0)
}

fn get(site: &TempDir, target: &str, fields: &str) -> Seen {
    ask(
        &mut session(site, &Offload::inline()),
        "GET",
        target,
        fields,
    )
}

#[test]
fn files_are_served_with_their_types() {
    let site = site();
    let expected = [
        ("/", "text/html; charset=utf-8", "<p>index"),
        ("/index.html", "text/html; charset=utf-8", "<p>index"),
        ("/sub/", "text/html; charset=utf-8", "<p>sub"),
        (
            "/sub/index.html?query=1",
            "text/html; charset=utf-8",
            "<p>sub",
        ),
        ("/a%20b.txt", "text/plain; charset=utf-8", "blank"),
        ("/digits", "application/octet-stream", "0123456789"),
        ("//digits", "application/octet-stream", "0123456789"),
        (
            "http://other/digits",
            "application/octet-stream",
            "0123456789",
        ),
        ("/none.css", "text/css; charset=utf-8", ""),
    ];
    for (target, kind, content) in expected {
        let seen = get(&site, target, "");
        assert_eq!((seen.status, seen.text()), (200, content), "{target}");
        assert_eq!(seen.field("content-type"), Some(kind), "{target}");
        assert_eq!(seen.field("accept-ranges"), Some("bytes"));
    }
}

/// The links of its page are relative to the directory, so it has a slash at its end.
#[test]
fn a_directory_has_a_slash() {
    let site = site();
    for (target, location) in [
        ("/sub", "./sub/"),
        ("/sub?a=1", "./sub/?a=1"),
        ("//sub", "./sub/"),
        ("http://other/sub", "./sub/"),
    ] {
        let seen = get(&site, target, "");
        assert_eq!(seen.status, 301, "{target}");
        assert_eq!(seen.field("location"), Some(location), "{target}");
    }
}

#[test]
fn what_is_not_there_is_not_found() {
    let site = site();
    for target in [
        "/nothing",
        "/sub/empty",
        "/sub/empty/",
        "/digits/",
        "/digits/x",
        "/index.html/",
    ] {
        assert_eq!(get(&site, target, "").status, 404, "{target}");
    }
    let long = format!("/{}", "a".repeat(300));
    assert_eq!(get(&site, &long, "").status, 404);
}

#[test]
fn nothing_outside_is_served() {
    let site = site();
    let inside = |name: &str| site.path().join("site").join(name);
    symlink(site.path().join("secret"), inside("absolute")).unwrap();
    symlink("../secret", inside("relative")).unwrap();
    symlink("..", inside("up")).unwrap();
    symlink("/", inside("sub/all")).unwrap();
    symlink("loop", inside("loop")).unwrap();
    symlink("absolute", inside("twice")).unwrap();

    let targets = [
        "/../secret",
        "/sub/../../secret",
        "/%2e%2e/secret",
        "/.%2e/secret",
        "/%2E%2E/secret",
        "/..%2fsecret",
        "/%2e%2e%2fsecret",
        "/sub/..%2f..%2fsecret",
        "/..%5csecret",
        "/absolute",
        "/relative",
        "/up/secret",
        "/up",
        "/sub/all/etc/passwd",
        "/loop",
        "/twice",
        "/./digits",
        "/%2e/digits",
    ];
    for target in targets {
        let seen = get(&site, target, "");
        assert_eq!(seen.status, 404, "{target}");
        assert!(!seen.text().contains("secret"), "{target}");
    }
    for target in ["/digits%00", "/%00", "/a%", "/a%2", "/a%gg"] {
        assert_eq!(get(&site, target, "").status, 400, "{target}");
    }

    // A directory with a similar name is another one.
    fs::create_dir(site.path().join("site-private")).unwrap();
    fs::write(site.path().join("site-private/file"), "secret").unwrap();
    symlink("../site-private/file", inside("neighbour")).unwrap();
    assert_eq!(get(&site, "/neighbour", "").status, 404);
}

#[test]
fn links_inside_work() {
    let site = site();
    let inside = |name: &str| site.path().join("site").join(name);
    symlink("digits", inside("relative")).unwrap();
    symlink(inside("digits"), inside("absolute")).unwrap();
    symlink("../digits", inside("sub/up")).unwrap();
    symlink(inside("sub"), inside("directory")).unwrap();
    for (target, content) in [
        ("/relative", "0123456789"),
        ("/absolute", "0123456789"),
        ("/sub/up", "0123456789"),
        ("/directory/", "<p>sub"),
    ] {
        assert_eq!(get(&site, target, "").text(), content, "{target}");
    }

    // So does a link to the directory itself.
    let link = site.path().join("link");
    symlink("site", &link).unwrap();
    let files = Files::new(&link, Offload::inline()).unwrap();
    let mut session = MemorySession::new(http(files));
    assert_eq!(ask(&mut session, "GET", "/digits", "").text(), "0123456789");
}

/// A pipe would be waited for without end.
#[test]
fn only_files_are_served() {
    let site = site();
    let pipe = site.path().join("site/pipe");
    mknodat(CWD, &pipe, FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
    assert_eq!(get(&site, "/pipe", "").status, 404);
    symlink("/dev/zero", site.path().join("site/zero")).unwrap();
    assert_eq!(get(&site, "/zero", "").status, 404);
}

#[test]
fn only_two_methods_are_allowed() {
    let site = site();
    let mut session = session(&site, &Offload::inline());
    for method in ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"] {
        let seen = ask(&mut session, method, "/digits", "");
        assert_eq!(
            (seen.status, seen.field("allow")),
            (405, Some("GET, HEAD")),
            "{method}"
        );
    }
    for method in ["get", "BREW"] {
        assert_eq!(
            ask(&mut session, method, "/digits", "").status,
            501,
            "{method}"
        );
    }
    let seen = ask(&mut session, "HEAD", "/digits", "");
    assert_eq!(
        (seen.status, seen.field("content-length")),
        (200, Some("10"))
    );
}

#[test]
fn ranges() {
    let site = site();
    let parts = [
        ("bytes=0-0", "0", "bytes 0-0/10"),
        ("bytes=3-5", "345", "bytes 3-5/10"),
        ("bytes=7-", "789", "bytes 7-9/10"),
        ("bytes=-2", "89", "bytes 8-9/10"),
        ("bytes=-50", "0123456789", "bytes 0-9/10"),
        ("bytes=5-50", "56789", "bytes 5-9/10"),
    ];
    for (range, content, placed) in parts {
        let seen = get(&site, "/digits", &format!("Range: {range}\r\n"));
        assert_eq!((seen.status, seen.text()), (206, content), "{range}");
        assert_eq!(seen.field("content-range"), Some(placed), "{range}");
        assert!(seen.field("etag").is_some() && seen.field("last-modified").is_some());
    }
    let twice = get(&site, "/digits", "Range: bytes=0-1\r\nRange: bytes=3-4\r\n");
    assert_eq!((twice.status, twice.text()), (200, "0123456789"));
    for range in [
        "bytes=0-1,3-4",
        "bytes=5-3",
        "lines=1-2",
        "bytes=x-1",
        "bytes=-",
    ] {
        let seen = get(&site, "/digits", &format!("Range: {range}\r\n"));
        assert_eq!((seen.status, seen.text()), (200, "0123456789"), "{range}");
    }
    for (target, range, placed) in [
        ("/digits", "bytes=10-", "bytes */10"),
        ("/digits", "bytes=-0", "bytes */10"),
        ("/none.css", "bytes=0-", "bytes */0"),
    ] {
        let seen = get(&site, target, &format!("Range: {range}\r\n"));
        assert_eq!(
            (seen.status, seen.field("content-range")),
            (416, Some(placed)),
            "{range}"
        );
    }

    let seen = get(&site, "/long.bin", "Range: bytes=100000-199998\r\n");
    let whole = fs::read(site.path().join("site/long.bin")).unwrap();
    assert!(seen.status == 206 && seen.body == whole[100_000..199_999]);

    // HEAD asks for no part.
    let mut session = session(&site, &Offload::inline());
    let seen = ask(&mut session, "HEAD", "/digits", "Range: bytes=0-1\r\n");
    assert_eq!(
        (seen.status, seen.field("content-length")),
        (200, Some("10"))
    );
}

#[test]
fn conditions() {
    let site = site();
    let seen = get(&site, "/digits", "");
    let tag = seen.field("etag").unwrap().to_owned();
    let date = "Sun, 09 Sep 2001 01:46:40 GMT";
    assert_eq!(seen.field("last-modified"), Some(date));
    assert!(
        tag.starts_with('"') && tag.ends_with('"') && tag.len() > 2,
        "{tag}"
    );

    let before = "Sun, 09 Sep 2001 01:46:39 GMT";
    let cases = [
        (format!("If-None-Match: {tag}\r\n"), 304),
        (format!("If-None-Match: W/{tag}\r\n"), 304),
        (format!("If-None-Match: \"x\", {tag}\r\n"), 304),
        (
            format!("If-None-Match: \"x\"\r\nIf-None-Match: {tag}\r\n"),
            304,
        ),
        ("If-None-Match: *\r\n".to_owned(), 304),
        ("If-None-Match: \"x\"\r\n".to_owned(), 200),
        // A tag says more than a date.
        (
            format!("If-None-Match: \"x\"\r\nIf-Modified-Since: {date}\r\n"),
            200,
        ),
        (format!("If-Modified-Since: {date}\r\n"), 304),
        (
            "If-Modified-Since: Sunday, 09-Sep-01 01:46:40 GMT\r\n".to_owned(),
            304,
        ),
        (
            "If-Modified-Since: Sun Sep  9 01:46:40 2001\r\n".to_owned(),
            304,
        ),
        (format!("If-Modified-Since: {before}\r\n"), 200),
        ("If-Modified-Since: yesterday\r\n".to_owned(), 200),
        (format!("If-Match: {tag}\r\n"), 200),
        (format!("If-Match: W/{tag}\r\n"), 412),
        ("If-Match: \"x\"\r\n".to_owned(), 412),
        ("If-Match: *\r\n".to_owned(), 200),
        (format!("If-Unmodified-Since: {before}\r\n"), 412),
        (format!("If-Unmodified-Since: {date}\r\n"), 200),
        (format!("Range: bytes=0-1\r\nIf-Range: {tag}\r\n"), 206),
        (format!("Range: bytes=0-1\r\nIf-Range: {date}\r\n"), 206),
        (format!("Range: bytes=0-1\r\nIf-Range: W/{tag}\r\n"), 200),
        (format!("Range: bytes=0-1\r\nIf-Range: {before}\r\n"), 200),
        (format!("Range: bytes=0-1\r\nIf-None-Match: {tag}\r\n"), 304),
    ];
    for (fields, status) in cases {
        let seen = get(&site, "/digits", &fields);
        assert_eq!(seen.status, status, "{fields}");
        let has_tag = seen.field("etag").is_some();
        assert_eq!(has_tag, status != 412, "{fields}");
    }

    // Another version has another tag.
    fs::write(site.path().join("site/digits"), "9876543210").unwrap();
    assert_eq!(
        get(&site, "/digits", &format!("If-None-Match: {tag}\r\n")).status,
        200
    );
}

/// A date that cannot be written is left out.
#[test]
fn a_file_from_before_all_dates_has_no_date() {
    let site = site();
    let path = site.path().join("site/digits");
    let file = fs::File::options().append(true).open(path).unwrap();
    let early: SystemTime = UNIX_EPOCH - Duration::from_secs(10);
    if file.set_modified(early).is_ok() {
        let seen = get(
            &site,
            "/digits",
            "If-Modified-Since: Sun, 09 Sep 2001 01:46:40 GMT\r\n",
        );
        assert_eq!((seen.status, seen.field("last-modified")), (200, None));
    }
}

/// A client would take it for a date of its own clock.
#[test]
fn a_file_from_the_future_has_the_date_of_the_response() {
    let site = site();
    let path = site.path().join("site/digits");
    let file = fs::File::options().append(true).open(path).unwrap();
    let late = SystemTime::now() + Duration::from_secs(1_000_000);
    file.set_modified(late).unwrap();

    let seen = get(&site, "/digits", "");
    let date = seen.field("last-modified").expect("a date");
    let date = httpdate::parse_http_date(date).unwrap();
    assert!(date <= SystemTime::now());

    let tag = seen.field("etag").expect("a tag");
    let again = get(&site, "/digits", &format!("If-None-Match: {tag}\r\n"));
    assert_eq!(again.status, 304);
}

/// Every step on the disk is one job of the pool, and none is asked for before there is room.
#[test]
fn a_long_file_is_read_as_the_client_takes_it() {
    let site = site();
    let pool = Offload::manual();
    let mut session = session(&site, &pool);
    session.stop_taking();
    session.receive(b"GET /long.bin HTTP/1.1\r\nHost: x\r\n\r\n");
    let mut jobs = 0;
    while pool.run_one() {
        jobs += 1;
        session.run();
    }
    assert_eq!(jobs, 2, "the file is found, and the first piece is read");
    assert!(session.held() < 300_000, "{}", session.held());

    session.take_in_steps(10_000);
    while pool.run_one() {
        jobs += 1;
        session.run();
    }
    assert_eq!(jobs, 1 + 200_000_usize.div_ceil(64 * 1024));
    let seen = read_responses(&session.sent(), &[]).remove(0);
    assert!(seen.body == fs::read(site.path().join("site/long.bin")).unwrap());
    assert_eq!(session.held(), 0);
}

#[test]
fn a_file_that_shrinks_resets_the_connection() {
    let site = site();
    let pool = Offload::manual();
    let mut session = session(&site, &pool);
    session.receive(b"GET /long.bin HTTP/1.1\r\nHost: x\r\n\r\n");
    pool.run_one();
    session.run();
    let file = fs::File::options()
        .write(true)
        .open(site.path().join("site/long.bin"))
        .unwrap();
    file.set_len(100_000).unwrap();
    while pool.run_one() {
        session.run();
    }
    assert!(matches!(
        session.reason(),
        Some(serveloop::CloseReason::Aborted)
    ));
}

#[test]
fn a_full_pool_is_a_503() {
    let site = site();
    let limits = OffloadLimits {
        max_threads: 1,
        max_waiting: 0,
        ..OffloadLimits::default()
    };
    let pool = Offload::manual_with(limits);
    let (mut first, mut second) = (session(&site, &pool), session(&site, &pool));
    first.receive(b"GET /digits HTTP/1.1\r\nHost: x\r\n\r\n");
    let seen = ask(&mut second, "GET", "/digits", "");
    assert_eq!((seen.status, seen.field("retry-after")), (503, Some("1")));

    // A client that goes away makes room.
    drop(first);
    second.receive(b"GET /digits HTTP/1.1\r\nHost: x\r\n\r\n");
    pool.run_one();
    second.run();
    assert_eq!(read_responses(&second.sent(), &[])[0].text(), "0123456789");
}

#[test]
fn a_directory_that_is_none_is_an_error() {
    let site = site();
    let open = |name: &str| Files::new(site.path().join(name), Offload::inline());
    assert!(open("nothing").is_err());
    assert!(open("secret").is_err());
    assert!(Files::new(Path::new(""), Offload::inline()).is_err());
}
