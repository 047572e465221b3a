//! Enters: pods that come, change and go. Leaves: what lists and watches tell of them, as an API server numbers it.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::query::Query;

/// What the API server does instead of what it should.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Trouble {
    /// Nothing.
    None,
    /// Answers every request with this status, as `Status` objects.
    Status(u16),
    /// Ends every watch by an error event with 410 Gone, and knows of no change that was.
    Gone,
    /// Answers every request with 200 and what is no JSON.
    Garbage,
    /// Begins an event in every watch, and closes the connection in the middle.
    Cut,
    /// Takes every request and says nothing.
    Hang,
    /// Begins every answer so many milliseconds late.
    Slow(u32),
}

/// One change of a pod.
#[derive(Debug)]
struct Change {
    version: u64,
    before: Option<Value>,
    after: Option<Value>,
}

/// The pods, and how they came to be so.
#[derive(Debug)]
pub(super) struct Store {
    version: u64,
    pods: BTreeMap<String, Value>,
    changes: Vec<Change>,
    /// Changes up to here are forgotten.
    forgotten: u64,
    pub(super) trouble: Trouble,
    /// Counts up with each trouble: watches that were begun before end.
    pub(super) era: u64,
}

impl Store {
    pub(super) fn new() -> Self {
        Self {
            version: 100,
            pods: BTreeMap::new(),
            changes: Vec::new(),
            forgotten: 0,
            trouble: Trouble::None,
            era: 0,
        }
    }

    /// Puts a pod in place of the one of the same name and namespace, or takes it out.
    pub(super) fn put(&mut self, key: &str, pod: Option<Value>) {
        self.version += 1;
        let version = self.version;
        let numbered = |mut pod: Value| {
            pod["metadata"]["resourceVersion"] = json!(version.to_string());
            pod
        };
        let after = pod.map(numbered);
        let before = match &after {
            Some(pod) => self.pods.insert(key.to_owned(), pod.clone()),
            None => self.pods.remove(key),
        };
        self.changes.push(Change { version, before, after });
    }

    /// Forgets what has changed up to here, as etcd does.
    pub(super) fn forget(&mut self) {
        // Something that these watches are not about has changed since.
        self.version += 10;
        self.forgotten = self.version;
        self.changes.clear();
    }

    pub(super) const fn version(&self) -> u64 {
        self.version
    }

    pub(super) fn list(&self, query: &Query) -> Value {
        let items: Vec<_> = self.pods.values().filter(|pod| query.selects(pod)).collect();
        let metadata = json!({ "resourceVersion": self.version.to_string() });
        json!({ "kind": "PodList", "apiVersion": "v1", "metadata": metadata, "items": items })
    }

    /// The events after a version, in their order; `None` where they are forgotten. A pod that comes to fit the selectors
    /// was added, one that does so no more was deleted.
    pub(super) fn events(&self, query: &Query, after: u64) -> Option<Vec<Value>> {
        if after < self.forgotten {
            return None;
        }
        let event = |change: &Change| {
            let fits = |pod: &&Value| query.selects(pod);
            let (before, now) = (change.before.as_ref().filter(fits), change.after.as_ref().filter(fits));
            let (kind, pod) = match (before, now) {
                (None, Some(pod)) => ("ADDED", pod.clone()),
                (Some(_), Some(pod)) => ("MODIFIED", pod.clone()),
                (Some(pod), None) => {
                    let mut pod = pod.clone();
                    pod["metadata"]["resourceVersion"] = json!(change.version.to_string());
                    ("DELETED", pod)
                }
                (None, None) => return None,
            };
            Some(json!({ "type": kind, "object": pod }))
        };
        Some(self.changes.iter().filter(|change| change.version > after).filter_map(event).collect())
    }
}

/// What an API server says where it refuses.
pub(super) fn status(code: u16) -> Value {
    let reason = match code {
        403 => "Forbidden",
        410 => "Expired",
        _ => "InternalError",
    };
    json!({ "kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": reason, "code": code })
}
