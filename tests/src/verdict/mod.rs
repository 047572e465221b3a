//! Enters: how many requests, which seed. Leaves: what the agent told of four pairs of shops, held against what was so.
//!
//! Equal versions and versions with seeded bugs, each with a control and without one. Live, shadow, control, the clients
//! and the agent are on hosts of their own.

mod case;
mod score;
mod told;

use anyhow::Result;

pub use self::{
    score::{Run, tables},
    told::{Cluster, Field, Figure, Proposal, State, Told, proposals},
};

/// Which versions, and whether there is a control.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Case {
    /// Equal versions, with a control.
    EqualControlled,
    /// Equal versions without; what is proposed is accepted after a fifth of the requests.
    EqualAlone,
    /// A version with every bug, with a control.
    BuggyControlled,
    /// A version with every bug without; what is proposed is accepted after a fifth of the requests.
    BuggyAlone,
}

impl Case {
    /// All of them.
    pub const ALL: [Self; 4] =
        [Self::EqualControlled, Self::EqualAlone, Self::BuggyControlled, Self::BuggyAlone];

    /// Its name in tables.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::EqualControlled => "equal, with control",
            Self::EqualAlone => "equal, without",
            Self::BuggyControlled => "buggy, with control",
            Self::BuggyAlone => "buggy, without",
        }
    }

    /// Whether the new version has the bugs.
    #[must_use]
    pub const fn is_buggy(self) -> bool {
        matches!(self, Self::BuggyControlled | Self::BuggyAlone)
    }

    /// Whether there is a control.
    #[must_use]
    pub const fn has_control(self) -> bool {
        matches!(self, Self::EqualControlled | Self::BuggyControlled)
    }
}

/// What to do.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Requests in each case.
    pub requests: u64,
    /// Requests a second.
    pub per_second: f64,
    /// Where all chance comes from.
    pub seed: u64,
}

/// Runs one case. Every way out takes down all that was set up.
///
/// # Errors
///
/// Something cannot be set up, the agent dies or cannot be asked, or the user interrupts.
pub fn run(case: Case, options: &Options, say: &mut dyn FnMut(&str)) -> Result<Run> {
    case::run(case, options, say)
}
