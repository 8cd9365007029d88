//! A command that was built without TLS.

use crate::support::served::Outcome;

#[test]
fn a_listener_with_tls_is_refused_clearly() {
    for (uri, said) in [
        ("tls://127.0.0.1:0?cert=/a&key=/b", "was built without TLS"),
        ("tls://127.0.0.1:0", "was built without TLS"),
        ("tcp://127.0.0.1:0?cert=/a&key=/b", "cert is for tls://"),
    ] {
        let outcome = Outcome::new(&["serve", "echo", "--listen", uri]);
        assert_eq!(outcome.code, Some(2), "{}", outcome.stderr);
        assert!(outcome.stderr.contains(said), "{}", outcome.stderr);
        assert!(outcome.stderr.contains(uri), "{}", outcome.stderr);
    }
}
