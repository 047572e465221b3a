//! Enters: ports of which the answers are read. Leaves: the kernel program's set of them.

use std::collections::BTreeSet;

use aya::maps::{Array, MapData, MapError};

use crate::io::capture::rules::PortSet;

/// The kernel program's set of ports of which payload that servers send is copied whole, and what is in it.
pub(super) struct AnswerPorts {
    map: Array<MapData, u64>,
    words: PortSet,
    held: BTreeSet<u16>,
}

impl AnswerPorts {
    /// Of this map, which is empty.
    pub(super) fn new(map: Array<MapData, u64>) -> Self {
        Self { map, words: PortSet::new(), held: BTreeSet::new() }
    }

    /// Whether there are none.
    pub(super) fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// Brings the set to these ports, one by one: those first of which less is copied.
    pub(super) fn replace(&mut self, ports: &BTreeSet<u16>) -> Result<(), MapError> {
        let less: Vec<u16> = self.held.difference(ports).copied().collect();
        let more: Vec<u16> = ports.difference(&self.held).copied().collect();
        for (port, is_member) in
            less.into_iter().map(|port| (port, false)).chain(more.into_iter().map(|port| (port, true)))
        {
            let (index, word) = self.words.set(port, is_member);
            if let Err(error) = self.map.set(index, word, 0) {
                self.words.set(port, !is_member);
                return Err(error);
            }
            if is_member {
                self.held.insert(port);
            } else {
                self.held.remove(&port);
            }
        }
        Ok(())
    }
}
