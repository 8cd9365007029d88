//! Networks of addresses, and lists of them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;
use serveloop::Address;
use serveloop::net::{IpNetwork, NetworkError, NetworkList};

use crate::support::cases;

fn network(text: &str) -> IpNetwork {
    text.parse()
        .unwrap_or_else(|error: NetworkError| panic!("{error}"))
}

#[test]
fn a_network_is_displayed_as_it_is_meant() {
    for (text, shown) in [
        ("10.0.0.0/8", "10.0.0.0/8"),
        ("2001:db8::/32", "2001:db8::/32"),
        ("0.0.0.0/0", "0.0.0.0/0"),
        ("::/0", "::/0"),
        ("255.255.255.255/32", "255.255.255.255/32"),
        ("192.0.2.7", "192.0.2.7/32"),
        ("2001:DB8::7", "2001:db8::7/128"),
        ("10.1.2.3/8", "10.0.0.0/8"),
        ("10.1.2.3/31", "10.1.2.2/31"),
        ("2001:db8::7/127", "2001:db8::6/127"),
        ("10.1.2.3/0", "0.0.0.0/0"),
        ("ffff::/0", "::/0"),
        ("::ffff:192.0.2.7", "192.0.2.7/32"),
        ("::ffff:10.1.2.3/104", "10.0.0.0/8"),
        ("::ffff:0:0/96", "0.0.0.0/0"),
        ("::ffff:0:0/95", "::fffe:0:0/95"),
    ] {
        assert_eq!(network(text).to_string(), shown, "{text}");
        assert_eq!(network(shown), network(text));
    }
}

#[test]
fn what_is_no_network_is_told() {
    for (text, problem) in [
        ("", "expected an IP address or a network"),
        ("localhost", "expected an IP address or a network"),
        ("/8", "expected an IP address or a network"),
        ("10/8", "expected an IP address or a network"),
        ("10.0.0.0.0/8", "expected an IP address or a network"),
        ("010.0.0.0/8", "expected an IP address or a network"),
        (" 10.0.0.0/8", "expected an IP address or a network"),
        ("[::1]", "expected an IP address or a network"),
        ("[::1]/128", "expected an IP address or a network"),
        ("fe80::1%eth0/64", "expected an IP address or a network"),
        ("10.0.0.1:80", "expected an IP address or a network"),
        ("tcp://10.0.0.1", "expected an IP address or a network"),
        ("10.0.0.0-10.0.0.255", "expected an IP address or a network"),
        ("10.0.0.0/", "from 0 to 32"),
        ("10.0.0.0/33", "from 0 to 32"),
        ("10.0.0.0/256", "from 0 to 32"),
        ("10.0.0.0/+8", "from 0 to 32"),
        ("10.0.0.0/-8", "from 0 to 32"),
        ("10.0.0.0/08", "from 0 to 32"),
        ("10.0.0.0/ 8", "from 0 to 32"),
        ("10.0.0.0/8 ", "from 0 to 32"),
        ("10.0.0.0/8/8", "from 0 to 32"),
        ("10.0.0.0/255.0.0.0", "from 0 to 32"),
        ("::/129", "from 0 to 128"),
        ("::ffff:10.0.0.0/129", "from 0 to 128"),
    ] {
        let error = text.parse::<IpNetwork>().unwrap_err().to_string();
        let quoted = format!("{text:?}: ");
        assert!(
            error.starts_with(&quoted) && error.contains(problem),
            "{error}"
        );
    }

    let error = IpNetwork::new(Ipv4Addr::LOCALHOST.into(), 33).unwrap_err();
    assert!(error.to_string().contains("\"127.0.0.1/33\""), "{error}");
}

