//! Enters: 32-bit TCP sequence numbers. Leaves: their order, wrap-around included.

/// A TCP sequence number (RFC 9293 section 3.4): arithmetic is modulo 2^32.
///
/// There is no `Ord`: order holds only between numbers less than 2^31 apart, so it is asked for by name.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub struct SeqNumber(pub u32);

impl SeqNumber {
    /// The number `len` bytes further on.
    #[must_use]
    pub const fn advance(self, len: u32) -> Self {
        Self(self.0.wrapping_add(len))
    }

    /// Signed distance in bytes from `origin` to `self`: negative where `self` is the earlier one.
    #[must_use]
    pub const fn distance(self, origin: Self) -> i32 {
        self.0.wrapping_sub(origin.0).cast_signed()
    }

    /// Whether `self` comes before `other`.
    #[must_use]
    pub const fn is_before(self, other: Self) -> bool {
        self.distance(other) < 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_holds_across_the_wrap() {
        let before = SeqNumber(u32::MAX - 1);
        let after = before.advance(5);
        assert_eq!(after, SeqNumber(3));
        assert!(before.is_before(after));
        assert_eq!(after.distance(before), 5);
        assert_eq!(before.distance(after), -5);
    }
}
