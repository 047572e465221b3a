//! Enters: what a file says of pods, and the labels of one. Leaves: whether the experiment is about it.

use std::{collections::BTreeMap, net::SocketAddr};

use schemars::JsonSchema;
use serde::Deserialize;

/// The pods that an experiment is about.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct PodsConfig {
    /// Their namespace.
    pub namespace: String,
    /// Which of them.
    pub selector: LabelSelector,
    /// Their ports; none for all TCP ports that their containers declare.
    pub ports: Vec<PodPort>,
    /// Where those are that run on this node, in ascending order. A file does not say it: nothing until it was found.
    pub servers: Vec<SocketAddr>,
}

/// A port of a pod.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum PodPort {
    /// By its number, whether a container declares it or not.
    Number(u16),
    /// By the name that a container gives it, which may be another number in each pod.
    Name(String),
}

/// Which pods, by their labels: all that is said.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct LabelSelector {
    /// Labels with their values.
    pub labels: Vec<(String, String)>,
    /// What else is to be true of labels.
    pub expressions: Vec<LabelExpression>,
}

/// What is to be true of one label.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct LabelExpression {
    /// Its key.
    pub key: String,
    /// How it is held against the values.
    pub operator: LabelOperator,
    /// The values; none where the operator asks for none.
    pub values: Vec<String>,
}

/// How a label is held against values.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq)]
pub enum LabelOperator {
    /// It is there, with one of the values.
    In,
    /// It has none of the values, or is not there.
    NotIn,
    /// It is there.
    Exists,
    /// It is not there.
    DoesNotExist,
}

impl LabelOperator {
    /// Whether it asks for values.
    #[must_use]
    pub const fn has_values(self) -> bool {
        matches!(self, Self::In | Self::NotIn)
    }
}

impl LabelSelector {
    /// Whether a pod with these labels is meant.
    #[must_use]
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        let has = |(key, value): &(String, String)| labels.get(key).is_some_and(|found| found == value);
        self.labels.iter().all(has) && self.expressions.iter().all(|expression| expression.matches(labels))
    }
}

impl LabelExpression {
    fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        let found = labels.get(&self.key);
        match self.operator {
            LabelOperator::In => found.is_some_and(|found| self.values.contains(found)),
            LabelOperator::NotIn => found.is_none_or(|found| !self.values.contains(found)),
            LabelOperator::Exists => found.is_some(),
            LabelOperator::DoesNotExist => found.is_none(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    fn expression(operator: LabelOperator, values: &[&str]) -> LabelSelector {
        let values = values.iter().map(|value| (*value).to_owned()).collect();
        let expression = LabelExpression { key: "tier".to_owned(), operator, values };
        LabelSelector { labels: Vec::new(), expressions: vec![expression] }
    }

    #[test]
    fn all_that_is_said_must_be_true() {
        let mut selector = expression(LabelOperator::Exists, &[]);
        selector.labels = vec![("app".to_owned(), "shop".to_owned())];
        assert!(selector.matches(&labels(&[("app", "shop"), ("tier", "web"), ("other", "x")])));
        assert!(!selector.matches(&labels(&[("app", "shop")])));
        assert!(!selector.matches(&labels(&[("app", "cart"), ("tier", "web")])));
        assert!(!selector.matches(&labels(&[])));
    }

    #[test]
    fn operators_are_those_of_kubernetes() {
        let (web, db, none) = (labels(&[("tier", "web")]), labels(&[("tier", "db")]), labels(&[]));
        for (operator, values, expected) in [
            (LabelOperator::In, &["web", "api"][..], [true, false, false]),
            (LabelOperator::NotIn, &["web", "api"], [false, true, true]),
            (LabelOperator::Exists, &[], [true, true, false]),
            (LabelOperator::DoesNotExist, &[], [false, false, true]),
        ] {
            let selector = expression(operator, values);
            let found = [&web, &db, &none].map(|labels| selector.matches(labels));
            assert_eq!(found, expected, "{operator:?}");
        }
    }
}
