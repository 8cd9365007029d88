//! What has happened to the items, for the command `stats`.

/// Counters, by the names that memcached has for them.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Statistics {
    pub(crate) total_connections: u64,
    pub(crate) total_items: u64,
    pub(crate) cmd_get: u64,
    pub(crate) cmd_set: u64,
    pub(crate) cmd_flush: u64,
    pub(crate) cmd_touch: u64,
    pub(crate) cmd_meta: u64,
    pub(crate) get_hits: u64,
    pub(crate) get_misses: u64,
    pub(crate) get_expired: u64,
    pub(crate) delete_hits: u64,
    pub(crate) delete_misses: u64,
    pub(crate) incr_hits: u64,
    pub(crate) incr_misses: u64,
    pub(crate) decr_hits: u64,
    pub(crate) decr_misses: u64,
    pub(crate) cas_hits: u64,
    pub(crate) cas_misses: u64,
    pub(crate) cas_badval: u64,
    pub(crate) touch_hits: u64,
    pub(crate) touch_misses: u64,
    pub(crate) store_too_large: u64,
    pub(crate) store_no_memory: u64,
    pub(crate) evictions: u64,
}

impl Statistics {
    pub(crate) fn count_get(&mut self, found: bool) {
        self.cmd_get += 1;
        self.get_hits += u64::from(found);
        self.get_misses += u64::from(!found);
    }

    pub(crate) fn count_touch(&mut self, found: bool) {
        self.cmd_touch += 1;
        self.touch_hits += u64::from(found);
        self.touch_misses += u64::from(!found);
    }

    /// Returns the counters and their names.
    pub(crate) fn named(&self) -> [(&'static str, u64); 24] {
        [
            ("total_connections", self.total_connections),
            ("total_items", self.total_items),
            ("cmd_get", self.cmd_get),
            ("cmd_set", self.cmd_set),
            ("cmd_flush", self.cmd_flush),
            ("cmd_touch", self.cmd_touch),
            ("cmd_meta", self.cmd_meta),
            ("get_hits", self.get_hits),
            ("get_misses", self.get_misses),
            ("get_expired", self.get_expired),
            ("delete_hits", self.delete_hits),
            ("delete_misses", self.delete_misses),
            ("incr_hits", self.incr_hits),
            ("incr_misses", self.incr_misses),
            ("decr_hits", self.decr_hits),
            ("decr_misses", self.decr_misses),
            ("cas_hits", self.cas_hits),
            ("cas_misses", self.cas_misses),
            ("cas_badval", self.cas_badval),
            ("touch_hits", self.touch_hits),
            ("touch_misses", self.touch_misses),
            ("store_too_large", self.store_too_large),
            ("store_no_memory", self.store_no_memory),
            ("evictions", self.evictions),
        ]
    }
}
