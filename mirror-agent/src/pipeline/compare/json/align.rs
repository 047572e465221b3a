//! Enters: the elements of two sequences as hashes. Leaves: which element of one belongs to which of the other.

use std::{collections::HashMap, ops::Range};

use ahash::RandomState;

/// Elements that belong together, by their positions.
pub(super) type Pair = (usize, usize);

/// What belongs together, in the order of both, and what lies between: positions of both that have no partner.
#[derive(Debug, Default, Eq, PartialEq)]
pub(super) struct Alignment {
    pub(super) pairs: Vec<Pair>,
    pub(super) gaps: Vec<(Range<usize>, Range<usize>)>,
}

/// Aligns two sequences: what they begin and end with, and between that those elements that each has once, as many as
/// are in the same order; then once more what lies before and behind each of these. Linear but for a logarithm, and what
/// a reader would call the difference where elements were put in, taken out or changed.
pub(super) fn align(live: &[u64], other: &[u64]) -> Alignment {
    let mut alignment = Alignment::default();
    let (live_rest, other_rest) = alignment.begin((live, 0..live.len()), (other, 0..other.len()));
    let (live_rest, other_rest, end) = common_end((live, live_rest), (other, other_rest));
    let anchors = anchors((live, live_rest.clone()), (other, other_rest.clone()));
    let mut before = (live_rest.start, other_rest.start);
    for (of_live, of_other) in anchors.into_iter().chain([(live_rest.end, other_rest.end)]) {
        alignment.between((live, before.0..of_live), (other, before.1..of_other));
        if of_live < live_rest.end {
            alignment.pairs.push((of_live, of_other));
        }
        before = (of_live.saturating_add(1), of_other.saturating_add(1));
    }
    alignment.pairs.extend(end);
    alignment
}

/// A part of a sequence.
type Part<'a> = (&'a [u64], Range<usize>);

impl Alignment {
    /// Pairs what both begin with. Gives what is left.
    fn begin(&mut self, live: Part<'_>, other: Part<'_>) -> (Range<usize>, Range<usize>) {
        let same = live
            .1
            .clone()
            .zip(other.1.clone())
            .take_while(|(of_live, of_other)| live.0.get(*of_live) == other.0.get(*of_other));
        let before = self.pairs.len();
        self.pairs.extend(same);
        let count = self.pairs.len().saturating_sub(before);
        (live.1.start.saturating_add(count)..live.1.end, other.1.start.saturating_add(count)..other.1.end)
    }

    /// Pairs what two parts begin and end with; the rest is a gap.
    fn between(&mut self, live: Part<'_>, other: Part<'_>) {
        let (live_rest, other_rest) = self.begin(live.clone(), other.clone());
        let (live_rest, other_rest, end) = common_end((live.0, live_rest), (other.0, other_rest));
        if !live_rest.is_empty() || !other_rest.is_empty() {
            self.gaps.push((live_rest, other_rest));
        }
        self.pairs.extend(end);
    }
}

/// What is left of two parts without what both end with, and that.
fn common_end(live: Part<'_>, other: Part<'_>) -> (Range<usize>, Range<usize>, Vec<Pair>) {
    let same = live
        .1
        .clone()
        .rev()
        .zip(other.1.clone().rev())
        .take_while(|(of_live, of_other)| live.0.get(*of_live) == other.0.get(*of_other));
    let mut end: Vec<Pair> = same.collect();
    end.reverse();
    let rest = |range: &Range<usize>| range.start..range.end.saturating_sub(end.len());
    (rest(&live.1), rest(&other.1), end)
}

/// As many of the elements that each part has exactly once as are in the same order. Which of several choices it is does not
/// depend on whose part is whose.
fn anchors(live: Part<'_>, other: Part<'_>) -> Vec<Pair> {
    if live.0 <= other.0 {
        return in_order(&once_in_both(live, other));
    }
    in_order(&once_in_both(other, live)).into_iter().map(|(of_other, of_live)| (of_live, of_other)).collect()
}

/// The elements that each part has exactly once, in the order of the first.
fn once_in_both(live: Part<'_>, other: Part<'_>) -> Vec<Pair> {
    let mut seen: HashMap<u64, (usize, usize, usize), RandomState> =
        HashMap::with_hasher(RandomState::with_seeds(9, 10, 11, 12));
    for element in other.1.clone() {
        if let Some(hash) = other.0.get(element) {
            let (_, count, at) = seen.entry(*hash).or_default();
            (*count, *at) = (count.saturating_add(1), element);
        }
    }
    let hashes = |part: &Part<'_>| part.0.get(part.1.clone()).unwrap_or_default().to_vec();
    for hash in hashes(&live) {
        if let Some((count, _, _)) = seen.get_mut(&hash) {
            *count = count.saturating_add(1);
        }
    }
    let pairs = live.1.clone().filter_map(|element| match seen.get(live.0.get(element)?) {
        Some((1, 1, at)) => Some((element, *at)),
        _ => None,
    });
    pairs.collect()
}

