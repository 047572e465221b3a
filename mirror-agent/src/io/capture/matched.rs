//! Enters: ports and networks that are asked for. Leaves: the steps by which the kernel program's tables come to hold
//! them, while it runs.
//!
//! The program takes what goes to one of the ports and one of the networks. Tables are changed one entry at a time, and
//! packets pass meanwhile. First all that makes it take less ([`Matched::less`]), then all that makes it take more
//! ([`Matched::more`]): so nothing is ever taken that neither the old nor the new rules ask for, and all that both ask
//! for is taken at every moment.

use std::{collections::BTreeSet, net::Ipv6Addr};

use ipnet::IpNet;
use mirror_common::maps::MAX_ADDRESSES;

use crate::io::capture::rules::{RulesError, trie_key};

/// A network as in the address trie: the length of its prefix, in bits, and its v4-mapped address.
pub(super) type Network = (u32, [u8; 16]);

/// Which servers' traffic is taken.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Matched {
    ports: BTreeSet<u16>,
    /// None for any address.
    networks: BTreeSet<Network>,
}

/// One change of the tables.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Step {
    /// Takes a port, or not.
    Port(u16, bool),
    /// Adds a network.
    Add(Network),
    /// Removes a network.
    Remove(Network),
    /// Asks for the address, or takes any.
    MatchAddresses(bool),
}

impl Step {
    /// The step that takes this one back.
    pub(super) const fn undone(self) -> Self {
        match self {
            Self::Port(port, is_member) => Self::Port(port, !is_member),
            Self::Add(network) => Self::Remove(network),
            Self::Remove(network) => Self::Add(network),
            Self::MatchAddresses(is_matched) => Self::MatchAddresses(!is_matched),
        }
    }
}

impl Matched {
    /// Traffic to these ports, at addresses in these networks; no network for any address.
    #[must_use]
    pub fn new(ports: &[u16], networks: &[IpNet]) -> Self {
        Self {
            ports: ports.iter().copied().collect(),
            networks: networks.iter().copied().map(trie_key).collect(),
        }
    }

    /// Whether traffic of the server at this address, v4-mapped for IPv4, is taken.
    #[must_use]
    pub fn takes(&self, addr: Ipv6Addr, port: u16) -> bool {
        let is_in = |(len, network): &Network| {
            let mask = u128::MAX.checked_shl(128_u32.saturating_sub(*len)).unwrap_or(0);
            addr.to_bits() & mask == u128::from_be_bytes(*network) & mask
        };
        self.ports.contains(&port) && (self.networks.is_empty() || self.networks.iter().any(is_in))
    }

    /// Checks what the kernel would refuse.
    ///
    /// # Errors
    ///
    /// [`RulesError::PortZero`] and [`RulesError::TooManyAddresses`].
    pub fn validate(&self) -> Result<(), RulesError> {
        let count = self.networks.len();
        if self.ports.contains(&0) {
            Err(RulesError::PortZero)
        } else if count > usize::try_from(MAX_ADDRESSES).unwrap_or(usize::MAX) {
            Err(RulesError::TooManyAddresses { count })
        } else {
            Ok(())
        }
    }

    /// The steps after which nothing is taken that `new` does not ask for.
    pub(super) fn less(&self, new: &Self) -> Vec<Step> {
        let mut steps: Vec<_> =
            self.ports.difference(&new.ports).map(|port| Step::Port(*port, false)).collect();
        match (self.networks.is_empty(), new.networks.is_empty()) {
            (true, false) => {
                steps.extend(new.networks.iter().copied().map(Step::Add));
                steps.push(Step::MatchAddresses(true));
            }
            (false, false) => {
                steps.extend(self.networks.difference(&new.networks).copied().map(Step::Remove));
            }
            (_, true) => {}
        }
        steps
    }

    /// The steps that remain after [`less`](Self::less), after which all is taken that `new` asks for.
    pub(super) fn more(&self, new: &Self) -> Vec<Step> {
        let mut steps = Vec::new();
        match (self.networks.is_empty(), new.networks.is_empty()) {
            (false, true) => {
                steps.push(Step::MatchAddresses(false));
                steps.extend(self.networks.iter().copied().map(Step::Remove));
            }
            (false, false) => {
                steps.extend(new.networks.difference(&self.networks).copied().map(Step::Add));
            }
            (true, _) => {}
        }
        steps.extend(new.ports.difference(&self.ports).map(|port| Step::Port(*port, true)));
        steps
    }
}

