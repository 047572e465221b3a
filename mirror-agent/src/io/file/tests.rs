//! Enters: capture files put together block by block. Leaves: nothing; the facts of reading them.

use std::io::{Cursor, Write as _};

use flate2::{Compression, write::GzEncoder};
use proptest::prelude::*;

use super::*;

/// What the tests look at: time in nanoseconds, link type, bytes, length on the wire.
type Read = (u64, u16, Vec<u8>, u32);

const ORDERS: [Order; 2] = [Order::Little, Order::Big];

#[test]
fn pcap_is_read_in_both_byte_orders_and_resolutions() {
    for order in ORDERS {
        let mut micros = order.pcap(0xa1b2_c3d4, 1);
        micros.extend(order.record(1_700_000_000, 999_999, b"abc", 1500));
        assert_eq!(read(micros).unwrap(), [(1_700_000_000_999_999_000, 1, b"abc".to_vec(), 1500)]);

        let mut nanos = order.pcap(0xa1b2_3c4d, 276);
        nanos.extend(order.record(1_700_000_000, 999_999_999, b"abc", 3));
        nanos.extend(order.record(1_700_000_001, 0, b"", 0));
        let first = (1_700_000_000_999_999_999, 276, b"abc".to_vec(), 3);
        assert_eq!(read(nanos).unwrap(), [first, (1_700_000_001_000_000_000, 276, vec![], 0)]);
    }
}

#[test]
fn modified_pcap_is_read_in_both_byte_orders() {
    for order in ORDERS {
        let mut file = order.pcap(0xa1b2_cd34, 1);
        for data in [&b"abc"[..], b"", b"defg"] {
            let record = order.record(1_700_000_000, 5, data, 9);
            let (header, data) = record.split_at(16);
            file.extend([header, &[0, 0, 0, 2, 8, 0, 0, 0], data].concat());
        }
        let told = |data: &[u8]| (1_700_000_000_000_005_000, 1, data.to_vec(), 9);
        assert_eq!(read(file.clone()).unwrap(), [told(b"abc"), told(b""), told(b"defg")]);
        for cut in [1, 5, 20] {
            let capture = CaptureFile::new(Cursor::new(file[..file.len() - cut].to_vec()));
            let mut capture = capture.unwrap();
            while capture.next_frame().unwrap().is_some() {}
            assert!(capture.is_truncated(), "{cut}");
        }
    }
}

#[test]
fn length_of_a_check_sequence_is_not_part_of_the_link_type() {
    let mut file = Order::Little.pcap(0xa1b2_c3d4, 0x2400_0001);
    file.extend(Order::Little.record(0, 0, b"a", 1));
    assert_eq!(read(file).unwrap()[0].1, 1);
}

#[test]
fn pcapng_interfaces_have_their_own_link_type_and_clock() {
    for order in ORDERS {
        let mut file = order.section();
        file.extend(order.interface(1, &[]));
        file.extend(order.interface(113, &[(9, &[9])]));
        file.extend(order.interface(101, &[(9, &[0x8a]), (14, &order.u64(100))]));
        file.extend(order.packet(0, 5_000_001, b"abc", 3));
        file.extend(order.packet(1, 5_000_000_001, b"abcd", 9));
        file.extend(order.packet(2, 1024 + 512, b"", 0));
        let expected = [
            (5_000_001_000, 1, b"abc".to_vec(), 3),
            (5_000_000_001, 113, b"abcd".to_vec(), 9),
            (101_500_000_000, 101, vec![], 0),
        ];
        assert_eq!(read(file).unwrap(), expected);
    }
}

#[test]
fn each_section_has_its_own_byte_order_and_interfaces() {
    let mut file = Vec::new();
    for (order, link_type) in [(Order::Little, 1), (Order::Big, 101)] {
        file.extend(order.section());
        file.extend(order.interface(link_type, &[]));
        file.extend(order.packet(0, 1, b"abc", 3));
    }
    assert_eq!(read(file).unwrap(), [(1000, 1, b"abc".to_vec(), 3), (1000, 101, b"abc".to_vec(), 3)]);
}

