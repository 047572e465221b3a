//! Enters: connections whose exchange has ended. Leaves: the one to use next.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use super::{connection::Connection, lanes::Live};
use crate::pipeline::FlowKey;

/// Connections that wait for the next copy.
pub(super) enum Idle {
    /// Each for any copy. The one used last is used next: the others may then fall idle and be closed.
    Any(Vec<Arc<Connection>>),
    /// Each for the copies of one live connection.
    OfLanes(Resting),
}

/// Connections by the live one whose copies they carried last, and in the order in which they came to rest.
#[derive(Default)]
pub(super) struct Resting {
    by_key: HashMap<FlowKey, (u64, Arc<Connection>)>,
    by_rest: BTreeMap<u64, FlowKey>,
    next: u64,
}

impl Resting {
    fn take(&mut self, key: &FlowKey) -> Option<Arc<Connection>> {
        let (since, connection) = self.by_key.remove(key)?;
        self.by_rest.remove(&since);
        Some(connection)
    }

    fn put(&mut self, key: FlowKey, connection: Arc<Connection>) -> Option<Arc<Connection>> {
        let displaced = self.take(&key);
        self.next += 1;
        self.by_key.insert(key, (self.next, connection));
        self.by_rest.insert(self.next, key);
        displaced
    }
}

impl Idle {
    pub(super) fn new(is_ordered: bool) -> Self {
        if is_ordered { Self::OfLanes(Resting::default()) } else { Self::Any(Vec::new()) }
    }

    pub(super) fn len(&self) -> usize {
        match self {
            Self::Any(connections) => connections.len(),
            Self::OfLanes(resting) => resting.by_key.len(),
        }
    }

    /// Takes a connection for a copy, which is of the connection `live` where that matters.
    pub(super) fn take(&mut self, live: Option<&Live>) -> Option<Arc<Connection>> {
        match self {
            Self::Any(connections) => connections.pop(),
            Self::OfLanes(resting) => resting.take(&live?.key),
        }
    }

    /// Takes the connection that has rested for longest, whichever lane it was for. Where there are no lanes there is none.
    pub(super) fn take_longest(&mut self) -> Option<Arc<Connection>> {
        let Self::OfLanes(resting) = self else { return None };
        let (_, key) = resting.by_rest.first_key_value()?;
        let key = *key;
        resting.take(&key)
    }

    /// Adds a connection. Returns one that it takes the place of.
    pub(super) fn put(&mut self, connection: Arc<Connection>) -> Option<Arc<Connection>> {
        match self {
            Self::Any(connections) => {
                connections.push(connection);
                None
            }
            Self::OfLanes(resting) => match connection.live() {
                Some(live) => resting.put(live.key, connection),
                None => Some(connection),
            },
        }
    }

    /// Keeps those for which `is_kept` says so.
    pub(super) fn retain(&mut self, mut is_kept: impl FnMut(&Arc<Connection>) -> bool) {
        match self {
            Self::Any(connections) => connections.retain(is_kept),
            Self::OfLanes(Resting { by_key, by_rest, .. }) => by_key.retain(|_, (since, connection)| {
                let stays = is_kept(connection);
                if !stays {
                    by_rest.remove(since);
                }
                stays
            }),
        }
    }

    /// Leaves `connection` out.
    pub(super) fn forget(&mut self, connection: &Arc<Connection>) {
        match (self, connection.live()) {
            (Self::Any(connections), _) => connections.retain(|idle| !Arc::ptr_eq(idle, connection)),
            (Self::OfLanes(resting), Some(live)) => {
                if resting.by_key.get(&live.key).is_some_and(|(_, idle)| Arc::ptr_eq(idle, connection)) {
                    resting.take(&live.key);
                }
            }
            (Self::OfLanes(_), None) => {}
        }
    }

    pub(super) fn clear(&mut self) {
        self.retain(|_| false);
    }
}
