//! Addresses as users may write them.

use std::array;
use std::ffi::OsStr;
use std::net::{SocketAddr, SocketAddrV6};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use serveloop::{Address, Listen};

use crate::input::Input;

/// What is shown of an address is not cut to fewer bytes; no socket has a path that long.
const CUT_LEAST: usize = 240;

/// A text is an address, with options or without, or a clear error, and an address is read back as
/// it was written.
/// The first byte says what the others are: a text behind a scheme, or the parts of an address.
///
/// # Panics
/// When it is not.
pub fn target(data: &[u8]) {
    let mut input = Input::new(data);
    let scheme = match input.below(10) {
        0 => "tcp://",
        1 => "udp://",
        2 => "unix://",
        3 => "unixgram://",
        4 => "",
        5 => return made(&Address::Tcp(ip(&mut input))),
        6 => return made(&Address::Udp(ip(&mut input))),
        7 => "vsock://",
        8 => return shown(&Address::Unix(path(input)).to_string()),
        _ => return shown(&Address::Unixgram(path(input)).to_string()),
    };
    read(&format!(
        "{scheme}{}",
        String::from_utf8_lossy(input.rest())
    ));
}

fn ip(input: &mut Input<'_>) -> SocketAddr {
    let mut bytes = || -> [u8; 16] { array::from_fn(|_| input.byte()) };
    let (numbers, more) = (bytes(), bytes());
    let [one, two, three, four, six, high, low, zone, ..] = more;
    let port = u16::from_be_bytes([high, low]);
    if six % 2 == 0 {
        return SocketAddr::from(([one, two, three, four], port));
    }
    SocketAddrV6::new(numbers.into(), port, 0, zone.into()).into()
}

fn path(input: Input<'_>) -> PathBuf {
    OsStr::from_bytes(input.rest()).into()
}

fn made(address: &Address) {
    let written = address.to_string();
    shown(&written);
    assert_eq!(written.parse().as_ref(), Ok(address));
}

/// Whatever a peer called itself, it stays on one line and out of the terminal's way.
fn shown(text: &str) {
    assert!(!text.chars().any(char::is_control), "shown as {text:?}");
}

fn read(text: &str) {
    match text.parse::<Listen>() {
        Ok(listen) => {
            let written = listen.to_string();
            shown(&written);
            assert_eq!(written.parse().as_ref(), Ok(&listen));
        }
        Err(error) => shown(&error.to_string()),
    }
    match text.parse::<Address>() {
        Ok(address) => check(text, &address),
        Err(error) => shown(&error.to_string()),
    }
}

fn check(text: &str, address: &Address) {
    let written = address.to_string();
    match (address.socket_addr(), address.path()) {
        (Some(addr), None) => {
            made(address);
            assert!(written.ends_with(&addr.to_string()));
        }
        (None, Some(path)) => {
            shown(&written);
            let path = path.to_str().expect("from a text");
            // A name outside the file system is behind a NUL, and may be written in short.
            assert!(text.ends_with(path.strip_prefix('\0').unwrap_or(path)));
            let text = match text.split_once(":@") {
                Some((scheme, name)) if !scheme.contains(':') => format!("{scheme}://@{name}"),
                _ => text.to_owned(),
            };
            // A path is shown escaped and cut, which is not meant to be read back.
            let is_escaped = written.contains('\\');
            let is_cut = written.len() >= CUT_LEAST && written.ends_with("...");
            assert!(
                is_escaped || is_cut || written == text,
                "{text:?} is written {written:?}"
            );
        }
        neither => panic!("{address:?} is at {neither:?}"),
    }
    let is_datagram = written.starts_with("udp://") || written.starts_with("unixgram://");
    assert_eq!(address.is_datagram(), is_datagram);
}
