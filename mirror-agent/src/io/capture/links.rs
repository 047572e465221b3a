//! Enters: the interfaces and addresses of this network namespace, from rtnetlink. Leaves: what of them the agent needs.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::io::capture::netlink::{NetlinkError, attributes, dump, read_u32, text};

const IFINFO_LEN: usize = 16;
const IFADDR_LEN: usize = 8;

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
    let addresses = addresses()?;
    let mut links: Vec<_> =
        dump(libc::RTM_GETLINK, &[0; IFINFO_LEN])?.iter().filter_map(|body| parse_link(body)).collect();
    for link in &mut links {
        link.has_global_address =
            addresses.iter().any(|address| address.index == link.index && address.is_global);
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
    Ok(dump(libc::RTM_GETADDR, &[0; IFADDR_LEN])?.iter().filter_map(|body| parse_address(body)).collect())
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
