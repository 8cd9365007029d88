//! What a record says of a connection besides its events: who, where and within which limits.

use std::ffi::OsStr;
use std::net::SocketAddr;
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

use crate::address::{Address, Credentials, Peer};
use crate::config::Config;
use crate::service::recorder::format::{Fields, RecordingError, push_bytes, push_number};
use crate::session::{Transport, nanos};

/// A connection as it was opened.
#[derive(Clone, Debug)]
pub(super) struct Head {
    pub(super) peer: Peer,
    pub(super) local: Option<Address>,
    pub(super) credentials: Option<Credentials>,
    /// When it was opened, after the record began.
    pub(super) opened: Duration,
    pub(super) sizes: Sizes,
}

/// The limits that a protocol can notice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sizes([u64; 9]);

impl Sizes {
    fn of(transport: &Transport<'_>) -> Self {
        let (limits, config) = (transport.limits(), transport.config());
        let sizes = [
            limits.high_water,
            limits.low_water,
            limits.max_output,
            limits.max_reply,
            limits.max_posted,
            limits.max_frame,
            limits.max_line,
            config.messages_per_turn,
            config.max_buffered,
        ];
        Self(sizes.map(|size| size as u64))
    }

    /// Returns a configuration with these limits, and no deadline.
    pub(super) fn config(self) -> Config {
        let mut config = Config::default();
        let limits = &mut config.limits;
        let fields = [
            &mut limits.high_water,
            &mut limits.low_water,
            &mut limits.max_output,
            &mut limits.max_reply,
            &mut limits.max_posted,
            &mut limits.max_frame,
            &mut limits.max_line,
            &mut config.messages_per_turn,
            &mut config.max_buffered,
        ];
        for (field, size) in fields.into_iter().zip(self.0) {
            *field = usize::try_from(size).unwrap_or(usize::MAX);
        }

        limits.first_message_timeout = None;
        limits.message_timeout = None;
        limits.idle_timeout = None;
        limits.write_timeout = None;
        config
    }
}

impl Head {
    /// Describes the connection of `transport`, which was opened at `opened`.
    pub(super) fn of(transport: &Transport<'_>, opened: Duration) -> Self {
        Self {
            peer: transport.peer().clone(),
            local: transport.local_address(),
            credentials: transport.credentials(),
            opened,
            sizes: Sizes::of(transport),
        }
    }

    pub(super) fn push(&self, bytes: &mut Vec<u8>) {
        push_number(bytes, self.peer.id());
        push_number(bytes, nanos(self.opened));
        let listener = self.peer.listener().map_or(0, |listener| listener + 1);
        push_number(bytes, listener as u64);
        push_address(bytes, Some(self.peer.address()));
        push_address(bytes, self.peer.via());
        push_address(bytes, self.local.as_ref());

        bytes.push(u8::from(self.credentials.is_some()));
        if let Some(credentials) = self.credentials {
            push_number(bytes, credentials.uid.into());
            push_number(bytes, credentials.gid.into());
            push_number(bytes, credentials.pid.map_or(0, |pid| u64::from(pid) + 1));
        }
        for size in self.sizes.0 {
            push_number(bytes, size);
        }
    }

    pub(super) fn read(fields: &mut Fields<'_>) -> Result<Self, RecordingError> {
        let id = fields.number()?;
        let opened = Duration::from_nanos(fields.number()?);
        let start = fields.clone();
        let listener = match fields.number()? {
            0 => None,
            number => {
                let listener = u16::try_from(number - 1);
                Some(listener.map_err(|_| start.wrong("a listener's number is too large"))?)
            }
        };

        let start = fields.clone();
        let address = read_address(fields)?;
        let address = address.ok_or_else(|| start.wrong("a connection without a peer"))?;
        let peer = match read_address(fields)? {
            None => Peer::new(address, listener),
            Some(proxy) => {
                let mut peer = Peer::new(proxy, listener);
                peer.stand_for(address, true);
                peer
            }
        };

        let local = read_address(fields)?;
        let credentials = match fields.byte()? {
            0 => None,
            _ => Some(read_credentials(fields)?),
        };
        let start = fields.clone();
        let mut sizes = [0; 9];
        for size in &mut sizes {
            *size = fields.number()?;
        }
        let sizes = Sizes(sizes);
        if let Err(error) = sizes.config().validate() {
            return Err(start.wrong(format!("limits that no server has: {error}")));
        }
        Ok(Self {
            peer: peer.with_id(id),
            local,
            credentials,
            opened,
            sizes,
        })
    }
}

fn read_credentials(fields: &mut Fields<'_>) -> Result<Credentials, RecordingError> {
    let start = fields.clone();
    let numbers = [fields.number()?, fields.number()?, fields.number()?];
    let narrow = |number: u64| {
        u32::try_from(number).map_err(|_| start.wrong("the number of a user is too large"))
    };
    let pid = match numbers[2] {
        0 => None,
        pid => Some(narrow(pid - 1)?),
    };
    Ok(Credentials::new(
        narrow(numbers[0])?,
        narrow(numbers[1])?,
        pid,
    ))
}

/// Appends an address: a letter for its kind, and the address as text or the path as bytes.
fn push_address(bytes: &mut Vec<u8>, address: Option<&Address>) {
    let Some(address) = address else {
        return bytes.push(0);
    };
    let letter = match address {
        Address::Tcp(_) => b't',
        Address::Udp(_) => b'u',
        Address::Unix(_) => b's',
        Address::Unixgram(_) => b'd',
        Address::Vsock(_) => b'v',
    };
    bytes.push(letter);
    match address {
        Address::Tcp(addr) | Address::Udp(addr) => {
            push_bytes(bytes, addr.to_string().as_bytes());
        }
        Address::Unix(path) | Address::Unixgram(path) => {
            push_bytes(bytes, path.as_os_str().as_bytes());
        }
        Address::Vsock(addr) => push_bytes(bytes, addr.to_string().as_bytes()),
    }
}

fn read_address(fields: &mut Fields<'_>) -> Result<Option<Address>, RecordingError> {
    let start = fields.clone();
    let addr = |text: &str| {
        let addr = text.parse::<SocketAddr>();
        addr.map_err(|_| start.wrong("not an address"))
    };
    Ok(Some(match fields.byte()? {
        0 => return Ok(None),
        b't' => Address::Tcp(addr(fields.text()?)?),
        b'u' => Address::Udp(addr(fields.text()?)?),
        b's' => Address::Unix(OsStr::from_bytes(fields.bytes()?).into()),
        b'd' => Address::Unixgram(OsStr::from_bytes(fields.bytes()?).into()),
        b'v' => {
            let addr = fields.text()?.parse();
            Address::Vsock(addr.map_err(|_| start.wrong("not an address"))?)
        }
        _ => return Err(start.wrong("an unknown kind of address")),
    }))
}
