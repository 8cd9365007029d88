//! What handshakes show, and which fail.

use std::sync::{Arc, Mutex};

use rustls::pki_types::UnixTime;
use rustls::server::WebPkiClientVerifier;
use serveloop::layer::tls::{
    ClientCertificates, ClientTls, ServerTls, ServerTlsBuilder, Tls, TlsInfo, TlsVersion, rustls,
};
use serveloop::protocols::Echo;
use serveloop::{Peer, Transport};

use crate::layer::tls::certificates::{self, file};
use crate::layer::tls::foreign::Foreign;
use crate::layer::tls::pair::{Setup, session};
use crate::support::probe::{Log, Probe};
use crate::support::{seconds, timeless};

/// What the handshake of a pair has shown to the client and to the server.
fn shown(setup: &Setup) -> [Option<TlsInfo>; 2] {
    let shown = [(); 2].map(|()| Arc::<Mutex<Option<TlsInfo>>>::default());
    let [client, server] = shown.clone();
    let mut pair = setup.pair(
        move |_, info| {
            *client.lock().unwrap() = Some(info.clone());
            Some(Probe::new(&Log::default()))
        },
        move |_, info| {
            *server.lock().unwrap() = Some(info.clone());
            Some(Echo)
        },
    );
    pair.talk();
    shown.map(|shown| shown.lock().unwrap().take())
}

fn of(server: ServerTlsBuilder, client: ClientTls) -> Setup {
    Setup {
        server: server.build().unwrap(),
        client,
        ..Setup::default()
    }
}

#[test]
fn both_sides_see_the_same() {
    for (version, suite) in [
        (TlsVersion::Tls12, "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384"),
        (TlsVersion::Tls13, "TLS_AES_256_GCM_SHA384"),
    ] {
        let setup = of(
            certificates::server("localhost"),
            certificates::client_of(version),
        );
        for info in shown(&setup) {
            let info = info.unwrap();
            assert_eq!(info.version(), version);
            assert_eq!(info.cipher_suite(), suite);
            assert_eq!(info.server_name(), Some("localhost"));
            assert_eq!(info.alpn(), None);
            assert!(!info.is_resumed());
        }
    }
}

#[test]
fn the_clients_name_chooses_the_certificate() {
    let server = certificates::with(certificates::server("localhost"), "example");
    let server = server.build().unwrap();
    for (name, subject) in [
        ("localhost", "CN=localhost"),
        ("LocalHost", "CN=localhost"),
        ("127.0.0.1", "CN=localhost"),
        ("example.org", "CN=example.org"),
        ("www.Example.org", "CN=example.org"),
    ] {
        let setup = Setup {
            name,
            server: server.clone(),
            ..Setup::default()
        };
        let [client, server] = shown(&setup).map(Option::unwrap);
        assert_eq!(client.peer_subject().as_deref(), Some(subject), "{name}");
        let expected = (!name.starts_with("127")).then(|| name.to_lowercase());
        assert_eq!(server.server_name(), expected.as_deref(), "{name}");
    }

    // The first certificate is for all other names, and the client is right to refuse it.
    for name in ["a.b.example.org", "org", "other.test"] {
        let setup = Setup {
            name,
            server: server.clone(),
            ..Setup::default()
        };
        let (mut pair, ..) = setup.logged();
        pair.talk();
        let [client, server] = pair.reasons();
        assert!(client.contains("not valid for name"), "{name}: {client}");
        assert!(server.contains("alert"), "{name}: {server}");
    }
}

