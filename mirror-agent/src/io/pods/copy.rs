//! Enters: a list of pods, and line by line what changes of it. Leaves: the list as it is.

use std::collections::BTreeMap;

use serde_json::Value;

use super::Pod;

/// A copy of the API server's list.
#[derive(Debug, Default)]
pub(super) struct Copy {
    pods: BTreeMap<String, Pod>,
    /// From where to go on.
    version: String,
}

/// Why what the API server said cannot be used.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Unusable {
    /// It does not know what changed since: the list has to be asked for again.
    Expired,
    /// It cannot go on for a reason of its own; the status that it gave, or 0.
    Failed(u64),
    /// It is not what an API server says.
    Malformed,
}

/// What a line of a watch said.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Said {
    /// A pod came, changed, or went.
    Changed,
    /// Nothing changed up to here.
    Bookmark,
}

impl Copy {
    /// Takes a whole list.
    pub(super) fn replace(&mut self, list: &[u8]) -> Result<(), Unusable> {
        let list: Value = serde_json::from_slice(list).map_err(|_error| Unusable::Malformed)?;
        let items = list["items"].as_array().or_else(|| {
            // An empty list may be written as null.
            (list["kind"] == "PodList" && list["items"].is_null()).then_some(const { &Vec::new() })
        });
        let (Some(items), Some(version)) = (items, version(&list)) else { return Err(Unusable::Malformed) };
        self.pods = items.iter().filter_map(Pod::read).map(|pod| (pod.name.clone(), pod)).collect();
        self.version = version;
        Ok(())
    }

    /// Takes one line of a watch.
    pub(super) fn apply(&mut self, line: &[u8]) -> Result<Said, Unusable> {
        let event: Value = serde_json::from_slice(line).map_err(|_error| Unusable::Malformed)?;
        let object = &event["object"];
        let kind = event["type"].as_str().unwrap_or_default();
        if kind == "ERROR" {
            let code = object["code"].as_u64().unwrap_or(0);
            return Err(if code == 410 { Unusable::Expired } else { Unusable::Failed(code) });
        }
        let version = version(object).ok_or(Unusable::Malformed)?;
        let said = match kind {
            "ADDED" | "MODIFIED" => {
                let pod = Pod::read(object).ok_or(Unusable::Malformed)?;
                self.pods.insert(pod.name.clone(), pod);
                Said::Changed
            }
            "DELETED" => {
                let name = object["metadata"]["name"].as_str().ok_or(Unusable::Malformed)?;
                self.pods.remove(name);
                Said::Changed
            }
            "BOOKMARK" => Said::Bookmark,
            _ => return Err(Unusable::Malformed),
        };
        self.version = version;
        Ok(said)
    }

    /// The pods, by name.
    pub(super) fn pods(&self) -> Vec<Pod> {
        self.pods.values().cloned().collect()
    }

    /// From where a watch goes on.
    pub(super) fn version(&self) -> &str {
        &self.version
    }
}

fn version(object: &Value) -> Option<String> {
    let version = object["metadata"]["resourceVersion"].as_str()?;
    (!version.is_empty()).then(|| version.to_owned())
}
