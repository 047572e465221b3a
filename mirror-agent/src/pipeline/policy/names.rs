//! Enters: names that rules ask for, then the names and values of a request. Leaves: the values that were asked for.

use std::{borrow::Cow, cmp::Ordering};

/// Names that are looked for, each with its place.
#[derive(Clone, Debug, Default)]
pub(super) struct Names {
    /// In ascending order of the names.
    list: Vec<(Box<[u8]>, usize)>,
    /// The lengths that there are, one bit each; the last for that length and every greater one. It rules out most
    /// names that are met.
    lengths: u64,
}

impl Names {
    /// The place of a name, which gets one if it has none.
    pub(super) fn intern(&mut self, name: &[u8]) -> usize {
        self.lengths |= length_bit(name);
        match self.list.binary_search_by(|(known, _)| (**known).cmp(name)) {
            Ok(found) => self.list.get(found).map_or(usize::MAX, |(_, place)| *place),
            Err(free) => {
                let place = self.list.len();
                self.list.insert(free, (name.into(), place));
                place
            }
        }
    }

    /// The place of this name.
    pub(super) fn find(&self, name: &[u8]) -> Option<usize> {
        self.find_by(name, |known| known.cmp(name))
    }

    /// The place of this name, in whatever case; all that are known are in lower case.
    pub(super) fn find_ignoring_case(&self, name: &[u8]) -> Option<usize> {
        self.find_by(name, |known| known.iter().copied().cmp(name.iter().map(u8::to_ascii_lowercase)))
    }

    fn find_by(&self, name: &[u8], order: impl Fn(&[u8]) -> Ordering) -> Option<usize> {
        if self.lengths & length_bit(name) == 0 {
            return None;
        }
        let found = self.list.binary_search_by(|(known, _)| order(known)).ok()?;
        self.list.get(found).map(|(_, place)| *place)
    }
}

fn length_bit(name: &[u8]) -> u64 {
    u32::try_from(name.len()).ok().and_then(|len| 1_u64.checked_shl(len)).unwrap_or(1 << 63)
}

/// Places that need no search: more names are seldom asked for.
const INLINE: usize = 8;

/// The values of a request, by the places of their names. What it holds is bounded by the request, not by the names.
pub(super) struct Values<'h> {
    inline: [Option<Cow<'h, [u8]>>; INLINE],
    /// Those at further places, in their order.
    more: Vec<(usize, Cow<'h, [u8]>)>,
}

impl<'h> Values<'h> {
    /// None yet.
    pub(super) const fn new() -> Self {
        Self { inline: [const { None }; INLINE], more: Vec::new() }
    }

    /// The value at a place.
    pub(super) fn get(&self, place: usize) -> Option<&[u8]> {
        if place < INLINE {
            return self.inline.get(place)?.as_deref();
        }
        let found = self.search(place).ok()?;
        self.more.get(found).map(|(_, value)| &**value)
    }

    /// All of them, each with its place.
    pub(super) fn iter(&self) -> impl Iterator<Item = (usize, &[u8])> {
        let inline =
            self.inline.iter().enumerate().filter_map(|(place, value)| Some((place, value.as_deref()?)));
        inline.chain(self.more.iter().map(|(place, value)| (*place, &**value)))
    }

    /// Puts a value at a place that has none.
    pub(super) fn put(&mut self, place: usize, value: &'h [u8]) {
        self.join(place, value, |_| {});
    }

    /// Puts a value at a place, behind the one that it has.
    pub(super) fn append(&mut self, place: usize, separator: &[u8], value: &'h [u8]) {
        self.join(place, value, |before| {
            let joined = before.to_mut();
            joined.extend_from_slice(separator);
            joined.extend_from_slice(value);
        });
    }

    /// Puts a value at a place that has none, or tells of the one that it has.
    fn join(&mut self, place: usize, value: &'h [u8], occupied: impl FnOnce(&mut Cow<'h, [u8]>)) {
        if let Some(slot) = self.inline.get_mut(place) {
            match slot {
                None => *slot = Some(Cow::Borrowed(value)),
                Some(before) => occupied(before),
            }
            return;
        }
        match self.search(place) {
            Err(free) => self.more.insert(free, (place, Cow::Borrowed(value))),
            Ok(found) => {
                if let Some((_, before)) = self.more.get_mut(found) {
                    occupied(before);
                }
            }
        }
    }

    fn search(&self, place: usize) -> Result<usize, usize> {
        self.more.binary_search_by_key(&place, |(place, _)| *place)
    }
}
