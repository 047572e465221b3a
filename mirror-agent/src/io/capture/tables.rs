//! Enters: steps. Leaves: the kernel program's tables of ports and networks, changed entry by entry.

use aya::maps::{Array, LpmTrie, MapData, MapError, lpm_trie::Key};
use mirror_common::maps::map;

use crate::io::capture::{
    loader::{LoadError, fill},
    matched::{Matched, Step},
    rules::PortSet,
};

/// The tables, and what they hold.
pub(super) struct Tables {
    ports_map: Array<MapData, u64>,
    ports: PortSet,
    addresses: LpmTrie<MapData, [u8; 16], u8>,
    /// What the tables hold. After a step that failed it is still true.
    pub(super) held: Matched,
}

impl Tables {
    /// Of these maps, which are empty.
    pub(super) fn new(ports_map: Array<MapData, u64>, addresses: LpmTrie<MapData, [u8; 16], u8>) -> Self {
        Self { ports_map, ports: PortSet::new(), addresses, held: Matched::default() }
    }

    /// Changes one entry.
    pub(super) fn apply(&mut self, step: Step) -> Result<(), LoadError> {
        match step {
            Step::Port(port, is_member) => {
                let (index, word) = self.ports.set(port, is_member);
                if let Err(error) = self.ports_map.set(index, word, 0) {
                    self.ports.set(port, !is_member);
                    return Err(fill(map::PORTS)(error));
                }
            }
            Step::Add((len, octets)) => {
                self.addresses.insert(&Key::new(len, octets), 1, 0).map_err(fill(map::ADDRESSES))?;
            }
            Step::Remove((len, octets)) => match self.addresses.remove(&Key::new(len, octets)) {
                Ok(()) | Err(MapError::KeyNotFound) => {}
                Err(error) => return Err(fill(map::ADDRESSES)(error)),
            },
            Step::MatchAddresses(_) => {}
        }
        self.held.note(step);
        Ok(())
    }
}
