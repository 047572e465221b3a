//! Enters: a pcap file in the modified format, in big-endian byte order. Leaves: the same in the usual format.
//!
//! The format was that of patches for Linux: each record has eight bytes more of its interface and protocol. The library reads it
//! in little-endian byte order alone.

use std::io::{self, Read};

/// How such a file begins.
pub(super) const MAGIC: &[u8] = b"\xa1\xb2\xcd\x34";

/// The same in the usual format.
const USUAL_MAGIC: &[u8] = b"\xa1\xb2\xc3\xd4";

/// Length in bytes of the file's header, and of a record's.
const HEADER_BYTES: u64 = 24;

/// Length in bytes of a record's header in the usual format.
const USUAL_RECORD_BYTES: usize = 16;

/// Where the captured length stands in a record's header.
const LENGTH_AT: usize = 8;

/// Rewrites the headers while the file is read.
pub(super) struct Usual<R> {
    input: R,
    /// What is given next: what is left of a header.
    header: Vec<u8>,
    /// Bytes of the packet that follow it.
    packet: u64,
    is_begun: bool,
}

impl<R: Read> Usual<R> {
    pub(super) const fn new(input: R) -> Self {
        Self { input, header: Vec::new(), packet: 0, is_begun: false }
    }

    /// Reads the next header, which may be cut short, or missing at the end of the file.
    fn read_header(&mut self) -> io::Result<()> {
        self.input.by_ref().take(HEADER_BYTES).read_to_end(&mut self.header)?;
        if !self.is_begun {
            self.is_begun = true;
            self.header.splice(..MAGIC.len().min(self.header.len()), USUAL_MAGIC.iter().copied());
            return Ok(());
        }
        let length = self.header.get(LENGTH_AT..).and_then(|rest| rest.first_chunk());
        self.packet = length.map_or(0, |length| u32::from_be_bytes(*length).into());
        self.header.truncate(USUAL_RECORD_BYTES);
        Ok(())
    }
}

impl<R: Read> Read for Usual<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.header.is_empty() && self.packet == 0 {
            self.read_header()?;
        }
        if self.header.is_empty() {
            let len = self.input.by_ref().take(self.packet).read(buffer)?;
            self.packet = self.packet.saturating_sub(u64::try_from(len).unwrap_or(u64::MAX));
            return Ok(len);
        }
        let len = self.header.as_slice().read(buffer)?;
        self.header.drain(..len);
        Ok(len)
    }
}
