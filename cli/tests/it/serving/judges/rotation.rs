//! New certificates while clients come and go.

use std::fs;
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serveloop::layer::tls::rustls::pki_types::CertificateDer;
use serveloop::layer::tls::rustls::pki_types::pem::PemObject;

use crate::serving::judges::client::Client;
use crate::serving::judges::{MODELS, closed};
use crate::support::outside::require;
use crate::support::served::Served;
use crate::support::sockets::{Directory, socket_addr};

/// How many clients come and go at the same time.
const CLIENTS: usize = 2;

/// How many connections stay open through all later certificates.
const STAYING: usize = 5;

#[test]
fn a_new_certificate_is_shown_from_the_next_handshake_on() {
    if !require("openssl") {
        return;
    }
    for model in MODELS {
        rotate(model, 6, Duration::ZERO);
    }
}

#[test]
#[ignore = "takes a minute; a part of .ci/outside runs it"]
fn a_new_certificate_each_second_for_a_minute() {
    if !require("openssl") {
        return;
    }
    thread::scope(|scope| {
        for model in MODELS {
            scope.spawn(|| rotate(model, 60, Duration::from_secs(1)));
        }
    });
}

/// Gives a server `count` new certificates, one each `pace` at most, while clients come and go and others
/// stay.
#[track_caller]
fn rotate(model: &[&str], count: usize, pace: Duration) {
    let files = Files::new();
    files.renew();
    let served = Served::new(&[&["echo", "--listen", &files.listener()], model].concat());
    let to = socket_addr(served.uri(0));
    let client = Client::new(files.directory.path("authority.pem"));
    let mut staying = vec![client.connect(to).expect("a server")];

    let ends = AtomicBool::new(false);
    let visits = thread::scope(|scope| {
        let visiting: Vec<_> = (0..CLIENTS)
            .map(|_| scope.spawn(|| files.visit(&client, to, &ends)))
            .collect();
        // The others end however this one does.
        let ending = Ending(&ends);
        for _ in 0..count {
            let begun = Instant::now();
            files.renew();
            served.signal(Signal::HUP);
            served.logged("the certificates were read again");
            files.note_in_use();

            let newest = client.connect(to).expect("a server");
            let number = files.number_of(&newest.certificate());
            assert_eq!(number, files.in_use.load(Ordering::SeqCst), "{model:?}");
            for connection in &mut staying {
                connection
                    .exchange("still here")
                    .expect("an open connection");
            }
            // Those of the first certificates stay to the end.
            for late in staying.drain(STAYING.min(staying.len())..) {
                late.end().expect("an open connection");
            }
            staying.push(newest);
            thread::sleep(pace.saturating_sub(begun.elapsed()));
        }
        drop(ending);
        let visits = visiting
            .into_iter()
            .map(|it| it.join().expect("no failure"));
        visits.sum::<usize>()
    });

    for connection in staying {
        connection.end().expect("an open connection");
    }
    served.signal(Signal::TERM);
    let log = served.status_and_log();
    let made = visits + 1 + count;
    println!("{model:?}: {count} certificates, {made} connections");
    let last = log.last().expect("its counters");
    assert!(visits > 0, "no one came");
    assert!(last.contains(&format!("accepted {made}, ")), "{last}");
    assert_eq!(closed(last), [format!("closed_by_peer {made}")]);
}

/// Ends the clients when the test ends, also by a panic.
struct Ending<'a>(&'a AtomicBool);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// An authority, and a server's certificates by it, of which the newest is in the files.
struct Files {
    directory: Directory,
    /// In the order in which they were made.
    made: Mutex<Vec<Vec<u8>>>,
    /// The number of the one that the server has said to have read.
    in_use: AtomicUsize,
}

impl Files {
    fn new() -> Self {
        let files = Self {
            directory: Directory::new(),
            made: Mutex::default(),
            in_use: AtomicUsize::new(0),
        };
        let extensions = "subjectAltName=DNS:localhost\nextendedKeyUsage=serverAuth\n";
        fs::write(files.directory.path("extensions"), extensions).expect("a directory");
        let subject = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 \
                       -subj /CN=authority -keyout authority.key -out authority.pem";
        files.openssl(subject);
        files
    }

    /// Runs openssl among the files.
    fn openssl(&self, arguments: &str) {
        let status = Command::new("openssl")
            .args(arguments.split_whitespace())
            .current_dir(self.directory.path(""))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        assert!(status.expect("openssl").success(), "{arguments}");
    }

    /// Makes another key and certificate, and puts them in the place of the last.
    fn renew(&self) {
        let number = self.made.lock().expect("no panic").len();
        self.openssl(
            "req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=localhost \
             -keyout next.key -out next.csr",
        );
        self.openssl(&format!(
            "x509 -req -in next.csr -CA authority.pem -CAkey authority.key -days 30 \
             -set_serial {} -extfile extensions -out next.pem",
            1_000 + number
        ));
        let path = |name| self.directory.path(name);
        let made = CertificateDer::from_pem_file(path("next.pem")).expect("a certificate");
        // Before a server can show it.
        self.made.lock().expect("no panic").push(made.to_vec());
        for (next, name) in [("next.key", "server.key"), ("next.pem", "server.pem")] {
            fs::rename(path(next), path(name)).expect("a directory");
        }
    }

    fn note_in_use(&self) {
        let newest = self.made.lock().expect("no panic").len() - 1;
        self.in_use.store(newest, Ordering::SeqCst);
    }

    fn listener(&self) -> String {
        let path = |name| self.directory.path(name).display().to_string();
        format!(
            "tls://127.0.0.1:0?cert={}&key={}",
            path("server.pem"),
            path("server.key")
        )
    }

    /// Returns which of the certificates it is.
    #[track_caller]
    fn number_of(&self, certificate: &[u8]) -> usize {
        let made = self.made.lock().expect("no panic");
        let number = made.iter().position(|it| it == certificate);
        number.expect("one that was made")
    }

    /// Connects, echoes and ends, until the test ends. Returns how often.
    fn visit(&self, client: &Client, to: SocketAddr, ends: &AtomicBool) -> usize {
        let mut count = 0;
        while !ends.load(Ordering::SeqCst) {
            let oldest = self.in_use.load(Ordering::SeqCst);
            let certificate = client.visit(to).expect("a server");
            assert!(
                self.number_of(&certificate) >= oldest,
                "an older certificate"
            );
            count += 1;
        }
        count
    }
}