#[test]
fn section_has_so_many_interfaces_and_no_more() {
    let order = Order::Little;
    let mut file = [order.section(), order.interface(1, &[]).repeat(65_536)].concat();
    file.extend(order.packet(65_535, 1, b"abc", 3));
    assert_eq!(read(file.clone()).unwrap().len(), 1);
    // Those of another section are others.
    file.extend([order.section(), order.interface(1, &[]).repeat(65_537)].concat());
    assert!(matches!(read(file), Err(FileError::Damaged { .. })));
}

#[test]
fn block_that_is_shorter_than_its_own_lengths_is_damage() {
    for order in ORDERS {
        // Process information: its length is taken for granted by the library.
        let mut file = order.section();
        file.extend([order.u32(0x8000_0001), order.u32(10), order.u32(0), order.u32(0)].concat());
        assert!(matches!(read(file), Err(FileError::Damaged { .. })));
    }
}

#[test]
fn simple_and_old_packet_blocks_are_read() {
    for order in ORDERS {
        let mut file = order.section();
        file.extend(order.interface(1, &[]));
        let old =
            [&order.u16(0)[..], &order.u16(0), &order.u32(0), &order.u32(7), &order.u32(3), &order.u32(9)];
        file.extend(order.block(2, &[&old.concat()[..], b"abc\0"].concat()));
        file.extend(order.block(3, &[&order.u32(3)[..], b"abc\0"].concat()));
        assert_eq!(read(file).unwrap(), [(7000, 1, b"abc".to_vec(), 9), (7000, 1, b"abc".to_vec(), 3)]);
    }
}

#[test]
fn other_blocks_are_stepped_over_however_large() {
    let order = Order::Little;
    let mut file = order.section();
    file.extend(order.block(0x0bad, &vec![0; 3_000_000]));
    file.extend(order.interface(1, &[]));
    file.extend(order.block(5, &[0; 12]));
    file.extend(order.packet(0, 1, &[7; 300_000], 300_000));
    assert_eq!(read(file).unwrap(), [(1000, 1, vec![7; 300_000], 300_000)]);
}

#[test]
fn first_block_may_come_in_several_reads() {
    let mut file = Order::Little.section();
    file.extend(Order::Little.interface(1, &[]));
    file.extend(Order::Little.packet(0, 0, b"abc", 3));
    for read_bytes in [8, 20, 40] {
        let input = BufReader::with_capacity(read_bytes, Cursor::new(file.clone()));
        let mut capture = CaptureFile::new(input).unwrap();
        assert_eq!(capture.next_frame().unwrap().unwrap().frame.bytes, b"abc");
        assert!(capture.next_frame().unwrap().is_none());
    }
}

#[test]
fn file_cut_anywhere_gives_all_frames_before_the_cut() {
    let order = Order::Big;
    let mut pcap = order.pcap(0xa1b2_c3d4, 1);
    let mut ng = [order.section(), order.interface(1, &[])].concat();
    let (pcap_start, ng_start) = (pcap.len(), ng.len());
    for n in 0..3 {
        pcap.extend(order.record(n, 0, b"abc", 3));
        ng.extend(order.packet(0, u64::from(n), b"abc", 3));
    }
    for (file, start) in [(pcap, pcap_start), (ng, ng_start)] {
        let packet_len = (file.len() - start) / 3;
        for cut in start..file.len() {
            let mut capture = CaptureFile::new(Cursor::new(file[..cut].to_vec())).unwrap();
            let mut frames = 0;
            while capture.next_frame().unwrap().is_some() {
                frames += 1;
            }
            assert_eq!(frames, (cut - start) / packet_len);
            assert_eq!(capture.is_truncated(), !(cut - start).is_multiple_of(packet_len), "cut at {cut}");
        }
    }
}

