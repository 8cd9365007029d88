//! Protocols written in terms of whole messages.

use std::ops::{Deref, DerefMut};
use std::time::Instant;
use std::{fmt, mem};

use crate::error::{CloseReason, ProtocolError};
use crate::framing::{Frame, Framing};
use crate::session::{Protocol, Transport};

/// A protocol over frames: like [`Protocol`], but what arrives is whole messages, and what is sent
/// too. Serve it as [`Framed::new(framing, protocol)`](Framed::new).
///
/// ```
/// use serveloop::{Framed, FrameProtocol, FrameTransport, Framing, LengthPrefix, ProtocolError};
///
/// struct Upper;
///
/// impl<F: Framing> FrameProtocol<F> for Upper {
///     fn frame_received(&mut self, frame: &[u8], frames: &mut FrameTransport<'_, '_, F>) -> Result<(), ProtocolError> {
///         frames.send(&frame.to_ascii_uppercase())
///     }
/// }
///
/// let protocol = Framed::new(LengthPrefix::u32(1 << 20), Upper);
/// # let _ = protocol;
/// ```
///
/// All methods but one have the meaning and the default of their namesakes in [`Protocol`].
pub trait FrameProtocol<F: Framing> {
    /// See [`Protocol::connection_made`].
    ///
    /// # Errors
    /// As there.
    fn connection_made(
        &mut self,
        frames: &mut FrameTransport<'_, '_, F>,
    ) -> Result<(), ProtocolError> {
        let _ = frames;
        Ok(())
    }

    /// One message has arrived.
    ///
    /// # Errors
    /// The message breaks the protocol; the connection is closed after what was written is sent.
    fn frame_received(
        &mut self,
        frame: &[u8],
        frames: &mut FrameTransport<'_, '_, F>,
    ) -> Result<(), ProtocolError>;

    /// What arrived can be no frame, or one that is too long, or the stream ended inside one. The
    /// connection will close; this is the place for an error reply.
    fn frame_rejected(&mut self, error: &ProtocolError, frames: &mut FrameTransport<'_, '_, F>) {
        let _ = (error, frames);
    }

    /// The stream has ended between two frames. By default the connection is closed after what was
    /// written is sent.
    ///
    /// # Errors
    /// As with [`Protocol::eof_received`].
    fn eof_received(
        &mut self,
        frames: &mut FrameTransport<'_, '_, F>,
    ) -> Result<(), ProtocolError> {
        frames.close();
        Ok(())
    }

    /// See [`Protocol::resume_writing`].
    fn resume_writing(&mut self, frames: &mut FrameTransport<'_, '_, F>) {
        let _ = frames;
    }

    /// See [`Protocol::poll_timeout`].
    fn poll_timeout(&self) -> Option<Instant> {
        None
    }

    /// See [`Protocol::handle_timeout`].
    fn handle_timeout(&mut self, frames: &mut FrameTransport<'_, '_, F>) {
        frames.close();
    }

    /// See [`Protocol::woken`].
    fn woken(&mut self, frames: &mut FrameTransport<'_, '_, F>) {
        let _ = frames;
    }

    /// See [`Protocol::shutdown_requested`].
    fn shutdown_requested(&mut self, frames: &mut FrameTransport<'_, '_, F>) {
        frames.close();
    }

    /// See [`Protocol::connection_lost`].
    fn connection_lost(&mut self, reason: &CloseReason) {
        let _ = reason;
    }
}

/// A [`Transport`] that can also send frames; everything else is the transport's.
pub struct FrameTransport<'t, 'c, F> {
    framing: &'t F,
    transport: &'t mut Transport<'c>,
}

impl<F: Framing> FrameTransport<'_, '_, F> {
    /// Sends `payload` as one frame.
    ///
    /// # Errors
    /// It does not fit the framing; nothing was sent. Passing the error on with `?` closes the
    /// connection.
    #[inline]
    pub fn send(&mut self, payload: &[u8]) -> Result<(), ProtocolError> {
        self.framing
            .encode(payload, |piece| self.transport.write(piece))
    }
}

impl<'c, F> Deref for FrameTransport<'_, 'c, F> {
    type Target = Transport<'c>;

    fn deref(&self) -> &Transport<'c> {
        self.transport
    }
}

impl<F> DerefMut for FrameTransport<'_, '_, F> {
    fn deref_mut(&mut self) -> &mut Self::Target {
        self.transport
    }
}

