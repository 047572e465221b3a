//! Enters: a pcap or pcapng file, packed with gzip or not. Leaves: its frames, each with the time of its capture.
//!
//! The file is read as a stream: memory is one buffer, which holds at least the largest block.

mod gzip;
mod modified;

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use pcap_parser::{
    Block, InterfaceDescriptionBlock, PcapBlockOwned, PcapError, create_reader,
    traits::{PcapNGPacketBlock, PcapReaderIterator},
};

use crate::pipeline::{
    Timestamp,
    frame::{Frame, LinkType},
    link,
};

/// A frame and when it was captured.
#[derive(Clone, Copy, Debug)]
pub struct CapturedFrame<'a> {
    /// Nanoseconds since the Unix epoch; whatever the finer digits, the file's resolution limits them.
    pub at: Timestamp,
    /// The frame.
    pub frame: Frame<'a>,
}

/// Why a file cannot be read, or not any further.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// A block or packet is longer than any that is read.
    #[error("block of more than {MAX_BLOCK_BYTES} bytes at offset {offset}: the file is damaged")]
    BlockTooLarge {
        /// Where the block begins, in bytes from the start of the file.
        offset: usize,
    },
    /// A block contradicts itself.
    #[error("damaged block at offset {offset}")]
    Damaged {
        /// Where the block begins, in bytes from the start of the file.
        offset: usize,
    },
    /// There is nothing in the file.
    #[error("the file is empty")]
    Empty,
    /// The file is compressed, and not by gzip, or more than once.
    #[error("the file is compressed: unpack it first (gzip alone is read as it is)")]
    Compressed,
    /// A packet names an interface that was not described before it.
    #[error("packet of interface {id}, which is not described, at offset {offset}")]
    Interface {
        /// The interface's number in its section.
        id: u32,
        /// Where the block begins, in bytes from the start of the file.
        offset: usize,
    },
    /// The link type of the whole file is none that is read.
    #[error(
        "link type {} is not supported (Ethernet, Linux cooked, raw IP, null/loopback, PPP, Cisco HDLC, frame relay, token ring, FDDI, ATM, 802.11 and NFLOG are, among others)",
        .0.0
    )]
    LinkType(LinkType),
    /// The file begins like neither format.
    #[error("neither a pcap nor a pcapng file")]
    NotACapture,
    /// The file could not be opened, or its beginning not be read.
    #[error("cannot be opened")]
    Open(#[source] io::Error),
    /// The file could not be read any further.
    #[error("reading failed at offset {offset}")]
    Read {
        /// How far it was read, in bytes from the start of the file.
        offset: usize,
    },
    /// The time resolution of an interface is too fine to be told in 128 bits.
    #[error("unusable time resolution {resolution:#04x} at offset {offset}")]
    Resolution {
        /// The value of the `if_tsresol` option.
        resolution: u8,
        /// Where the block begins, in bytes from the start of the file.
        offset: usize,
    },
}

/// A capture file being read.
pub struct CaptureFile {
    reader: Box<dyn PcapReaderIterator + Send>,
    capacity: usize,
    /// Length of the block whose frame was given last: it stays in the buffer until the next one is asked for.
    unconsumed: usize,
    format: Format,
    is_truncated: bool,
    /// What it was packed into ends too early.
    is_cut: Arc<AtomicBool>,
}

impl CaptureFile {
    /// Opens the file at `path`, which may be packed with gzip, and finds out its format.
    ///
    /// # Errors
    ///
    /// `Open`, `Empty`, `Compressed` and `NotACapture`.
    pub fn open(path: &Path) -> Result<Self, FileError> {
        let file = File::open(path).map_err(FileError::Open)?;
        Self::unpack(BufReader::with_capacity(BUFFER_BYTES, file))
    }

    /// Takes `input` from its first byte on, packed or not.
    fn unpack(mut input: impl BufRead + Send + 'static) -> Result<Self, FileError> {
        if !input.fill_buf().map_err(FileError::Open)?.starts_with(gzip::MAGIC) {
            return Self::new(input);
        }
        let (input, is_cut) = gzip::Unpacked::new(input);
        let file = Self::new(BufReader::with_capacity(BUFFER_BYTES, input))?;
        Ok(Self { is_cut, ..file })
    }

