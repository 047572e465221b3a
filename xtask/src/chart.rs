//! Enters: the Helm chart. Leaves: where it says something else than the overlay that it stands for.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::{manifests::objects, tools::Tools, workspace};

/// Every part of the chart that the defaults leave out.
const EVERYTHING: [&str; 4] = [
    "--set=watchPods=true,fleet=true,podMonitor=true,serviceMonitor=true,extraArgs={--log-level=debug},extraCapabilities={SYS_RESOURCE}",
    "--set=imagePullSecrets[0].name=registry",
    "--set=extraVolumes[0].name=keys,extraVolumes[0].secret.secretName=mirror-agent-tls",
    "--set=extraVolumeMounts[0].name=keys,extraVolumeMounts[0].mountPath=/etc/mirror-tls",
];

/// Renders the chart: with its defaults, which must be what the overlay says, and in two other ways.
///
/// `overlay` is the minimal overlay, rendered.
pub(crate) fn rendered(tools: &Tools, overlay: &str) -> Result<Vec<(&'static str, String)>> {
    let chart = workspace::root()?.join("deploy/helm/mirror");
    tools.lint(&chart)?;
    let defaults = tools.template(&chart, &[])?;
    let differences = differences(&described(overlay)?, &described(&defaults)?);
    if !differences.is_empty() {
        bail!("the chart does not say what the minimal overlay says: {}", differences.join("; "));
    }
    let everything = tools.template(&chart, &EVERYTHING)?;
    let privileged = tools.template(&chart, &["--set=privileged=true"])?;
    Ok(vec![("chart", defaults), ("chart with everything", everything), ("chart, privileged", privileged)])
}

/// Objects by kind and name. The namespace is left out, which Helm makes itself, and the configuration is read, since
/// the overlay's has comments.
fn described(text: &str) -> Result<BTreeMap<String, Value>> {
    let mut described = BTreeMap::new();
    for mut object in objects(text)? {
        if object["kind"] == "Namespace" {
            continue;
        }
        if let Some(config) = object.pointer("/data/config.yaml").and_then(Value::as_str) {
            let config: Value = serde_saphyr::from_str(config).context("read the configuration")?;
            object["data"]["config.yaml"] = config;
        }
        let name = format!("{} {}", object["kind"], object["metadata"]["name"]).replace('"', "");
        described.insert(name, object);
    }
    Ok(described)
}

/// Where two sets of objects differ.
fn differences(overlay: &BTreeMap<String, Value>, chart: &BTreeMap<String, Value>) -> Vec<String> {
    let mut found = Vec::new();
    for name in overlay.keys().chain(chart.keys().filter(|name| !overlay.contains_key(*name))) {
        match (overlay.get(name), chart.get(name)) {
            (Some(one), Some(other)) => compare(name, one, other, &mut found),
            (one, _) => found
                .push(format!("{name} is only in the {}", if one.is_some() { "overlay" } else { "chart" })),
        }
    }
    found
}

/// Notes the places at which two values differ.
fn compare(place: &str, one: &Value, other: &Value, found: &mut Vec<String>) {
    match (one, other) {
        (Value::Object(ones), Value::Object(others)) => {
            for key in ones.keys().chain(others.keys().filter(|key| !ones.contains_key(*key))) {
                compare(&format!("{place}/{key}"), &one[key.as_str()], &other[key.as_str()], found);
            }
        }
        (Value::Array(ones), Value::Array(others)) if ones.len() == others.len() => {
            for (index, (one, other)) in ones.iter().zip(others).enumerate() {
                compare(&format!("{place}/{index}"), one, other, found);
            }
        }
        _ if one == other => {}
        _ => found.push(format!("{place} is {one} in the overlay, {other} in the chart")),
    }
}

#[cfg(test)]
mod tests {
    use super::{described, differences};

    const OVERLAY: &str = "kind: Namespace\nmetadata: {name: a}\n---\nkind: ConfigMap\nmetadata: {name: c}\n\
                           data:\n  config.yaml: |\n    # why\n    a: 1\n";

    fn found(chart: &str) -> Vec<String> {
        differences(&described(OVERLAY).unwrap(), &described(chart).unwrap())
    }

    #[test]
    fn comments_of_a_configuration_and_the_namespace_make_no_difference() {
        assert!(found("kind: ConfigMap\nmetadata: {name: c}\ndata: {config.yaml: 'a: 1'}\n").is_empty());
    }

    #[test]
    fn another_value_and_another_object_are_told() {
        let chart = "kind: ConfigMap\nmetadata: {name: c}\ndata: {config.yaml: 'a: 2'}\n---\nkind: Pod\nmetadata: {name: p}";

        assert_eq!(
            found(chart),
            [
                "ConfigMap c/data/config.yaml/a is 1 in the overlay, 2 in the chart",
                "Pod p is only in the chart",
            ]
        );
    }
}