impl<F> fmt::Debug for FrameTransport<'_, '_, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Frames")
            .field("transport", &self.transport)
            .finish_non_exhaustive()
    }
}

/// The [`Protocol`] that a [`FrameProtocol`] becomes with its framing.
#[derive(Clone, Debug)]
pub struct Framed<F, P> {
    framing: F,
    protocol: P,
    /// The stream has ended, but the protocol paused at its last frame and does not know yet.
    end_is_due: bool,
}

impl<F: Framing, P: FrameProtocol<F>> Framed<F, P> {
    /// Cuts the stream by `framing` and gives the frames to `protocol`.
    #[must_use]
    pub fn new(framing: F, protocol: P) -> Self {
        Self {
            framing,
            protocol,
            end_is_due: false,
        }
    }

    /// Tells the end of the stream, unless the last frame has the protocol pause or close.
    fn tell_end(&mut self, transport: &mut Transport<'_>) -> Result<(), ProtocolError> {
        if transport.is_paused() || transport.is_closing() || !mem::take(&mut self.end_is_due) {
            return Ok(());
        }
        let Self {
            framing, protocol, ..
        } = self;
        protocol.eof_received(&mut FrameTransport { framing, transport })
    }

    /// The protocol may have ended its pause. An end that breaks the protocol closes like one that
    /// does not, since there is nobody to tell any more.
    fn tell_late_end(&mut self, transport: &mut Transport<'_>) {
        if self.end_is_due && self.tell_end(transport).is_err() {
            transport.close();
        }
    }

    /// Gives the frame that was found, or the reason why there is none, to the protocol.
    #[inline]
    fn deliver(
        protocol: &mut P,
        frame: Result<Option<Frame<'_>>, ProtocolError>,
        frames: &mut FrameTransport<'_, '_, F>,
    ) -> Result<usize, ProtocolError> {
        match frame {
            Ok(None) => Ok(0),
            Ok(Some(frame)) => {
                protocol.frame_received(frame.payload, frames)?;
                Ok(frame.taken)
            }
            Err(error) => {
                protocol.frame_rejected(&error, frames);
                Err(error)
            }
        }
    }
}

impl<F: Framing, P: FrameProtocol<F>> Protocol for Framed<F, P> {
    fn connection_made(&mut self, transport: &mut Transport<'_>) -> Result<(), ProtocolError> {
        let Self {
            framing, protocol, ..
        } = self;
        protocol.connection_made(&mut FrameTransport { framing, transport })
    }

    #[inline]
    fn data_received(
        &mut self,
        data: &[u8],
        transport: &mut Transport<'_>,
    ) -> Result<usize, ProtocolError> {
        let Self {
            framing, protocol, ..
        } = self;
        let frame = framing.decode(data);
        Self::deliver(protocol, frame, &mut FrameTransport { framing, transport })
    }

    fn eof_received(
        &mut self,
        unread: &[u8],
        transport: &mut Transport<'_>,
    ) -> Result<(), ProtocolError> {
        let Self {
            framing, protocol, ..
        } = self;
        let frame = framing.decode_eof(unread);
        Self::deliver(protocol, frame, &mut FrameTransport { framing, transport })?;
        self.end_is_due = true;
        self.tell_end(transport)
    }

    fn resume_writing(&mut self, transport: &mut Transport<'_>) {
        let Self {
            framing, protocol, ..
        } = self;
        protocol.resume_writing(&mut FrameTransport { framing, transport });
        self.tell_late_end(transport);
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.protocol.poll_timeout()
    }

    fn handle_timeout(&mut self, transport: &mut Transport<'_>) {
        let Self {
            framing, protocol, ..
        } = self;
        protocol.handle_timeout(&mut FrameTransport { framing, transport });
        self.tell_late_end(transport);
    }

    fn woken(&mut self, transport: &mut Transport<'_>) {
        let Self {
            framing, protocol, ..
        } = self;
        protocol.woken(&mut FrameTransport { framing, transport });
        self.tell_late_end(transport);
    }

    fn shutdown_requested(&mut self, transport: &mut Transport<'_>) {
        let Self {
            framing, protocol, ..
        } = self;
        protocol.shutdown_requested(&mut FrameTransport { framing, transport });
        self.tell_late_end(transport);
    }

    fn connection_lost(&mut self, reason: &CloseReason) {
        self.protocol.connection_lost(reason);
    }
}
