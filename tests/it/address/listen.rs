//! What to listen on, as it is written: an address with options in a query.

use std::path::PathBuf;
use std::time::Duration;

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use serveloop::net::{ListenOptions, NetworkList};
use serveloop::{Address, Config, Listen, Server};

use crate::support::cases;

fn read(uri: &str) -> Listen {
    uri.parse().unwrap_or_else(|error| panic!("{error}"))
}

#[track_caller]
fn refused(uri: &str) -> String {
    match uri.parse::<Listen>() {
        Ok(listen) => panic!("{uri} is {listen:?}"),
        Err(error) => error.to_string(),
    }
}

/// Checks URIs, each with its address and how it is written again.
#[track_caller]
fn check_uris(cases: &[(&str, &str, &str)]) {
    for (uri, address, again) in cases {
        let listen = read(uri);
        assert_eq!(listen.address().to_string(), *address, "{uri}");
        assert_eq!(listen.to_string(), *again, "{uri}");
        assert_eq!(read(again), listen, "{uri}");
    }
}

#[test]
fn a_uri_of_datagrams_is_an_address_with_options() {
    check_uris(&[
        (
            "udp://127.0.0.1:7?reuse-port=true&receive-buffer=1MiB",
            "udp://127.0.0.1:7",
            "udp://127.0.0.1:7?reuse-port=true&receive-buffer=1MiB",
        ),
        (
            "udp://239.1.2.3:7?ttl=4&source=192.0.2.1&interface=eth0&loopback=false&broadcast=true",
            "udp://239.1.2.3:7",
            "udp://239.1.2.3:7?interface=eth0&source=192.0.2.1&ttl=4&loopback=false&broadcast=true",
        ),
        (
            "udp://[ff02::1]:7?interface=fe80::1&source=2001:db8::1",
            "udp://[ff02::1]:7",
            "udp://[ff02::1]:7?interface=fe80::1&source=2001:db8::1",
        ),
        (
            "udp://:7?broadcast=true",
            "udp://[::]:7",
            "udp://:7?broadcast=true",
        ),
    ]);
}

#[test]
fn a_uri_is_an_address_with_options() {
    check_uris(&[
        (
            "tcp://127.0.0.1:9999",
            "tcp://127.0.0.1:9999",
            "tcp://127.0.0.1:9999",
        ),
        (
            "tcp://127.0.0.1:9999?",
            "tcp://127.0.0.1:9999",
            "tcp://127.0.0.1:9999",
        ),
        (
            "tcp://[::]:9999?dual-stack=true&keepalive=60s&backlog=4096",
            "tcp://[::]:9999",
            "tcp://[::]:9999?dual-stack=true&keepalive=60s&backlog=4096",
        ),
        (
            "tcp://[::]:1?backlog=1&keepalive=1m30s",
            "tcp://[::]:1",
            "tcp://[::]:1?keepalive=90s&backlog=1",
        ),
        ("tcp://:9999", "tcp://[::]:9999", "tcp://:9999"),
        ("tcp://*:9999", "tcp://[::]:9999", "tcp://:9999"),
        ("udp://:0", "udp://[::]:0", "udp://:0"),
        (
            "tcp://*:0?keepalive=0",
            "tcp://[::]:0",
            "tcp://:0?keepalive=0",
        ),
        (
            "tcp://:0?dual-stack=true",
            "tcp://[::]:0",
            "tcp://:0?dual-stack=true",
        ),
        (
            "tcp://[fe80::1%2]:9999?nodelay=false",
            "tcp://[fe80::1%2]:9999",
            "tcp://[fe80::1%2]:9999?nodelay=false",
        ),
        (
            "unix:///run/x.sock?mode=660&group=www",
            "unix:///run/x.sock",
            "unix:///run/x.sock?mode=0660&group=www",
        ),
        (
            "unixgram://x?socket-mode=0777&socket-group=33",
            "unixgram://x",
            "unixgram://x?mode=0777&group=33",
        ),
        (
            "unix:///a%20b?group=a%26b+c",
            "unix:///a b",
            "unix:///a%20b?group=a%26b+c",
        ),
        ("unix:///a%20b", "unix:///a%20b", "unix:///a%20b"),
        ("unix:///what%3F?", "unix:///what?", "unix:///what%3F?"),
    ]);
}