/// A name may have a certificate for each kind of key.
#[test]
fn a_client_gets_a_key_that_it_knows() {
    let both = certificates::with(certificates::server("localhost"), "localhost-rsa");
    let tls = both.build().unwrap();
    for (suites, suite) in [
        ("ECDHE_RSA", "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384"),
        ("ECDHE_ECDSA", "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384"),
    ] {
        // In TLS 1.2 the suite says which kind of key it is for.
        let mut provider = rustls::crypto::ring::default_provider();
        let of_kind =
            |it: &rustls::SupportedCipherSuite| format!("{:?}", it.suite()).contains(suites);
        provider.cipher_suites.retain(of_kind);
        let mut config = rustls::ClientConfig::builder_with_provider(provider.into())
            .with_protocol_versions(&[&rustls::version::TLS12])
            .unwrap()
            .with_root_certificates(certificates::roots())
            .with_no_client_auth();
        config.enable_sni = suites.ends_with("RSA");
        let setup = Setup {
            server: tls.clone(),
            client: ClientTls::from_rustls(config.into()),
            ..Setup::default()
        };
        let [client, _] = shown(&setup);
        assert_eq!(client.unwrap().cipher_suite(), suite);
    }
}

#[test]
fn a_chain_leads_to_the_authority() {
    let setup = of(
        certificates::server("chained"),
        certificates::client().build().unwrap(),
    );
    let [client, _] = shown(&setup).map(Option::unwrap);
    assert_eq!(client.peer_certificates().len(), 2);
}

#[test]
fn servers_that_the_client_does_not_trust_are_refused() {
    let refused = |server: &str, client: ClientTls, reason: &str| {
        let setup = of(certificates::server(server), client);
        let (mut pair, client, server) = setup.logged();
        pair.talk();
        let [of_client, of_server] = pair.reasons();
        assert!(of_client.contains(reason), "{of_client}");
        assert!(of_server.contains("the peer sent the alert"), "{of_server}");
        assert_eq!(client.entries().len() + server.entries().len(), 0);
    };
    let other = || ClientTls::builder().roots(file("other-authority.pem"));
    refused("localhost", other().build().unwrap(), "UnknownIssuer");
    let usual = || certificates::client().build().unwrap();
    refused("expired", usual(), "expired");

    for name in ["localhost", "expired", "example"] {
        let insecure = ClientTls::builder().insecure().build().unwrap();
        let setup = of(certificates::server(name), insecure);
        assert!(shown(&setup)[0].is_some(), "{name}");
    }
}

#[test]
fn application_protocols_are_agreed_on() {
    let server = || {
        certificates::server("localhost")
            .alpn("h2")
            .alpn("http/1.1")
    };
    let client = |offered: &[&str]| {
        let client = certificates::client();
        let client = offered
            .iter()
            .fold(client, |client, name| client.alpn(name));
        client.build().unwrap()
    };
    for (offered, agreed) in [
        (&["h2"][..], Some("h2")),
        (&["http/1.1", "h2"], Some("h2")),
        (&["spdy", "http/1.1"], Some("http/1.1")),
        (&[], None),
    ] {
        for info in shown(&of(server(), client(offered))) {
            let info = info.unwrap();
            assert_eq!(info.alpn(), agreed.map(str::as_bytes), "{offered:?}");
        }
    }

    let (mut pair, ..) = of(server(), client(&["spdy"])).logged();
    pair.talk();
    let [client, server] = pair.reasons();
    assert!(client.ends_with("the peer sent the alert NoApplicationProtocol"));
    assert!(
        server.ends_with("no application protocol in common"),
        "{server}"
    );
}

#[test]
fn client_certificates_are_checked() {
    let server = |wanted| {
        certificates::server("localhost").client_certificates(wanted, file("authority.pem"))
    };
    let required = || server(ClientCertificates::Required);
    let optional = || server(ClientCertificates::Optional);
    let client = |name| certificates::client_with(name).build().unwrap();
    let bare = || certificates::client().build().unwrap();

    for builder in [required(), optional()] {
        let [_, server] = shown(&of(builder, client("alice"))).map(Option::unwrap);
        assert_eq!(server.peer_subject().unwrap(), "CN=alice,O=Example\\, Ltd");
        assert_eq!(server.peer_common_name().unwrap(), "alice");
        assert_eq!(server.peer_names(), ["alice.example.org"]);
        assert_eq!(server.peer_certificates().len(), 1);
    }
    let [_, server] = shown(&of(optional(), bare())).map(Option::unwrap);
    assert_eq!(server.peer_certificates().len(), 0);
    assert_eq!(server.peer_subject(), None);

    for (builder, client, reason) in [
        (required(), bare(), "the peer sent no certificate"),
        (required(), client("expired-client"), "expired"),
        (required(), client("stranger"), "UnknownIssuer"),
        (optional(), client("stranger"), "UnknownIssuer"),
    ] {
        let (mut pair, client, server) = of(builder, client).logged();
        pair.talk();
        let [of_client, of_server] = pair.reasons();
        assert!(of_server.contains(reason), "{of_server}");
        // In TLS 1.3 the client's handshake is over before the server has seen its certificate.
        assert!(of_client.contains("the peer sent the alert"), "{of_client}");
        assert_eq!(client.entries()[..1], ["made"]);
        assert_eq!(server.entries().len(), 0);
    }
}

