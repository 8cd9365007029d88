//! Replies behind a number that says how long they are.

use crate::load::exchange::{Check, Step, Talk, Width, Wrong};

#[derive(Debug)]
pub(super) struct LengthReader {
    width: Width,
    /// How many bytes of the reply are still missing, if the number has come.
    rest: Option<u64>,
}

impl LengthReader {
    pub(super) fn new(width: Width) -> Self {
        Self { width, rest: None }
    }

    pub(super) fn read(
        &mut self,
        data: &[u8],
        check: &mut Check,
        talk: &Talk,
    ) -> Result<Step, Wrong> {
        let Some(rest) = self.rest else {
            let Some(number) = data.get(..self.width.bytes()) else {
                return Ok(Step::default());
            };
            let value = number
                .iter()
                .fold(0, |value, byte| value << 8 | u64::from(*byte));
            check.content(number, talk)?;
            self.rest = Some(value);
            return self.step(number.len(), check, talk);
        };

        let taken = usize::try_from(rest).map_or(data.len(), |rest| rest.min(data.len()));
        check.content(&data[..taken], talk)?;
        self.rest = Some(rest - taken as u64);
        self.step(taken, check, talk)
    }

    /// Ends the reply if nothing of it is missing.
    fn step(&mut self, taken: usize, check: &mut Check, talk: &Talk) -> Result<Step, Wrong> {
        let ended = self.rest == Some(0);
        if ended {
            self.rest = None;
            check.end(talk)?;
        }
        Ok(Step { taken, ended })
    }
}
