//! Enters: the addresses of pods. Leaves: the host sides of their interfaces, without entering a namespace.
//!
//! The kernel is asked for the way to each address. With Calico, AWS and many others, and Cilium where it makes routes for
//! endpoints, that is the interface itself: rules and tables are the kernel's business. With a bridge it is the bridge;
//! there the neighbour table says which hardware address the pod has, and the bridge at which of its ports that is.

use std::{collections::BTreeSet, net::IpAddr};

use crate::io::capture::{
    links::Link,
    netlink::{NetlinkError, ask, attributes, command, dump, read_u16, read_u32},
};

const RTMSG_LEN: usize = 12;
const NDMSG_LEN: usize = 12;

/// `NTF_USE` of the kernel's uapi/linux/neighbour.h: look the neighbour up, as if there were something to send.
const NTF_USE: u8 = 1;

/// Where pods are.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct PodLinks {
    /// Indices of their interfaces' host sides.
    pub links: BTreeSet<u32>,
    /// Addresses whose interface was not found.
    pub missing: BTreeSet<IpAddr>,
}

/// Finds the interfaces among `links` of pods with these addresses. An address of this machine itself, as pods in its
/// network have, has none and is not missing.
///
/// # Errors
///
/// [`NetlinkError`], where the tables of a bridge cannot be read.
pub(super) fn locate(addresses: &BTreeSet<IpAddr>, links: &[Link]) -> Result<PodLinks, NetlinkError> {
    let mut found = PodLinks::default();
    let mut behind_bridges = Vec::new();
    for &address in addresses {
        let way = route(address).unwrap_or(Way::None);
        let link = |index| links.iter().find(|link| link.index == index);
        match way {
            Way::Local => {}
            Way::Direct(index) if link(index).is_some_and(is_host_side) => {
                found.links.insert(index);
            }
            Way::Direct(index) if link(index).is_some_and(|link| link.kind == "bridge") => {
                behind_bridges.push((address, index));
            }
            Way::Direct(_) | Way::None => {
                found.missing.insert(address);
            }
        }
    }
    if behind_bridges.is_empty() {
        return Ok(found);
    }
    let entries = dump(libc::RTM_GETNEIGH, &neighbour(libc::AF_BRIDGE, 0, 0, &[]), parse_bridge_entry)?;
    for (address, bridge) in behind_bridges {
        let port = neighbour_of(address, bridge).and_then(|hardware| {
            let entry = entries.iter().find(|entry| entry.bridge == bridge && entry.hardware == hardware)?;
            links.iter().find(|link| link.index == entry.port)
        });
        match port {
            Some(port) if is_host_side(port) => {
                found.links.insert(port.index);
            }
            _ => {
                found.missing.insert(address);
            }
        }
    }
    Ok(found)
}

fn is_host_side(link: &Link) -> bool {
    matches!(link.kind.as_str(), "veth" | "netkit")
}

/// How packets to an address leave.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Way {
    /// Not at all: it is this machine's.
    Local,
    /// Through this interface, behind which it is.
    Direct(u32),
    /// Through a router, or not.
    None,
}

/// The way to an address; `None` where there is none.
fn route(address: IpAddr) -> Option<Way> {
    let (family, octets) = octets(address);
    let mut request = vec![0; RTMSG_LEN];
    request[0] = family;
    request[1] = u8::try_from(octets.len() * 8).unwrap_or_default();
    push_attribute(&mut request, libc::RTA_DST, &octets);
    ask(libc::RTM_GETROUTE, &request, parse_way).ok().flatten()
}

fn parse_way(body: &[u8]) -> Option<Way> {
    let kind = *body.get(7)?;
    if kind == libc::RTN_LOCAL {
        return Some(Way::Local);
    }
    let is_routed = attributes(body, RTMSG_LEN)
        .any(|(attribute, _)| matches!(attribute, libc::RTA_GATEWAY | libc::RTA_VIA));
    if kind != libc::RTN_UNICAST || is_routed {
        return Some(Way::None);
    }
    let (_, index) = attributes(body, RTMSG_LEN).find(|(attribute, _)| *attribute == libc::RTA_OIF)?;
    read_u32(index, 0).map(Way::Direct)
}

/// The hardware address behind an interface; where it is not known, has the kernel ask for it and gives `None`.
fn neighbour_of(address: IpAddr, interface: u32) -> Option<Vec<u8>> {
    let (family, octets) = octets(address);
    let family = i32::from(family);
    let request = neighbour(family, interface, 0, &octets);
    let known = ask(libc::RTM_GETNEIGH, &request, parse_neighbour).ok().flatten();
    if known.is_none() {
        // It is as if a packet were to be sent: one question on the bridge. The next look sees the answer.
        drop(command(libc::RTM_NEWNEIGH, &neighbour(family, interface, NTF_USE, &octets)));
    }
    known
}

