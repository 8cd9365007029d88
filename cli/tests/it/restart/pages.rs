//! Pages and administrators move to the new process.

use rustix::process::Signal;

use crate::monitoring::get;
use crate::restart::Site;
use crate::support::served::Outcome;
use crate::support::sockets::{Directory, Stream};

const TCP: [&str; 2] = ["--listen", "tcp://127.0.0.1:0"];

#[test]
fn pages_and_administrators_are_those_of_the_new_process() {
    let directory = Directory::new();
    let admin = directory.uri("unix", "admin");
    for model in [
        &[][..],
        &["--workers", "2"],
        &["--model", "sequential"],
        &["--model", "threaded"],
    ] {
        let own = ["--metrics", "tcp://127.0.0.1:0", "--admin", &admin];
        let site = Site::new(&[&["echo"], &TCP[..], &own, model].concat());
        let metrics = site.served.printed();
        let metrics = metrics
            .strip_prefix("metrics on ")
            .expect("where pages are");
        assert_eq!(site.served.printed(), format!("admin on {admin}"));
        let process = || {
            let outcome = Outcome::new(&["ctl", "--admin", &admin, "--json", "stats"]);
            assert_eq!(outcome.code, Some(0), "{model:?}: {}", outcome.stderr);
            let stats: serde_json::Value = serde_json::from_str(&outcome.stdout).expect("JSON");
            stats["process"].as_u64().expect("a number")
        };
        assert_eq!(process(), u64::from(site.process()), "{model:?}");

        for _ in 0..3 {
            site.restart();
            let begin = std::time::Instant::now();
            // The old process may still have been asked.
            while process() != u64::from(site.process()) {
                assert!(
                    begin.elapsed().as_secs() < 20,
                    "{model:?}: the old one answers"
                );
            }
            assert_eq!(process(), u64::from(site.process()), "{model:?}");
            assert_eq!(get(metrics, "/readyz").status, 200, "{model:?}");
        }
        assert!(Stream::connect(site.served.uri(0)).echoes(), "{model:?}");
        assert!(directory.path("admin").exists(), "{model:?}");
        site.end();
        assert!(!directory.path("admin").exists(), "{model:?}");
    }
}

/// The pages of a server that forks have a process of their own.
#[test]
fn a_server_that_forks_says_why_its_pages_cannot_move() {
    let site = Site::new(
        &[
            &["echo"],
            &TCP[..],
            &["--metrics", "tcp://127.0.0.1:0", "--model", "forking"],
        ]
        .concat(),
    );
    let metrics = site.served.printed();
    let metrics = metrics
        .strip_prefix("metrics on ")
        .expect("where pages are");
    site.signal(Signal::USR2);
    let line = site.served.logged("SIGUSR2 is refused");
    assert!(line.contains("--metrics"), "{line}");
    assert_eq!(get(metrics, "/readyz").status, 200);
    site.end();
}
