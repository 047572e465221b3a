//! Enters: connections whose exchange has ended. Leaves: the one to use next.

use std::{collections::HashMap, sync::Arc};

use super::{connection::Connection, lanes::Live};
use crate::pipeline::FlowKey;

/// Connections that wait for the next copy.
pub(super) enum Idle {
    /// Each for any copy. The one used last is used next: the others may then fall idle and be closed.
    Any(Vec<Arc<Connection>>),
    /// Each for the copies of one live connection.
    OfLanes { by_key: HashMap<FlowKey, Resting>, rested: u64 },
}

pub(super) struct Resting {
    connection: Arc<Connection>,
    /// Larger than that of those who came to rest before.
    since: u64,
}

impl Idle {
    pub(super) fn new(is_ordered: bool) -> Self {
        if is_ordered {
            Self::OfLanes { by_key: HashMap::default(), rested: 0 }
        } else {
            Self::Any(Vec::new())
        }
    }

    pub(super) fn len(&self) -> usize {
        match self {
            Self::Any(connections) => connections.len(),
            Self::OfLanes { by_key, .. } => by_key.len(),
        }
    }

    /// Takes a connection for a copy, which is of the connection `live` where that matters.
    pub(super) fn take(&mut self, live: Option<&Live>) -> Option<Arc<Connection>> {
        match self {
            Self::Any(connections) => connections.pop(),
            Self::OfLanes { by_key, .. } => by_key.remove(&live?.key).map(|resting| resting.connection),
        }
    }

    /// Takes the connection that has rested for longest, to make room for one of another lane.
    pub(super) fn take_longest(&mut self) -> Option<Arc<Connection>> {
        let Self::OfLanes { by_key, .. } = self else { return None };
        let (key, _) = by_key.iter().min_by_key(|(_, resting)| resting.since)?;
        let key = *key;
        by_key.remove(&key).map(|resting| resting.connection)
    }

    /// Adds a connection. Returns one that it takes the place of.
    pub(super) fn put(&mut self, connection: Arc<Connection>) -> Option<Arc<Connection>> {
        match self {
            Self::Any(connections) => {
                connections.push(connection);
                None
            }
            Self::OfLanes { by_key, rested } => {
                let Some(live) = connection.live else { return Some(connection) };
                *rested += 1;
                let resting = Resting { connection, since: *rested };
                by_key.insert(live.key, resting).map(|resting| resting.connection)
            }
        }
    }

    pub(super) fn retain(&mut self, mut is_kept: impl FnMut(&Arc<Connection>) -> bool) {
        match self {
            Self::Any(connections) => connections.retain(is_kept),
            Self::OfLanes { by_key, .. } => by_key.retain(|_, resting| is_kept(&resting.connection)),
        }
    }

    /// Leaves `connection` out.
    pub(super) fn forget(&mut self, connection: &Arc<Connection>) {
        match (&mut *self, connection.live) {
            (Self::Any(connections), _) => connections.retain(|idle| !Arc::ptr_eq(idle, connection)),
            (Self::OfLanes { by_key, .. }, Some(live)) => {
                if by_key.get(&live.key).is_some_and(|resting| Arc::ptr_eq(&resting.connection, connection)) {
                    by_key.remove(&live.key);
                }
            }
            (Self::OfLanes { .. }, None) => {}
        }
    }

    pub(super) fn clear(&mut self) {
        self.retain(|_| false);
    }
}