impl Matched {
    /// Takes note of a step that was made.
    pub(super) fn note(&mut self, step: Step) {
        match step {
            Step::Port(port, true) => {
                self.ports.insert(port);
            }
            Step::Port(port, false) => {
                self.ports.remove(&port);
            }
            Step::Add(network) => {
                self.networks.insert(network);
            }
            Step::Remove(network) => {
                self.networks.remove(&network);
            }
            Step::MatchAddresses(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The tables as the kernel program reads them.
    #[derive(Clone)]
    struct Tables {
        held: Matched,
        matches_addresses: bool,
    }

    impl Tables {
        fn of(rules: &Matched) -> Self {
            Self { held: rules.clone(), matches_addresses: !rules.networks.is_empty() }
        }

        fn apply(&mut self, step: Step) {
            match step {
                Step::Port(port, true) => assert!(self.held.ports.insert(port)),
                Step::Port(port, false) => assert!(self.held.ports.remove(&port)),
                Step::Add(network) => assert!(self.held.networks.insert(network)),
                Step::Remove(network) => assert!(self.held.networks.remove(&network)),
                Step::MatchAddresses(is_matched) => self.matches_addresses = is_matched,
            }
        }

        fn takes(&self, addr: Ipv6Addr, port: u16) -> bool {
            let any = Matched { ports: self.held.ports.clone(), networks: BTreeSet::new() };
            if self.matches_addresses {
                !self.held.networks.is_empty() && self.held.takes(addr, port)
            } else {
                any.takes(addr, port)
            }
        }
    }

    fn rules(ports: &[u16], networks: &[&str]) -> Matched {
        let networks: Vec<IpNet> = networks.iter().map(|network| network.parse().unwrap()).collect();
        Matched::new(ports, &networks)
    }

    fn servers() -> Vec<(Ipv6Addr, u16)> {
        let addrs = ["::ffff:10.1.2.3", "::ffff:10.2.0.1", "::ffff:192.0.2.1", "2001:db8::1"];
        let ports = [80, 81, 82];
        addrs.iter().flat_map(|addr| ports.iter().map(|port| (addr.parse().unwrap(), *port))).collect()
    }

    #[test]
    fn nothing_unasked_is_taken_and_nothing_asked_for_throughout_is_missed() {
        let all = [
            rules(&[], &[]),
            rules(&[80], &[]),
            rules(&[81, 82], &[]),
            rules(&[80, 81], &["10.0.0.0/8"]),
            rules(&[80], &["10.1.0.0/16", "2001:db8::/32"]),
            rules(&[82], &["192.0.2.1/32"]),
            rules(&[], &["10.0.0.0/8"]),
        ];
        for (old, new) in all.iter().flat_map(|old| all.iter().map(move |new| (old, new))) {
            let mut tables = Tables::of(old);
            let (less, more) = (old.less(new), old.more(new));
            let turn = less.len();
            for (number, step) in less.into_iter().chain(more).enumerate() {
                tables.apply(step);
                for (addr, port) in servers() {
                    let (was, will, is) =
                        (old.takes(addr, port), new.takes(addr, port), tables.takes(addr, port));
                    assert!(!is || was || will, "{old:?} to {new:?} took {addr} {port} at step {number}");
                    assert!(is || !was || !will, "{old:?} to {new:?} missed {addr} {port} at step {number}");
                    assert!(!is || will || number + 1 < turn, "{addr} {port} is still taken");
                }
            }
            let end =
                servers().into_iter().all(|(addr, port)| tables.takes(addr, port) == new.takes(addr, port));
            assert!(end && tables.held == *new, "{old:?} to {new:?}");
        }
    }

    #[test]
    fn rules_that_the_tables_do_not_hold_are_refused() {
        assert_eq!(rules(&[0], &[]).validate(), Err(RulesError::PortZero));
        let networks: Vec<IpNet> =
            (0..1025_u32).map(|n| format!("10.{}.{}.0/24", n / 256, n % 256).parse().unwrap()).collect();
        let many = Matched::new(&[80], &networks);
        assert_eq!(many.validate(), Err(RulesError::TooManyAddresses { count: 1025 }));
    }
}
