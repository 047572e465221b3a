//! Enters: names that rules ask for, then the names and values of a request. Leaves: the values that were asked for.

use std::borrow::Cow;

/// Names that are looked for, each with its place.
#[derive(Clone, Debug, Default)]
pub(super) struct Names {
    list: Vec<Box<[u8]>>,
    /// The lengths that there are, one bit each; the last for that length and every greater one. It rules out most
    /// names that are met.
    lengths: u64,
}

impl Names {
    /// The place of a name, which gets one if it has none.
    pub(super) fn intern(&mut self, name: &[u8]) -> usize {
        self.lengths |= length_bit(name);
        self.list.iter().position(|known| **known == *name).unwrap_or_else(|| {
            self.list.push(name.into());
            self.list.len().saturating_sub(1)
        })
    }

    /// The place of this name.
    pub(super) fn find(&self, name: &[u8]) -> Option<usize> {
        self.find_by(name, |known| *known == *name)
    }

    /// The place of this name, in whatever case.
    pub(super) fn find_ignoring_case(&self, name: &[u8]) -> Option<usize> {
        self.find_by(name, |known| known.eq_ignore_ascii_case(name))
    }

    fn find_by(&self, name: &[u8], is_same: impl Fn(&[u8]) -> bool) -> Option<usize> {
        if self.lengths & length_bit(name) == 0 {
            return None;
        }
        self.list.iter().position(|known| is_same(known))
    }
}

fn length_bit(name: &[u8]) -> u64 {
    u32::try_from(name.len()).ok().and_then(|len| 1_u64.checked_shl(len)).unwrap_or(1 << 63)
}

/// Places that need no allocation: more names are seldom asked for.
const INLINE: usize = 8;

/// The values of a request, by the places of their names.
pub(super) struct Values<'h> {
    inline: [Option<Cow<'h, [u8]>>; INLINE],
    more: Vec<Option<Cow<'h, [u8]>>>,
}

impl<'h> Values<'h> {
    /// None yet.
    pub(super) fn new(names: &Names) -> Self {
        let more = vec![None; names.list.len().saturating_sub(INLINE)];
        Self { inline: [const { None }; INLINE], more }
    }

    /// The value at a place.
    pub(super) fn get(&self, place: usize) -> Option<&[u8]> {
        let value = match place.checked_sub(INLINE) {
            None => self.inline.get(place),
            Some(place) => self.more.get(place),
        };
        value?.as_deref()
    }

    /// Puts a value at a place that has none.
    pub(super) fn put(&mut self, place: usize, value: &'h [u8]) {
        if let Some(slot @ None) = self.slot(place) {
            *slot = Some(Cow::Borrowed(value));
        }
    }

    /// Puts a value at a place, behind the one that it has.
    pub(super) fn append(&mut self, place: usize, separator: &[u8], value: &'h [u8]) {
        match self.slot(place) {
            None => {}
            Some(slot @ None) => *slot = Some(Cow::Borrowed(value)),
            Some(Some(before)) => {
                let joined = before.to_mut();
                joined.extend_from_slice(separator);
                joined.extend_from_slice(value);
            }
        }
    }

    fn slot(&mut self, place: usize) -> Option<&mut Option<Cow<'h, [u8]>>> {
        match place.checked_sub(INLINE) {
            None => self.inline.get_mut(place),
            Some(place) => self.more.get_mut(place),
        }
    }
}