#[test]
fn every_option_is_read() {
    let listen = read(
        "tcp://[::]:1?dual-stack=false&keepalive=2h&backlog=5&nodelay=true&reuse-address=false\
         &reuse-port=true&send-buffer=4KiB&receive-buffer=4097",
    );
    let options = ListenOptions {
        dual_stack: Some(false),
        keepalive: Some(Duration::from_secs(7_200)),
        backlog: Some(5),
        nodelay: Some(true),
        reuse_address: Some(false),
        reuse_port: Some(true),
        send_buffer: Some(4_096),
        receive_buffer: Some(4_097),
        ..ListenOptions::default()
    };
    assert_eq!(listen.options(), &options);
    assert_eq!(listen, Listen::new(listen.address().clone(), options));

    let listen = read("unix:///run/x?mode=0640&group=www");
    assert_eq!(listen.options().mode, Some(0o640));
    assert_eq!(listen.options().group.as_deref(), Some("www"));
}

/// Each error names the whole text and the problem.
#[track_caller]
fn check_refusals(cases: &[(&str, &str)]) {
    for (uri, said) in cases {
        let error = refused(uri);
        assert!(error.starts_with(&format!("{uri:?}: ")), "{error}");
        assert!(error.contains(said), "{error}");
    }
}

#[test]
fn what_is_wrong_with_options_of_datagrams_is_said() {
    check_refusals(&[
        ("tcp://127.0.0.1:1?ttl=3", "ttl is for udp"),
        ("unixgram:///x?ttl=3", "ttl is for udp"),
        ("udp://127.0.0.1:1?ttl=0", "ttl must be from 1 to 255"),
        ("udp://127.0.0.1:1?ttl=256", "ttl must be from 1 to 255"),
        ("udp://127.0.0.1:1?ttl=-1", "ttl: expected a number"),
        (
            "udp://127.0.0.1:1?interface=eth0",
            "interface is for multicast addresses of udp",
        ),
        (
            "tcp://239.1.2.3:1?source=10.0.0.1",
            "source is for multicast addresses of udp",
        ),
        (
            "udp://[::1]:1?loopback=true",
            "loopback is for multicast addresses of udp",
        ),
        (
            "udp://[::1]:1?broadcast=true",
            "broadcast is for udp at addresses of IPv4",
        ),
        ("tcp://1.2.3.4:1?broadcast=true", "broadcast is for udp"),
        ("udp://239.1.2.3:1?broadcast=1", "expected true or false"),
        ("tcp://1.2.3.4:1?packet-info=true", "packet-info is for udp"),
        ("unixgram:///x?packet-info=true", "packet-info is for udp"),
        ("udp://1.2.3.4:1?packet-info=1", "expected true or false"),
        ("tcp://1.2.3.4:1?gro=true", "gro is for udp"),
        ("udp://239.1.2.3:1?source=here", "expected an address of IP"),
        ("udp://239.1.2.3:1?source=::1", "of the same family"),
        ("udp://239.1.2.3:1?source=239.0.0.1", "of one machine"),
        ("udp://[ff02::1]:1?source=10.0.0.1", "of the same family"),
        (
            "udp://239.1.2.3:1?interface=",
            "interface must be a name or an address",
        ),
        ("udp://239.1.2.3:1?interfaces=x", "the nearest is interface"),
    ]);
}

