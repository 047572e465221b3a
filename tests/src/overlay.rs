//! Enters: a packet. Leaves: the same inside a tunnel, built by hand, without any stack.
//!
//! For what the kernel at hand has no devices for. Each function puts one header before what it is given; checksums
//! but that of IPv4 are left at zero, since nobody on the way looks at them.

use crate::frames::checksum;

/// EtherType of IPv4.
pub const IPV4: u16 = 0x0800;
/// EtherType of IPv6.
pub const IPV6: u16 = 0x86dd;
/// What tunnels call an Ethernet header.
pub const BRIDGED: u16 = 0x6558;
/// EtherType of MPLS labels.
pub const MPLS: u16 = 0x8847;

/// IP protocol numbers of tunnels.
pub mod protocol {
    /// IPv4.
    pub const IPV4: u8 = 4;
    /// UDP.
    pub const UDP: u8 = 17;
    /// IPv6.
    pub const IPV6: u8 = 41;
    /// GRE.
    pub const GRE: u8 = 47;
}

/// Puts an Ethernet header before `rest`.
#[must_use]
pub fn ethernet(ether_type: u16, rest: &[u8]) -> Vec<u8> {
    [&[2, 0, 0, 0, 0, 11, 2, 0, 0, 0, 0, 12], &ether_type.to_be_bytes()[..], rest].concat()
}

/// Puts an IPv4 header between tunnel ends before `rest`. Its length is 0 where it does not fit the field.
#[must_use]
pub fn ipv4(protocol: u8, rest: &[u8]) -> Vec<u8> {
    let total = u16::try_from(20 + rest.len()).unwrap_or(0).to_be_bytes();
    let mut header =
        [0x45, 0, total[0], total[1], 0, 1, 0x40, 0, 64, protocol, 0, 0, 203, 0, 113, 1, 203, 0, 113, 2];
    // Bridges throw away packets in which it is wrong.
    let checksum = checksum(&[&header]);
    header[10..12].copy_from_slice(&checksum.to_be_bytes());
    [&header, rest].concat()
}

/// Puts an IPv6 header between tunnel ends before `rest`. Its length is 0 where it does not fit the field.
#[must_use]
pub fn ipv6(next_header: u8, rest: &[u8]) -> Vec<u8> {
    let len = u16::try_from(rest.len()).unwrap_or(0).to_be_bytes();
    let end = |last: u8| [0x20, 1, 0xd, 0xb8, 0, 0xff, 0, 0, 0, 0, 0, 0, 0, 0, 0, last];
    [&[0x60, 0, 0, 0, len[0], len[1], next_header, 64][..], &end(1), &end(2), rest].concat()
}

/// Puts a UDP header to `port` before `rest`.
#[must_use]
pub fn udp(port: u16, rest: &[u8]) -> Vec<u8> {
    let len = u16::try_from(8 + rest.len()).unwrap_or(0);
    [&0xc001_u16.to_be_bytes()[..], &port.to_be_bytes(), &len.to_be_bytes(), &[0, 0], rest].concat()
}

/// Puts a VXLAN header before an Ethernet frame.
#[must_use]
pub fn vxlan(vni: u32, frame: &[u8]) -> Vec<u8> {
    [&[8, 0, 0, 0][..], &(vni << 8).to_be_bytes(), frame].concat()
}

/// Puts a Geneve header with `option_words` times four bytes of options before what `inner_type` announces.
#[must_use]
pub fn geneve(vni: u32, option_words: u8, inner_type: u16, rest: &[u8]) -> Vec<u8> {
    let mut bytes = vec![option_words & 0x3f, 0];
    bytes.extend(inner_type.to_be_bytes());
    bytes.extend((vni << 8).to_be_bytes());
    // One option of a class for experiments for each word.
    for _ in 0..option_words & 0x3f {
        bytes.extend([0xff, 0xff, 1, 0]);
    }
    bytes.extend(rest);
    bytes
}

/// Puts a GRE header before what `inner_type` announces; `fields` are those that `flags` says are there.
#[must_use]
pub fn gre(flags: u16, inner_type: u16, fields: &[u32], rest: &[u8]) -> Vec<u8> {
    let mut bytes = [flags.to_be_bytes(), inner_type.to_be_bytes()].concat();
    bytes.extend(fields.iter().flat_map(|field| field.to_be_bytes()));
    bytes.extend(rest);
    bytes
}

/// Puts `count` MPLS labels before `rest`.
#[must_use]
pub fn labels(count: u32, rest: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for at in 1..=count {
        let bottom = u32::from(at == count);
        bytes.extend(((16 + at) << 12 | bottom << 8 | 64).to_be_bytes());
    }
    bytes.extend(rest);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_stand_where_the_standards_say() {
        assert_eq!(vxlan(0x0001_0203, &[9]), [8, 0, 0, 0, 1, 2, 3, 0, 9]);
        assert_eq!(geneve(5, 1, IPV4, &[9]), [1, 0, 8, 0, 0, 0, 5, 0, 0xff, 0xff, 1, 0, 9]);
        assert_eq!(gre(0x2000, IPV4, &[7], &[9]), [0x20, 0, 8, 0, 0, 0, 0, 7, 9]);
        assert_eq!(labels(2, &[9]), [0, 1, 0x10, 64, 0, 1, 0x21, 64, 9]);
    }
}
