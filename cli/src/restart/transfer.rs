//! Open connections on their way from the old process to the new one.

use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::io::{Errno, FdFlags, fcntl_setfd};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use serveloop::net::HandedConnection;

/// The length of what follows, in front of each connection. Its first byte carries the socket.
const HEADER: usize = 4;

/// How to send so that a process that is gone is an error and no signal. Where there is no such flag, the
/// signal is ignored as it is in every program of Rust.
#[cfg(not(target_vendor = "apple"))]
const QUIETLY: SendFlags = SendFlags::NOSIGNAL;
#[cfg(target_vendor = "apple")]
const QUIETLY: SendFlags = SendFlags::empty();

/// Sends a connection.
///
/// # Errors
/// The other process is gone. The connection is lost.
pub(super) fn send(mut to: &UnixStream, connection: HandedConnection) -> io::Result<()> {
    let (descriptor, bytes) = connection.into_parts();
    let length = u32::try_from(bytes.len()).map_err(io::Error::other)?;
    let frame = [&length.to_be_bytes(), &bytes[..]].concat();

    let descriptors = [descriptor.as_fd()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let sent = loop {
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        ancillary.push(SendAncillaryMessage::ScmRights(&descriptors));
        let slices = [IoSlice::new(&frame)];
        match sendmsg(to, &slices, &mut ancillary, QUIETLY) {
            Err(Errno::INTR) => {}
            outcome => break outcome?,
        }
    };
    to.write_all(&frame[sent..])
}

/// Waits for a connection. Returns `None` if no more come.
///
/// # Errors
/// The other process has failed.
pub(super) fn receive(mut from: &UnixStream) -> io::Result<Option<HandedConnection>> {
    let mut header = [0; HEADER];
    let (count, descriptor) = receive_first(from, &mut header)?;
    if count == 0 {
        return Ok(None);
    }
    from.read_exact(&mut header[count..])?;
    let length = usize::try_from(u32::from_be_bytes(header)).map_err(io::Error::other)?;
    let mut bytes = vec![0; length];
    from.read_exact(&mut bytes)?;

    let descriptor = descriptor.ok_or_else(|| io::Error::other("a connection without a socket"))?;
    HandedConnection::from_parts(descriptor, &bytes).map(Some)
}

fn receive_first(
    from: &UnixStream,
    header: &mut [u8; HEADER],
) -> io::Result<(usize, Option<OwnedFd>)> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let count = loop {
        let mut slices = [IoSliceMut::new(header)];
        match recvmsg(from, &mut slices, &mut ancillary, RecvFlags::empty()) {
            Err(Errno::INTR) => {}
            outcome => break outcome?.bytes,
        }
    };

    let mut descriptor = None;
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(descriptors) = message {
            descriptor = descriptors.last().or(descriptor);
        }
    }
    if let Some(descriptor) = &descriptor {
        fcntl_setfd(descriptor, FdFlags::CLOEXEC)?;
    }
    Ok((count, descriptor))
}