#[test]
fn file_packed_with_gzip_is_read_and_cut_anywhere_gives_what_comes_before() {
    let order = Order::Little;
    let mut file = order.pcap(0xa1b2_c3d4, 1);
    for n in 0..50 {
        file.extend(order.record(n, 0, &n.to_be_bytes().repeat(10), 40));
    }
    // Of several members, as programs write that append.
    let packed: Vec<u8> = file.chunks(1000).flat_map(gzip).collect();
    for cut in 0..=packed.len() {
        let capture = CaptureFile::unpack(Cursor::new(packed[..cut].to_vec()));
        let Ok(mut capture) = capture else {
            assert!(cut < packed.len() / 2, "cut at {cut}");
            continue;
        };
        let mut frames = 0;
        while let Some(frame) = capture.next_frame().unwrap() {
            assert_eq!(frame.frame.bytes[..4], u32::to_be_bytes(frames));
            frames += 1;
        }
        assert!(frames == 50 || capture.is_truncated(), "cut at {cut}");
        assert!(cut < packed.len() || (frames, capture.is_truncated()) == (50, false));
    }
    let mut damaged = packed.clone();
    damaged[packed.len() / 2] ^= 0x55;
    let mut capture = CaptureFile::unpack(Cursor::new(damaged)).unwrap();
    while let Ok(Some(_)) = capture.next_frame() {}
    let twice = CaptureFile::unpack(Cursor::new(gzip(&packed)));
    assert!(matches!(twice, Err(FileError::Compressed)));
}

#[test]
fn what_cannot_be_read_is_told() {
    let order = Order::Little;
    let section = order.section();
    let unknown_interface = [section.clone(), order.packet(0, 0, b"", 0)].concat();
    let resolution = [section.clone(), order.interface(1, &[(9, &[39])])].concat();
    let mut lying = [section, order.interface(1, &[])].concat();
    let at = lying.len();
    lying.extend(order.packet(0, 0, b"abc", 3));
    lying[at + 20] = 200;
    let mut huge = order.pcap(0xa1b2_c3d4, 1);
    huge.extend(order.u32(u32::MAX).repeat(4));
    huge.resize(2 * MAX_BLOCK_BYTES, 0);
    let cases = [
        (vec![], "the file is empty"),
        (b"\x1f\x8b\x08\0".to_vec(), "the file is compressed: unpack it first (gzip alone is read as it is)"),
        (b"plain text, not a capture".to_vec(), "neither a pcap nor a pcapng file"),
        (b"\xd4\xc3\xb2\xa1\x02".to_vec(), "neither a pcap nor a pcapng file"),
        (
            order.pcap(0xa1b2_c3d4, 147),
            "link type 147 is not supported (Ethernet, Linux cooked, raw IP, null/loopback, PPP, Cisco HDLC, frame \
             relay, token ring, FDDI, ATM, 802.11 and NFLOG are, among others)",
        ),
        (unknown_interface, "packet of interface 0, which is not described, at offset 28"),
        (resolution, "unusable time resolution 0x27 at offset 28"),
        (lying, "damaged block at offset 48"),
        (huge, "block of more than 16777216 bytes at offset 24: the file is damaged"),
    ];
    for (file, message) in cases {
        assert_eq!(read(file).unwrap_err().to_string(), message);
    }
}

