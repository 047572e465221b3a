//! Enters: the addresses of a target and how connecting to them went. Leaves: the one to connect to.

use std::{net::SocketAddr, time::Duration};

use crate::pipeline::Timestamp;

/// The addresses of a target, taken in turn: a name with several addresses stands for several equal servers.
///
/// One that failed is left out for a while as long as there are others, so that a name with a dead address (or
/// `localhost` with a server on IPv4 only) costs a failed attempt now and then, not every other time.
#[derive(Debug, Default)]
pub(super) struct Addresses {
    list: Vec<Address>,
    next: usize,
}

#[derive(Debug)]
struct Address {
    addr: SocketAddr,
    /// Passed over until then; zero for one that has not failed.
    resting_until: Timestamp,
}

impl Addresses {
    /// Takes the addresses of a resolution; those known before keep their standing.
    pub(super) fn replace(&mut self, addrs: &[SocketAddr]) {
        let resting_until = |addr| {
            let known = self.list.iter().find(|known| known.addr == addr);
            known.map_or(Timestamp::ZERO, |known| known.resting_until)
        };
        self.list =
            addrs.iter().map(|addr| Address { addr: *addr, resting_until: resting_until(*addr) }).collect();
    }

    /// Whether there are none.
    pub(super) const fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Whether `addr` is still one of them.
    pub(super) fn contains(&self, addr: SocketAddr) -> bool {
        self.list.iter().any(|known| known.addr == addr)
    }

    /// The next address in turn that is not resting; if all are, the one that has rested for longest. `None` where
    /// there is no address at all.
    pub(super) fn pick(&mut self, now: Timestamp) -> Option<SocketAddr> {
        let count = self.list.len();
        let start = self.next;
        let turn = (0..count).map(|offset| (start + offset) % count);
        let index = turn.min_by_key(|index| {
            self.list.get(*index).map(|address| address.resting_until).filter(|until| *until > now)
        })?;
        self.next = (index + 1) % count;
        self.list.get(index).map(|address| address.addr)
    }

    /// Whether there is an address that is not resting.
    pub(super) fn has_rested(&self, now: Timestamp) -> bool {
        self.list.iter().any(|address| address.resting_until <= now)
    }

    /// No connection to `addr` could be opened.
    pub(super) fn failed(&mut self, addr: SocketAddr, now: Timestamp) {
        for address in self.list.iter_mut().filter(|address| address.addr == addr) {
            address.resting_until = now.after(REST);
        }
    }
}

/// Long enough to make trying a dead address rare, short enough to notice soon that it is back.
const REST: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    fn addrs(ports: &[u16]) -> Vec<SocketAddr> {
        ports.iter().map(|port| SocketAddr::from(([10, 0, 0, 1], *port))).collect()
    }

    fn picks(addresses: &mut Addresses, now: Timestamp) -> Vec<u16> {
        (0..4).map(|_| addresses.pick(now).unwrap().port()).collect()
    }

    #[test]
    fn addresses_take_turns_and_failed_ones_rest() {
        let mut addresses = Addresses::default();
        let now = Timestamp::from_nanos(1);
        assert_eq!(addresses.pick(now), None);
        let [one, two, three] = addrs(&[1, 2, 3])[..] else { unreachable!() };
        addresses.replace(&[one, two, three]);
        assert_eq!(picks(&mut addresses, now), [1, 2, 3, 1]);
        addresses.failed(two, now);
        assert_eq!(picks(&mut addresses, now), [3, 1, 3, 1]);
        assert_eq!(picks(&mut addresses, now.after(REST)), [2, 3, 1, 2]);
        addresses.failed(two, now);
        addresses.failed(three, now.after(REST));
        addresses.replace(&[two, three]);
        assert_eq!(addresses.pick(now).unwrap(), two, "all rest: the one that has rested for longest");
        assert!(!addresses.contains(one));
    }
}
