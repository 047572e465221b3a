//! Enters: two answers to the same request. Leaves: where they differ, and what of that the rules explain.

pub(super) mod decode;
pub(super) mod path;
mod rules;

use std::sync::Arc;

pub use self::path::PathError;
pub use self::rules::{
    Action, ArrayForm, ArrayRule, CompareRules, NumberForm, Place, Rule, StatusClass, Tolerance,
};
use crate::pipeline::reason::DivergenceKind;

/// One place at which two answers differ.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Divergence {
    /// How they differ there.
    pub kind: DivergenceKind,
    /// Where, without indices: `$.items[].price`, `header:content-type`, `status`, `form:name`, `body`.
    pub path: Arc<str>,
    /// The same place with its indices and keys: `$.items[3].price`.
    pub place: String,
    /// What live has there, as text, cut to [`VALUE_BYTES`]; `None` where there is nothing.
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
    /// Where they differ, at most [`MAX_DIVERGENCES`], in the order of the answer: status, header fields, content.
    pub divergences: Vec<Divergence>,
    /// Whether there are more.
    pub is_cut: bool,
    /// Differences that rules explain, and rules that were applied to values that then were the same.
    pub explained: Vec<Explained>,
    /// The fields that are followed.
    pub fields: Vec<FieldPair>,
}

/// Most divergences that are told of one pair of answers.
pub const MAX_DIVERGENCES: usize = 64;

/// Longest value in a divergence, in bytes.
pub const VALUE_BYTES: usize = 256;
