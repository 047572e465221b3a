//! Enters: the interfaces and addresses of this network namespace, from rtnetlink. Leaves: what of them the agent needs.

use std::{
    collections::{BTreeSet, HashSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use crate::io::capture::netlink::{NetlinkError, attributes, dump, read_u16, read_u32, text};

const IFINFO_LEN: usize = 16;
const IFADDR_LEN: usize = 8;
const RTMSG_LEN: usize = 12;

/// `RTEXT_FILTER_SKIP_STATS`: without the counters of each interface, of which nothing here is used.
const SKIP_STATS: u32 = 1 << 3;

/// A network interface.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Link {
    /// Its index, which is never zero.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// What the kernel calls its kind (`veth`, `bridge`, `wireguard`); empty for a device of hardware and for `lo`.
    pub kind: String,
    /// Index of the device that it is enslaved to, if any.
    pub master: Option<u32>,
    /// Whether it is switched on.
    pub is_up: bool,
    /// Whether it is a loopback device.
    pub is_loopback: bool,
    /// Whether it has an address of its own with more than link or host scope.
    pub has_global_address: bool,
}

/// Every address that is this machine's own, as far as this network namespace knows.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct LocalAddresses(Vec<IpAddr>);

impl LocalAddresses {
    /// Whether packets to `address` stay on this machine: an address of an interface, loopback, or unspecified.
    /// A v4-mapped address counts as the IPv4 address inside.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        address.is_loopback() || address.is_unspecified() || self.0.contains(&address)
    }

    /// The addresses of the interfaces.
    pub fn iter(&self) -> impl Iterator<Item = IpAddr> {
        self.0.iter().copied()
    }
}

/// Lists the interfaces, in the order of their indices.
///
/// # Errors
///
/// [`NetlinkError`], where rtnetlink cannot be read.
pub fn links() -> Result<Vec<Link>, NetlinkError> {
    let globals: HashSet<u32> =
        addresses()?.into_iter().filter(|address| address.is_global).map(|address| address.index).collect();
    // A `struct ifinfomsg` and one attribute of four bytes.
    let mut request = [0; IFINFO_LEN + 8];
    request[IFINFO_LEN..IFINFO_LEN + 2].copy_from_slice(&8_u16.to_ne_bytes());
    request[IFINFO_LEN + 2..IFINFO_LEN + 4].copy_from_slice(&libc::IFLA_EXT_MASK.to_ne_bytes());
    request[IFINFO_LEN + 4..].copy_from_slice(&SKIP_STATS.to_ne_bytes());
    let mut links = dump(libc::RTM_GETLINK, &request, parse_link)?;
    for link in &mut links {
        link.has_global_address = globals.contains(&link.index);
    }
    links.sort_by_key(|link| link.index);
    Ok(links)
}

/// Lists the addresses of all interfaces.
///
/// # Errors
///
/// [`NetlinkError`], where rtnetlink cannot be read.
pub fn local_addresses() -> Result<LocalAddresses, NetlinkError> {
    Ok(LocalAddresses(addresses()?.into_iter().map(|address| address.ip).collect()))
}

struct Address {
    index: u32,
    ip: IpAddr,
    is_global: bool,
}

fn addresses() -> Result<Vec<Address>, NetlinkError> {
    dump(libc::RTM_GETADDR, &[0; IFADDR_LEN], parse_address)
}

/// Finds the interfaces by which the default routes of the main tables leave, IPv4 and IPv6; all of them where a route
/// has several hops.
///
/// # Errors
///
/// [`NetlinkError`], where rtnetlink cannot be read.
pub fn default_routes() -> Result<BTreeSet<u32>, NetlinkError> {
    let mut interfaces = BTreeSet::new();
    for family in [libc::AF_INET, libc::AF_INET6] {
        let mut request = [0; RTMSG_LEN];
        request[0] = u8::try_from(family).unwrap_or_default();
        interfaces.extend(dump(libc::RTM_GETROUTE, &request, parse_default_route)?.into_iter().flatten());
    }
    Ok(interfaces)
}

/// Whether a message about a route is about one that takes everything.
pub(super) fn is_default_route(body: &[u8]) -> bool {
    let family = body.first().copied().map(i32::from);
    matches!(family, Some(libc::AF_INET | libc::AF_INET6)) && body.get(1) == Some(&0)
}

