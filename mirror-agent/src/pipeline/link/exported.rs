//! Enters: a unit that Wireshark exported (LINKTYPE_WIRESHARK_UPPER_PDU). Leaves: where a whole packet begins in it.

use mirror_common::packet::Start;

use super::{array, to_offset};
use crate::pipeline::frame::FrameReason;

/// Tags before the unit: there are some forty kinds.
const MAX_TAGS: usize = 64;

/// What ends the tags.
const END: u16 = 0;

/// The name of the protocol that the unit is of, which may be followed by zeros.
const PROTOCOL_NAME: u16 = 12;

/// Where the packet begins that the unit in `bytes` is.
///
/// # Errors
///
/// `LinkType` where it is of a protocol above TCP, of which nothing says what it was carried by.
pub(super) fn packet(bytes: &[u8]) -> Result<(u32, Start), FrameReason> {
    let mut start = None;
    let mut at = 0_usize;
    for _ in 0..MAX_TAGS {
        let (tag, len) = (u16::from_be_bytes(array(bytes, at)?), array(bytes, at.saturating_add(2))?);
        let value_at = at.saturating_add(4);
        at = value_at.saturating_add(u16::from_be_bytes(len).into());
        match tag {
            END => return Ok((to_offset(at)?, start.ok_or(FrameReason::LinkType)?)),
            PROTOCOL_NAME => {
                let name = bytes.get(value_at..at).ok_or(FrameReason::Truncated)?;
                let end = name.iter().position(|byte| *byte == 0).unwrap_or(name.len());
                start = match name.get(..end) {
                    Some(b"ip" | b"ipv6") => Some(Start::Ip),
                    Some(b"eth" | b"eth_withoutfcs" | b"eth_withfcs" | b"eth_maybefcs") => {
                        Some(Start::Ethernet)
                    }
                    _ => None,
                };
            }
            _ => {}
        }
    }
    Err(FrameReason::TooDeep)
}
