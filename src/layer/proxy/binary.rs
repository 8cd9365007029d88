//! Version 2 of the header: binary (section 2.2).

use core::net::{IpAddr, SocketAddr};
use std::borrow::Cow;
use std::path::{Path, PathBuf};

use super::checksum::crc32c;
use super::{Command, Header, ProxyError, Version, strip_signature, tlv};
use crate::address::{Address, unix_path};

const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";

/// The bytes before the addresses: signature, version and command, family and transport, length.
pub(super) const FIXED: usize = 16;

/// The bytes of one path of a Unix socket.
const PATH_LENGTH: usize = 108;

const STREAM: u8 = 1;

/// What the bytes after the first 16 are.
#[derive(Clone, Copy)]
enum Block {
    /// Nothing that concerns the receiver.
    Ignored,
    /// Perhaps TLVs, perhaps an address of an unknown family.
    Unspecified,
    /// Addresses of IPv4 sockets, and then TLVs.
    V4(fn(SocketAddr) -> Address),
    /// Addresses of IPv6 sockets, and then TLVs.
    V6(fn(SocketAddr) -> Address),
    /// Addresses of Unix sockets, and then TLVs.
    Unix(fn(PathBuf) -> Address),
}

impl Block {
    fn new(command: Command, byte: u8) -> Result<Self, ProxyError> {
        // The receiver has to discard the whole block, including the family.
        if command == Command::Local {
            return Ok(Self::Ignored);
        }

        let (family, transport) = (byte >> 4, byte & 0x0f);
        if family > 3 {
            return Err(ProxyError::Family(family));
        }
        if transport > 2 {
            return Err(ProxyError::Transport(transport));
        }

        let is_stream = transport == STREAM;
        Ok(match family {
            0 => Self::Unspecified,
            // How many bytes such addresses have is not specified.
            _ if transport == 0 => Self::Ignored,
            1 if is_stream => Self::V4(Address::Tcp),
            1 => Self::V4(Address::Udp),
            2 if is_stream => Self::V6(Address::Tcp),
            2 => Self::V6(Address::Udp),
            _ if is_stream => Self::Unix(Address::Unix),
            _ => Self::Unix(Address::Unixgram),
        })
    }

    /// Returns how many bytes the addresses have.
    fn length(self) -> usize {
        match self {
            Self::Ignored | Self::Unspecified => 0,
            Self::V4(_) => 12,
            Self::V6(_) => 36,
            Self::Unix(_) => 2 * PATH_LENGTH,
        }
    }
}

pub(super) fn parse(data: &[u8], limit: usize) -> Result<Option<(Header<'_>, usize)>, ProxyError> {
    let Some(rest) = strip_signature(data, SIGNATURE)? else {
        return Ok(None);
    };
    let Some(byte) = rest.first() else {
        return Ok(None);
    };
    let command = command(*byte)?;
    let Some(byte) = rest.get(1) else {
        return Ok(None);
    };
    let block = Block::new(command, *byte)?;
    let Some([high, low]) = rest.get(2..4) else {
        return Ok(None);
    };

    let length = usize::from(u16::from_be_bytes([*high, *low]));
    let whole = FIXED + length;
    if whole > limit {
        let length = whole;
        return Err(ProxyError::TooLong { length, limit });
    }
    let needed = block.length();
    if length < needed {
        return Err(ProxyError::Addresses { length, needed });
    }

    let Some(data) = data.get(..whole) else {
        return Ok(None);
    };
    let tlvs = tlvs(block, data)?;
    let header = Header {
        version: Version::V2,
        command,
        addresses: addresses(block, &data[FIXED..]),
        tlvs: Cow::Borrowed(tlvs),
    };
    Ok(Some((header, whole)))
}

fn command(byte: u8) -> Result<Command, ProxyError> {
    match (byte >> 4, byte & 0x0f) {
        (2, 0) => Ok(Command::Local),
        (2, 1) => Ok(Command::Proxy),
        (2, command) => Err(ProxyError::Command(command)),
        (version, _) => Err(ProxyError::Version(version)),
    }
}

/// Reads the addresses from the bytes after the first 16, which are enough.
fn addresses(block: Block, bytes: &[u8]) -> Option<(Address, Address)> {
    match block {
        Block::Ignored | Block::Unspecified => None,
        Block::V4(make) => {
            let (source, destination, ports) = split::<4>(bytes)?;
            Some(sockets(make, source.into(), destination.into(), ports))
        }
        Block::V6(make) => {
            let (source, destination, ports) = split::<16>(bytes)?;
            Some(sockets(make, source.into(), destination.into(), ports))
        }
        Block::Unix(make) => {
            let (source, destination, _) = split::<PATH_LENGTH>(bytes)?;
            Some((make(unix_path(&source)), make(unix_path(&destination))))
        }
    }
}

/// Splits two arrays off the front.
fn split<const N: usize>(bytes: &[u8]) -> Option<([u8; N], [u8; N], &[u8])> {
    let (source, rest) = bytes.split_first_chunk()?;
    let (destination, rest) = rest.split_first_chunk()?;
    Some((*source, *destination, rest))
}

fn sockets(
    make: fn(SocketAddr) -> Address,
    source: IpAddr,
    destination: IpAddr,
    ports: &[u8],
) -> (Address, Address) {
    let port = |at: usize| u16::from_be_bytes([ports[at], ports[at + 1]]);
    (
        make(SocketAddr::new(source, port(0))),
        make(SocketAddr::new(destination, port(2))),
    )
}

