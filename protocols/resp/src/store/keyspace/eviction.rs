//! Which keys are given up when the memory is used up.

use crate::error_reply::ErrorReply;
use crate::store::keyspace::Keyspace;
use crate::store::settings::Eviction;

/// The least recently used of this many keys is evicted.
const SAMPLES: usize = 16;

impl Keyspace {
    #[cold]
    pub(super) fn evict(&mut self, more: usize, most: usize) -> Result<bool, ErrorReply> {
        if self.is_together {
            return self.exceed(more, most);
        }
        while self.used_memory.saturating_add(more) > most {
            let victim = match self.settings.eviction {
                _ if more > most => None,
                Eviction::NoEviction => None,
                Eviction::AllkeysLru => self.little_used(),
                Eviction::VolatileTtl => self.deadlines.first().map(|(_, slot)| *slot),
            };
            self.remove_slot(victim.ok_or(ErrorReply::OUT_OF_MEMORY)?);
            self.counters.evicted += 1;
        }
        Ok(true)
    }

    /// Runs the commands of a transaction, between which nothing happens: no key is evicted, and instead
    /// they may exceed the limit on memory, by as much as a transaction may have. Whoever needs memory
    /// later makes room for that too.
    pub(crate) fn together(&mut self, run: impl FnOnce(&mut Self)) {
        self.is_together = true;
        run(self);
        self.is_together = false;
    }

    /// Lets a transaction take `more` bytes although there are no more than `most`. What it has written
    /// or is yet to read is not evicted for them.
    fn exceed(&self, more: usize, most: usize) -> Result<bool, ErrorReply> {
        let most = most.saturating_add(self.settings.max_transaction);
        match self.used_memory.saturating_add(more) > most {
            true => Err(ErrorReply::OUT_OF_MEMORY),
            false => Ok(false),
        }
    }

    /// Returns a slot that was not used for long: the least recently used of a sample.
    fn little_used(&mut self) -> Option<u32> {
        let samples = if self.entries.is_empty() { 0 } else { SAMPLES };
        let slots: [u32; SAMPLES] =
            std::array::from_fn(|at| if at < samples { self.random_slot() } else { 0 });
        let age = |slot: &u32| {
            self.accesses
                .wrapping_sub(self.entries[*slot as usize].used)
        };
        slots[..samples].iter().copied().max_by_key(age)
    }

    /// Returns the slot of an entry that is chosen at random. There has to be one.
    pub(super) fn random_slot(&mut self) -> u32 {
        // xorshift64*.
        self.random ^= self.random >> 12;
        self.random ^= self.random << 25;
        self.random ^= self.random >> 27;
        let random = self.random.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32;
        ((random * self.entries.len() as u64) >> 32) as u32
    }
}
