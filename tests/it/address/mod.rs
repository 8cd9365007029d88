//! Addresses as they are written, looked up and bound.

mod listen;
mod networks;

use std::path::PathBuf;

use serveloop::net::VsockAddr;
use serveloop::{Address, Config, Listen, Server};

fn bind(places: &[&[&str]]) -> Result<Vec<String>, String> {
    let parse = |uris: &&[&str]| uris.iter().map(|uri| uri.parse().unwrap()).collect();
    let places: Vec<Vec<Address>> = places.iter().map(parse).collect();
    let server = Server::bind_places(&places, Config::default());
    let server = server.map_err(|error| error.to_string())?;
    Ok(server.addresses().iter().map(Address::to_string).collect())
}

/// These networks are reserved for documentation, so no machine has this address.
#[test]
fn of_a_place_one_address_that_works_suffices() {
    for scheme in ["tcp", "udp"] {
        let [good, bad, worse] =
            ["127.0.0.1:0", "198.51.100.1:9", "203.0.113.1:9"].map(|at| format!("{scheme}://{at}"));
        for place in [[&*good, &bad], [&bad, &good]] {
            let bound = bind(&[&place, &[&good]]).unwrap();
            assert_eq!(bound.len(), 2, "{bound:?}");
            assert!(bound.iter().all(|it| it.contains("127.0.0.1:")));
        }
        let error = bind(&[&[&good], &[&bad, &worse]]).unwrap_err();
        for address in [&bad, &worse] {
            let named = format!("cannot listen on {address}: ");
            assert!(error.contains(&named), "{error}");
        }
        let error = bind(&[&[&good], &[&bad]]).unwrap_err();
        assert!(error.starts_with("cannot listen on "), "{error}");
    }
}

#[test]
fn no_place_at_all_is_an_error() {
    for places in [&[][..], &[&[][..]]] {
        assert_eq!(bind(places).unwrap_err(), "no address to listen on");
    }
}

#[test]
fn streams_cannot_come_to_an_address_of_several_machines() {
    for at in ["tcp://224.0.0.1:0", "tcp://255.255.255.255:0"] {
        let error = bind(&[&[at]]).unwrap_err();
        assert!(error.contains(at) && error.contains("several machines"));
    }
}

#[test]
fn machines_have_numbers() {
    for (text, shown, cid) in [
        ("vsock://2:1024", "vsock://2:1024", VsockAddr::HOST),
        ("vsock://:9", "vsock://*:9", VsockAddr::ANY),
        ("vsock://*:0", "vsock://*:0", VsockAddr::ANY),
        (
            "vsock://4294967295:4294967294",
            "vsock://*:4294967294",
            VsockAddr::ANY,
        ),
    ] {
        let address: Address = text.parse().unwrap();
        assert_eq!(address.to_string(), shown);
        assert_eq!(shown.parse(), Ok(address.clone()));
        assert!(matches!(&address, Address::Vsock(addr) if addr.cid == cid));
        assert!(
            !address.is_datagram() && address.socket_addr().is_none() && address.path().is_none()
        );
        let listen: Listen = format!("{text}?backlog=5").parse().unwrap();
        assert_eq!(listen.to_string(), format!("{shown}?backlog=5"));
    }
    for text in [
        "vsock://",
        "vsock://2",
        "vsock://2:",
        "vsock://2:-1",
        "vsock://+2:1",
        "vsock://2:4294967295",
        "vsock://4294967296:1",
        "vsock://[2]:1",
        "vsock://**:1",
    ] {
        let error = text.parse::<Address>().unwrap_err().to_string();
        assert!(error.contains("expected CID:PORT"), "{error}");
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_name_outside_the_file_system_is_written_with_an_at() {
    for scheme in ["unix", "unixgram"] {
        let uri = format!("{scheme}://@some name");
        let address: Address = uri.parse().unwrap();
        assert_eq!(address.path().unwrap(), PathBuf::from("\0some name"));
        assert_eq!(address.to_string(), uri);
        let short: Address = format!("{scheme}:@some name").parse().unwrap();
        assert_eq!(short, address);

        let file: Address = format!("{scheme}://./@file").parse().unwrap();
        assert_eq!(file.path().unwrap(), PathBuf::from("./@file"));
        let file = match scheme {
            "unix" => Address::Unix("@file".into()),
            _ => Address::Unixgram("@file".into()),
        };
        let shown = file.to_string();
        assert_eq!(shown, format!("{scheme}://./@file"));
        assert_ne!(shown.parse::<Address>().unwrap(), file);

        for nothing in [format!("{scheme}://@"), format!("{scheme}:@")] {
            let error = nothing.parse::<Address>().unwrap_err().to_string();
            assert!(error.contains("no name after the @"), "{error}");
        }
    }
    assert!("unix:/run/socket".parse::<Address>().is_err());
}

#[test]
fn an_interface_is_a_number_or_a_name() {
    let address: Address = "tcp://[fe80::1%7]:80".parse().unwrap();
    assert_eq!(address.to_string(), "tcp://[fe80::1%7]:80");
    let numbered = Address::resolve("udp://[fe80::1%7]:80").unwrap();
    assert_eq!(numbered[0].to_string(), "udp://[fe80::1%7]:80");
    #[cfg(target_os = "linux")]
    for uri in ["tcp://[fe80::1%lo]:80", "tcp://[fe80::1%25lo]:80"] {
        let named = Address::resolve(uri).unwrap();
        assert_eq!(named.len(), 1);
        assert_eq!(named[0].to_string(), "tcp://[fe80::1%1]:80");
    }
    for uri in [
        "tcp://[fe80::1%nowhere]:80",
        "tcp://[localhost]:80",
        "tcp://[::1:80",
        "tcp://[]:80",
    ] {
        let error = Address::resolve(uri).unwrap_err().to_string();
        assert!(error.contains(uri), "{error}");
    }
}
