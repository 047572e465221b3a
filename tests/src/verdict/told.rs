//! Enters: what `mirror-agent verdict`, `report` and `rules` print as JSON. Leaves: the part of it that is held to account.
//!
//! The only place that knows the names of the agent's fields.

use anyhow::{Context, Result};
use serde_json::Value;

/// A verdict.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum State {
    /// The new version keeps to the gate.
    Pass,
    /// It does not.
    Fail,
    /// There is not enough to go by.
    NotEnoughData,
}

impl State {
    /// Its name in tables.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Fail => "fail",
            Self::NotEnoughData => "not-enough-data",
        }
    }

    fn parse(text: &str) -> Option<Self> {
        match text.replace('_', "-").as_str() {
            "pass" => Some(Self::Pass),
            "fail" => Some(Self::Fail),
            "not-enough-data" => Some(Self::NotEnoughData),
            _ => None,
        }
    }
}

/// A figure with its interval.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Figure {
    /// The figure itself.
    pub point: f64,
    /// The lower end of its interval.
    pub low: f64,
    /// The upper end.
    pub high: f64,
}

/// Divergences that have one cause, as far as the agent can tell.
#[derive(Clone, Debug, PartialEq)]
pub struct Cluster {
    /// The endpoint.
    pub endpoint: String,
    /// The templated paths.
    pub paths: Vec<String>,
    /// Exchanges.
    pub count: u64,
    /// Their share of the endpoint's exchanges.
    pub rate: Option<Figure>,
}

/// A place at which answers differ, whether that counts or not.
#[derive(Clone, Debug, PartialEq)]
pub struct Field {
    /// The endpoint.
    pub endpoint: String,
    /// The templated path.
    pub path: String,
    /// The share of the endpoint's exchanges that differ there between live and shadow.
    pub raw_rate: f64,
    /// The same between live and control, where there is one.
    pub noise_rate: Option<f64>,
    /// Whether it is more than noise.
    pub is_convicted: bool,
}

/// A rule that was proposed.
#[derive(Clone, Debug, PartialEq)]
pub struct Proposal {
    /// The endpoint; empty for all.
    pub endpoint: String,
    /// The templated path.
    pub path: String,
    /// What the rule would do.
    pub action: String,
}

/// What the agent tells of one target.
#[derive(Clone, Debug, PartialEq)]
pub struct Told {
    /// The verdict.
    pub state: State,
    /// What decided it.
    pub reasons: Vec<String>,
    /// The p95 of the service time as a multiple of what it is held against.
    pub p95: Option<Figure>,
    /// Whether the gate's check of the p95 failed.
    pub is_too_slow: bool,
    /// Clusters of divergences, the most important first.
    pub clusters: Vec<Cluster>,
    /// Places at which answers differ.
    pub fields: Vec<Field>,
}

impl Told {
    /// Reads the JSON of a target: `{ verdict: { state, reasons: [] }, p95: { ratio: {point, low, high}, state },
    /// clusters: [{ endpoint, paths: [], count, rate: {point, low, high} }], places: [{ endpoint, path, raw, noise, counts }] }`.
    ///
    /// # Errors
    ///
    /// Something of that is not there, or the state is none that is known.
    pub fn parse(target: &Value) -> Result<Self> {
        let verdict = &target["verdict"];
        let state = verdict["state"].as_str().and_then(State::parse).context("no verdict")?;
        let p95 = &target["p95"];
        Ok(Self {
            state,
            reasons: list(&verdict["reasons"])?.iter().map(text).collect::<Result<_>>()?,
            p95: figure(&p95["ratio"]),
            is_too_slow: !p95.is_null() && text(&p95["state"])? == "fail",
            clusters: list(&target["clusters"])?.iter().map(cluster).collect::<Result<_>>()?,
            fields: list(&target["places"])?.iter().map(field).collect::<Result<_>>()?,
        })
    }
}

/// Reads the proposed rules: `[{ endpoint, path, action }]`.
///
/// # Errors
///
/// It is something else.
pub fn proposals(proposed: &Value) -> Result<Vec<Proposal>> {
    let proposal = |value: &Value| {
        let endpoint = &value["endpoint"];
        Ok(Proposal {
            endpoint: if endpoint.is_null() { String::new() } else { text(endpoint)? },
            path: text(&value["path"])?,
            action: text(&value["action"])?,
        })
    };
    list(proposed)?.iter().map(proposal).collect()
}

fn cluster(value: &Value) -> Result<Cluster> {
    Ok(Cluster {
        endpoint: text(&value["endpoint"])?,
        paths: list(&value["paths"])?.iter().map(text).collect::<Result<_>>()?,
        count: value["count"].as_u64().context("a cluster without a count")?,
        rate: figure(&value["rate"]),
    })
}

fn field(value: &Value) -> Result<Field> {
    Ok(Field {
        endpoint: text(&value["endpoint"])?,
        path: text(&value["path"])?,
        raw_rate: value["raw"].as_f64().context("a place without a rate")?,
        noise_rate: value["noise"].as_f64(),
        is_convicted: value["counts"].as_bool().context("a place that does not say whether it counts")?,
    })
}

fn figure(value: &Value) -> Option<Figure> {
    let point = value["point"].as_f64()?;
    let [low, high] = ["low", "high"].map(|end| value[end].as_f64().unwrap_or(point));
    Some(Figure { point, low, high })
}

fn list(value: &Value) -> Result<&[Value]> {
    Ok(value.as_array().with_context(|| format!("expected a list, not {value}"))?)
}

fn text(value: &Value) -> Result<String> {
    Ok(value.as_str().with_context(|| format!("expected a text, not {value}"))?.to_owned())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn target_is_read() {
        let told = Told::parse(&json!({
            "verdict": { "state": "fail", "reasons": ["p95"] },
            "p95": { "ratio": { "point": 1.2, "low": 1.15, "high": 1.25 }, "state": "fail" },
            "clusters": [{ "endpoint": "GET /a", "paths": ["$.b"], "count": 3, "rate": { "point": 0.1 } }],
            "places": [{ "endpoint": "GET /a", "path": "$.b", "raw": 0.5, "noise": 0.4, "counts": false }],
        }));
        let told = told.unwrap();
        assert_eq!((told.state, told.is_too_slow, told.clusters[0].count), (State::Fail, true, 3));
        assert_eq!(told.clusters[0].rate, Some(Figure { point: 0.1, low: 0.1, high: 0.1 }));
        assert_eq!(told.fields[0].noise_rate, Some(0.4));
    }

    #[test]
    fn answer_without_a_verdict_is_an_error() {
        assert!(Told::parse(&json!({})).is_err());
        assert_eq!(State::parse("not_enough_data"), Some(State::NotEnoughData));
    }
}
