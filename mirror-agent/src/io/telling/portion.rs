//! Enters: nothing. Leaves: the shape of what an agent tells others of its comparisons, to be added up.

use std::hash::Hasher;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use siphasher::sip::SipHasher13;

use super::fields;
use crate::{
    io::config::ComparisonConfig,
    pipeline::{
        compare::{ArrayRule, Rule},
        judge::{JudgeConfig, Portion},
    },
};

/// What one agent knows of one experiment.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ExperimentPortion {
    /// Its name.
    pub name: String,
    /// By what it compares and judges: only what is compared by the same adds up.
    pub rules: Fingerprint,
    /// Each new version.
    pub targets: Vec<TargetPortion>,
}

/// What one agent knows of one new version.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TargetPortion {
    /// Its name.
    pub target: String,
    /// Counts, sketches and clusters, under names without secrets.
    pub portion: Portion,
}

/// The same, and what the agent itself needs to judge the sum.
#[derive(Clone, Debug)]
pub struct JudgedPortion {
    /// What may be told.
    pub told: ExperimentPortion,
    /// Who answers for the experiment.
    pub owner: Option<String>,
    /// How it is judged.
    pub judge: JudgeConfig,
    /// Whether it has a control.
    pub has_control: bool,
    /// The paths of the numbers that are followed, without secrets.
    pub fields: Vec<String>,
}

impl JudgedPortion {
    /// Puts the paths of the numbers that are followed into a summary, in the place of their positions.
    pub fn name_fields(&self, summary: &mut Value) {
        fields::name(summary, &self.fields);
    }
}

/// By what an experiment compares: the same in all agents of one version that have the same configuration, and in which
/// the same rules were accepted.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Fingerprint(u64);

impl Fingerprint {
    pub(super) fn of(
        config: &ComparisonConfig,
        own_rules: &[Rule],
        own_arrays: &[ArrayRule],
        has_control: bool,
    ) -> Self {
        // What is kept, and where, differs without a difference.
        let ComparisonConfig { excludes, rules, judge, redact, evidence: _, sinks: _ } = config;
        let parts = (excludes, rules, judge, redact, own_rules, own_arrays, has_control);
        let mut hasher = SipHasher13::new_with_keys(0, 0);
        hasher.write(format!("{parts:?}").as_bytes());
        Self(hasher.finish())
    }
}
