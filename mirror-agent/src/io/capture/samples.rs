//! Enters: which experiments concern which ports, and their samples of connections. Leaves: the kernel program's map of
//! samples.
//!
//! The kernel program leaves out what every experiment would leave aside, and no more: it is asked only about ports of
//! which all experiments sample by connection, and the agent decides again about what it hands over.

use std::collections::BTreeMap;

use aya::maps::{HashMap, MapData, MapError};
use mirror_common::{
    maps::{self, MAX_LANES, MAX_SAMPLED_PORTS, SampleLane},
    sample::WHOLE_MILLIONTHS,
};

/// Of which connections to a live port segments are copied: those that are in any of the samples.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PortSample {
    /// The live port.
    pub port: u16,
    /// Key and share, in millionths, of each experiment's sample; at most [`MAX_LANES`].
    pub lanes: Vec<(u64, u32)>,
}

/// What the kernel program can decide, given for each experiment its live ports and, where it samples by connection, the
/// key and the share, in millionths, of its sample. A port that any experiment wants all connections of, or that more
/// than [`MAX_LANES`] experiments are about, is not among them; nor is any beyond [`MAX_SAMPLED_PORTS`].
pub fn port_samples<'a>(
    experiments: impl IntoIterator<Item = (&'a [u16], Option<(u64, u32)>)>,
) -> Vec<PortSample> {
    let mut lanes_of: BTreeMap<u16, Vec<Option<(u64, u32)>>> = BTreeMap::new();
    for (ports, lane) in experiments {
        let lane = lane.filter(|(_, millionths)| *millionths < WHOLE_MILLIONTHS);
        let mut ports = ports.to_vec();
        ports.sort_unstable();
        ports.dedup();
        for port in ports {
            lanes_of.entry(port).or_default().push(lane);
        }
    }
    lanes_of
        .into_iter()
        .filter_map(|(port, lanes)| {
            Some(PortSample { port, lanes: lanes.into_iter().collect::<Option<_>>()? })
        })
        .filter(|sample| sample.lanes.len() <= MAX_LANES)
        .take(usize::try_from(MAX_SAMPLED_PORTS).unwrap_or(usize::MAX))
        .collect()
}

type Words = [u64; maps::PortSample::WORDS];

/// The map's entries for these samples.
pub(super) fn entries(samples: &[PortSample]) -> BTreeMap<u32, Words> {
    let entry = |sample: &PortSample| {
        let mut value = maps::PortSample::default();
        for (lane, &(key, millionths)) in value.lanes.iter_mut().zip(&sample.lanes) {
            *lane = SampleLane { key, millionths, reserved: 0 };
        }
        (u32::from(sample.port), value.to_words())
    };
    samples.iter().filter(|sample| sample.lanes.len() <= MAX_LANES).map(entry).collect()
}

/// The kernel program's map of samples, and what is in it.
pub(super) struct Samples {
    map: HashMap<MapData, u32, Words>,
    entries: BTreeMap<u32, Words>,
}

impl Samples {
    pub(super) const fn new(map: HashMap<MapData, u32, Words>) -> Self {
        Self { map, entries: BTreeMap::new() }
    }

    /// Brings the map to these entries. Each is replaced as a whole.
    pub(super) fn replace(&mut self, entries: BTreeMap<u32, Words>) -> Result<(), MapError> {
        // Room is made first: as many as the map holds may be others than before.
        let gone: Vec<u32> =
            self.entries.keys().filter(|port| !entries.contains_key(port)).copied().collect();
        for port in gone {
            self.map.remove(&port)?;
            self.entries.remove(&port);
        }
        for (port, words) in entries {
            if self.entries.get(&port) != Some(&words) {
                self.map.insert(port, words, 0)?;
                self.entries.insert(port, words);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_sampled_where_every_experiment_about_it_samples_connections() {
        let (half, tenth) = (Some((1, 500_000)), Some((2, 100_000)));
        let samples = port_samples([
            (&[80, 81, 82, 83][..], half),
            (&[81, 81][..], tenth),
            (&[82][..], None),
            (&[83][..], Some((3, WHOLE_MILLIONTHS))),
        ]);
        let expected = [(80, vec![(1, 500_000)]), (81, vec![(1, 500_000), (2, 100_000)])];
        assert_eq!(samples, expected.map(|(port, lanes)| PortSample { port, lanes }));
    }

    #[test]
    fn a_port_of_more_experiments_than_there_are_lanes_is_left_to_the_agent() {
        let experiments = |count: u64| (0..count).map(|key| (&[80][..], Some((key, 10)))).collect::<Vec<_>>();
        assert_eq!(port_samples(experiments(4)).len(), 1);
        assert_eq!(port_samples(experiments(5)), []);
    }

    #[test]
    fn a_lane_is_a_key_and_a_share() {
        let entries = entries(&[PortSample { port: 80, lanes: vec![(7, 5), (8, 0)] }]);
        let words = entries[&80];
        assert_eq!((words[0], words[2], words[3]), (7, 8, 0));
        assert_eq!(u32::from_ne_bytes(*words[1].to_ne_bytes().first_chunk().unwrap()), 5);
        assert_eq!(words[4..], [0; 4]);
    }
}