#[test]
fn sessions_are_resumed_with_all_that_they_had() {
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let tls = certificates::server("localhost")
            .client_certificates(ClientCertificates::Optional, file("authority.pem"))
            .alpn("one")
            .build()
            .unwrap();
        let mut config = certificates::rustls_client_with(&[version], "alice");
        config.alpn_protocols = vec![b"one".to_vec()];
        let client = ClientTls::from_rustls(config.into());
        let mut resumed = Vec::new();
        for round in 0..3 {
            // A clone is another worker.
            let setup = Setup {
                server: tls.clone(),
                client: client.clone(),
                ..Setup::default()
            };
            for info in shown(&setup).map(Option::unwrap) {
                assert_eq!(info.is_resumed(), round > 0);
                assert_eq!(info.alpn(), Some(&b"one"[..]));
                assert_eq!(info.server_name(), Some("localhost"));
                resumed.push(info.peer_subject().unwrap());
            }
        }
        resumed.sort();
        resumed.dedup();
        assert_eq!(resumed, ["CN=alice,O=Example\\, Ltd", "CN=localhost"]);
    }
}

/// A clock for rustls that stands still in the morning of the year 2020.
#[derive(Debug)]
struct Then;

impl rustls::time_provider::TimeProvider for Then {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(seconds(1_577_880_000)))
    }
}

/// Each resumption gives the client another ticket, so a session could go on without end.
#[test]
fn a_session_ends_with_the_clients_certificate() {
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let roots = certificates::roots().into();
        let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider.clone());
        let mut config = rustls::ServerConfig::builder_with_details(provider, Arc::new(Then))
            .with_protocol_versions(&[version])
            .unwrap()
            .with_client_cert_verifier(verifier.build().unwrap())
            .with_single_cert(
                certificates::chain("localhost"),
                certificates::key("localhost"),
            )
            .unwrap();
        config.ticketer = rustls::crypto::ring::Ticketer::new().unwrap();
        let tls = ServerTls::from_rustls(config.into()).unwrap();

        for (name, reason) in [
            ("alice", None),
            (
                "expired-client",
                Some("protocol error: TLS: the client's certificate has expired"),
            ),
        ] {
            let client = certificates::rustls_client_with(&[version], name);
            for resumed in [false, true] {
                let server = session(Tls::server(&tls), &timeless(), |_, _| Some(Echo));
                let mut foreign = Foreign::with(server, client.clone());
                assert_eq!(foreign.talk(), None);
                let kind = foreign.client.handshake_kind();
                assert_eq!(
                    kind == Some(rustls::HandshakeKind::Resumed),
                    resumed,
                    "{name}"
                );
                let ended = foreign.server.reason().map(ToString::to_string);
                assert_eq!(ended.as_deref(), reason.filter(|_| resumed), "{name}");
            }
        }
    }
}

