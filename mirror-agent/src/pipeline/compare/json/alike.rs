//! Enters: elements that have changed, by what they have. Leaves: which of them are likely to be the same element.

use super::align::Pair;

/// Most pairs that are looked at between two elements that are the same; beyond that elements are paired as they come.
pub(super) const MAX_LOOKED_AT: usize = 1024;

/// Pairs elements in order, so that pairs have as much in common as can be. `live` and `other` are, for each element, the
/// hashes of its parts, sorted; what is paired without anything in common is still better than what is not.
pub(super) fn pair_alike(live: &[Vec<u64>], other: &[Vec<u64>]) -> Vec<Pair> {
    // From the end: the best that can be had from the elements at and behind each position.
    let width = other.len().saturating_add(1);
    let mut rows: Vec<Vec<usize>> = vec![vec![0; width]];
    for of_live in live.iter().rev() {
        let mut row = vec![0; width];
        let below = rows.last().map_or(&[][..], Vec::as_slice);
        for (at, of_other) in other.iter().enumerate().rev() {
            let next = at.saturating_add(1);
            let best = worth(of_live, of_other)
                .saturating_add(value(below, next))
                .max(value(below, at))
                .max(value(&row, next));
            if let Some(cell) = row.get_mut(at) {
                *cell = best;
            }
        }
        rows.push(row);
    }
    rows.reverse();
    let best =
        |of_live: usize, of_other: usize| value(rows.get(of_live).map_or(&[][..], Vec::as_slice), of_other);
    let (mut of_live, mut of_other) = (0_usize, 0_usize);
    let mut pairs = Vec::new();
    while let (Some(one), Some(two)) = (live.get(of_live), other.get(of_other)) {
        let (live_next, other_next) = (of_live.saturating_add(1), of_other.saturating_add(1));
        let (without_live, without_other) = (best(live_next, of_other), best(of_live, other_next));
        let paired = worth(one, two).saturating_add(best(live_next, other_next));
        if paired >= without_live.max(without_other) {
            pairs.push((of_live, of_other));
            (of_live, of_other) = (live_next, other_next);
        } else if without_live > without_other || without_live == without_other && one < two {
            // Of two that are as good, the one is left out that is also left out when the sides are swapped.
            of_live = live_next;
        } else {
            of_other = other_next;
        }
    }
    pairs
}

fn value(row: &[usize], at: usize) -> usize {
    row.get(at).copied().unwrap_or(0)
}

/// What a pair is worth: something, and much more for each part that both have.
fn worth(one: &[u64], other: &[u64]) -> usize {
    let mut other = other.iter().peekable();
    let common = one.iter().filter(|part| {
        while other.next_if(|next| next < part).is_some() {}
        other.next_if_eq(part).is_some()
    });
    common.count().saturating_mul(4).saturating_add(1)
}

#[cfg(test)]
mod tests {
    use super::{Pair, pair_alike};

    /// Elements with spaces between, each letter a part.
    fn paired(live: &str, other: &str) -> Vec<Pair> {
        let elements = |text: &str| -> Vec<Vec<u64>> {
            text.split_whitespace().map(|element| element.bytes().map(u64::from).collect()).collect()
        };
        pair_alike(&elements(live), &elements(other))
    }

    #[test]
    fn elements_are_paired_with_those_that_are_like_them() {
        let cases: [(&str, &str, &[Pair]); 8] = [
            ("ab", "ac", &[(0, 0)]),
            ("ab", "cd", &[(0, 0)]),
            ("abc def", "deg", &[(1, 0)]),
            ("deg", "abc def", &[(0, 1)]),
            ("abc def ghi", "xyz abd deg", &[(0, 1), (1, 2)]),
            ("a b c", "x y z", &[(0, 0), (1, 1), (2, 2)]),
            ("a b c", "x", &[(0, 0)]),
            ("", "x", &[]),
        ];

        for (live, other, expected) in cases {
            assert_eq!(paired(live, other), expected, "{live} against {other}");
        }
    }
}
