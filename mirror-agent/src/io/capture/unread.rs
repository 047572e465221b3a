//! Enters: what nobody reads of live's answers. Leaves: the map by which the kernel program leaves it out.

use std::{io::ErrorKind, os::fd::AsFd as _};

use aya::{
    maps::{HashMap, Map, MapData, MapError},
    sys::SyscallError,
};
use mirror_common::unread::{UnreadKey, UnreadRun};

use crate::pipeline::Unread;

type Key = [u8; UnreadKey::LEN];

/// What the kernel program knows to be unread. It owns its handle of the map: a capture thread keeps it and needs nothing
/// else of the capture.
pub struct UnreadFlows {
    map: HashMap<MapData, Key, [u32; 2]>,
}

impl UnreadFlows {
    /// So many handles of the map, one for each capture thread.
    ///
    /// # Errors
    ///
    /// The kernel's, or `map` is of another type.
    pub(super) fn handles(map: &MapData, count: usize) -> Result<Vec<Self>, MapError> {
        let handle = |_| {
            let fd = map
                .fd()
                .as_fd()
                .try_clone_to_owned()
                .map_err(|io_error| MapError::from(SyscallError { call: "fcntl", io_error }))?;
            Ok(Self { map: HashMap::try_from(Map::LruHashMap(MapData::from_fd(fd)?))? })
        };
        (0..count).map(handle).collect()
    }

    /// Puts it in force. What the kernel program does not know of is copied.
    ///
    /// # Errors
    ///
    /// The kernel's. What was unread before may then be left out still.
    pub fn tell(&mut self, unread: &Unread) -> Result<(), MapError> {
        let key = key(unread);
        if unread.len > 0 {
            return self.map.insert(key, UnreadRun { seq: unread.seq.0, len: unread.len }.to_words(), 0);
        }
        match self.map.remove(&key) {
            // There was no room for it any more.
            Err(MapError::SyscallError(error)) if error.io_error.kind() == ErrorKind::NotFound => Ok(()),
            done => done,
        }
    }
}

fn key(unread: &Unread) -> Key {
    let flow = &unread.flow;
    UnreadKey {
        client_addr: flow.client.addr.octets(),
        server_addr: flow.server.addr.octets(),
        client_port: flow.client.port,
        server_port: flow.server.port,
        vlan: flow.vlan,
        vni: flow.vni,
    }
    .to_bytes()
}