/// A client with a session sends nothing before the handshake, because no ticket allows it.
#[test]
fn early_data_is_not_offered() {
    let provider = rustls::crypto::ring::default_provider();
    let mut config = rustls::ServerConfig::builder_with_provider(provider.into())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            certificates::chain("localhost"),
            certificates::key("localhost"),
        )
        .unwrap();
    config.max_early_data_size = 1_000;
    let given = ServerTls::from_rustls(config.into()).unwrap();

    for tls in [certificates::server("localhost").build().unwrap(), given] {
        let mut config = certificates::rustls_client(&[&rustls::version::TLS13]);
        config.enable_early_data = true;
        for resumed in [false, true] {
            let server = session(Tls::server(&tls), &timeless(), |_, _| Some(Echo));
            let mut foreign = Foreign::with(server, config.clone());
            assert!(foreign.client.early_data().is_none());
            assert_eq!(foreign.talk(), None);
            foreign.write(b"hello");
            assert_eq!(foreign.talk(), None);
            assert_eq!(foreign.read(), (b"hello".to_vec(), false));
            let kind = foreign.client.handshake_kind();
            assert_eq!(kind == Some(rustls::HandshakeKind::Resumed), resumed);
        }
    }
}

#[test]
fn old_versions_are_refused() {
    let new = certificates::server("localhost").oldest_version(TlsVersion::Tls13);
    let (mut pair, ..) = of(new, certificates::client_of(TlsVersion::Tls12)).logged();
    pair.talk();
    let [client, server] = pair.reasons();
    assert!(client.contains("ProtocolVersion"), "{client}");
    assert!(server.contains("Tls12"), "{server}");
}

#[test]
fn whoever_speaks_no_tls_is_told_at_once() {
    let alert = [21, 3, 3, 0, 2, 2, 50];
    for (said, shown) in [
        (
            &b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"[..],
            "\"GET / HTTP/1.1..\"",
        ),
        (b"G", "\"G\""),
        (b"\x16\x02", "16 02"),
        (b"\x80\x2e\x01\x03\x01", "80 2e 01 03 01"),
        (b"\x00", "00"),
        (b"\x16\x03\x01\xff\xff", "16 03 01 ff ff"),
    ] {
        let (mut pair, _, server) = Setup::default().logged();
        pair.server.receive(said);
        let reason = format!("protocol error: not TLS: the peer began with {shown}");
        assert_eq!(pair.reasons()[1], reason);
        assert_eq!(pair.server.sent()[..5], alert[..5], "{shown}");
        assert_eq!(server.entries().len(), 0);
    }
}

#[test]
fn a_broken_record_gets_an_alert_and_an_error() {
    for (record, reason) in [
        (
            &b"\x17\x03\x03\x00\x20 this is encrypted by nobody....."[..],
            "cannot decrypt peer's message",
        ),
        (b"\x14\x03\x03\x00\x02\x01\x01", "InappropriateMessage"),
        (b"GET", "TLS: no record, its type is unknown: \"GET\""),
    ] {
        let (mut pair, _, server) = Setup::default().logged();
        pair.talk();
        pair.server.receive(record);
        let [_, of_server] = pair.reasons();
        println!("{of_server}");
        let alert = pair.server.sent();
        assert_eq!(alert[..3], [23, 3, 3], "encrypted");
        pair.client.receive(&alert);
        let [of_client, _] = pair.reasons();
        assert!(of_client.contains("the peer sent the alert"), "{of_client}");
        assert!(
            of_server.contains(reason) || reason == "InappropriateMessage",
            "{of_server}"
        );
        assert_eq!(server.entries()[0], "made");
    }
}

#[test]
fn a_handshake_that_stops_runs_out_of_time() {
    let setup = Setup {
        config: serveloop::Config {
            limits: serveloop::Limits {
                handshake_timeout: Some(seconds(3)),
                // They are for what comes after the handshake.
                first_message_timeout: Some(seconds(1)),
                message_timeout: Some(seconds(1)),
                ..timeless().limits
            },
            ..timeless()
        },
        ..Setup::default()
    };
    let whole = setup.logged().0.client.sent();
    for count in [0, 1, 100, whole.len()] {
        let (mut pair, ..) = setup.logged();
        pair.server.receive(&whole[..count]);
        pair.server.advance(seconds(2));
        assert_eq!(pair.reasons()[1], "open");
        pair.server.advance(seconds(1));
        let reason = "timed out: the handshake was not completed in time";
        assert_eq!(pair.reasons()[1], reason, "{count} bytes");
    }
}

