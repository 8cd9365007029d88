//! Addresses of sockets between a virtual machine and its host.

use std::fmt;
use std::str::FromStr;

use super::units::parse_digits;

/// An address between a virtual machine and its host (`AF_VSOCK`, on Linux): the number of a machine, its
/// context id (CID), and a port.
///
/// It is displayed and parsed as `CID:PORT`, with `*` for [any machine](Self::ANY): `2:1024`, `*:9999`.
/// Ports have 32 bits, and those below 1024 are for privileged programs. With port 0 the system chooses one.
///
/// ```
/// use serveloop::net::VsockAddr;
///
/// let any: VsockAddr = ":9999".parse().unwrap();
/// assert_eq!(any, VsockAddr { cid: VsockAddr::ANY, port: 9_999 });
/// assert_eq!(any.to_string(), "*:9999");
/// assert!("2:1024".parse::<VsockAddr>().is_ok());
/// assert!("host:1024".parse::<VsockAddr>().is_err());
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct VsockAddr {
    /// The machine: [`ANY`](Self::ANY) to listen, [`HOST`](Self::HOST) for the host that runs this virtual
    /// machine, [`LOCAL`](Self::LOCAL) for this machine, or that of a virtual machine, from 3 on.
    pub cid: u32,
    /// The port, below `u32::MAX`.
    pub port: u32,
}

impl VsockAddr {
    /// All machines, for listeners.
    pub const ANY: u32 = u32::MAX;
    /// The host of a virtual machine.
    pub const HOST: u32 = 2;
    /// The same machine, where the kernel has a loopback for it.
    pub const LOCAL: u32 = 1;
}

impl fmt::Display for VsockAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.cid {
            Self::ANY => write!(f, "*:{}", self.port),
            cid => write!(f, "{cid}:{}", self.port),
        }
    }
}

impl FromStr for VsockAddr {
    type Err = VsockAddrError;

    fn from_str(text: &str) -> Result<Self, VsockAddrError> {
        let (cid, port) = text.rsplit_once(':').ok_or(VsockAddrError)?;
        let cid = match cid {
            "" | "*" => Self::ANY,
            cid => parse_digits(cid).ok_or(VsockAddrError)?,
        };
        // The last one is how the system is asked to choose.
        let port = parse_digits(port).ok_or(VsockAddrError)?;
        if port == u32::MAX {
            return Err(VsockAddrError);
        }
        Ok(Self { cid, port })
    }
}

/// A text that is not a [`VsockAddr`].
///
/// ```
/// use serveloop::net::VsockAddr;
///
/// let error = "2".parse::<VsockAddr>().unwrap_err();
/// assert_eq!(error.to_string(), "expected CID:PORT, for example 2:1024, or :1024 for all machines");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VsockAddrError;

impl VsockAddrError {
    pub(super) const PROBLEM: &'static str =
        "expected CID:PORT, for example 2:1024, or :1024 for all machines";
}

impl fmt::Display for VsockAddrError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(Self::PROBLEM)
    }
}

impl std::error::Error for VsockAddrError {}
