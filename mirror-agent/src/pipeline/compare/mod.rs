//! Enters: two answers to the same request. Leaves: where they differ, and what of that the rules explain.
//!
//! Nothing is compared but what both sent, decoded: the status; where it is the same the header fields, in `headers`;
//! then the content by what it is, in `content`. Rules are applied where the walk through both meets a difference, so
//! that what is the same costs nothing, and a rule that is counted has explained one. What JSON is to us is in `json`.

mod content;
pub(super) mod decode;
mod forms;
mod found;
mod headers;
mod json;
mod looks;
pub(super) mod path;
mod plan;
mod rules;
mod template;
mod text;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use bytes::Bytes;

use self::{
    content::Content,
    found::Found,
    headers::Fields,
    plan::{Active, Plan},
};
pub use self::{
    looks::{is_timestamp, is_uuid},
    path::PathError,
    plan::{RulesError, Whose},
    rules::{Action, ArrayForm, ArrayRule, CompareRules, NumberForm, Place, Rule, StatusClass, Tolerance},
};
use crate::pipeline::{
    answer::Answer,
    reason::{DivergenceKind, IncomparableReason},
};

/// Compares answers by the rules of one experiment.
#[derive(Debug)]
pub struct Comparer {
    plan: Plan,
}

/// An answer of live's, decoded once for all it is compared with.
#[derive(Clone, Debug)]
pub struct Prepared {
    status: u16,
    fields: Fields,
    content: Content,
}

impl Comparer {
    /// Makes rules ready to be applied.
    ///
    /// # Errors
    ///
    /// [`RulesError`] says which of them cannot be, and what is wrong with it.
    pub fn new(rules: &CompareRules) -> Result<Self, RulesError> {
        Ok(Self { plan: Plan::new(rules)? })
    }

    /// Decodes live's answer.
    ///
    /// # Errors
    ///
    /// `too_large` and `decoded_too_large` where the content is longer than the rules allow, `coding` where its coding is
    /// not known, or not what it says.
    pub fn prepare(&self, answer: &Answer) -> Result<Prepared, IncomparableReason> {
        let fields = Fields::read(&answer.head, &self.plan);
        // RFC 9110 section 6.4.1: these have no content, whatever their head says.
        let content = if matches!(answer.status, 204 | 304) { Bytes::new() } else { answer.content.clone() };
        let decoded = decode::decode(&content, &fields.content_encoding, self.plan.content_bytes)?;
        let content = Content::new(decoded, &fields.content_type);
        Ok(Prepared { status: answer.status, fields, content })
    }

    /// Compares another answer to the same request with live's.
    ///
    /// Where the status differs nothing else is compared: one cause is one divergence.
    ///
    /// # Errors
    ///
    /// As of [`Self::prepare`], of the other answer; but content that is not what its codings say is a divergence where these are
    /// known, since live's could be decoded.
    pub fn compare(
        &self,
        endpoint: &str,
        live: &Prepared,
        other: &Answer,
    ) -> Result<Compared, IncomparableReason> {
        let active = self.plan.for_endpoint(endpoint);
        let mut found = Found::new();
        let mut fields = Vec::new();
        if live.status == other.status {
            match self.prepare(other) {
                Ok(other) => {
                    headers::compare(&live.fields, &other.fields, &active, &mut found);
                    content::compare(&live.content, &other.content, &active, &mut found);
                    fields = content::fields(&live.content, &other.content, &self.plan);
                }
                Err(IncomparableReason::Coding) => {
                    let codings = self.broken_codings(other).ok_or(IncomparableReason::Coding)?;
                    content::tell_of_broken(&live.content, &codings, &active, &mut found);
                }
                Err(reason) => return Err(reason),
            }
        } else {
            let (of_live, of_other) = (live.status.to_string(), other.status.to_string());
            let (of_live, of_other) = (Some(of_live.as_bytes()), Some(of_other.as_bytes()));
            found.diverge(DivergenceKind::Status, "status".into(), of_live, of_other);
        }
        apply_status_rule(live.status, &active, &mut found);
        Ok(Compared { fields, ..found.finish() })
    }

    /// The codings of an answer that cannot be decoded; `None` where that may be nobody's fault.
    fn broken_codings(&self, answer: &Answer) -> Option<Vec<u8>> {
        // RFC 9110 section 15.3.7: a part of coded content is no such content.
        let codings = Fields::read(&answer.head, &self.plan).content_encoding;
        (answer.status != 206 && decode::are_known(&codings)).then_some(codings)
    }
}

/// Takes out what a rule for live's status explains.
fn apply_status_rule(status: u16, active: &Active<'_>, found: &mut Found) {
    if let Some((rule, keeps_status)) = active.at_status(status) {
        found.explain_all(rule, keeps_status);
    }
}

/// One place at which two answers differ.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Divergence {
    /// How they differ there.
    pub kind: DivergenceKind,
    /// Where, without indices: `$.items[].price`, `header:content-type`, `status`, `form:name`, `text`, `body`. A key that
    /// is made up, an id for example, is `{}`. A path of JSON can be the place of a rule as it stands.
    pub path: Arc<str>,
    /// The same place with its indices and keys: `$.items[3].price`. Indices are live's, but that of an element which only
    /// the other has.
    pub place: String,
    /// The place in the other's answer, where that has other indices: elements are paired that lie elsewhere. `None` where
    /// it is `place`.
    pub other_place: Option<String>,
    /// What live has there, as text, cut to [`VALUE_BYTES`]; `None` where there is nothing. Strings are without their quotes
    /// unless the type is what differs, objects and arrays are told by their keys and their length alone.
    pub live: Option<String>,
    /// What the other has there.
    pub other: Option<String>,
}

/// A difference that a rule explains.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Explained {
    /// Position of the rule in [`CompareRules::rules`].
    pub rule: usize,
    /// Where, as in [`Divergence::path`].
    pub path: Arc<str>,
}

/// A number that both answers have.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FieldPair {
    /// Position of the field in [`CompareRules::fields`].
    pub field: usize,
    /// In live's answer; `None` where it is not there.
    pub live: Option<f64>,
    /// In the other.
    pub other: Option<f64>,
}

/// How two answers compare.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Compared {
    /// Where they differ, at most [`MAX_DIVERGENCES`], and a few of each kind and path, in the order of the answer: status,
    /// header fields by their names, content, members of objects by their keys.
    pub divergences: Vec<Divergence>,
    /// Whether there are more.
    pub is_cut: bool,
    /// Whether there may be more at places that none of those told is at.
    pub misses_places: bool,
    /// Differences that rules explain, each rule once a path. Where there are any and no divergence, the answers are the
    /// same but for noise; where there are none, no rule was of use.
    pub explained: Vec<Explained>,
    /// The fields that are followed.
    pub fields: Vec<FieldPair>,
}

/// Most divergences that are told of one pair of answers.
pub const MAX_DIVERGENCES: usize = 64;

/// Longest value in a divergence, in bytes.
pub const VALUE_BYTES: usize = 256;

/// Longest path or place of a divergence, in bytes; it ends in `…` where it is cut.
pub const PLACE_BYTES: usize = 512;

/// How places in text begin, before the number of the line.
pub(in crate::pipeline) const TEXT_LINE: &str = "text line ";

/// The same in what says that it is JSON, and is none.
pub(in crate::pipeline) const MALFORMED_LINE: &str = "malformed line ";