/// A handshake message in pieces is kept, counted, and not without end.
#[test]
fn a_handshake_message_in_pieces_is_bounded() {
    // A hello of 60,000 bytes, one in each record.
    let record = |byte: u8| [22, 3, 1, 0, 1, byte];
    let head = [1, 0, 0xEA, 0x60];
    let (mut pair, ..) = Setup::default().logged();
    let mut most = 0;
    for byte in head.into_iter().chain([3; 60_000]) {
        pair.server.receive(&record(byte));
        if pair.server.reason().is_some() {
            break;
        }
        most = most.max(pair.server.held());
    }
    let reason = "protocol error: TLS: a handshake message in too many records";
    assert_eq!(pair.reasons()[1], reason);
    assert!((100_000..400_000).contains(&most), "{most}");
}

#[test]
fn a_reload_concerns_new_handshakes_only() {
    let scratch = crate::support::Scratch::new();
    let (chain, key) = (scratch.path("chain"), scratch.path("key"));
    let copy = |name: &str| {
        std::fs::copy(file(&format!("{name}.pem")), &chain).unwrap();
        std::fs::copy(file(&format!("{name}.key")), &key).unwrap();
    };
    copy("localhost");
    let tls = ServerTls::builder()
        .certificate(chain.clone(), key.clone())
        .build()
        .unwrap();
    let setup = || Setup {
        server: tls.clone(),
        client: ClientTls::builder().insecure().build().unwrap(),
        ..Setup::default()
    };
    let subject = || shown(&setup())[0].as_ref().unwrap().peer_subject().unwrap();

    let log = Log::default();
    let noted = log.clone();
    let hello = move |_: &Peer, _: &TlsInfo| {
        let greet = |transport: &mut Transport<'_>| {
            transport.write(b"hello");
            Ok(())
        };
        Some(
            Probe::new(&noted)
                .made(greet)
                .shutdown(|transport| transport.write(b"again")),
        )
    };
    let mut open = setup().pair(hello, |_, _| Some(Echo));
    open.talk();

    copy("example");
    assert_eq!(subject(), "CN=localhost");
    tls.reload().unwrap();
    assert_eq!(subject(), "CN=example.org");

    // Bad files change nothing.
    std::fs::copy(file("localhost.key"), &key).unwrap();
    let error = tls.reload().unwrap_err().to_string();
    assert!(error.contains("does not match the certificate"), "{error}");
    assert_eq!(subject(), "CN=example.org");
    std::fs::remove_file(&chain).unwrap();
    let error = tls.reload().unwrap_err().to_string();
    assert!(error.contains(&*chain.to_string_lossy()), "{error}");
    assert_eq!(subject(), "CN=example.org");

    // The connection that was open before all this is as it was.
    open.client.shutdown();
    open.talk();
    assert_eq!(
        log.entries(),
        ["made", "data hello", "shutdown", "data again"]
    );
    assert_eq!(open.reasons(), ["open", "open"]);
}

/// A self-signed certificate has no authority, so it is trusted itself.
#[test]
fn a_certificate_among_the_roots_is_trusted_for_its_own_name() {
    let client = |roots: &str| ClientTls::builder().roots(file(roots)).build().unwrap();
    let reasons = |server: &str, roots: &str, name: &'static str| {
        let setup = Setup {
            name,
            ..of(certificates::server(server), client(roots))
        };
        let (mut pair, _, _) = setup.logged();
        pair.talk();
        let [reason, _] = pair.reasons();
        reason
    };

    assert_eq!(reasons("localhost", "localhost.pem", "localhost"), "open");
    assert_eq!(reasons("localhost", "localhost.pem", "127.0.0.1"), "open");
    for (server, roots, name, problem) in [
        (
            "localhost",
            "localhost.pem",
            "example.org",
            "not valid for name",
        ),
        ("localhost", "example.pem", "localhost", "UnknownIssuer"),
        ("expired", "expired.pem", "localhost", "expired"),
    ] {
        let reason = reasons(server, roots, name);
        assert!(
            reason.contains(problem),
            "{server} {roots} {name}: {reason}"
        );
    }
}
