//! What the crates ppp and proxy-header read in a header.

use std::ffi::OsStr;
use std::net::SocketAddr;
use std::os::unix::ffi::OsStrExt;

use ppp::{HeaderResult, PartialResult, v1, v2};
use proxy_header::{Error, ParseConfig, Protocol, ProxyHeader, Tlv};
use serveloop::Address;

use super::Parsed;

/// A parser that others wrote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Oracle {
    /// The crate ppp.
    Ppp,
    /// The crate proxy-header.
    ProxyHeader,
}

/// What a parser finds in some bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Reading {
    /// More bytes are needed.
    Partial,
    /// They are no header.
    Refused,
    Header(Facts),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Facts {
    pub(super) length: usize,
    pub(super) addresses: Option<(Address, Address)>,
    pub(super) tlvs: Vec<(u8, Vec<u8>)>,
}

/// What an oracle reads in `data`.
pub(super) fn read(oracle: Oracle, data: &[u8]) -> Reading {
    match oracle {
        Oracle::Ppp => ppp(data),
        Oracle::ProxyHeader => proxy_header(data),
    }
}

/// What we read, without what the oracle does not tell.
pub(super) fn ours(oracle: Oracle, parsed: &Parsed<'_>) -> Reading {
    let (header, length) = match parsed {
        Ok(Some((header, length))) => (header, *length),
        Ok(None) => return Reading::Partial,
        Err(_) => return Reading::Refused,
    };

    let addresses = header.source().cloned().zip(header.destination().cloned());
    let addresses = match (oracle, addresses) {
        // It leaves out the addresses of Unix sockets.
        (Oracle::ProxyHeader, Some((Address::Unix(_) | Address::Unixgram(_), _))) => None,
        (_, addresses) => addresses,
    };
    let tlvs = header.tlvs().map(|(kind, value)| (kind, value.to_vec()));
    let tlvs = tlvs.map(|(kind, value)| match (oracle, kind) {
        // It leaves out the padding's bytes, and the flags that have no meaning.
        (Oracle::ProxyHeader, 0x04) => (kind, Vec::new()),
        (Oracle::ProxyHeader, 0x20) => (
            kind,
            vec![value[0] & 7, value[1], value[2], value[3], value[4]],
        ),
        _ => (kind, value),
    });
    Reading::Header(Facts {
        length,
        addresses,
        tlvs: tlvs.collect(),
    })
}

fn proxy_header(data: &[u8]) -> Reading {
    let (header, length) = match ProxyHeader::parse(data, ParseConfig::default()) {
        Ok(parsed) => parsed,
        Err(Error::BufferTooShort) => return Reading::Partial,
        Err(_) => return Reading::Refused,
    };

    let addresses = header.proxied_address().map(|both| match both.protocol {
        Protocol::Stream => (Address::Tcp(both.source), Address::Tcp(both.destination)),
        Protocol::Datagram => (Address::Udp(both.source), Address::Udp(both.destination)),
    });
    let mut tlvs = Vec::new();
    for tlv in header.tlvs() {
        let Some(value) = tlv.as_ref().ok().and_then(value) else {
            return Reading::Refused;
        };
        tlvs.extend(tlv.ok().map(|tlv| (tlv.kind(), value)));
    }
    Reading::Header(Facts {
        length,
        addresses,
        tlvs,
    })
}

