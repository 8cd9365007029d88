//! Up to 32 boolean flags in one `u32`, so that several can be tested at once.

use std::ops::BitOr;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Flags(u32);

impl Flags {
    pub(super) const NONE: Self = Self(0);

    pub(crate) const fn bit(number: u32) -> Self {
        Self(1 << number)
    }

    pub(crate) const fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Returns `self` if `condition` holds, and no flags otherwise. It has no branch, because
    /// events are unpredictable.
    #[inline]
    pub(crate) fn when(self, condition: bool) -> Self {
        Self(self.0 * u32::from(condition))
    }

    #[inline]
    pub(crate) const fn any(self, of: Self) -> bool {
        self.0 & of.0 != 0
    }

    #[inline]
    pub(crate) fn set(&mut self, these: Self) {
        self.0 |= these.0;
    }

    #[inline]
    pub(crate) fn clear(&mut self, these: Self) {
        self.0 &= !these.0;
    }

    /// Clears `these` and returns whether any of them was set.
    #[inline]
    pub(crate) fn take(&mut self, these: Self) -> bool {
        let any = self.any(these);
        self.clear(these);
        any
    }
}

impl BitOr for Flags {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        self.or(other)
    }
}
