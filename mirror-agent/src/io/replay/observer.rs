//! Enters: what changes about a target by itself. Leaves: the same, for whoever keeps a record of it.

use std::fmt::Debug;

/// What changed about a target without anybody asking for it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Aspect {
    /// Whether it proves that it is a shadow: `open` or `closed`.
    Interlock,
    /// Whether one of its addresses leads back to the live service: `unknown` or `refused`.
    Refusal,
}

/// One change.
#[derive(Clone, Copy, Debug)]
pub struct TargetChange<'a> {
    /// Name of the experiment.
    pub experiment: &'a str,
    /// Name of the target.
    pub target: &'a str,
    /// What changed.
    pub aspect: Aspect,
    /// What it was.
    pub before: &'a str,
    /// What it is.
    pub after: &'a str,
    /// Why.
    pub reason: &'a str,
}

/// Who is told. It is told on the replay's own thread, so it must not wait for anything.
pub trait TargetObserver: Debug + Send + Sync {
    /// Something changed.
    fn target_changed(&self, change: &TargetChange<'_>);
}

/// Tells nobody.
#[derive(Clone, Copy, Debug, Default)]
pub struct Unobserved;

impl TargetObserver for Unobserved {
    fn target_changed(&self, _change: &TargetChange<'_>) {}
}