#[test]
fn what_is_wrong_is_said() {
    check_refusals(&[
        ("127.0.0.1:9999", "no scheme"),
        ("http://127.0.0.1:80?backlog=1", "unknown scheme"),
        ("tcp://localhost:80?backlog=1", "expected IP:PORT"),
        ("tcp://:?backlog=1", "expected IP:PORT"),
        ("tcp://**:1", "expected IP:PORT"),
        ("unix://:1?nodelay=true", "nodelay is for tcp"),
        ("tcp://127.0.0.1:1?backlogs=1", "the nearest is backlog"),
        (
            "tcp://127.0.0.1:1?keep-alive=1s",
            "the nearest is keepalive",
        ),
        ("unix:///x?mod=0660", "the nearest is mode"),
        ("unix:///x?Mode=0660", "the nearest is mode"),
        ("tcp://127.0.0.1:1?=1", "there is no option \"\""),
        ("tcp://127.0.0.1:1?backlog", "expected OPTION=VALUE"),
        ("tcp://127.0.0.1:1?backlog=1&", "expected OPTION=VALUE"),
        ("tcp://127.0.0.1:1?&", "expected OPTION=VALUE"),
        ("unix:///tmp/what?.sock", "a question mark in a path"),
        (
            "tcp://1.2.3.4:1?backlog=1&backlog=1",
            "backlog is given twice",
        ),
        ("unix:///x?mode=1&socket-mode=1", "mode is given twice"),
        ("tcp://127.0.0.1:1?backlog=", "expected a number"),
        ("tcp://127.0.0.1:1?backlog=-1", "expected a number"),
        ("tcp://127.0.0.1:1?backlog=0", "backlog must be at least 1"),
        ("tcp://127.0.0.1:1?keepalive=60", "expected a duration"),
        ("tcp://127.0.0.1:1?keepalive=10h", "at most 32767s"),
        ("tcp://127.0.0.1:1?nodelay=yes", "expected true or false"),
        ("tcp://127.0.0.1:1?send-buffer=2GiB", "less than 2 GiB"),
        ("tcp://127.0.0.1:1?send-buffer=1KB", "expected bytes"),
        ("unix:///x?mode=rw", "expected permissions in octal"),
        ("unix:///x?mode=0888", "expected permissions in octal"),
        ("unix:///x?mode=1777", "mode must be at most 0777"),
        ("unix:///x?group=", "group must be a name or a number"),
        ("unix:///x?group=%zz", "a percent sign is written %25"),
        ("unix:///x%?mode=0660", "a percent sign is written %25"),
        ("unix:///x%FF?", "not UTF-8"),
        ("unix:///x%00?", "a path cannot contain a NUL"),
        ("unix://?mode=0660", "no path"),
        ("tcp://127.0.0.1:1?mode=0660", "mode is for unix"),
        ("udp://127.0.0.1:1?group=www", "group is for unix"),
        ("udp://127.0.0.1:1?keepalive=60s", "keepalive is for tcp"),
        ("unix:///x?keepalive=60s", "keepalive is for tcp"),
        (
            "unixgram:///x?backlog=5",
            "backlog is for tcp, unix and vsock",
        ),
        (
            "udp://127.0.0.1:1?backlog=5",
            "backlog is for tcp, unix and vsock",
        ),
        ("unix:///x?reuse-port=true", "reuse-port is for tcp and udp"),
        ("unix:///x?dual-stack=true", "dual-stack is for tcp and udp"),
        ("tcp://0.0.0.0:1?dual-stack=true", "the address [::]"),
        ("tcp://[::1]:1?dual-stack=true", "the address [::]"),
        ("tcp://:1?dual-stack=false", "needs an address"),
        (
            "tcp://127.0.0.1:1?idle-timeouts=1s",
            "the nearest is idle-timeout",
        ),
        ("tcp://127.0.0.1:1?idle-timeout=1", "expected a duration"),
        (
            "udp://127.0.0.1:1?idle-timeout=1s&sessions=false",
            "idle-timeout is for tcp, unix, vsock and datagrams with sessions=true",
        ),
        ("udp://127.0.0.1:1?max-frame=x", "max-frame: expected bytes"),
    ]);
}

#[cfg(target_os = "linux")]
#[test]
fn a_name_outside_the_file_system_has_no_permissions() {
    for uri in ["unix:@name?backlog=5", "unix://@name?backlog=5"] {
        let listen = read(uri);
        assert_eq!(listen.address().path().unwrap(), PathBuf::from("\0name"));
        assert_eq!(listen.to_string(), "unix://@name?backlog=5");
    }
    assert_eq!(
        read("unix:@a%3Fb?").address(),
        &Address::Unix("\0a?b".into())
    );
    for uri in ["unix:@name?mode=0660", "unixgram://@name?group=www"] {
        assert!(refused(uri).contains("with a path"));
    }
    // An encoded @ is a part of a path.
    let listen = read("unix://%40name?mode=0660");
    assert_eq!(listen.address(), &Address::Unix("@name".into()));
    assert_eq!(read(&listen.to_string()), listen);
}

#[test]
fn hosts_and_interfaces_are_looked_up() {
    let found = Listen::resolve("tcp://localhost:80?keepalive=60s&backlog=5").unwrap();
    assert!(!found.is_empty());
    for listen in &found {
        assert!(listen.to_string().ends_with(":80?keepalive=60s&backlog=5"));
    }
    assert_eq!(Listen::resolve("tcp://:80").unwrap(), [read("tcp://:80")]);

    #[cfg(target_os = "linux")]
    for uri in [
        "tcp://[fe80::1%lo]:80?backlog=5",
        "tcp://[fe80::1%25lo]:80?backlog=5",
    ] {
        let found = Listen::resolve(uri).unwrap();
        assert_eq!(found, [read("tcp://[fe80::1%1]:80?backlog=5")]);
    }

    for (uri, said) in [
        ("tcp://localhost:80?backlogs=5", "the nearest is backlog"),
        ("tcp://localhost:80?dual-stack=true", "the address [::]"),
        ("tcp://localhost:80?mode=0660", "mode is for unix"),
        ("tcp://:80?dual-stack=false", "needs an address"),
        ("tcp://[fe80::1%nowhere]:80?backlog=5", "nowhere"),
        ("tcp://:http", "expected HOST:PORT"),
        ("unix://?", "no path"),
    ] {
        let error = Listen::resolve(uri).unwrap_err().to_string();
        assert!(error.contains(said), "{error}");
    }
}