/// Returns the TLVs of a whole header, after checking them and the checksum among them.
fn tlvs(block: Block, data: &[u8]) -> Result<&[u8], ProxyError> {
    let begin = FIXED + block.length();
    let bytes = &data[begin..];
    let is_discarded = match block {
        Block::Ignored => true,
        // Perhaps it is an address of a family that is not known here.
        Block::Unspecified => !tlv::are_whole(bytes),
        Block::V4(_) | Block::V6(_) | Block::Unix(_) => false,
    };
    if is_discarded {
        return Ok(&[]);
    }

    let checksum = tlv::check(bytes, begin)?;
    if let Some(position) = checksum {
        let stated = data[position..].first_chunk().copied();
        let stated = u32::from_be_bytes(stated.unwrap_or_default());
        let computed = checksum_of(data, position);
        if stated != computed {
            return Err(ProxyError::Checksum { stated, computed });
        }
    }
    Ok(bytes)
}

/// Computes the checksum of a header as if its value, which is at `position`, were zero.
fn checksum_of(header: &[u8], position: usize) -> u32 {
    let zeros = [0; tlv::CHECKSUM_LENGTH];
    let after = &header[position + zeros.len()..];
    crc32c(&[&header[..position], &zeros, after])
}

/// Returns whether a header can state both addresses.
pub(super) fn check_addresses(source: &Address, destination: &Address) -> Result<(), ProxyError> {
    let is_same = match (source, destination) {
        (Address::Tcp(source), Address::Tcp(destination))
        | (Address::Udp(source), Address::Udp(destination)) => {
            source.is_ipv4() == destination.is_ipv4()
        }
        (Address::Unix(_), Address::Unix(_)) | (Address::Unixgram(_), Address::Unixgram(_)) => true,
        _ => false,
    };
    if !is_same {
        return Err(ProxyError::Unencodable(
            "source and destination are not of the same kind",
        ));
    }

    let mut paths = [source, destination].into_iter().filter_map(Address::path);
    if paths.any(|path| !is_representable(path)) {
        return Err(ProxyError::Unencodable(
            "a path of a Unix socket does not fit into 108 bytes",
        ));
    }
    Ok(())
}

fn is_representable(path: &Path) -> bool {
    let bytes = path.as_os_str().as_encoded_bytes();
    bytes.len() <= PATH_LENGTH && unix_path(bytes) == path
}

/// Returns how many bytes the addresses need.
pub(super) fn addresses_length(addresses: Option<&(Address, Address)>) -> usize {
    block_of(addresses).1.length()
}

/// Returns the byte of family and transport, and what follows it.
fn block_of(addresses: Option<&(Address, Address)>) -> (u8, Block) {
    match addresses.map(|(source, _)| source) {
        // There is no family for the last one, so nothing makes a header with it.
        None | Some(Address::Vsock(_)) => (0x00, Block::Unspecified),
        Some(Address::Tcp(SocketAddr::V4(_))) => (0x11, Block::V4(Address::Tcp)),
        Some(Address::Udp(SocketAddr::V4(_))) => (0x12, Block::V4(Address::Udp)),
        Some(Address::Tcp(SocketAddr::V6(_))) => (0x21, Block::V6(Address::Tcp)),
        Some(Address::Udp(SocketAddr::V6(_))) => (0x22, Block::V6(Address::Udp)),
        Some(Address::Unix(_)) => (0x31, Block::Unix(Address::Unix)),
        Some(Address::Unixgram(_)) => (0x32, Block::Unix(Address::Unixgram)),
    }
}

/// Appends a header.
pub(super) fn write(header: &Header<'_>, output: &mut Vec<u8>) {
    let begin = output.len();
    let addresses = header.addresses.as_ref();
    let (family, block) = block_of(addresses);
    let length = block.length() + header.tlvs.len();

    output.extend_from_slice(SIGNATURE);
    output.push(match header.command {
        Command::Local => 0x20,
        Command::Proxy => 0x21,
    });
    output.push(family);
    let length = u16::try_from(length).unwrap_or(u16::MAX);
    output.extend_from_slice(&length.to_be_bytes());
    if let Some((source, destination)) = addresses {
        write_addresses(source, destination, output);
    }
    output.extend_from_slice(&header.tlvs);

    let checksum = tlv::check(&header.tlvs, FIXED + block.length());
    if let Ok(Some(position)) = checksum {
        let computed = checksum_of(&output[begin..], position);
        let value = begin + position..begin + position + tlv::CHECKSUM_LENGTH;
        output[value].copy_from_slice(&computed.to_be_bytes());
    }
}

fn write_addresses(source: &Address, destination: &Address, output: &mut Vec<u8>) {
    let both = [source, destination];
    for address in both {
        match address {
            Address::Tcp(addr) | Address::Udp(addr) => match addr.ip() {
                IpAddr::V4(ip) => output.extend_from_slice(&ip.octets()),
                IpAddr::V6(ip) => output.extend_from_slice(&ip.octets()),
            },
            Address::Unix(path) | Address::Unixgram(path) => {
                let mut field = path.as_os_str().as_encoded_bytes().to_vec();
                field.resize(PATH_LENGTH, 0);
                output.append(&mut field);
            }
            Address::Vsock(_) => {}
        }
    }
    for addr in both.into_iter().filter_map(Address::socket_addr) {
        output.extend_from_slice(&addr.port().to_be_bytes());
    }
}
