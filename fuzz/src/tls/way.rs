//! A man in the middle of two ends, who can change, hold back and make records.

use crate::input::Input;

/// The length of a record's header, the last two bytes of which are the length of the rest.
const HEADER: usize = 5;

/// How often a record is repeated at most.
const REPEATS_MOST: usize = 64;

/// One direction.
#[derive(Default)]
pub(super) struct Way {
    /// Records that come later.
    held: Vec<u8>,
    /// Whether anything else than what was sent has arrived, or in another order.
    pub(super) is_hostile: bool,
    /// Nobody is there any more.
    pub(super) is_left_alone: bool,
}

impl Way {
    /// Returns what arrives of `sent`. Each record takes a byte of the input, and some take more.
    pub(super) fn carry(&mut self, sent: &[u8], input: &mut Input<'_>) -> Vec<u8> {
        let mut arrives = std::mem::take(&mut self.held);
        for record in records(sent) {
            let mut record = record.to_vec();
            let act = if self.is_left_alone {
                0
            } else {
                input.below(16)
            };
            self.is_hostile |= act >= 5;
            match act {
                5 => flip(&mut record, input),
                6 => record.truncate(place(&record, input)),
                7 => record.clear(),
                8 => record.extend_from_within(..),
                9 => record = record.repeat(1 + input.below(REPEATS_MOST)),
                10 => {
                    self.held.append(&mut record);
                }
                11 => record.splice(0..0, made(input)).for_each(drop),
                12 => record.extend(made(input)),
                13 => drop(record.remove(place(&record, input))),
                14 => record.insert(place(&record, input), input.byte()),
                // In two records: a header for each part.
                15 => record = cut(&record, input),
                _ => {}
            }
            arrives.extend(record);
        }
        arrives
    }
}

/// The complete records of a stream.
pub(super) fn records(mut stream: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let header = stream.get(..HEADER)?;
        let length = usize::from(u16::from_be_bytes([header[3], header[4]]));
        let (record, rest) = stream.split_at_checked(HEADER + length)?;
        stream = rest;
        Some(record)
    })
}

/// A place in a record, near its beginning more often.
fn place(record: &[u8], input: &mut Input<'_>) -> usize {
    let far = input.byte() % 4 == 0;
    let at = usize::from(input.byte()) * if far { 16 } else { 1 };
    at % record.len()
}

fn flip(record: &mut [u8], input: &mut Input<'_>) {
    let at = place(record, input);
    record[at] ^= 1 << input.below(8);
}

/// A record of any kind with a few bytes.
fn made(input: &mut Input<'_>) -> Vec<u8> {
    let kind = 20 + input.byte() % 5;
    let count = input.byte() % 8;
    let mut record = vec![kind, 3, 3, 0, count];
    record.extend((0..count).map(|_| input.byte()));
    record
}

fn cut(record: &[u8], input: &mut Input<'_>) -> Vec<u8> {
    let (header, rest) = record.split_at(HEADER);
    let at = place(record, input).min(rest.len());
    let part = |part: &[u8]| {
        let length = u16::try_from(part.len()).expect("it is part of a record");
        [&header[..3], &length.to_be_bytes(), part].concat()
    };
    [part(&rest[..at]), part(&rest[at..])].concat()
}