/// The value of a TLV, as far as it is known; none if what is in it is wrong.
fn value(tlv: &Tlv<'_>) -> Option<Vec<u8>> {
    Some(match tlv {
        Tlv::Alpn(bytes) | Tlv::UniqueId(bytes) | Tlv::Custom(_, bytes) => bytes.to_vec(),
        Tlv::Authority(text)
        | Tlv::Netns(text)
        | Tlv::SslVersion(text)
        | Tlv::SslCn(text)
        | Tlv::SslCipher(text)
        | Tlv::SslSigAlg(text)
        | Tlv::SslKeyAlg(text) => text.as_bytes().to_vec(),
        Tlv::Crc32c(value) => value.to_be_bytes().to_vec(),
        Tlv::Ssl(ssl) => {
            ssl.tlvs().all(|tlv| tlv.is_ok()).then_some(())?;
            let flags = [
                ssl.client_ssl(),
                ssl.client_cert_conn(),
                ssl.client_cert_sess(),
            ];
            let flags = flags
                .iter()
                .rev()
                .fold(0, |all, flag| all << 1 | u8::from(*flag));
            [&[flags][..], &ssl.verify().to_be_bytes()].concat()
        }
        _ => Vec::new(),
    })
}

fn ppp(data: &[u8]) -> Reading {
    let result = HeaderResult::parse(data);
    if result.is_incomplete() {
        return Reading::Partial;
    }
    match result {
        HeaderResult::V1(Ok(header)) => Reading::Header(Facts {
            length: header.header.len(),
            addresses: ppp_text(&header.addresses),
            tlvs: Vec::new(),
        }),
        HeaderResult::V2(Ok(header)) => ppp_binary(&header),
        HeaderResult::V1(Err(_)) | HeaderResult::V2(Err(_)) => Reading::Refused,
    }
}

fn ppp_text(addresses: &v1::Addresses) -> Option<(Address, Address)> {
    let tcp = |ip, port| Address::Tcp(SocketAddr::new(ip, port));
    match addresses {
        v1::Addresses::Unknown => None,
        v1::Addresses::Tcp4(ip) => Some((
            tcp(ip.source_address.into(), ip.source_port),
            tcp(ip.destination_address.into(), ip.destination_port),
        )),
        v1::Addresses::Tcp6(ip) => Some((
            tcp(ip.source_address.into(), ip.source_port),
            tcp(ip.destination_address.into(), ip.destination_port),
        )),
    }
}

fn ppp_binary(header: &v2::Header<'_>) -> Reading {
    let is_stream = header.protocol == v2::Protocol::Stream;
    let at = |ip, port| match SocketAddr::new(ip, port) {
        addr if is_stream => Address::Tcp(addr),
        addr => Address::Udp(addr),
    };
    let path = |field: &[u8; 108]| {
        // A name outside the file system begins with a NUL, and a path ends with one.
        let skipped = usize::from(field[0] == 0);
        let name = field[skipped..].split(|byte| *byte == 0).next();
        let end = match skipped {
            0 => name.map_or(0, <[u8]>::len),
            _ => field
                .iter()
                .rposition(|byte| *byte != 0)
                .map_or(0, |at| at + 1),
        };
        let path = OsStr::from_bytes(&field[..end]).into();
        if is_stream {
            Address::Unix(path)
        } else {
            Address::Unixgram(path)
        }
    };

    let addresses = match &header.addresses {
        v2::Addresses::Unspecified => None,
        v2::Addresses::IPv4(ip) => Some((
            at(ip.source_address.into(), ip.source_port),
            at(ip.destination_address.into(), ip.destination_port),
        )),
        v2::Addresses::IPv6(ip) => Some((
            at(ip.source_address.into(), ip.source_port),
            at(ip.destination_address.into(), ip.destination_port),
        )),
        v2::Addresses::Unix(unix) => Some((path(&unix.source), path(&unix.destination))),
    };
    // It says so, and leaves the conclusion to its users.
    let is_meant =
        header.command == v2::Command::Proxy && header.protocol != v2::Protocol::Unspecified;

    let tlvs: Result<_, _> = header.tlvs().collect();
    let Ok(tlvs): Result<Vec<_>, _> = tlvs else {
        return Reading::Refused;
    };
    let tlvs = tlvs
        .into_iter()
        .map(|tlv| (tlv.kind, tlv.value.into_owned()));
    Reading::Header(Facts {
        length: header.len(),
        addresses: addresses.filter(|_| is_meant),
        tlvs: tlvs.collect(),
    })
}