    /// Takes `input`, which is not packed, from its first byte on, and finds out its format.
    ///
    /// # Errors
    ///
    /// As [`Self::open`].
    pub fn new(mut input: impl BufRead + Send + 'static) -> Result<Self, FileError> {
        let beginning = input.fill_buf().map_err(FileError::Open)?;
        if beginning.is_empty() {
            return Err(FileError::Empty);
        }
        if COMPRESSED.iter().any(|magic| beginning.starts_with(magic)) {
            return Err(FileError::Compressed);
        }
        let reader = if beginning.starts_with(modified::MAGIC) {
            create_reader(BUFFER_BYTES, FullReads(modified::Usual::new(input)))
        } else {
            create_reader(BUFFER_BYTES, FullReads(input))
        };
        let Ok(reader) = reader else {
            return Err(FileError::NotACapture);
        };
        Ok(Self {
            reader,
            capacity: BUFFER_BYTES,
            unconsumed: 0,
            format: Format::default(),
            is_truncated: false,
            is_cut: Arc::default(),
        })
    }

    /// The next frame; `None` at the end of the file.
    ///
    /// # Errors
    ///
    /// `BlockTooLarge`, `Damaged`, `Interface`, `LinkType`, `Read` and `Resolution`; nothing can be read after one.
    pub fn next_frame(&mut self) -> Result<Option<CapturedFrame<'_>>, FileError> {
        let Some(place) = self.next_place()? else {
            return Ok(None);
        };
        // An empty frame where the block says that it captured more than it holds.
        let end = place.start.saturating_add(place.len);
        let bytes = self.reader.data().get(place.start..end).unwrap_or_default();
        let frame = Frame { link_type: place.link_type, bytes, wire_len: place.wire_len };
        Ok(Some(CapturedFrame { at: place.at, frame }))
    }

    /// Whether the file turned out to end in the middle of a packet: all before it was given.
    #[must_use]
    pub fn is_truncated(&self) -> bool {
        self.is_truncated || self.is_cut.load(Ordering::Relaxed)
    }

    /// Finds the next frame in the buffer.
    fn next_place(&mut self) -> Result<Option<Place>, FileError> {
        loop {
            self.reader.consume(std::mem::take(&mut self.unconsumed));
            let offset = self.reader.consumed();
            // The library subtracts 12 from the length of some blocks before it looks at it.
            if offset > 0
                && self.format.block_len(self.reader.data()).is_some_and(|len| len < MIN_BLOCK_BYTES)
            {
                return Err(FileError::Damaged { offset });
            }
            match self.reader.next() {
                Ok((len, block)) => {
                    self.unconsumed = len;
                    if let Some(place) = self.format.handle_block(&block, offset)? {
                        return Ok(Some(place));
                    }
                }
                Err(PcapError::Eof) => return Ok(None),
                Err(PcapError::Incomplete(_)) => self.refill(offset)?,
                Err(PcapError::BufferTooSmall) => {
                    if self.capacity >= MAX_BLOCK_BYTES {
                        return Err(FileError::BlockTooLarge { offset });
                    }
                    self.capacity = self.capacity.saturating_mul(2).min(MAX_BLOCK_BYTES);
                    self.reader.grow(self.capacity);
                    self.refill(offset)?;
                }
                Err(PcapError::UnexpectedEof) => {
                    if self.format.has_whole_block(self.reader.data()) {
                        return Err(FileError::Damaged { offset });
                    }
                    self.is_truncated = true;
                    return Ok(None);
                }
                Err(PcapError::ReadError) => return Err(FileError::Read { offset }),
                Err(
                    PcapError::HeaderNotRecognized | PcapError::NomError(..) | PcapError::OwnedNomError(..),
                ) => return Err(FileError::Damaged { offset }),
            }
        }
    }

    fn refill(&mut self, offset: usize) -> Result<(), FileError> {
        if self.reader.refill().is_err() {
            return Err(FileError::Read { offset });
        }
        Ok(())
    }
}

/// An input whose reads give as much as they are asked for, unless it ends. The format is found out by what the first
/// read gives, and a pipe may give a part of the first block.
struct FullReads<R>(R);

impl<R: Read> Read for FullReads<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut len = 0;
        while let Some(rest) = buffer.get_mut(len..).filter(|rest| !rest.is_empty()) {
            match self.0.read(rest) {
                Ok(0) => break,
                Ok(count) => len = len.saturating_add(count),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // What was read before is not lost: the next read meets the error again.
                Err(_) if len > 0 => break,
                Err(error) => return Err(error),
            }
        }
        Ok(len)
    }
}

/// Enough for the largest packets that kernels make, so that growing is rare.
const BUFFER_BYTES: usize = 256 * 1024;

/// Larger blocks are in no file but a damaged one: 16 MiB is 32 times the longest packet of a kernel (BIG TCP).
const MAX_BLOCK_BYTES: usize = 16 * 1024 * 1024;

/// Type, length, and the length again.
const MIN_BLOCK_BYTES: usize = 12;

/// The type of a section header block reads the same in both byte orders.
const SECTION_HEADER: [u8; 4] = [0x0a, 0x0d, 0x0d, 0x0a];

