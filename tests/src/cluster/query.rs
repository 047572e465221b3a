//! Enters: the target of a request. Leaves: what it asks the API server for.

use std::time::Duration;

use serde_json::Value;

/// What is asked of a list of pods.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Query {
    pub(super) namespace: String,
    pub(super) is_watch: bool,
    pub(super) version: u64,
    pub(super) wants_bookmarks: bool,
    pub(super) timeout: Option<Duration>,
    fields: Vec<(String, String)>,
    labels: Vec<(String, String)>,
}

impl Query {
    /// Parses the target of a GET of the pods of a namespace; `None` for anything else.
    pub(super) fn parse(target: &str) -> Option<Self> {
        let (path, parameters) = target.split_once('?').unwrap_or((target, ""));
        let namespace = path.strip_prefix("/api/v1/namespaces/")?.strip_suffix("/pods")?;
        let mut query = Self { namespace: namespace.to_owned(), ..Self::default() };
        for parameter in parameters.split('&').filter(|parameter| !parameter.is_empty()) {
            let (name, value) = parameter.split_once('=')?;
            let value = decoded(value)?;
            match name {
                "watch" => query.is_watch = value == "true",
                "resourceVersion" => query.version = value.parse().ok()?,
                "allowWatchBookmarks" => query.wants_bookmarks = value == "true",
                "timeoutSeconds" => query.timeout = Some(Duration::from_secs(value.parse().ok()?)),
                "fieldSelector" => query.fields = pairs(&value)?,
                "labelSelector" => query.labels = pairs(&value)?,
                "resourceVersionMatch" | "limit" => {}
                _ => return None,
            }
        }
        Some(query)
    }

    /// Whether a pod is asked for.
    pub(super) fn selects(&self, pod: &Value) -> bool {
        let has_field = |(field, value): &(String, String)| {
            let found = field.split('.').fold(pod, |found, key| &found[key]);
            found.as_str().unwrap_or_default() == value
        };
        let has_label =
            |(label, value): &(String, String)| pod["metadata"]["labels"][label].as_str() == Some(value);
        pod["metadata"]["namespace"] == self.namespace.as_str()
            && self.fields.iter().all(has_field)
            && self.labels.iter().all(has_label)
    }
}

/// `a=b,c=d`; the other operators of selectors are not known here.
fn pairs(selector: &str) -> Option<Vec<(String, String)>> {
    let pair = |text: &str| text.split_once('=').map(|(key, value)| (key.to_owned(), value.to_owned()));
    selector.split(',').map(pair).collect()
}

/// Undoes the encoding of a query.
fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => {
                let digits = std::str::from_utf8(rest.get(..2)?).ok()?;
                rest = &rest[2..];
                u8::from_str_radix(digits, 16).ok()?
            }
            other => other,
        });
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_watch_of_the_pods_of_a_node_is_understood() {
        let query = Query::parse(
            "/api/v1/namespaces/shop/pods?watch=true&timeoutSeconds=9&fieldSelector=spec.nodeName%3Dnode-1&\
             allowWatchBookmarks=true&resourceVersion=17",
        )
        .unwrap();
        assert!(query.is_watch && query.wants_bookmarks);
        assert_eq!((query.version, query.timeout), (17, Some(Duration::from_secs(9))));
        let pod = |node: &str| json!({ "metadata": { "namespace": "shop" }, "spec": { "nodeName": node } });
        assert!(query.selects(&pod("node-1")) && !query.selects(&pod("node-2")));
        assert_eq!(Query::parse("/api/v1/pods"), None);
        assert_eq!(Query::parse("/api/v1/namespaces/shop/pods?unknown=1"), None);
    }
}
