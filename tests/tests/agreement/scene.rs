//! Enters: the environment and a seed. Leaves: what the frames are about, and rules for the program.

use std::env;

use anyhow::{Context, Result};
use mirror_common::Counter;
use mirror_common::maps::{ConnectionFlags, KernelConfig, PortSample, SampleLane, SocketKey, map, own_end};
use mirror_common::packet::v4_mapped;
use mirror_tests::classifier::{Classifier, Counts};
use mirror_tests::frame_gen::Population;
use mirror_tests::rng::Rng;

use crate::model::{Rules, Verdict};

const MATCHED: [u16; 4] = [80, 8080, 1, 65_535];
const UNMATCHED: [u16; 3] = [81, 8081, 4789];
const OWN_PORT: u16 = 40_001;
const V4: [[u8; 4]; 5] =
    [[192, 0, 2, 1], [192, 0, 2, 2], [198, 51, 100, 7], [8, 0, 0x45, 0], [134, 221, 6, 6]];
const V6: [[u8; 16]; 4] = [
    [0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1],
    [0x20, 1, 0x0d, 0xb8, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2],
    [0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 3],
    // Where an Ethernet header has its type this says IPv4.
    [0x20, 1, 0x0d, 0xb8, 8, 0, 0x45, 0, 0, 0, 0, 0, 0, 0, 0, 4],
];

/// The mark of the agent's own sockets.
pub(crate) const OWN_MARK: u32 = 0x4d17;

/// How many frames this run is to take, `short` where nothing was said.
pub(crate) fn frames(short: u64) -> Result<u64> {
    match env::var("MIRROR_AGREE_FRAMES") {
        Ok(frames) => frames.parse().context("MIRROR_AGREE_FRAMES is no number"),
        Err(_) => Ok(short),
    }
}

/// The seed of this run.
pub(crate) fn seed() -> Result<u64> {
    match env::var("MIRROR_AGREE_SEED") {
        Ok(seed) => seed.parse().context("MIRROR_AGREE_SEED is no number"),
        Err(_) => Ok(Rng::any_seed()),
    }
}

/// What the frames are about: ends that are matched, and ends that are not.
pub(crate) fn population(max_payload: usize) -> Population {
    let ports = [&MATCHED[..], &MATCHED, &MATCHED, &UNMATCHED, &[OWN_PORT]].concat();
    Population { ports, v4: V4.to_vec(), v6: V6.to_vec(), max_payload }
}

/// Rules without a choice in them, written to the program's maps.
pub(crate) fn tell(classifier: &mut Classifier) -> Result<Rules> {
    let own = [v4_mapped(V4[0]), V6[0]].map(|addr| SocketKey { addr, port: OWN_PORT, reserved: 0 });
    let networks = vec![(96 + 24, v4_mapped([192, 0, 2, 0])), (48, V6[0]), (128, V6[2])];
    classifier.add_tunnels()?;
    for port in MATCHED {
        classifier.add_port(map::PORTS, port)?;
    }
    let answer_ports = [MATCHED[0], MATCHED[3], UNMATCHED[0]];
    for port in answer_ports {
        classifier.add_port(map::ANSWER_PORTS, port)?;
    }
    for socket in own {
        classifier.add_own(socket, own_end::MARKED)?;
    }
    for (prefix_len, addr) in &networks {
        classifier.add_network(*prefix_len, *addr)?;
    }
    let lane = |key, millionths| SampleLane { key, millionths, reserved: 0 };
    let unused = SampleLane::default();
    let samples = vec![
        (MATCHED[0], PortSample { lanes: [lane(1, 300_000), unused, unused, unused] }),
        (
            MATCHED[1],
            PortSample { lanes: [lane(2, 200_000), lane(3, 300_000), lane(4, 1), lane(u64::MAX, 10)] },
        ),
        (MATCHED[2], PortSample { lanes: [unused; 4] }),
    ];
    for (port, sample) in &samples {
        classifier.set_sample(*port, *sample)?;
    }
    let config = KernelConfig::default();
    Ok(Rules {
        config,
        ports: MATCHED.into(),
        answer_ports: answer_ports.into(),
        networks,
        own: own.into(),
        samples,
        unread: None,
    })
}

/// Any configuration.
pub(crate) fn any_config(rng: &mut Rng) -> KernelConfig {
    KernelConfig {
        paused: u32::from(rng.percent(4)),
        rings: rng.pick(&[1, 2, 4]),
        own_mark: rng.pick(&[0, OWN_MARK]),
        match_addresses: u32::from(rng.percent(35)),
        copy_responses: u32::from(rng.percent(70)),
        wake_interval_ns: 1_000_000,
        connections: if rng.percent(60) { ConnectionFlags::SAMPLED } else { 0 },
        ..KernelConfig::default()
    }
}

/// Takes the records that lie in the rings, without what no model can foresee.
pub(crate) fn drain(classifier: &mut Classifier) -> Result<Verdict> {
    let mut verdict = Verdict::default();
    for ring in 0..classifier.rings() {
        while let Some((mut header, payload)) = classifier.record_of(ring)? {
            header.timestamp_ns = 0;
            header.ifindex = 0;
            verdict.records.push((ring, header, payload));
        }
    }
    Ok(verdict)
}

/// How far counters moved.
pub(crate) fn moved(before: &Counts, after: &Counts) -> Counts {
    let mut moved = [0; Counter::COUNT as usize];
    for (moved, (before, after)) in moved.iter_mut().zip(before.iter().zip(after)) {
        *moved = after - before;
    }
    moved
}
