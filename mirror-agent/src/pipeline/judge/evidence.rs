//! Enters: the values of divergences at one place. Leaves: whether they were made by a generator, a counter or a dice.
//!
//! Only hashes of values are kept, and the last number.

use std::hash::Hasher;

use siphasher::sip::SipHasher13;

use super::{interval::real, look::unquoted};
use crate::pipeline::compare::Divergence;

/// Values of live's that are remembered to see whether they come again.
const REMEMBERED: usize = 32;

/// Pairs of values that are told apart at one place.
const PAIRS: usize = 16;

/// Pairs of elements of which the order is followed.
const ELEMENT_PAIRS: usize = 64;

/// What the values at one place tell.
#[derive(Clone, Debug, Default)]
pub(super) struct Evidence {
    seen: u64,
    recent: Vec<u64>,
    repeated: u64,
    last: Option<(f64, f64)>,
    steps: u64,
    rises: u64,
    pairs: Vec<Pair>,
    strange: u64,
    orders: Vec<Pair>,
}

/// Two values, and how often they were seen this way round and the other.
#[derive(Clone, Copy, Debug)]
struct Pair {
    values: (u64, u64),
    forth: u64,
    back: u64,
}

impl Evidence {
    pub(super) fn add(&mut self, divergence: &Divergence) {
        let (Some(live), Some(other)) = (&divergence.live, &divergence.other) else { return };
        self.seen = self.seen.saturating_add(1);
        let (live_hash, other_hash) = (hash(live), hash(other));
        if self.recent.contains(&live_hash) {
            self.repeated = self.repeated.saturating_add(1);
        } else {
            if self.recent.len() >= REMEMBERED {
                self.recent.remove(0);
            }
            self.recent.push(live_hash);
        }
        if !note(&mut self.pairs, PAIRS, live_hash, other_hash) {
            self.strange = self.strange.saturating_add(1);
        }
        self.note_numbers(unquoted(live), unquoted(other));
    }

    /// Takes the first elements that are not the same in two orders: what live has there comes later in the other.
    pub(super) fn add_order(&mut self, divergence: &Divergence) {
        let (Some(live), Some(other)) = (&divergence.live, &divergence.other) else { return };
        self.seen = self.seen.saturating_add(1);
        note(&mut self.orders, ELEMENT_PAIRS, hash(live), hash(other));
    }

    fn note_numbers(&mut self, live: &str, other: &str) {
        let (Ok(live), Ok(other)) = (live.parse::<f64>(), other.parse::<f64>()) else { return };
        if let Some((live_before, other_before)) = self.last.replace((live, other)) {
            self.steps = self.steps.saturating_add(1);
            let rises = live > live_before && other > other_before && live.fract() == 0.0;
            self.rises = self.rises.saturating_add(u64::from(rises));
        }
    }

    /// Whether live hardly ever has the same value twice.
    pub(super) fn is_ever_new(&self) -> bool {
        self.seen >= 20 && real(self.repeated) <= 0.1 * real(self.seen)
    }

    /// Whether whole numbers rise on both sides nearly always.
    pub(super) fn is_counter(&self) -> bool {
        self.steps >= 20 && real(self.rises) >= 0.9 * real(self.steps)
    }

    /// Whether both sides draw from the same few values: what live has and the other has not is seen the other way round
    /// as often.
    pub(super) fn is_drawn(&self) -> bool {
        let both_ways =
            self.pairs.iter().fold(0, |sum: u64, pair| sum.saturating_add(pair.forth.min(pair.back)));
        self.seen >= 30 && real(both_ways) * 2.0 >= 0.5 * real(self.seen) && self.strange < self.seen / 4
    }

    /// Whether live itself has the same two elements now in this order, now in that; `None` where hardly any two came
    /// together again, so that an order cannot be held against another one.
    pub(super) fn has_no_order(&self) -> Option<bool> {
        let again = self.orders.iter().filter(|pair| pair.forth.saturating_add(pair.back) > 1);
        let (minor, all) = again.fold((0_u64, 0_u64), |(minor, all), pair| {
            (
                minor.saturating_add(pair.forth.min(pair.back)),
                all.saturating_add(pair.forth).saturating_add(pair.back),
            )
        });
        (all >= 10).then(|| real(minor) >= 0.15 * real(all))
    }

    /// Adds what another place has seen that is this one now. Pairs are those of the one that has seen more.
    pub(super) fn merge(&mut self, other: Self) {
        let (mut more, less) = if other.seen > self.seen {
            (other, std::mem::take(self))
        } else {
            (std::mem::take(self), other)
        };
        more.seen = more.seen.saturating_add(less.seen);
        more.repeated = more.repeated.saturating_add(less.repeated);
        more.steps = more.steps.saturating_add(less.steps);
        more.rises = more.rises.saturating_add(less.rises);
        *self = more;
    }
}

/// Counts a pair of values; returns whether there was room for it.
fn note(pairs: &mut Vec<Pair>, most: usize, first: u64, second: u64) -> bool {
    if first == second {
        return true;
    }
    let values = (first.min(second), first.max(second));
    let count = |pair: &mut Pair| {
        let side = if first < second { &mut pair.forth } else { &mut pair.back };
        *side = side.saturating_add(1);
    };
    if let Some(pair) = pairs.iter_mut().find(|pair| pair.values == values) {
        count(pair);
        return true;
    }
    if pairs.len() >= most {
        return false;
    }
    let mut pair = Pair { values, forth: 0, back: 0 };
    count(&mut pair);
    pairs.push(pair);
    true
}

fn hash(text: &str) -> u64 {
    let mut hasher = SipHasher13::new_with_keys(0, 0);
    hasher.write(text.as_bytes());
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::pipeline::reason::DivergenceKind;

    fn divergence(live: &str, other: &str) -> Divergence {
        Divergence {
            kind: DivergenceKind::Value,
            path: Arc::from("$.x"),
            place: "$.x".to_owned(),
            other_place: None,
            live: Some(live.to_owned()),
            other: Some(other.to_owned()),
        }
    }

    #[test]
    fn rising_numbers_are_a_counter() {
        let (mut counter, mut price) = (Evidence::default(), Evidence::default());
        for n in 0..40_u32 {
            counter.add(&divergence(&n.to_string(), &(n + 7).to_string()));
            price.add(&divergence(&(n % 7).to_string(), &(n % 7 + 1).to_string()));
        }
        assert!(counter.is_counter() && !price.is_counter());
    }

    #[test]
    fn values_drawn_on_both_sides_come_both_ways_round() {
        let (mut drawn, mut wrong) = (Evidence::default(), Evidence::default());
        for n in 0..40_usize {
            let hosts = ["alpha", "beta", "gamma"];
            drawn.add(&divergence(hosts[n % 3], hosts[(n + 1 + n / 3 % 2) % 3]));
            wrong.add(&divergence("shipped", "delivered"));
        }
        assert!(drawn.is_drawn() && !wrong.is_drawn());
    }

    #[test]
    fn order_of_a_set_contradicts_itself() {
        let (mut set, mut list, mut strangers) =
            (Evidence::default(), Evidence::default(), Evidence::default());
        for n in 0..40_u32 {
            let (live, other) = if n % 2 == 0 { ("red", "blue") } else { ("blue", "red") };
            set.add_order(&divergence(live, other));
            list.add_order(&divergence(r#"{"id":1}"#, r#"{"id":2}"#));
            strangers.add_order(&divergence(&n.to_string(), &(n + 1000).to_string()));
        }
        let told = [&set, &list, &strangers].map(Evidence::has_no_order);
        assert_eq!(told, [Some(true), Some(false), None]);
    }
}
