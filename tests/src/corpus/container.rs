//! Enters: frames with their times. Leaves: capture files.

/// A frame as captured.
#[derive(Clone, Debug)]
pub(super) struct Taped {
    /// Nanoseconds since the epoch.
    pub(super) at: u64,
    /// What was captured of it.
    pub(super) bytes: Vec<u8>,
    /// Its length on the wire.
    pub(super) wire_len: u32,
    /// LINKTYPE_ value.
    pub(super) link_type: u16,
}

/// The fraction of a second that times are counted in.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Unit {
    Micro,
    Nano,
}

/// The byte order of a file.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Order {
    Little,
    Big,
}

impl Order {
    fn u16(self, value: u16) -> [u8; 2] {
        if self == Self::Big { value.to_be_bytes() } else { value.to_le_bytes() }
    }

    fn u32(self, value: u32) -> [u8; 4] {
        if self == Self::Big { value.to_be_bytes() } else { value.to_le_bytes() }
    }

    fn u64(self, value: u64) -> [u8; 8] {
        if self == Self::Big { value.to_be_bytes() } else { value.to_le_bytes() }
    }
}

const NANOS: u64 = 1_000_000_000;

/// A pcap file.
pub(super) fn pcap(frames: &[Taped], unit: Unit, order: Order) -> Vec<u8> {
    let magic = if unit == Unit::Nano { 0xa1b2_3c4d } else { 0xa1b2_c3d4 };
    let link_type = frames.first().map_or(1, |frame| frame.link_type);
    let mut file = order.u32(magic).to_vec();
    file.extend([order.u16(2), order.u16(4)].concat());
    file.extend([0, 0, 262_144, link_type.into()].map(|word| order.u32(word)).concat());
    for frame in frames {
        let fraction = frame.at % NANOS / if unit == Unit::Nano { 1 } else { 1000 };
        let len = frame.bytes.len() as u32;
        let header = [(frame.at / NANOS) as u32, fraction as u32, len, frame.wire_len];
        file.extend(header.map(|word| order.u32(word)).concat());
        file.extend(&frame.bytes);
    }
    file
}

/// An interface of a pcapng file.
#[derive(Clone, Copy, Debug)]
pub(super) struct Interface {
    /// LINKTYPE_ value: frames go to the first interface with theirs.
    pub(super) link_type: u16,
    /// The option if_tsresol: a negative power of ten, or of two with the high bit.
    pub(super) resolution: u8,
    /// The option if_tsoffset in seconds.
    pub(super) offset: i64,
}

/// A pcapng file. Frames of one link type go round the interfaces that have it.
pub(super) fn pcapng(frames: &[Taped], interfaces: &[Interface], order: Order) -> Vec<u8> {
    let mut section = order.u32(0x1a2b_3c4d).to_vec();
    section.extend([order.u16(1), order.u16(0)].concat());
    section.extend(order.u64(u64::MAX));
    let mut file = block(order, 0x0a0d_0d0a, &section);
    for interface in interfaces {
        let mut body = [order.u16(interface.link_type), [0; 2]].concat();
        body.extend(order.u32(0));
        body.extend(option(order, 9, &[interface.resolution]));
        body.extend(option(order, 14, &order.u64(interface.offset.cast_unsigned())));
        body.extend(option(order, 0, &[]));
        file.extend(block(order, 1, &body));
    }
    for (index, frame) in frames.iter().enumerate() {
        let fitting: Vec<usize> =
            (0..interfaces.len()).filter(|at| interfaces[*at].link_type == frame.link_type).collect();
        let chosen = fitting[index % fitting.len()];
        let interface = interfaces[chosen];
        let exponent = u32::from(interface.resolution & 0x7f);
        let per_second =
            if interface.resolution & 0x80 == 0 { 10_u128.pow(exponent) } else { 1_u128 << exponent };
        let nanos = u128::from(frame.at.saturating_add_signed(-interface.offset * NANOS.cast_signed()));
        let units = (nanos * per_second).div_ceil(u128::from(NANOS)) as u64;
        let len = frame.bytes.len() as u32;
        let words = [chosen as u32, (units >> 32) as u32, units as u32, len, frame.wire_len];
        let mut body = words.map(|word| order.u32(word)).concat();
        body.extend(&frame.bytes);
        file.extend(block(order, 6, &body));
    }
    file
}

fn block(order: Order, kind: u32, body: &[u8]) -> Vec<u8> {
    let padded = body.len().next_multiple_of(4);
    let len = order.u32(padded as u32 + 12);
    let mut block = [order.u32(kind), len].concat();
    block.extend(body);
    block.resize(8 + padded, 0);
    block.extend(len);
    block
}

fn option(order: Order, code: u16, value: &[u8]) -> Vec<u8> {
    let mut option = [order.u16(code), order.u16(value.len() as u16)].concat();
    option.extend(value);
    option.resize(4 + value.len().next_multiple_of(4), 0);
    option
}
