//! Enters: Ethernet frames. Leaves: the same packets behind other link layers.

use super::container::Taped;

/// A link layer that a packet can be put behind.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Link {
    /// LINKTYPE_NULL, with this address family for IPv4, little-endian.
    Null(u32),
    /// LINKTYPE_LOOP.
    Loop,
    /// LINKTYPE_RAW.
    Raw,
    /// LINKTYPE_PPP, with address and control.
    Ppp,
    /// LINKTYPE_PPP, without address and control, the protocol in one byte.
    PppCompressed,
    /// LINKTYPE_PPP_HDLC.
    PppHdlc,
    /// LINKTYPE_C_HDLC.
    CiscoHdlc,
    /// LINKTYPE_LINUX_SLL.
    Cooked,
    /// LINKTYPE_LINUX_SLL2.
    Cooked2,
    /// LINKTYPE_NFLOG.
    NfLog,
    /// LINKTYPE_IEEE802_11, a data frame to an access point.
    Wireless,
    /// LINKTYPE_IEEE802_11_RADIOTAP, a QoS data frame and its check sequence.
    Radiotap,
}

impl Link {
    /// The frame's packet behind this layer.
    pub(super) fn carry(self, frame: &Taped) -> Taped {
        let (ethernet, packet) = frame.bytes.split_at(14);
        let ether_type = &ethernet[12..];
        let is_v6 = ether_type == [0x86, 0xdd];
        let (link_type, header): (u16, Vec<u8>) = match self {
            Self::Null(family) => (0, family.to_le_bytes().to_vec()),
            Self::Loop => (108, if is_v6 { 24_u32 } else { 2 }.to_be_bytes().to_vec()),
            Self::Raw => (101, vec![]),
            Self::Ppp => (9, vec![0xff, 0x03, 0x00, if is_v6 { 0x57 } else { 0x21 }]),
            Self::PppCompressed => (9, vec![if is_v6 { 0x57 } else { 0x21 }]),
            Self::PppHdlc => (50, vec![0xff, 0x03, 0x00, if is_v6 { 0x57 } else { 0x21 }]),
            Self::CiscoHdlc => (104, [&[0x0f, 0x00], ether_type].concat()),
            Self::Cooked => (113, [&[0, 0, 0, 1, 0, 6, 2, 0, 0, 0, 0, 1, 0, 0][..], ether_type].concat()),
            Self::Cooked2 => {
                (276, [ether_type, &[0, 0, 0, 0, 0, 1, 0, 1, 0, 6, 2, 0, 0, 0, 0, 1, 0, 0]].concat())
            }
            Self::NfLog => (239, nflog(is_v6, packet.len())),
            Self::Wireless => {
                let control = [0x08, 0x01, 0, 0];
                (
                    105,
                    [&control[..], &[2; 6], &ethernet[6..12], &ethernet[..6], &[0, 0], &snap(ether_type)]
                        .concat(),
                )
            }
            Self::Radiotap => {
                // Present: flags, with the bit for a check sequence at the end.
                let radiotap = [0, 0, 9, 0, 0x02, 0, 0, 0, 0x10];
                let control = [0x88, 0x02, 0, 0];
                let addresses = [&ethernet[..6], &[2; 6], &ethernet[6..12]].concat();
                (127, [&radiotap[..], &control, &addresses, &[0, 0, 0, 0], &snap(ether_type)].concat())
            }
        };
        let mut bytes = [&header, packet].concat();
        if self == Self::NfLog {
            bytes.resize(bytes.len().next_multiple_of(4), 0);
        }
        if self == Self::Radiotap {
            bytes.extend([0xde, 0xad, 0xbe, 0xef]);
        }
        let wire_len = bytes.len() as u32 + frame.wire_len - frame.bytes.len() as u32;
        Taped { at: frame.at, bytes, wire_len, link_type }
    }
}

/// The header, a time stamp, which is skipped, and the start of the payload's attribute.
fn nflog(is_v6: bool, len: usize) -> Vec<u8> {
    let family = if is_v6 { 10 } else { 2 };
    let payload_len = (len as u16 + 4).to_le_bytes();
    [&[family, 0, 0, 0][..], &[8, 0, 4, 0, 1, 2, 3, 4], &payload_len, &[9, 0]].concat()
}

fn snap(ether_type: &[u8]) -> Vec<u8> {
    [&[0xaa, 0xaa, 0x03, 0, 0, 0], ether_type].concat()
}
