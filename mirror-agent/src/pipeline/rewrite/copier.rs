//! Enters: bytes, and the places in them that are to be other. Leaves: the bytes with these places replaced.

/// Copies a source from its front, in runs as long as nothing is replaced.
#[derive(Debug)]
pub(super) struct Copier<'a> {
    out: &'a mut Vec<u8>,
    source: &'a [u8],
    /// Up to here the source is dealt with.
    done: usize,
}

impl<'a> Copier<'a> {
    pub(super) const fn new(out: &'a mut Vec<u8>, source: &'a [u8]) -> Self {
        Self { out, source, done: 0 }
    }

    /// Copies up to `start`, leaves out what lies from there to `end`, and gives the output for what takes its place.
    pub(super) fn replace(&mut self, start: usize, end: usize) -> &mut Vec<u8> {
        self.out.extend_from_slice(self.source.get(self.done..start).unwrap_or_default());
        self.done = end;
        self.out
    }

    /// Copies the rest.
    pub(super) fn finish(self) -> &'a mut Vec<u8> {
        self.out.extend_from_slice(self.source.get(self.done..).unwrap_or_default());
        self.out
    }
}