fn parse_neighbour(body: &[u8]) -> Option<Vec<u8>> {
    let state = read_u16(body, 8)?;
    let (_, hardware) = attributes(body, NDMSG_LEN).find(|(attribute, _)| *attribute == libc::NDA_LLADDR)?;
    (state & (libc::NUD_INCOMPLETE | libc::NUD_FAILED | libc::NUD_NONE) == 0).then(|| hardware.to_vec())
}

/// At which of its ports a bridge has seen a hardware address.
#[derive(Clone, Debug, Eq, PartialEq)]
struct BridgeEntry {
    bridge: u32,
    port: u32,
    hardware: Vec<u8>,
}

fn parse_bridge_entry(body: &[u8]) -> Option<BridgeEntry> {
    if i32::from(*body.first()?) != libc::AF_BRIDGE {
        return None;
    }
    let find = |wanted| attributes(body, NDMSG_LEN).find(|(attribute, _)| *attribute == wanted);
    let (_, hardware) = find(libc::NDA_LLADDR)?;
    let (_, bridge) = find(libc::NDA_MASTER)?;
    Some(BridgeEntry { bridge: read_u32(bridge, 0)?, port: read_u32(body, 4)?, hardware: hardware.to_vec() })
}

/// A `struct ndmsg`, and the address where there is one.
fn neighbour(family: i32, interface: u32, flags: u8, address: &[u8]) -> Vec<u8> {
    let mut request = vec![0; NDMSG_LEN];
    request[0] = u8::try_from(family).unwrap_or_default();
    request[4..8].copy_from_slice(&interface.to_ne_bytes());
    request[10] = flags;
    if !address.is_empty() {
        push_attribute(&mut request, libc::NDA_DST, address);
    }
    request
}

/// Adds an attribute; its value's length is a multiple of four.
fn push_attribute(request: &mut Vec<u8>, kind: u16, value: &[u8]) {
    let len = u16::try_from(value.len() + 4).unwrap_or_default();
    request.extend_from_slice(&len.to_ne_bytes());
    request.extend_from_slice(&kind.to_ne_bytes());
    request.extend_from_slice(value);
}

fn octets(address: IpAddr) -> (u8, Vec<u8>) {
    let (family, octets) = match address.to_canonical() {
        IpAddr::V4(v4) => (libc::AF_INET, v4.octets().to_vec()),
        IpAddr::V6(v6) => (libc::AF_INET6, v6.octets().to_vec()),
    };
    (u8::try_from(family).unwrap_or_default(), octets)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn way(kind: u8, attributes: &[(u16, &[u8])]) -> Option<Way> {
        let mut body = vec![2, 32, 0, 0, 254, 0, 0, kind, 0, 0, 0, 0];
        for (kind, value) in attributes {
            push_attribute(&mut body, *kind, value);
        }
        parse_way(&body)
    }

    #[test]
    fn only_what_is_behind_the_interface_itself_is_direct() {
        let seven: &[u8] = &7_u32.to_ne_bytes();
        let oif = (libc::RTA_OIF, seven);
        assert_eq!(way(libc::RTN_UNICAST, &[oif]), Some(Way::Direct(7)));
        assert_eq!(way(libc::RTN_UNICAST, &[oif, (libc::RTA_GATEWAY, &[10, 0, 0, 1])]), Some(Way::None));
        assert_eq!(way(libc::RTN_LOCAL, &[oif]), Some(Way::Local));
        assert_eq!(way(libc::RTN_UNREACHABLE, &[oif]), Some(Way::None));
        assert_eq!(way(libc::RTN_UNICAST, &[]), None);
    }

    #[test]
    fn neighbours_that_did_not_answer_are_not_known() {
        let neighbour = |state: u16| {
            let mut body = vec![2, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0];
            body[8..10].copy_from_slice(&state.to_ne_bytes());
            push_attribute(&mut body, libc::NDA_LLADDR, &[2, 0, 0, 0, 0, 7, 0, 0]);
            parse_neighbour(&body).is_some()
        };
        assert!(
            neighbour(libc::NUD_STALE) && neighbour(libc::NUD_REACHABLE) && neighbour(libc::NUD_PERMANENT)
        );
        assert!(!neighbour(libc::NUD_INCOMPLETE) && !neighbour(libc::NUD_FAILED));
    }

    #[test]
    fn own_addresses_are_neither_found_nor_missing() {
        let loopback = BTreeSet::from(["127.0.0.1".parse().unwrap()]);
        let links = crate::io::capture::links::links().unwrap();
        assert_eq!(locate(&loopback, &links).unwrap(), PodLinks::default());
    }
}