/// What a program put together is checked when it is bound, and the message says what it would be
/// as a text.
#[test]
fn options_that_do_not_fit_are_refused_when_they_are_bound() {
    let options = ListenOptions {
        keepalive: Some(Duration::from_secs(60)),
        ..ListenOptions::default()
    };
    let listen = Listen::new("udp://127.0.0.1:0".parse().unwrap(), options);
    let error = Server::bind_with(&[listen], Config::default()).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput);
    let said = "\"udp://127.0.0.1:0?keepalive=60s\": keepalive is for tcp";
    assert_eq!(error.to_string(), said);
}

/// A program's own options are told apart from the library's, and are errors in the same cases.
#[test]
fn options_of_others_are_given_to_them() {
    let names = ["proxy", "trust"];
    for (uri, listen, expected) in [
        ("tcp://127.0.0.1:9", "tcp://127.0.0.1:9", &[][..]),
        (
            "tcp://127.0.0.1:9?trust=a%2Cb&backlog=5&proxy=",
            "tcp://127.0.0.1:9?backlog=5",
            &[("trust", "a,b"), ("proxy", "")],
        ),
        (
            "unix:///run/what%3F?proxy=on",
            "unix:///run/what%3F?",
            &[("proxy", "on")],
        ),
        (
            "tcp://127.0.0.1:9?proxy=a&backlog=5&proxy=b",
            "tcp://127.0.0.1:9?backlog=5",
            &[("proxy", "a"), ("proxy", "b")],
        ),
    ] {
        let (listens, others) = Listen::resolve_with(uri, &names).unwrap();
        assert_eq!(listens, [read(listen)]);
        let others: Vec<_> = others.iter().map(|(a, b)| (&**a, &**b)).collect();
        assert_eq!(others, expected, "{uri}");
    }

    for (uri, problem) in [
        ("tcp://127.0.0.1:9?prox=on", "the nearest is proxy"),
        ("tcp://127.0.0.1:9?backlogs=5", "the nearest is backlog"),
        (
            "tcp://127.0.0.1:9?proxy=on&proxy=on&backlog=1&backlog=1",
            "backlog is given twice",
        ),
        ("tcp://127.0.0.1:9?proxy", "expected OPTION=VALUE"),
        ("tcp://127.0.0.1:9?proxy=%zz", "proxy: "),
        ("tcp://127.0.0.1:9?proxy=on&mode=0660", "mode is for unix"),
    ] {
        let error = Listen::resolve_with(uri, &names).unwrap_err().to_string();
        assert!(error.contains(problem) && error.contains(uri), "{error}");
        assert!(uri.parse::<Listen>().is_err());
    }
}

/// An address that cannot be bound is missing from its place, and shifts no other.
#[test]
fn each_address_knows_its_place() {
    let place = |uris: &[&str]| uris.iter().map(|uri| read(uri)).collect::<Vec<_>>();
    let (ours, other) = ("tcp://127.0.0.1:0", "tcp://192.0.2.77:0");
    let places = [
        place(&[other, ours]),
        place(&[ours, other, ours]),
        place(&[ours]),
    ];
    let server = Server::bind_places_with(&places, Config::default()).unwrap();
    assert_eq!(server.places(), [0, 1, 1, 2]);
    let server = Server::bind_with(&place(&[ours, ours]), Config::default()).unwrap();
    assert_eq!(server.places(), [0, 1]);
}

fn addresses() -> impl Strategy<Value = Address> {
    let path = || "[^\0]{1,30}".prop_map(PathBuf::from);
    prop_oneof![
        any::<(std::net::Ipv4Addr, u16)>().prop_map(|at| Address::Tcp(at.into())),
        any::<(std::net::Ipv6Addr, u16)>().prop_map(|at| Address::Udp(at.into())),
        path().prop_map(Address::Unix),
        path().prop_map(Address::Unixgram),
        Just(Address::Tcp((std::net::Ipv6Addr::UNSPECIFIED, 1).into())),
    ]
}

