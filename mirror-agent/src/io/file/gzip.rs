//! Enters: a capture file that was packed with gzip (RFC 1952). Leaves: its bytes as they were.

use std::{
    io::{self, BufRead, ErrorKind, Read},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use flate2::bufread::MultiGzDecoder;

/// How such a file begins.
pub(super) const MAGIC: &[u8] = b"\x1f\x8b";

/// Unpacks while it is read: memory is the window of 32 KiB.
pub(super) struct Unpacked<R> {
    decoder: MultiGzDecoder<R>,
    is_cut: Arc<AtomicBool>,
}

impl<R: BufRead> Unpacked<R> {
    /// The second value becomes true when the file turns out to end too early, as one does that is still written: all before
    /// that is read.
    pub(super) fn new(input: R) -> (Self, Arc<AtomicBool>) {
        let is_cut = Arc::<AtomicBool>::default();
        (Self { decoder: MultiGzDecoder::new(input), is_cut: Arc::clone(&is_cut) }, is_cut)
    }
}

impl<R: BufRead> Read for Unpacked<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.is_cut.load(Ordering::Relaxed) {
            return Ok(0);
        }
        match self.decoder.read(buffer) {
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => {
                self.is_cut.store(true, Ordering::Relaxed);
                Ok(0)
            }
            outcome => outcome,
        }
    }
}