#[test]
fn the_edges_of_a_network_belong_to_it() {
    for (of, within, outside) in [
        (
            "10.0.0.0/8",
            ["10.0.0.0", "10.255.255.255"],
            ["9.255.255.255", "11.0.0.0"],
        ),
        (
            "192.0.2.7",
            ["192.0.2.7", "::ffff:192.0.2.7"],
            ["192.0.2.6", "192.0.2.8"],
        ),
        (
            "10.0.0.0/8",
            ["::ffff:10.0.0.0", "::ffff:10.9.9.9"],
            ["::10.0.0.0", "::ffff:11.0.0.0"],
        ),
        (
            "2001:db8::/32",
            ["2001:db8::", "2001:db8:ffff::1"],
            ["2001:db7::", "2001:db9::"],
        ),
        ("::/0", ["::1", "ffff::"], ["10.0.0.1", "::ffff:10.0.0.1"]),
        (
            "0.0.0.0/0",
            ["10.0.0.1", "::ffff:10.0.0.1"],
            ["::1", "64:ff9b::10.0.0.1"],
        ),
    ] {
        let of = network(of);
        assert!(
            within.iter().all(|ip| of.contains(ip.parse().unwrap())),
            "{of}"
        );
        assert!(
            !outside.iter().any(|ip| of.contains(ip.parse().unwrap())),
            "{of}"
        );
    }
}

fn ip() -> impl Strategy<Value = IpAddr> {
    // Few bits are set or all, so that addresses share prefixes.
    let v4 = (any::<u32>(), 0..40_u32).prop_map(|(bits, zeros)| {
        IpAddr::V4(Ipv4Addr::from_bits(bits.checked_shl(zeros).unwrap_or(0)))
    });
    let v6 = (any::<u128>(), 0..140_u32).prop_map(|(bits, zeros)| {
        IpAddr::V6(Ipv6Addr::from_bits(bits.checked_shl(zeros).unwrap_or(0)))
    });
    prop_oneof![v4, v6]
}

/// The bits of an address, as text.
fn bits(ip: IpAddr) -> String {
    match ip {
        IpAddr::V4(ip) => format!("{:032b}", ip.to_bits()),
        IpAddr::V6(ip) => format!("{:0128b}", ip.to_bits()),
    }
}

proptest! {
    #![proptest_config(cases(2_000))]

    #[test]
    fn a_network_is_its_first_bits(
        one in ip(),
        other in ip(),
        flips in any::<u128>(),
        prefix in 0..=128_u8,
    ) {
        let Ok(network) = IpNetwork::new(one, prefix) else {
            prop_assert!(one.is_ipv4() && prefix > 32);
            return Ok(());
        };
        prop_assert_eq!(network.to_string().parse::<IpNetwork>().unwrap(), network);
        prop_assert_eq!(network.to_string(), format!("{}/{}", network.address(), network.prefix()));

        // An address that shares the first bits, another that shares fewer, and any.
        let near = |shared: u32| match one {
            IpAddr::V4(ip) => {
                let flips = (flips as u32).checked_shr(shared).unwrap_or(0);
                IpAddr::V4(Ipv4Addr::from_bits(ip.to_bits() ^ flips))
            }
            IpAddr::V6(ip) => {
                let flips = flips.checked_shr(shared).unwrap_or(0);
                IpAddr::V6(Ipv6Addr::from_bits(ip.to_bits() ^ flips))
            }
        };
        for ip in [one, other, near(prefix.into()), near(u32::from(prefix).saturating_sub(3))] {
            let (address, first) = (ip.to_canonical(), network.address());
            let length = usize::from(network.prefix());
            let expected = address.is_ipv4() == first.is_ipv4()
                && bits(address)[..length] == bits(first)[..length];
            prop_assert_eq!(network.contains(ip), expected, "{} in {}", ip, network);
        }
    }

    #[test]
    fn any_text_is_a_list_or_a_clear_error(text in "[0-9a-f.:/, unix]{0,24}") {
        match text.parse::<NetworkList>() {
            Ok(list) => {
                prop_assert!(!list.is_empty());
                prop_assert_eq!(list.to_string().parse::<NetworkList>().unwrap(), list);
            }
            Err(error) => {
                let is_plain = !error.to_string().chars().any(char::is_control);
                prop_assert!(is_plain, "{error}");
            }
        }
    }
}