/// How gzip, Zstandard, xz and LZ4 files begin.
const COMPRESSED: [&[u8]; 4] = [gzip::MAGIC, b"\x28\xb5\x2f\xfd", b"\xfd7zXZ", b"\x04\x22\x4d\x18"];

/// Where a frame stands in the reader's buffer, and what is known of it.
#[derive(Debug)]
struct Place {
    at: Timestamp,
    link_type: LinkType,
    /// Bytes from the start of its block.
    start: usize,
    len: usize,
    wire_len: u32,
}

/// What the blocks read so far say about those to come.
#[derive(Debug)]
enum Format {
    Pcap {
        link_type: LinkType,
        nanos_per_unit: u64,
        record_header_len: usize,
    },
    PcapNg {
        big_endian: bool,
        interfaces: Vec<Interface>,
        /// Time of the packet before: simple packet blocks have none of their own.
        last_at: Timestamp,
    },
}

impl Default for Format {
    fn default() -> Self {
        Self::PcapNg { big_endian: false, interfaces: Vec::new(), last_at: Timestamp::ZERO }
    }
}

impl Format {
    /// Takes the block at `offset` of the file; gives its frame where it is one of a packet.
    fn handle_block(
        &mut self,
        block: &PcapBlockOwned<'_>,
        offset: usize,
    ) -> Result<Option<Place>, FileError> {
        match (block, self) {
            (PcapBlockOwned::LegacyHeader(header), format) => {
                let link_type = link_type(header.network.0);
                if !link::is_read(link_type) {
                    return Err(FileError::LinkType(link_type));
                }
                *format = Self::Pcap {
                    link_type,
                    nanos_per_unit: if header.is_nanosecond_precision() { 1 } else { 1000 },
                    record_header_len: if header.is_modified_format() { 24 } else { 16 },
                };
                Ok(None)
            }
            (PcapBlockOwned::Legacy(record), Self::Pcap { link_type, nanos_per_unit, record_header_len }) => {
                let fraction = u64::from(record.ts_usec).saturating_mul(*nanos_per_unit);
                let seconds = u64::from(record.ts_sec).saturating_mul(NANOS_PER_SECOND);
                Ok(Some(Place {
                    at: Timestamp::from_nanos(seconds.saturating_add(fraction)),
                    link_type: *link_type,
                    start: *record_header_len,
                    len: record.data.len(),
                    wire_len: record.origlen,
                }))
            }
            (PcapBlockOwned::NG(block), Self::PcapNg { big_endian, interfaces, last_at }) => {
                let place = match block {
                    Block::SectionHeader(section) => {
                        *big_endian = section.big_endian();
                        interfaces.clear();
                        return Ok(None);
                    }
                    Block::InterfaceDescription(description) => {
                        if interfaces.len() >= MAX_INTERFACES {
                            return Err(FileError::Damaged { offset });
                        }
                        interfaces.push(Interface::new(description, *big_endian, offset)?);
                        return Ok(None);
                    }
                    Block::EnhancedPacket(packet) => {
                        let interface = interface(interfaces, packet.if_id, offset)?;
                        Place {
                            at: interface.time(packet.ts_high, packet.ts_low),
                            link_type: interface.link_type,
                            start: 28,
                            len: packet.packet_data().len(),
                            wire_len: packet.origlen,
                        }
                    }
                    Block::SimplePacket(packet) => {
                        let interface = interface(interfaces, 0, offset)?;
                        Place {
                            at: *last_at,
                            link_type: interface.link_type,
                            start: 12,
                            len: packet.packet_data().len().min(interface.snap_len),
                            wire_len: packet.origlen,
                        }
                    }
                    Block::Unknown(unknown) if is_old_packet(unknown.block_type, *big_endian) => {
                        let packet = OldPacket::parse(unknown.data, *big_endian)
                            .ok_or(FileError::Damaged { offset })?;
                        let interface = interface(interfaces, u32::from(packet.interface), offset)?;
                        Place {
                            at: interface.time(packet.ts_high, packet.ts_low),
                            link_type: interface.link_type,
                            start: 28,
                            len: packet.len,
                            wire_len: packet.wire_len,
                        }
                    }
                    Block::NameResolution(_)
                    | Block::InterfaceStatistics(_)
                    | Block::SystemdJournalExport(_)
                    | Block::DecryptionSecrets(_)
                    | Block::ProcessInformation(_)
                    | Block::Custom(_)
                    | Block::Unknown(_) => return Ok(None),
                };
                *last_at = place.at;
                Ok(Some(place))
            }
            (PcapBlockOwned::Legacy(_), Self::PcapNg { .. }) | (PcapBlockOwned::NG(_), Self::Pcap { .. }) => {
                Err(FileError::Damaged { offset })
            }
        }
    }

