//! Enters: numbers as written. Leaves: whether they are the same, or close enough, decided on their decimal digits.

use std::cmp::Ordering;

use super::parse::is_number;
use crate::pipeline::compare::Tolerance;

/// Most digits that differences are worked out on exactly. Longer numbers, and such whose exponents are further apart,
/// are compared as floating point numbers where a tolerance is asked for.
const MAX_DIGITS: usize = 400;

/// A decimal number: `0.DIGITS` times ten to the power of `exponent`. Zero has no digits.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(in crate::pipeline::compare) struct Decimal {
    is_negative: bool,
    /// From 0 to 9 each, neither the first nor the last is 0.
    digits: Vec<u8>,
    exponent: i64,
}

impl Decimal {
    /// Reads a number as JSON writes it; `None` where it is none, or its exponent is beyond 64 bits.
    pub(in crate::pipeline::compare) fn parse(text: &[u8]) -> Option<Self> {
        if !is_number(text) {
            return None;
        }
        let (is_negative, text) = text.strip_prefix(b"-").map_or((false, text), |rest| (true, rest));
        let (mantissa, power) = match text.iter().position(|byte| matches!(byte, b'e' | b'E')) {
            Some(at) => (text.get(..at)?, parse_exponent(text.get(at.checked_add(1)?..)?)?),
            None => (text, 0),
        };
        let point = mantissa.iter().position(|byte| *byte == b'.').unwrap_or(mantissa.len());
        let digits =
            mantissa.iter().filter(|byte| **byte != b'.').map(|byte| byte.saturating_sub(b'0')).collect();
        let exponent = i64::try_from(point).ok()?.checked_add(power)?;
        Self { is_negative, digits, exponent }.tidied()
    }

    /// Without zeros at either end.
    fn tidied(mut self) -> Option<Self> {
        let leading = self.digits.iter().position(|digit| *digit != 0).unwrap_or(self.digits.len());
        self.digits.drain(..leading);
        while self.digits.last() == Some(&0) {
            self.digits.pop();
        }
        if self.digits.is_empty() {
            return Some(Self { is_negative: false, digits: Vec::new(), exponent: 0 });
        }
        self.exponent = self.exponent.checked_sub(i64::try_from(leading).ok()?)?;
        Some(self)
    }

    /// By magnitude.
    fn cmp_magnitude(&self, other: &Self) -> Ordering {
        match (self.digits.is_empty(), other.digits.is_empty()) {
            (false, false) => self.exponent.cmp(&other.exponent).then_with(|| self.digits.cmp(&other.digits)),
            (is_zero, other_is_zero) => other_is_zero.cmp(&is_zero),
        }
    }

    /// The magnitude of the difference; `None` where it has too many digits.
    fn distance(&self, other: &Self) -> Option<Self> {
        let (large, small) =
            if self.cmp_magnitude(other) == Ordering::Less { (other, self) } else { (self, other) };
        if small.digits.is_empty() {
            return Some(Self { is_negative: false, ..large.clone() });
        }
        let shift = usize::try_from(large.exponent.checked_sub(small.exponent)?).ok()?;
        let len = large.digits.len().max(small.digits.len().checked_add(shift)?);
        if len > MAX_DIGITS {
            return None;
        }
        // From the last digit on, each below the one it belongs to.
        let of_large = |at: usize| large.digits.get(at).copied().unwrap_or(0);
        let of_small =
            |at: usize| at.checked_sub(shift).and_then(|at| small.digits.get(at)).copied().unwrap_or(0);
        let adds = self.is_negative != other.is_negative;
        let mut digits = vec![0; len];
        let mut carry = 0_u8;
        for (at, digit) in digits.iter_mut().enumerate().rev() {
            (*digit, carry) = if adds {
                let sum = of_large(at).saturating_add(of_small(at)).saturating_add(carry);
                (sum % 10, sum / 10)
            } else {
                let taken = of_small(at).saturating_add(carry);
                match of_large(at).checked_sub(taken) {
                    Some(left) => (left, 0),
                    None => (of_large(at).saturating_add(10).saturating_sub(taken), 1),
                }
            };
        }
        let mut exponent = large.exponent;
        if carry > 0 {
            digits.insert(0, carry);
            exponent = exponent.checked_add(1)?;
        }
        Self { is_negative: false, digits, exponent }.tidied()
    }