#[test]
fn a_list_holds_what_any_of_its_entries_holds() {
    let list: NetworkList = " 10.0.0.0/8,\t2001:db8::/32 , 192.0.2.7".parse().unwrap();
    assert_eq!(list.to_string(), "10.0.0.0/8,2001:db8::/32,192.0.2.7/32");
    assert_eq!(list.iter().count(), 3);
    assert!(!list.has_unix() && !list.is_empty());

    let holds = |list: &NetworkList, uri: &str| list.contains(&uri.parse::<Address>().unwrap());
    for uri in [
        "tcp://10.1.2.3:1",
        "udp://10.1.2.3:0",
        "tcp://[::ffff:10.1.2.3]:1",
        "tcp://[2001:db8::1%3]:1",
        "tcp://192.0.2.7:65535",
    ] {
        assert!(holds(&list, uri), "{uri}");
    }
    for uri in [
        "tcp://192.0.2.8:1",
        "tcp://[::1]:1",
        "unix:///run/client",
        "unixgram:///run/client",
    ] {
        assert!(!holds(&list, uri), "{uri}");
    }

    for text in ["unix", "unix:", "10.0.0.0/8,unix"] {
        let list: NetworkList = text.parse().unwrap();
        assert!(list.has_unix() && !list.is_empty());
        assert!(holds(&list, "unix:///run/client"));
        assert!(
            list.contains(&Address::Unix("".into())),
            "a client that did not bind"
        );
        assert!(holds(&list, "unixgram:///run/client"));
        assert!(!holds(&list, "tcp://127.0.0.1:1"));
    }

    let machines: NetworkList = "vsock:3, vsock:2,10.0.0.0/8".parse().unwrap();
    assert_eq!(machines.to_string(), "10.0.0.0/8,vsock:3,vsock:2");
    assert!(holds(&machines, "vsock://3:1") && holds(&machines, "vsock://2:9"));
    assert!(!holds(&machines, "vsock://4:1") && !holds(&machines, "unix:///run/client"));
    let all: NetworkList = "vsock,unix".parse().unwrap();
    assert_eq!(all.to_string(), "vsock,unix");
    assert!(holds(&all, "vsock://4:1") && !all.is_empty());
    assert!(
        "0.0.0.0/0,::/0"
            .parse()
            .is_ok_and(|all| !holds(&all, "vsock://4:1"))
    );
    for text in [
        "vsock:",
        "vsock:+3",
        "vsock:x",
        "vsock:4294967296",
        "vsock:3/8",
        "vsock3",
    ] {
        assert_eq!(
            text.parse::<NetworkList>().is_ok(),
            text == "vsock:",
            "{text}"
        );
    }

    let none = NetworkList::default();
    assert!(none.is_empty());
    assert!(!holds(&none, "tcp://127.0.0.1:1") && !holds(&none, "unix:///run/client"));
    let made: NetworkList = [network("10.0.0.0/8")].into_iter().collect();
    assert!(holds(&made, "tcp://10.0.0.1:1"));
}

#[test]
fn an_entry_that_is_no_network_is_told() {
    for text in [
        "",
        ",",
        "10.0.0.0/8,",
        ",10.0.0.0/8",
        "10.0.0.0/8,,::1",
        " ",
    ] {
        let error = text.parse::<NetworkList>().unwrap_err().to_string();
        assert!(error.contains("an empty entry"), "{error}");
    }
    for (text, entry) in [
        (
            "10.0.0.0/8,localhost",
            "\"localhost\": expected an IP address",
        ),
        (
            "10.0.0.0/8;::1",
            "\"10.0.0.0/8;::1\": expected a prefix length",
        ),
        (
            "10.0.0.0/8 ::1",
            "\"10.0.0.0/8 ::1\": expected a prefix length",
        ),
        ("Unix", "\"Unix\": expected an IP address"),
        (
            "unix:///run/client",
            "\"unix:///run/client\": expected an IP address",
        ),
        ("all", "\"all\": expected an IP address"),
    ] {
        let error = text.parse::<NetworkList>().unwrap_err().to_string();
        assert!(error.starts_with(entry), "{error}");
    }
}
