//! Enters: samples of connections, and where one came from. Leaves: ports to come from, so that each sample has one in it.
//!
//! Of a port whose experiments all sample by connection the kernel program takes the connections that are in a sample and no
//! others, which it tells by the client's address and port. A probe that comes from anywhere is seen in as many cases as are in
//! the sample, and proves nothing where it is not.

use std::{net::SocketAddr, ops::RangeInclusive};

use mirror_common::sample::{connection_draw, is_in_share};

use crate::{io::capture::PortSample, pipeline::Endpoint};

/// Ports to come from. Those below are for servers, or for programs that have a right to them.
const PORTS: RangeInclusive<u16> = 1024..=u16::MAX;

/// Most ports for one address: samples of as many live ports, or more where a port is in several of them.
const MOST: usize = 64;

/// Ports of the address of `from` to come from beside its own, so that each sample has a connection in it. `random` is where
/// they are looked for first, since others may have those that were found before. Of a sample that has none of this address
/// there is none: nothing that comes from it is captured.
pub(super) fn ports_beside(samples: &[PortSample], from: SocketAddr, random: u64) -> Vec<u16> {
    let is_in = |sample: &PortSample, port: u16| {
        let addr = Endpoint::from(from).addr.octets();
        sample
            .lanes
            .iter()
            .any(|(key, millionths)| is_in_share(connection_draw(*key, addr, port), *millionths))
    };
    let mut ports = Vec::new();
    for sample in samples {
        if is_in(sample, from.port()) || ports.iter().any(|port| is_in(sample, *port)) {
            continue;
        }
        let count = u64::try_from(PORTS.len()).unwrap_or(u64::MAX);
        let skipped = usize::try_from(random % count).unwrap_or_default();
        let mut turn = PORTS.skip(skipped).chain(PORTS.take(skipped));
        ports.extend(turn.find(|port| is_in(sample, *port)));
        if ports.len() >= MOST {
            break;
        }
    }
    ports
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
        for random in [0, 7, 99_999, u64::MAX] {
            let ports = ports_beside(&samples, from, random);
            assert_eq!(ports.len(), 2, "{ports:?}");
            for (port, (key, millionths)) in ports.iter().zip([(1, 1_000), (2, 500)]) {
                assert!(is_in_share(connection_draw(key, addr, *port), millionths));
            }
        }
        assert_ne!(ports_beside(&samples, from, 0), ports_beside(&samples, from, 30_000));
        assert_eq!(ports_beside(&[sample(80, 1, 1_000_000)], from, 0), [0; 0]);
        assert_eq!(ports_beside(&[], from, 0), [0; 0]);
    }
}