/// A longest part of `pairs`, which are in the order of their first, in which the second are in order too.
fn in_order(pairs: &[Pair]) -> Vec<Pair> {
    // Patience sorting: `tops` are positions in `pairs`, the k-th the last of the best run of length k + 1.
    let mut tops: Vec<usize> = Vec::new();
    let mut before: Vec<Option<usize>> = Vec::with_capacity(pairs.len());
    for (position, pair) in pairs.iter().enumerate() {
        let len = tops.partition_point(|top| pairs.get(*top).is_some_and(|top| top.1 < pair.1));
        before.push(len.checked_sub(1).and_then(|len| tops.get(len)).copied());
        match tops.get_mut(len) {
            Some(top) => *top = position,
            None => tops.push(position),
        }
    }
    let mut run = Vec::with_capacity(tops.len());
    let mut next = tops.last().copied();
    while let Some(position) = next {
        run.extend(pairs.get(position));
        next = before.get(position).copied().flatten();
    }
    run.reverse();
    run
}

/// What of two bags is the same, and what is left of each, in order.
#[derive(Debug, Default, Eq, PartialEq)]
pub(super) struct Bags {
    pub(super) pairs: Vec<Pair>,
    pub(super) live: Vec<usize>,
    pub(super) other: Vec<usize>,
}

/// Pairs elements whatever their order. `live` and `other` are positions, each with its hash.
pub(super) fn pair_bags(
    live: impl IntoIterator<Item = (usize, u64)>,
    other: impl IntoIterator<Item = (usize, u64)>,
) -> Bags {
    let mut waiting: HashMap<u64, std::collections::VecDeque<usize>, RandomState> =
        HashMap::with_hasher(RandomState::with_seeds(13, 14, 15, 16));
    for (position, hash) in other {
        waiting.entry(hash).or_default().push_back(position);
    }
    let mut bags = Bags::default();
    for (position, hash) in live {
        match waiting.get_mut(&hash).and_then(std::collections::VecDeque::pop_front) {
            Some(partner) => bags.pairs.push((position, partner)),
            None => bags.live.push(position),
        }
    }
    bags.other = waiting.into_values().flatten().collect();
    bags.other.sort_unstable();
    bags
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Alignment, align, pair_bags};

    fn hashes(text: &str) -> Vec<u64> {
        text.bytes().map(u64::from).collect()
    }

    /// What is left of each gap, as `LIVE/OTHER`.
    fn gaps(live: &str, other: &str) -> String {
        let alignment = align(&hashes(live), &hashes(other));
        let gaps = alignment
            .gaps
            .iter()
            .map(|(of_live, of_other)| format!("{}/{}", &live[of_live.clone()], &other[of_other.clone()]));
        gaps.collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn differences_are_where_a_reader_sees_them() {
        let cases = [
            ("", "", ""),
            ("abc", "abc", ""),
            ("abc", "abxc", "/x"),
            ("abc", "xabc", "/x"),
            ("abc", "bc", "a/"),
            ("abcdef", "xabcde", "/x f/"),
            ("abcdef", "axcdxf", "b/x e/x"),
            ("aaaa", "aaaaa", "/a"),
            ("a0b0c", "a0x0c", "b/x"),
            ("ab", "xy", "ab/xy"),
            ("", "xy", "/xy"),
        ];

        for (live, other, expected) in cases {
            assert_eq!(gaps(live, other), expected, "{live} against {other}");
        }
    }

    #[test]
    fn what_is_chosen_of_several_orders_is_the_same_from_either_side() {
        for (live, other) in [("0nt", "tfn"), ("abcd", "dcba"), ("xaby", "ubax")] {
            let swapped = align(&hashes(other), &hashes(live));
            let pairs: Vec<_> =
                swapped.pairs.iter().map(|(of_other, of_live)| (*of_live, *of_other)).collect();
            assert_eq!(align(&hashes(live), &hashes(other)).pairs, pairs, "{live} against {other}");
        }
    }

    #[test]
    fn bags_are_paired_whatever_their_order() {
        let of = |text: &str| hashes(text).into_iter().enumerate().collect::<Vec<_>>();

        let bags = pair_bags(of("abca"), of("xaba"));

        assert_eq!(bags.pairs, [(0, 1), (1, 2), (3, 3)]);
        assert_eq!((bags.live, bags.other), (vec![2], vec![0]));
    }

    proptest! {
        #[test]
        fn each_element_has_its_place(live in "[a-e]{0,30}", other in "[a-e]{0,30}") {
            let (of_live, of_other) = (hashes(&live), hashes(&other));
            let Alignment { pairs, gaps } = align(&of_live, &of_other);
            prop_assert!(pairs.is_sorted_by(|one, next| one.0 < next.0 && one.1 < next.1), "{:?}", pairs);
            prop_assert!(pairs.iter().all(|(one, other)| of_live[*one] == of_other[*other]));
            let in_gaps: (usize, usize) =
                gaps.iter().fold((0, 0), |sum, gap| (sum.0 + gap.0.len(), sum.1 + gap.1.len()));
            prop_assert_eq!((pairs.len() + in_gaps.0, pairs.len() + in_gaps.1), (live.len(), other.len()));
        }
    }
}
