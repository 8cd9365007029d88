//! Comparing a reply with the one that it has to be.

use crate::load::exchange::{REPLY_MOST, Talk, Wrong, quoted};

/// How many bytes before the first difference an error shows.
const BEFORE: usize = 16;

/// What is known of the reply that is being received.
#[derive(Debug, Default)]
pub(crate) struct Check {
    /// How many bytes of the reply are the same as those of the model.
    position: usize,
    /// The bytes of the reply, while there is no model yet.
    collected: Option<Vec<u8>>,
}

impl Talk {
    /// Returns what every reply has to be, if that is known and matters.
    pub(super) fn model(&self) -> Option<&[u8]> {
        self.model.get().map(AsRef::as_ref)
    }

    pub(super) fn takes_any(&self) -> bool {
        self.exchange.takes_any
    }

    fn differs(&self, received: &[u8], expected: &[u8], byte: usize) -> Wrong {
        let other = match self.exchange.expected {
            Some(_) => "what the protocol says",
            None => "the first one",
        };
        format!(
            "a wrong reply, which differs from {other} at byte {}: {} came instead of {}",
            byte + 1,
            quoted(received),
            quoted(expected)
        )
    }
}

impl Check {
    /// Returns whether no byte of the reply has come yet.
    pub(super) fn is_at_start(&self) -> bool {
        self.position == 0 && self.collected.is_none()
    }

    /// Compares the next bytes of the reply.
    pub(super) fn content(&mut self, piece: &[u8], talk: &Talk) -> Result<(), Wrong> {
        if talk.takes_any() || piece.is_empty() {
            return Ok(());
        }

        match (&mut self.collected, talk.model()) {
            (None, Some(model)) => {
                let expected = model.get(self.position..).unwrap_or_default();
                if !expected.starts_with(piece) {
                    return Err(Self::difference(self.position, piece, model, talk));
                }
                self.position += piece.len();
            }
            (collected, _) => {
                let collected = collected.get_or_insert_default();
                if collected.len() + piece.len() > REPLY_MOST {
                    return Err("a reply of more than 16 MiB".to_owned());
                }
                collected.extend_from_slice(piece);
            }
        }
        Ok(())
    }

    /// Compares the end of the reply.
    pub(super) fn end(&mut self, talk: &Talk) -> Result<(), Wrong> {
        let Self {
            position,
            collected,
        } = std::mem::take(self);
        if talk.takes_any() {
            return Ok(());
        }

        let Some(model) = talk.model() else {
            let _ = talk.model.set(collected.unwrap_or_default().into());
            return Ok(());
        };
        match collected {
            Some(collected) if collected != model => {
                Err(Self::difference(0, &collected, model, talk))
            }
            None if position != model.len() => Err(talk.differs(b"", &model[position..], position)),
            _ => Ok(()),
        }
    }

    /// Describes the first difference between `piece` and what the model has from `position` on.
    fn difference(position: usize, piece: &[u8], model: &[u8], talk: &Talk) -> Wrong {
        let expected = model.get(position..).unwrap_or_default();
        let same = piece
            .iter()
            .zip(expected)
            .take_while(|(one, other)| one == other);
        let same = same.count();
        let from = same.saturating_sub(BEFORE);
        let expected = expected.get(from..).unwrap_or_default();
        talk.differs(&piece[from..], expected, position + same)
    }
}
