//! Enters: bytes of a fuzzer. Leaves: the numbers and slices that a target makes its choices by.

/// Bytes from which choices are taken, from the front. One that is empty gives zeros: every input means something.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Input<'a> {
    rest: &'a [u8],
}

impl<'a> Input<'a> {
    pub(crate) const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// The next byte.
    pub(crate) fn byte(&mut self) -> u8 {
        self.array::<1>()[0]
    }

    /// The next two bytes as a number.
    pub(crate) fn word(&mut self) -> u16 {
        u16::from_be_bytes(self.array())
    }

    /// The next four bytes as a number.
    pub(crate) fn long(&mut self) -> u32 {
        u32::from_be_bytes(self.array())
    }

    /// The next `len` bytes, or those that are left.
    pub(crate) fn take(&mut self, len: usize) -> &'a [u8] {
        let (taken, rest) = self.rest.split_at(len.min(self.rest.len()));
        self.rest = rest;
        taken
    }

    /// All that is left.
    pub(crate) fn rest(self) -> &'a [u8] {
        self.rest
    }

    fn array<const N: usize>(&mut self) -> [u8; N] {
        let mut array = [0; N];
        let taken = self.take(N);
        array[..taken.len()].copy_from_slice(taken);
        array
    }
}