    /// The magnitude of the product; `None` where it has too many digits.
    fn times(&self, other: &Self) -> Option<Self> {
        let len = self.digits.len().checked_add(other.digits.len())?;
        if len > MAX_DIGITS {
            return None;
        }
        let mut sums = vec![0_u32; len];
        for (at, digit) in self.digits.iter().enumerate() {
            for (of, factor) in other.digits.iter().enumerate() {
                let sum = sums.get_mut(at.checked_add(of)?.checked_add(1)?)?;
                *sum = sum.saturating_add(u32::from(*digit).saturating_mul(u32::from(*factor)));
            }
        }
        let mut carry = 0;
        let mut digits = vec![0; len];
        for (digit, sum) in digits.iter_mut().zip(&sums).rev() {
            let sum = sum.saturating_add(carry);
            *digit = u8::try_from(sum % 10).ok()?;
            carry = sum / 10;
        }
        let exponent = self.exponent.checked_add(other.exponent)?;
        Self { is_negative: false, digits, exponent }.tidied()
    }
}

/// What follows the `e`.
fn parse_exponent(text: &[u8]) -> Option<i64> {
    str::from_utf8(text).ok()?.parse().ok()
}

/// Whether two numbers have the same value, exactly. Where an exponent is beyond 64 bits, only what is written alike is.
pub(in crate::pipeline::compare) fn same_value(one: &[u8], other: &[u8]) -> bool {
    one == other
        || matches!((Decimal::parse(one), Decimal::parse(other)), (Some(one), Some(other)) if one == other)
}

/// A tolerance, its bounds as decimal numbers: what is written as 0.01 is 0.01, and not the binary number next to it.
#[derive(Clone, Debug)]
pub(in crate::pipeline::compare) struct Bounds {
    absolute: Decimal,
    relative: Decimal,
    as_floats: Tolerance,
}

impl Bounds {
    /// `None` where a bound is negative or no number.
    pub(in crate::pipeline::compare) fn new(tolerance: Tolerance) -> Option<Self> {
        let decimal = |bound: f64| {
            if bound.is_finite() && bound >= 0.0 {
                Decimal::parse(bound.to_string().as_bytes())
            } else {
                None
            }
        };
        let absolute = decimal(tolerance.absolute)?;
        let relative = decimal(tolerance.relative)?;
        Some(Self { absolute, relative, as_floats: tolerance })
    }

    /// Whether both are numbers, and either bound is kept; at the bound itself it is.
    pub(in crate::pipeline::compare) fn allow(&self, one: &[u8], other: &[u8]) -> bool {
        match (Decimal::parse(one), Decimal::parse(other)) {
            (Some(one), Some(other)) => {
                self.allow_exactly(&one, &other).unwrap_or_else(|| self.allow_floats(&one, &other))
            }
            _ => false,
        }
    }

    fn allow_exactly(&self, one: &Decimal, other: &Decimal) -> Option<bool> {
        let distance = one.distance(other)?;
        if distance.cmp_magnitude(&self.absolute) != Ordering::Greater {
            return Some(true);
        }
        let larger = if one.cmp_magnitude(other) == Ordering::Less { other } else { one };
        Some(distance.cmp_magnitude(&larger.times(&self.relative)?) != Ordering::Greater)
    }

    fn allow_floats(&self, one: &Decimal, other: &Decimal) -> bool {
        let (one, other) = (one.to_float(), other.to_float());
        if !one.is_finite() || !other.is_finite() {
            return false;
        }
        let distance = (one - other).abs();
        distance <= self.as_floats.absolute
            || distance <= self.as_floats.relative * one.abs().max(other.abs())
    }
}

impl Decimal {
    /// The floating point number next to it.
    fn to_float(&self) -> f64 {
        let digits: String = self.digits.iter().map(|digit| char::from(digit.saturating_add(b'0'))).collect();
        let sign = if self.is_negative { "-" } else { "" };
        format!("{sign}0.{digits}e{}", self.exponent).parse().unwrap_or(0.0)
    }
}

