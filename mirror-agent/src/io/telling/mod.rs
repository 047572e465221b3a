//! Enters: exchanges with all their answers. Leaves: what came of comparing them: books, evidence, verdicts, records for
//! sinks.
//!
//! One thread does all of it, and nobody waits for it: exchanges come through a bounded queue that sheds, questions
//! through a bounded channel. What it knows of an experiment is its own; others see the books, and what it answers.

mod ask;
mod curl;
mod experiment;
mod fields;
mod history;
mod portion;
mod report;
mod rules;
pub mod show;
mod thread;

pub use self::{
    ask::{Ask, AskError, Installed, RulesTold, Teller, Told},
    portion::{ExperimentPortion, Fingerprint, JudgedPortion, TargetPortion},
    thread::{Telling, TellingThread},
};
