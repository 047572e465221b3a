//! Enters: which connections the kernel program takes, and where one came from. Leaves: ports to come from that it takes.
//!
//! Of a port whose experiments all sample by connection the kernel program takes the connections that are in a sample and no
//! others, and while it sheds it takes only a share of any; it tells them by the client's address and port. A probe that comes
//! from anywhere is seen in as many cases as are taken, and proves nothing where it is not.

use std::{net::SocketAddr, ops::RangeInclusive};

use mirror_common::{
    maps::SHED_KEY,
    sample::{connection_draw, is_in_share},
};

use crate::{io::capture::PortSample, pipeline::Endpoint};

/// Ports to come from. Those below are for servers, or for programs that have a right to them.
const PORTS: RangeInclusive<u16> = 1024..=u16::MAX;

/// Those of them that Linux gives to clients, unless told otherwise (`ip_local_port_range`): no server waits for one.
const CLIENT_PORTS: RangeInclusive<u16> = 32_768..=60_999;

/// Most ports for one address: samples of as many live ports, or more where a port is in several of them.
const MOST: usize = 64;

/// Which connections the kernel program takes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Taken<'a> {
    /// Of these ports, the ones that are in a sample.
    pub(super) samples: &'a [PortSample],
    /// Of all of them, as many of a million are not.
    pub(super) shed_millionths: u32,
}

/// Ports of the address of `from` to come from beside its own, so that there is a connection that is not shed, and one of those
/// in each sample. `random` is where they are looked for first, since others may have those that were found before. Of a sample
/// that has none of this address there is none: nothing that comes from it is captured. `None` where those that there are, are
/// all shed.
pub(super) fn ports_beside(taken: &Taken<'_>, from: SocketAddr, random: u64) -> Option<Vec<u16>> {
    let addr = Endpoint::from(from).addr.octets();
    let is_shed = |port: u16| is_in_share(connection_draw(SHED_KEY, addr, port), taken.shed_millionths);
    let is_in = |sample: &PortSample, port: u16| {
        let lanes = &sample.lanes;
        lanes.iter().any(|(key, millionths)| is_in_share(connection_draw(*key, addr, port), *millionths))
    };
    let round = |ports: RangeInclusive<u16>| {
        let count = u64::try_from(ports.len()).unwrap_or(u64::MAX);
        let skipped = usize::try_from(random % count).unwrap_or_default();
        ports.clone().skip(skipped).chain(ports.take(skipped))
    };
    let turn = || round(CLIENT_PORTS).chain(round(PORTS));
    let mut ports = Vec::new();
    // Where nothing is sampled, any will do.
    for sample in taken.samples.iter().map(Some).chain([None]) {
        let fits = |port: &u16| sample.is_none_or(|sample| is_in(sample, *port));
        let is_taken = |port: &u16| fits(port) && !is_shed(*port);
        if is_taken(&from.port()) || ports.iter().any(is_taken) {
            continue;
        }
        match turn().find(is_taken) {
            Some(port) => ports.push(port),
            None if turn().any(|port| fits(&port)) => return None,
            None => {}
        }
        if ports.len() >= MOST {
            break;
        }
    }
    Some(ports)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_sample_has_a_port_in_it_and_no_more_are_taken_than_that() {
        let sample = |port, key, millionths| PortSample { port, lanes: vec![(key, millionths)] };
        let from = SocketAddr::from(([192, 0, 2, 7], 40_000));
        let addr = Endpoint::from(from).addr.octets();
        let samples = [sample(80, 1, 1_000), sample(81, 2, 500), sample(82, 3, 0), sample(83, 1, 1_000)];
        let all = |samples| Taken { samples, shed_millionths: 0 };
        for random in [0, 7, 99_999, u64::MAX] {
            let ports = ports_beside(&all(&samples), from, random).unwrap();
            assert_eq!(ports.len(), 2, "{ports:?}");
            for (port, (key, millionths)) in ports.iter().zip([(1, 1_000), (2, 500)]) {
                assert!(is_in_share(connection_draw(key, addr, *port), millionths));
            }
        }
        assert_ne!(
            ports_beside(&all(&samples), from, 0).unwrap(),
            ports_beside(&all(&samples), from, 30_000).unwrap()
        );
        let whole = [sample(80, 1, 1_000_000)];
        assert_eq!(ports_beside(&all(&whole), from, 0), Some(Vec::new()));
        assert_eq!(ports_beside(&all(&[]), from, 0), Some(Vec::new()));
    }

    #[test]
    fn what_is_shed_is_no_port_to_come_from() {
        let sample = [PortSample { port: 80, lanes: vec![(1, 20_000)] }];
        let is_shed = |from: SocketAddr, port, millionths| {
            is_in_share(connection_draw(SHED_KEY, Endpoint::from(from).addr.octets(), port), millionths)
        };
        let mut none = 0;
        for host in 1..=50 {
            let from = SocketAddr::from(([192, 0, 2, host], 40_000));
            let plain = ports_beside(&Taken { samples: &[], shed_millionths: 900_000 }, from, 0).unwrap();
            assert_eq!(plain.len(), usize::from(is_shed(from, 40_000, 900_000)));
            assert!(plain.iter().all(|port| !is_shed(from, *port, 900_000)));
            none += usize::from(plain.is_empty());
            let both = ports_beside(&Taken { samples: &sample, shed_millionths: 900_000 }, from, 0).unwrap();
            let mut in_both = both.iter().chain([&40_000]).filter(|port| {
                let draw = connection_draw(1, Endpoint::from(from).addr.octets(), **port);
                is_in_share(draw, 20_000) && !is_shed(from, **port, 900_000)
            });
            assert!(in_both.next().is_some() && both.len() <= 1, "{both:?}");
            assert_eq!(ports_beside(&Taken { samples: &sample, shed_millionths: 1_000_000 }, from, 0), None);
            assert_eq!(ports_beside(&Taken { samples: &[], shed_millionths: 1_000_000 }, from, 0), None);
        }
        assert!((1..20).contains(&none), "one in ten is not shed: {none}");
    }
}