proptest! {
    #[test]
    fn any_damage_is_read_or_told(
        big: bool,
        is_ng: bool,
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
    ) {
        let order = if big { Order::Big } else { Order::Little };
        let mut file = if is_ng {
            let mut file = [order.section(), order.interface(1, &[(9, &[9]), (14, &order.u64(1))])].concat();
            file.extend(order.packet(0, 1, b"abc", 3));
            // A name resolution, a statistics, a secrets and a custom block.
            for kind in [4, 5, 10, 0xbad] {
                file.extend(order.block(kind, &[1; 24]));
            }
            file.extend(order.block(3, b"\0\0\0\x03abc\0"));
            file
        } else {
            let mut file = order.pcap(0xa1b2_c3d4, 1);
            file.extend(order.record(0, 0, b"abc", 3));
            file
        };
        for (at, value) in damage {
            let at = at.index(file.len());
            file[at] = value;
        }
        read(file).ok();
    }

    #[test]
    fn any_bytes_are_read_or_told(bytes in prop::collection::vec(any::<u8>(), 0..300), big: bool) {
        let order = if big { Order::Big } else { Order::Little };
        read(bytes.clone()).ok();
        read([order.pcap(0xa1b2_c3d4, 1), bytes.clone()].concat()).ok();
        read([order.section(), order.interface(1, &[]), bytes].concat()).ok();
    }
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn read(file: Vec<u8>) -> Result<Vec<Read>, FileError> {
    let mut capture = CaptureFile::new(Cursor::new(file))?;
    let mut frames = Vec::new();
    while let Some(CapturedFrame { at, frame }) = capture.next_frame()? {
        frames.push((at.as_nanos(), frame.link_type.0, frame.bytes.to_vec(), frame.wire_len));
    }
    Ok(frames)
}

/// Writes both formats in one byte order.
#[derive(Clone, Copy)]
enum Order {
    Little,
    Big,
}

impl Order {
    fn u16(self, value: u16) -> [u8; 2] {
        match self {
            Self::Little => value.to_le_bytes(),
            Self::Big => value.to_be_bytes(),
        }
    }

    fn u32(self, value: u32) -> [u8; 4] {
        match self {
            Self::Little => value.to_le_bytes(),
            Self::Big => value.to_be_bytes(),
        }
    }

    fn u64(self, value: u64) -> [u8; 8] {
        match self {
            Self::Little => value.to_le_bytes(),
            Self::Big => value.to_be_bytes(),
        }
    }

    fn pcap(self, magic: u32, network: u32) -> Vec<u8> {
        let version = [self.u16(2), self.u16(4)].concat();
        let rest = [self.u32(0), self.u32(0), self.u32(65_535), self.u32(network)].concat();
        [&self.u32(magic)[..], &version, &rest].concat()
    }

    fn record(self, seconds: u32, fraction: u32, data: &[u8], wire_len: u32) -> Vec<u8> {
        let header = [seconds, fraction, u32::try_from(data.len()).unwrap(), wire_len];
        [&header.map(|word| self.u32(word)).concat(), data].concat()
    }

    fn block(self, kind: u32, body: &[u8]) -> Vec<u8> {
        let len = self.u32(u32::try_from(body.len() + 12).unwrap());
        [&self.u32(kind)[..], &len, body, &len].concat()
    }

    fn section(self) -> Vec<u8> {
        let version = [self.u16(1), self.u16(0)].concat();
        self.block(0x0a0d_0d0a, &[&self.u32(0x1a2b_3c4d)[..], &version, &[0xff; 8]].concat())
    }

    fn interface(self, link_type: u16, options: &[(u16, &[u8])]) -> Vec<u8> {
        let mut body = [&self.u16(link_type)[..], &[0; 2], &self.u32(0)].concat();
        for (code, value) in options {
            body.extend(self.u16(*code));
            body.extend(self.u16(u16::try_from(value.len()).unwrap()));
            body.extend(*value);
            body.resize(body.len().next_multiple_of(4), 0);
        }
        self.block(1, &body)
    }

    fn packet(self, interface: u32, time: u64, data: &[u8], wire_len: u32) -> Vec<u8> {
        let [high, low] = [time >> 32, time & 0xffff_ffff].map(|half| u32::try_from(half).unwrap());
        let header = [interface, high, low, u32::try_from(data.len()).unwrap(), wire_len];
        let mut body = [&header.map(|word| self.u32(word)).concat(), data].concat();
        body.resize(body.len().next_multiple_of(4), 0);
        self.block(6, &body)
    }
}
