//! Enters: local ends of the agent's replay connections. Leaves: the maps by which the kernel program leaves them out.

use std::{collections::HashMap as StdHashMap, net::SocketAddr};

use aya::maps::{Array, HashMap, MapData, MapError};
use mirror_common::maps::own_end;

use crate::io::capture::rules::{PortSet, SOCKET_KEY_LEN, socket_key};

type Key = [u8; SOCKET_KEY_LEN];

/// The agent's own replay connections, as the kernel program knows them. It owns its handles of the maps: the replay
/// thread keeps it and needs nothing else of the capture.
///
/// Entered before anything is sent on the connection, so that no request on it passes unrecognised; taken out after
/// the socket was closed. Both count, since connections to different shadows may share a local end.
pub struct OwnSockets {
    sockets: HashMap<MapData, Key, u8>,
    ports: Array<MapData, u64>,
    port_bits: PortSet,
    connections: StdHashMap<Key, Connections>,
    /// How many keys of `connections` have the port; the port's bit is set while there are any.
    ends: StdHashMap<u16, u32>,
}

/// The replay connections from one local end.
struct Connections {
    count: u32,
    /// The value in the map: [`own_end::MARKED`] only as long as all of them bear the mark.
    known: u8,
}

/// Why a replay connection could not be entered or taken out.
#[derive(Debug, thiserror::Error)]
pub enum OwnSocketsError {
    /// The kernel refused to change the map of sockets; it is full where `source` says `E2BIG`.
    #[error("change the map of own sockets")]
    Sockets(#[source] MapError),
    /// The kernel refused to change the map of ports.
    #[error("change the map of own ports")]
    Ports(#[source] MapError),
}

impl OwnSockets {
    pub(super) fn new(sockets: HashMap<MapData, Key, u8>, ports: Array<MapData, u64>) -> Self {
        Self {
            sockets,
            ports,
            port_bits: PortSet::new(),
            connections: StdHashMap::new(),
            ends: StdHashMap::new(),
        }
    }

    /// Enters the local end of a replay connection. Where its socket `is_marked`, the program can tell it from sockets
    /// of others that have the same local end.
    ///
    /// # Errors
    ///
    /// [`OwnSocketsError`] where a map cannot be changed; then nothing is entered.
    pub fn insert(&mut self, local: SocketAddr, is_marked: bool) -> Result<(), OwnSocketsError> {
        let key = socket_key(local);
        let known = if is_marked { own_end::MARKED } else { own_end::ALONE };
        if let Some(connections) = self.connections.get_mut(&key) {
            if known < connections.known {
                self.sockets.insert(key, known, 0).map_err(OwnSocketsError::Sockets)?;
                connections.known = known;
            }
            connections.count += 1;
            return Ok(());
        }
        // The socket first: the program looks it up only where the port's bit is set.
        self.sockets.insert(key, known, 0).map_err(OwnSocketsError::Sockets)?;
        if !self.ends.contains_key(&local.port())
            && let Err(error) = self.set_port(local.port(), true)
        {
            self.sockets.remove(&key).map_err(OwnSocketsError::Sockets)?;
            return Err(error);
        }
        self.connections.insert(key, Connections { count: 1, known });
        *self.ends.entry(local.port()).or_default() += 1;
        Ok(())
    }

    /// Takes out the local end of a replay connection; one that was never entered is no error.
    ///
    /// # Errors
    ///
    /// [`OwnSocketsError`] where a map cannot be changed; the end is then forgotten here all the same.
    pub fn remove(&mut self, local: SocketAddr) -> Result<(), OwnSocketsError> {
        let key = socket_key(local);
        match self.connections.get_mut(&key) {
            None => return Ok(()),
            Some(connections) if connections.count > 1 => {
                connections.count -= 1;
                return Ok(());
            }
            Some(_) => {}
        }
        self.connections.remove(&key);
        let is_last = match self.ends.get_mut(&local.port()) {
            Some(count) if *count > 1 => {
                *count -= 1;
                false
            }
            _ => self.ends.remove(&local.port()).is_some(),
        };
        let removed = self.sockets.remove(&key).map_err(OwnSocketsError::Sockets);
        let cleared = if is_last { self.set_port(local.port(), false) } else { Ok(()) };
        removed.and(cleared)
    }

    /// How many local ends are entered.
    #[must_use]
    pub fn len(&self) -> usize {
        self.connections.len()
    }

    /// Whether no local end is entered.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.connections.is_empty()
    }

    fn set_port(&mut self, port: u16, is_own: bool) -> Result<(), OwnSocketsError> {
        let (index, word) = self.port_bits.set(port, is_own);
        self.ports.set(index, word, 0).map_err(|error| {
            self.port_bits.set(port, !is_own);
            OwnSocketsError::Ports(error)
        })
    }
}
