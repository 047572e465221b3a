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
    /// Whether the server's address must be in one of the networks.
    asks_address: bool,
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
            asks_address: !networks.is_empty(),
            networks: networks.iter().copied().map(trie_key).collect(),
        }
    }

    /// Whether traffic of the server at this address, v4-mapped for IPv4, is taken.
    #[must_use]
    pub fn takes(&self, addr: Ipv6Addr, port: u16) -> bool {
        let is_in = |(len, network): &Network| mask(*len, addr.octets()) == mask(*len, *network);
        self.ports.contains(&port) && (!self.asks_address || self.networks.iter().any(is_in))
    }

    /// Whether traffic of any server is taken that `other` does not take.
    #[must_use]
    pub fn takes_more_than(&self, other: &Self) -> bool {
        let is_new_port = !self.ports.is_subset(&other.ports);
        let is_wider =
            || !self.asks_address || self.networks.iter().any(|network| !is_within(network, other));
        is_new_port || (!self.ports.is_empty() && other.asks_address && is_wider())
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

    /// Networks of `new` that are not among these.
    fn coming<'a>(&'a self, new: &'a Self) -> impl Iterator<Item = Network> + 'a {
        new.networks.difference(&self.networks).copied()
    }

    /// Networks that are not among those of `new`.
    fn going<'a>(&'a self, new: &'a Self) -> impl Iterator<Item = Network> + 'a {
        self.networks.difference(&new.networks).copied()
    }

    /// The steps after which nothing is taken that `new` does not ask for.
    pub(super) fn less(&self, new: &Self) -> Vec<Step> {
        let mut steps: Vec<_> =
            self.ports.difference(&new.ports).map(|port| Step::Port(*port, false)).collect();
        match (self.asks_address, new.asks_address) {
            (false, true) => {
                steps.extend(new.networks.iter().copied().map(Step::Add));
                steps.push(Step::MatchAddresses(true));
            }
            (true, true) => {
                // First what only names a part of what is taken, then what names more than a part of what will be.
                steps.extend(self.coming(new).filter(|network| is_within(network, self)).map(Step::Add));
                steps.extend(self.going(new).filter(|network| !is_within(network, new)).map(Step::Remove));
            }
            (_, false) => {}
        }
        steps
    }

    /// The steps that remain after [`less`](Self::less), after which all is taken that `new` asks for.
    pub(super) fn more(&self, new: &Self) -> Vec<Step> {
        let mut steps = Vec::new();
        match (self.asks_address, new.asks_address) {
            (true, false) => {
                steps.push(Step::MatchAddresses(false));
                steps.extend(self.networks.iter().copied().map(Step::Remove));
            }
            (true, true) => {
                steps.extend(self.coming(new).map(Step::Add));
                steps.extend(self.going(new).map(Step::Remove));
            }
            (false, _) => {}
        }
        steps.extend(new.ports.difference(&self.ports).map(|port| Step::Port(*port, true)));
        steps
    }
}

/// Whether all of a network is in one of those of `matched`.
fn is_within(&(len, octets): &Network, matched: &Matched) -> bool {
    let holds = |(of_len, of): &Network| *of_len <= len && mask(*of_len, octets) == mask(*of_len, *of);
    matched.networks.iter().any(holds)
}

/// The first `len` bits of an address.
fn mask(len: u32, octets: [u8; 16]) -> u128 {
    u128::from_be_bytes(octets) & u128::MAX.checked_shl(128_u32.saturating_sub(len)).unwrap_or(0)
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
            Step::MatchAddresses(asks_address) => self.asks_address = asks_address,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Makes a step, as the kernel does: what is there already is not there twice, nor taken out where it is not.
    fn apply(tables: &mut Matched, step: Step) {
        match step {
            Step::Add(network) => assert!(!tables.networks.contains(&network), "{step:?}"),
            Step::Remove(network) => assert!(tables.networks.contains(&network), "{step:?}"),
            Step::Port(port, is_member) => assert!(tables.ports.contains(&port) != is_member, "{step:?}"),
            Step::MatchAddresses(asks_address) => assert!(tables.asks_address != asks_address),
        }
        tables.note(step);
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
            rules(&[80, 81], &["10.1.0.0/16"]),
            rules(&[82], &["192.0.2.1/32"]),
            rules(&[], &["10.0.0.0/8"]),
        ];
        for (old, new) in all.iter().flat_map(|old| all.iter().map(move |new| (old, new))) {
            let mut tables = old.clone();
            let check = |tables: &Matched, has_turned: bool, step: Step| {
                for (addr, port) in servers() {
                    let (was, will, is) =
                        (old.takes(addr, port), new.takes(addr, port), tables.takes(addr, port));
                    assert!(!is || was || will, "{old:?} to {new:?} took {addr} {port} at {step:?}");
                    assert!(is || !was || !will, "{old:?} to {new:?} missed {addr} {port} at {step:?}");
                    assert!(!is || was || has_turned, "{old:?} to {new:?} took {addr} {port} early");
                    assert!(!is || will || !has_turned, "{old:?} to {new:?} took {addr} {port} too long");
                }
            };
            for step in old.less(new) {
                apply(&mut tables, step);
                check(&tables, false, step);
            }
            for step in tables.more(new) {
                apply(&mut tables, step);
                check(&tables, true, step);
            }
            assert_eq!(tables, *new);
        }
    }

    #[test]
    fn more_is_taken_by_another_port_and_by_a_network_beside_those_that_were() {
        let before = rules(&[80, 81], &["10.0.0.0/8"]);
        for (after, is_more) in [
            (rules(&[80, 81], &["10.0.0.0/8"]), false),
            (rules(&[80], &["10.1.0.0/16", "10.2.0.0/16"]), false),
            (rules(&[80, 82], &["10.0.0.0/8"]), true),
            (rules(&[80], &["10.1.0.0/16", "192.0.2.0/24"]), true),
            (rules(&[80], &["8.0.0.0/6"]), true),
            (rules(&[80], &[]), true),
            (rules(&[], &[]), false),
        ] {
            assert_eq!(after.takes_more_than(&before), is_more, "{after:?}");
        }
        let any = rules(&[80], &[]);
        assert!(!rules(&[80], &["10.0.0.0/8"]).takes_more_than(&any));
        assert!(rules(&[80], &[]).takes_more_than(&Matched::default()));
        assert!(!Matched::default().takes_more_than(&any));
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