prop_compose! {
    fn options()(
        dual_stack in option::of(any::<bool>()),
        keepalive in option::of((0_u64..=32_767).prop_map(Duration::from_secs)),
        backlog in option::of(1..=i32::MAX),
        flags in (option::of(any::<bool>()), option::of(any::<bool>()), option::of(any::<bool>())),
        sizes in (option::of(0..=i32::MAX as usize), option::of(0..=i32::MAX as usize)),
        mode in option::of(0_u32..=0o777),
        group in option::of("[^\0]{1,9}"),
        proxies in option::of(prop_oneof![Just(""), Just("unix"), Just("10.0.0.0/8,::1/128,unix")]),
    ) -> ListenOptions {
        let (nodelay, reuse_address, reuse_port) = flags;
        let (send_buffer, receive_buffer) = sizes;
        let list = |text: &str| match text {
            "" => NetworkList::default(),
            text => text.parse().unwrap(),
        };
        let trusted_proxies = proxies.map(list);
        ListenOptions {
            dual_stack, keepalive, backlog, nodelay, reuse_address, reuse_port, send_buffer,
            receive_buffer, mode, group, trusted_proxies, max_frame: sizes.0, idle_timeout: keepalive,
            ..ListenOptions::default()
        }
    }
}

/// The options that fit an address.
fn fitting(address: &Address, all: ListenOptions) -> ListenOptions {
    let none = ListenOptions::default();
    let (send_buffer, receive_buffer) = (all.send_buffer, all.receive_buffer);
    let both = ListenOptions {
        send_buffer,
        receive_buffer,
        ..none
    };
    let is_every = address
        .socket_addr()
        .is_some_and(|at| at.is_ipv6() && at.ip().is_unspecified());
    match address {
        Address::Tcp(_) => ListenOptions {
            mode: None,
            group: None,
            dual_stack: all.dual_stack.filter(|it| !it || is_every),
            ..all
        },
        Address::Udp(_) => ListenOptions {
            reuse_port: all.reuse_port,
            ..both
        },
        Address::Unix(_) => ListenOptions {
            backlog: all.backlog,
            mode: all.mode,
            group: all.group,
            trusted_proxies: all.trusted_proxies,
            ..both
        },
        Address::Unixgram(_) => ListenOptions {
            mode: all.mode,
            group: all.group,
            ..both
        },
        Address::Vsock(_) => ListenOptions {
            backlog: all.backlog,
            trusted_proxies: all.trusted_proxies,
            ..both
        },
    }
}

proptest! {
    #![proptest_config(cases(2_000))]

    #[test]
    fn what_is_written_is_read_again(address in addresses(), options in options()) {
        let options = fitting(&address, options);
        let listen = Listen::new(address, options);
        let written = listen.to_string();
        prop_assert!(!written.chars().any(char::is_control));
        prop_assert_eq!(written.parse::<Listen>(), Ok(listen), "{}", written);
    }

    #[test]
    fn without_a_query_a_text_is_an_address(
        scheme in "(tcp://|udp://|unix://|unixgram://|unix:|)",
        rest in "[^?]{0,30}",
    ) {
        let text = format!("{scheme}{rest}");
        prop_assume!(!text.contains("://:") && !text.contains("://*:"));
        match (text.parse::<Listen>(), text.parse::<Address>()) {
            (Ok(listen), Ok(address)) => prop_assert_eq!(listen, Listen::from(address)),
            (Err(one), Err(other)) => prop_assert_eq!(one, other),
            differ => prop_assert!(false, "{:?}", differ),
        }
    }

    #[test]
    fn any_text_is_something_to_listen_on_or_a_clear_error(
        scheme in "(tcp://\\[::\\]:1|unix://x|udp://:1|)",
        query in vec("(mode|backlog|keepalive|dual-stack|group|[a-z]{0,5})=?[0-9a-z%&]{0,5}", 0..4),
    ) {
        let text = format!("{scheme}?{}", query.join("&"));
        match text.parse::<Listen>() {
            Ok(listen) => prop_assert_eq!(listen.to_string().parse::<Listen>(), Ok(listen)),
            Err(error) => {
                let said = error.to_string();
                prop_assert!(said.starts_with(&format!("{text:?}: ")), "{}", said);
            }
        }
    }
}