/// The floating point number next to a number as JSON writes it; `None` where it is none, or too large to be one.
pub(in crate::pipeline::compare) fn to_float(text: &[u8]) -> Option<f64> {
    if !is_number(text) {
        return None;
    }
    str::from_utf8(text).ok()?.parse().ok().filter(|number: &f64| number.is_finite())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Bounds, same_value};
    use crate::pipeline::compare::Tolerance;

    #[test]
    fn numbers_are_compared_by_value_exactly() {
        let cases = [
            ("1", "1.0", true),
            ("1", "1.0000", true),
            ("100", "1e2", true),
            ("100", "1E+2", true),
            ("0.001", "1e-3", true),
            ("0", "-0", true),
            ("0", "0.000e99", true),
            ("1e400", "10e399", true),
            ("1234567890123456789012345678901234567890", "1.23456789012345678901234567890123456789e39", true),
            ("0.10005", "0.1001", false),
            ("1", "-1", false),
            ("1", "10", false),
            ("1e400", "1e401", false),
            ("1234567890123456789012345678901234567890", "1234567890123456789012345678901234567891", false),
            ("0.1", "0.10000000000000000000000001", false),
            ("1e99999999999999999999", "1e99999999999999999999", true),
            ("1e99999999999999999999", "1e99999999999999999998", false),
        ];

        for (one, other, expected) in cases {
            assert_eq!(same_value(one.as_bytes(), other.as_bytes()), expected, "{one} and {other}");
            assert_eq!(same_value(other.as_bytes(), one.as_bytes()), expected, "{other} and {one}");
        }
    }

    #[test]
    fn tolerance_is_exact_at_its_bound() {
        let cases = [
            (0.01, 0.0, "0.10", "0.11", true),
            (0.01, 0.0, "0.1", "0.110000000000000000000001", false),
            (0.01, 0.0, "-0.005", "0.005", true),
            (0.01, 0.0, "-0.005", "0.0051", false),
            (0.01, 0.0, "12345678901234567890.01", "12345678901234567890.02", true),
            (0.01, 0.0, "99.995", "100.005", true),
            (0.0, 0.0, "1", "1.0", true),
            (0.0, 0.0, "1", "1.0000001", false),
            (0.0, 0.1, "90", "100", true),
            (0.0, 0.1, "89.999", "100", false),
            (0.0, 0.1, "-100", "-90", true),
            (0.0, 0.1, "0", "0.0", true),
            (0.0, 0.1, "0", "0.1", false),
            (1e-9, 0.0, "0.30000000000000004", "0.3", true),
            (0.0, 1e-12, "0.30000000000000004", "0.3", true),
            (0.5, 0.0, "1e400", "1e400", true),
            (0.5, 0.0, "1e400", "2e400", false),
            (0.5, 0.0, "1e5000", "1", false),
            (0.5, 0.0, "1", "one", false),
            (1000.0, 0.0, "1e-2000", "999", true),
        ];

        for (absolute, relative, one, other, expected) in cases {
            let bounds = Bounds::new(Tolerance { absolute, relative }).unwrap();
            let case = format!("{one} and {other} by {absolute}, {relative}");
            assert_eq!(bounds.allow(one.as_bytes(), other.as_bytes()), expected, "{case}");
            assert_eq!(bounds.allow(other.as_bytes(), one.as_bytes()), expected, "{case}");
        }
    }

    #[test]
    fn bounds_are_numbers_from_zero_up() {
        for bound in [-0.1, f64::NAN, f64::INFINITY] {
            assert!(Bounds::new(Tolerance { absolute: bound, relative: 0.0 }).is_none(), "{bound}");
        }
    }

    proptest! {
        #[test]
        fn integers_agree_with_arithmetic(one in -100_000_i64..100_000, other in -100_000_i64..100_000, bound in 0..5000_u32) {
            let bounds = Bounds::new(Tolerance { absolute: f64::from(bound), relative: 0.0 }).unwrap();
            let expected = (one - other).abs() <= i64::from(bound);
            prop_assert_eq!(bounds.allow(one.to_string().as_bytes(), other.to_string().as_bytes()), expected);
        }

        #[test]
        fn shares_agree_with_arithmetic(one in -1000_i64..1000, other in -1000_i64..1000, percent in 0..100_i64) {
            let relative = format!("{percent}e-2").parse().unwrap();
            let bounds = Bounds::new(Tolerance { absolute: 0.0, relative }).unwrap();
            let expected = (one - other).abs() * 100 <= percent * one.abs().max(other.abs());
            prop_assert_eq!(bounds.allow(one.to_string().as_bytes(), other.to_string().as_bytes()), expected);
        }

        #[test]
        fn spelling_does_not_count(digits in "[1-9][0-9]{0,30}", zeros in 0..5_usize, power in -20..20_i32) {
            let plain = format!("{digits}e{power}");
            let spelled = format!("{digits}.{}E{power:+}", "0".repeat(zeros + 1));
            let shifted = format!("{digits}{}e{}", "0".repeat(zeros), power - i32::try_from(zeros).unwrap());
            prop_assert!(same_value(plain.as_bytes(), spelled.as_bytes()));
            prop_assert!(same_value(plain.as_bytes(), shifted.as_bytes()));
        }
    }
}
