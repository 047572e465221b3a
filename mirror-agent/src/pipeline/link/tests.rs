//! Enters: the first bytes of frames of each link type. Leaves: where the network layer begins in them.

use proptest::prelude::*;

use super::*;

const LINK_TYPES: [u16; 29] = [
    0, 6, 9, 10, 11, 50, 51, 100, 104, 105, 107, 109, 117, 119, 122, 123, 127, 149, 163, 166, 178, 192, 197,
    204, 239, 242, 258, 138, 252,
];

#[test]
fn network_layer_is_found_behind_each_link_layer() {
    let snap = [0xaa, 0xaa, 3, 0, 0, 0, 0x86, 0xdd];
    let bridged = [0x80, 0, 0x80, 0xc2, 0, 7];
    let wireless =
        |control: u8, flags: u8, rest: &[u8]| [&[control, flags][..], &[0; 22], rest, &snap].concat();
    let cases: &[(u16, Vec<u8>, Result<u32, FrameReason>)] = &[
        (9, vec![0xff, 3, 0, 0x21], Ok(4)),
        (9, vec![0, 0x57], Ok(2)),
        (9, vec![0x21, 0x45], Ok(1)),
        (50, vec![0xff, 3, 0x57, 0x60], Ok(3)),
        (50, vec![0xff, 3, 0xc0, 0x21], Err(FrameReason::NotIp)),
        (166, vec![1, 0xff, 3, 0, 0x21], Ok(5)),
        (50, vec![0xff, 3, 2, 0x81], Ok(4)),
        (50, vec![0x8f, 0, 8, 0], Ok(4)),
        (50, vec![0xff, 3, 0, 0x3d, 0xc0, 0, 0, 1, 0, 0x21], Ok(10)),
        (50, vec![0x3d, 0xc0, 0, 0, 1, 0x57], Ok(6)),
        (50, vec![0x3d, 0x80, 0, 0, 1, 0x57], Err(FrameReason::Fragment)),
        (50, vec![0x3d, 0xc0, 0, 0, 1, 0x3d, 0xc0, 0, 0, 2, 0x57], Err(FrameReason::NotIp)),
        (50, vec![0xff, 3, 0, 0x31, 0, 1], Ok(6)),
        (50, vec![0xff, 3, 0, 0x31, 0x40, 1, 0, 0, 0, 9], Ok(10)),
        (50, vec![0xff, 3, 0, 0x31, 0, 2], Err(FrameReason::NotIp)),
        (
            113,
            [&[0, 0, 3, 0x23][..], &[0; 12], &[0, 0, 8, 0, 0, 0, 0, 0], &wireless(8, 1, &[])].concat(),
            Ok(56),
        ),
        (113, [&[0, 0, 0, 1][..], &[0; 12]].concat(), Ok(16)),
        (
            276,
            [&[0; 8][..], &[3, 0x23], &[0; 10], &[0, 0, 8, 0, 0, 0, 0, 0], &wireless(8, 1, &[])].concat(),
            Ok(60),
        ),
        (252, b"\0\x0c\0\x04ip\0\0\0\x14\0\x01x\0\0\0\0".to_vec(), Ok(17)),
        (252, b"\0\x0c\0\x0eeth_withoutfcs\0\0\0\0".to_vec(), Ok(22)),
        (252, b"\0\x0c\0\x04http\0\0\0\0".to_vec(), Err(FrameReason::LinkType)),
        (252, b"\0\0\0\0".to_vec(), Err(FrameReason::LinkType)),
        (252, b"\0\x0c\0\x09http".to_vec(), Err(FrameReason::Truncated)),
        (252, [b"\0\x0c\0\x02ip".repeat(64), vec![0; 4]].concat(), Err(FrameReason::TooDeep)),
        (105, wireless(0x08, 0x05, &[]), Err(FrameReason::Fragment)),
        (105, [&[8, 1][..], &[0; 20], &[0x31, 0]].concat(), Err(FrameReason::Fragment)),
        (51, vec![0x11, 0, 0, 1, 0, 9, 0, 0x21], Ok(8)),
        (104, vec![0x0f, 0, 8, 0], Ok(4)),
        (107, vec![0x18, 0x41, 3, 0xcc], Ok(4)),
        (107, vec![0x18, 0x40, 0x41, 3, 0, 0x8e], Ok(6)),
        (107, vec![0x18, 0x41, 8, 0], Ok(4)),
        (107, vec![0x18, 0x41, 3, 0xcf, 0, 0x21], Ok(6)),
        (107, [&[0x18, 0x41, 3, 0][..], &bridged].concat(), Ok(10)),
        (107, vec![0x18, 0x41, 3, 0x81], Err(FrameReason::NotIp)),
        (107, vec![0x18, 0x40, 0x40, 0x40, 0x41], Err(FrameReason::NotIp)),
        (6, [&[0; 14][..], &snap].concat(), Ok(22)),
        (
            6,
            [&[0, 0, 1, 1, 1, 1, 1, 1, 0x80, 0, 0, 0, 0, 0, 6, 0x30, 0, 0, 0, 0][..], &snap].concat(),
            Ok(28),
        ),
        (10, [&[0; 13][..], &snap].concat(), Ok(21)),
        (10, [&[0; 13][..], &[6, 6, 3]].concat(), Ok(16)),
        (10, [&[0; 13][..], &[0x42, 0x42, 3]].concat(), Err(FrameReason::NotIp)),
        (11, vec![0xaa, 0xaa, 3, 0, 0, 0xf8, 8, 0], Ok(8)),
        (100, vec![0xaa, 0xaa, 3, 0, 0, 0, 8, 0], Ok(8)),
        (11, [&[0xaa, 0xaa, 3][..], &bridged[1..]].concat(), Ok(10)),
        (122, [&[0; 16][..], &snap].concat(), Ok(24)),
        (123, [&[2, 0, 0, 33][..], &snap].concat(), Ok(12)),
        (138, vec![0; 18], Ok(18)),
        (242, vec![0; 44], Ok(44)),
        (178, b"MGC\x80\0\x02..".to_vec(), Ok(8)),
        (178, b"MGC\x01".to_vec(), Ok(4)),
        (178, b"MGC\x02".to_vec(), Err(FrameReason::NotIp)),
        (178, b"MGX\0".to_vec(), Err(FrameReason::Malformed)),
        (197, [&[0; 8][..], &[2, 0, 0, 0, 0, 0, 0, 0]].concat(), Ok(18)),
        (197, [&[0; 8][..], &[0x97, 0, 0, 0, 0, 0, 0, 0, 0x80], &[0; 15]].concat(), Ok(32)),
        (197, [&[0; 8][..], &[5, 0, 0, 0, 0, 0, 0, 0]].concat(), Err(FrameReason::NotIp)),
        (
            119,
            [&0x44_u32.to_le_bytes()[..], &144_u32.to_le_bytes(), &[0; 136], &wireless(8, 1, &[])].concat(),
            Ok(176),
        ),
        (119, wireless(8, 1, &[]), Ok(32)),
        (163, [&[0x80, 0x21, 0x10, 1, 0, 0, 0, 64][..], &[0; 56], &wireless(8, 1, &[])].concat(), Ok(96)),
        (0, vec![0xff, 3, 0, 0x21], Ok(4)),
        (0, vec![0, 8, 0, 0], Ok(4)),
        (0, vec![0, 0, 0x86, 0xdd], Ok(4)),
        (0, vec![0, 0, 2, 0], Ok(4)),
        (0, vec![2, 0, 0, 1], Err(FrameReason::NotIp)),
        (0, vec![0, 0, 1, 0], Err(FrameReason::NotIp)),
        (
            239,
            [&[2, 0, 0, 0, 8, 0, 10, 0, 0, 0, 0, 1, 5, 0, 1, 0, 9, 0, 0, 0, 4, 0, 9, 0][..]].concat(),
            Ok(24),
        ),
        (239, vec![2, 0, 0, 0, 0, 0, 1, 0], Err(FrameReason::Malformed)),
        (239, vec![7, 0, 0, 0, 4, 0, 9, 0], Err(FrameReason::NotIp)),
        (105, wireless(0x08, 0x01, &[]), Ok(32)),
        (105, wireless(0x88, 0x02, &[0, 0]), Ok(34)),
        (105, wireless(0x88, 0x83, &[0; 12]), Ok(44)),
        (105, wireless(0x08, 0x40, &[]), Err(FrameReason::NotIp)),
        (105, wireless(0x48, 0x01, &[]), Err(FrameReason::NotIp)),
        (105, wireless(0x80, 0x00, &[]), Err(FrameReason::NotIp)),
        (105, wireless(0x88, 0x02, &[0x80, 0]), Err(FrameReason::Aggregate)),
        (109, [&2_u32.to_be_bytes()[..], &[0; 8]].concat(), Ok(12)),
        (109, vec![0; 12], Err(FrameReason::NotIp)),
        (117, [&[61, 2][..], &[0; 62]].concat(), Ok(64)),
        (117, vec![61, 7, 0, 0], Err(FrameReason::NotIp)),
        (192, [&[0, 0, 10, 0, 101, 0, 0, 0, 1, 2][..]].concat(), Ok(10)),
        (192, [&[0, 0, 8, 0, 105, 0, 0, 0][..], &wireless(0x08, 0x01, &[])].concat(), Ok(40)),
        (192, vec![0, 0, 8, 0, 192, 0, 0, 0, 0, 0, 8, 0, 1, 0, 0, 0], Err(FrameReason::LinkType)),
        (192, vec![0, 0, 9, 0, 1, 0, 0, 0], Err(FrameReason::Truncated)),
        (258, [&[108, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0][..], &[0; 96], &[2, 0, 0, 0]].concat(), Ok(112)),
        (258, vec![12, 0, 0, 0, 1, 0, 0, 0, 1, 0, 1, 0], Err(FrameReason::LinkType)),
        (127, [&[0, 0, 10, 0, 0, 0, 0, 0, 0, 0][..], &wireless(0x08, 0x01, &[])].concat(), Ok(42)),
        // Flags behind one word, and behind two and a time: the header is as long as a multiple of four.
        (127, [&[0, 0, 9, 0, 2, 0, 0, 0, 0x20][..], &wireless(0x88, 0x01, &[0; 4])].concat(), Ok(45)),
        (
            127,
            [&[0, 0, 25, 0, 3, 0, 0, 0x80, 0, 0, 0, 0][..], &[0; 12], &[0x20], &wireless(0x88, 1, &[0; 4])]
                .concat(),
            Ok(61),
        ),
        (127, [&[0, 0, 9, 0, 2, 0, 0, 0, 0x10][..], &wireless(0x88, 0x01, &[0; 2])].concat(), Ok(43)),
    ];
    for (link_type, bytes, expected) in cases {
        let found = network_layer(LinkType(*link_type), bytes).map(|(offset, _)| offset);
        assert_eq!(found, *expected, "link type {link_type}, {bytes:?}");
    }
}

proptest! {
    #[test]
    fn any_bytes_are_understood_or_refused(
        link_type in prop::sample::select(&LINK_TYPES[..]),
        bytes in prop::collection::vec(any::<u8>(), 0..80),
    ) {
        // An offset beyond the frame is for the parser to refuse.
        network_layer(LinkType(link_type), &bytes).ok();
    }
}