    /// Whether `data` holds the whole block with which it begins: then it is damaged within, not cut short.
    fn has_whole_block(&self, data: &[u8]) -> bool {
        self.block_len(data).is_some_and(|len| len <= data.len())
    }

    /// What the pcapng block at the beginning of `data` gives as its length. That of a section header is in its own byte
    /// order, which is not known yet.
    fn block_len(&self, data: &[u8]) -> Option<usize> {
        let Self::PcapNg { big_endian, .. } = self else { return None };
        let len = field(data, 4).map(|bytes| to_u32(bytes, *big_endian))?;
        if data.starts_with(&SECTION_HEADER) { None } else { usize::try_from(len).ok() }
    }
}

const NANOS_PER_SECOND: u64 = 1_000_000_000;

/// Interfaces of one section. The block of each is a few bytes long, and as nothing once packed.
const MAX_INTERFACES: usize = 65_536;

/// The file's value also holds the length of a frame check sequence in its upper bits.
fn link_type(network: i32) -> LinkType {
    let [low, high, ..] = network.to_le_bytes();
    LinkType(u16::from_le_bytes([low, high]))
}

/// What an interface description block says.
#[derive(Debug)]
struct Interface {
    link_type: LinkType,
    /// Bytes captured of a packet at most.
    snap_len: usize,
    units_per_second: u128,
    /// Seconds to add to each time.
    offset: i64,
}

impl Interface {
    fn new(
        block: &InterfaceDescriptionBlock<'_>,
        big_endian: bool,
        offset: usize,
    ) -> Result<Self, FileError> {
        // Bit 7 chooses between powers of ten and of two.
        let exponent = u32::from(block.if_tsresol & 0x7f);
        let units_per_second =
            if block.if_tsresol & 0x80 == 0 { 10_u128.checked_pow(exponent) } else { Some(1 << exponent) };
        // The parser takes this option for little-endian whatever the section's byte order.
        let time_offset = if big_endian { block.if_tsoffset.swap_bytes() } else { block.if_tsoffset };
        Ok(Self {
            link_type: link_type(block.linktype.0),
            // Zero means no limit.
            snap_len: match usize::try_from(block.snaplen) {
                Ok(0) | Err(_) => usize::MAX,
                Ok(snap_len) => snap_len,
            },
            units_per_second: units_per_second
                .ok_or(FileError::Resolution { resolution: block.if_tsresol, offset })?,
            offset: time_offset,
        })
    }

    fn time(&self, high: u32, low: u32) -> Timestamp {
        let units = u128::from(high) << 32 | u128::from(low);
        let nanos = i128::try_from(units * u128::from(NANOS_PER_SECOND) / self.units_per_second);
        let nanos = nanos.unwrap_or(i128::MAX);
        let nanos = nanos.saturating_add(i128::from(self.offset) * i128::from(NANOS_PER_SECOND));
        Timestamp::from_nanos(u64::try_from(nanos.max(0)).unwrap_or(u64::MAX))
    }
}

fn interface(interfaces: &[Interface], id: u32, offset: usize) -> Result<&Interface, FileError> {
    let found = usize::try_from(id).ok().and_then(|index| interfaces.get(index));
    found.ok_or(FileError::Interface { id, offset })
}

/// The packet block of early pcapng files, which the enhanced packet block replaced.
#[derive(Debug)]
struct OldPacket {
    interface: u16,
    ts_high: u32,
    ts_low: u32,
    len: usize,
    wire_len: u32,
}

impl OldPacket {
    fn parse(data: &[u8], big_endian: bool) -> Option<Self> {
        let interface = field(data, 0)?;
        let word = |offset| field(data, offset).map(|bytes| to_u32(bytes, big_endian));
        Some(Self {
            interface: if big_endian { u16::from_be_bytes(interface) } else { u16::from_le_bytes(interface) },
            ts_high: word(4)?,
            ts_low: word(8)?,
            len: usize::try_from(word(12)?).ok().filter(|len| *len <= data.len().saturating_sub(20))?,
            wire_len: word(16)?,
        })
    }
}

const fn is_old_packet(block_type: u32, big_endian: bool) -> bool {
    block_type == if big_endian { 2_u32.swap_bytes() } else { 2 }
}

fn field<const N: usize>(data: &[u8], offset: usize) -> Option<[u8; N]> {
    data.get(offset..)?.first_chunk().copied()
}

const fn to_u32(bytes: [u8; 4], big_endian: bool) -> u32 {
    if big_endian { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) }
}

#[cfg(test)]
mod tests;