/// The interfaces of a route, where it is a default route of the main table.
fn parse_default_route(body: &[u8]) -> Option<Vec<u32>> {
    let (&table, &kind) = (body.get(4)?, body.get(7)?);
    if !is_default_route(body) || table != libc::RT_TABLE_MAIN || kind != libc::RTN_UNICAST {
        return None;
    }
    let mut interfaces = Vec::new();
    for (attribute, value) in attributes(body, RTMSG_LEN) {
        match attribute {
            libc::RTA_OIF => interfaces.extend(read_u32(value, 0)),
            // A sequence of `struct rtnexthop`: length, flags, hops, interface, attributes.
            libc::RTA_MULTIPATH => {
                let mut hops = value;
                while let (Some(len), Some(index)) = (read_u16(hops, 0), read_u32(hops, 4)) {
                    interfaces.push(index);
                    let len = usize::from(len).max(8).next_multiple_of(4);
                    hops = hops.get(len..).unwrap_or_default();
                }
            }
            _ => {}
        }
    }
    Some(interfaces)
}

fn parse_link(body: &[u8]) -> Option<Link> {
    let index = read_u32(body, 4)?;
    let flags = read_u32(body, 8)?.cast_signed();
    let mut link = Link {
        index,
        name: String::new(),
        kind: String::new(),
        master: None,
        is_up: flags & libc::IFF_UP != 0,
        is_loopback: flags & libc::IFF_LOOPBACK != 0,
        has_global_address: false,
    };
    for (attribute, value) in attributes(body, IFINFO_LEN) {
        match attribute {
            libc::IFLA_IFNAME => link.name = text(value)?.to_owned(),
            libc::IFLA_MASTER => link.master = read_u32(value, 0),
            libc::IFLA_LINKINFO => {
                let kind = attributes(value, 0).find(|&(attribute, _)| attribute == libc::IFLA_INFO_KIND);
                link.kind = kind.and_then(|(_, value)| text(value)).unwrap_or_default().to_owned();
            }
            _ => {}
        }
    }
    (!link.name.is_empty()).then_some(link)
}

fn parse_address(body: &[u8]) -> Option<Address> {
    let scope = *body.get(3)?;
    let index = read_u32(body, 4)?;
    // A point-to-point address names the peer in IFA_ADDRESS and this end in IFA_LOCAL.
    let find = |wanted| attributes(body, IFADDR_LEN).find(|&(attribute, _)| attribute == wanted);
    let (_, value) = find(libc::IFA_LOCAL).or_else(|| find(libc::IFA_ADDRESS))?;
    let ip = if let Some(octets) = value.first_chunk::<16>() {
        Ipv6Addr::from(*octets).to_canonical()
    } else {
        IpAddr::V4(Ipv4Addr::from(*value.first_chunk::<4>()?))
    };
    Some(Address { index, ip, is_global: scope == libc::RT_SCOPE_UNIVERSE || scope == libc::RT_SCOPE_SITE })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_device_is_among_the_links() {
        let links = links().unwrap();
        let lo = links.iter().find(|link| link.name == "lo").unwrap();
        assert!(lo.is_loopback && !lo.has_global_address && lo.kind.is_empty() && lo.master.is_none());
    }

    #[test]
    fn default_routes_name_all_their_interfaces() {
        let route = |dst_len: u8, table: u8, attributes: &[u8]| {
            let mut body = vec![2, dst_len, 0, 0, table, 0, 0, libc::RTN_UNICAST, 0, 0, 0, 0];
            body.extend_from_slice(attributes);
            parse_default_route(&body)
        };
        let through_7 = [8, 0, 4, 0, 7, 0, 0, 0];
        let through_8_and_9 =
            [28, 0, 9, 0, 16, 0, 0, 0, 8, 0, 0, 0, 8, 0, 5, 0, 10, 0, 0, 1, 8, 0, 0, 0, 9, 0, 0, 0];
        assert_eq!(route(0, libc::RT_TABLE_MAIN, &through_7), Some(vec![7]));
        assert_eq!(route(0, libc::RT_TABLE_MAIN, &through_8_and_9), Some(vec![8, 9]));
        assert_eq!(route(0, libc::RT_TABLE_LOCAL, &through_7), None);
        assert_eq!(route(8, libc::RT_TABLE_MAIN, &through_7), None);
        assert_eq!(parse_default_route(&[2, 0]), None);
    }

    #[test]
    fn loopback_mapped_and_unspecified_addresses_are_local() {
        let local = LocalAddresses(vec!["192.0.2.1".parse().unwrap(), "2001:db8::1".parse().unwrap()]);
        for address in ["127.0.0.2", "::1", "::ffff:127.0.0.1", "::ffff:192.0.2.1", "2001:db8::1", "0.0.0.0"]
        {
            assert!(local.contains(address.parse().unwrap()), "{address}");
        }
        for address in ["192.0.2.2", "2001:db8::2"] {
            assert!(!local.contains(address.parse().unwrap()), "{address}");
        }
    }
}
