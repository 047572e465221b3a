//! Enters: questions about what was compared, and orders to count some of it as noise. Leaves: both at the thread that
//! compares, and its answers.
//!
//! They wait in a bounded channel, which the thread looks at between two exchanges: whoever asks waits, and nothing else
//! does.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use thiserror::Error;
use tokio::sync::oneshot;

use super::JudgedPortion;
use crate::{
    io::compare::Comparing,
    pipeline::compare::{Rule, RulesError},
};

/// Questions that may wait.
const QUESTIONS: usize = 64;

/// What can be asked of the comparisons, or ordered.
#[derive(Clone, Debug, PartialEq)]
pub enum Ask {
    /// All that is known of one experiment, or of all.
    Report {
        /// Its name; `None` for all that compare.
        experiment: Option<String>,
        /// Whether the samples are wanted, too.
        samples: bool,
    },
    /// One cluster of divergences, with its samples.
    Cluster {
        /// The experiment.
        experiment: String,
        /// The number by which the cluster is known.
        cluster: u64,
    },
    /// What the verdict was, and since when.
    Verdicts {
        /// The experiment.
        experiment: String,
    },
    /// All that is known, in a form that adds up with what other agents know.
    Portions,
    /// From now on differences that were proposed as noise are noise.
    Accept {
        /// The experiment.
        experiment: String,
        /// Names of proposals; `None` for all that there are.
        names: Option<Vec<String>>,
    },
    /// One rule more.
    Add {
        /// The experiment.
        experiment: String,
        /// The rule.
        rule: Box<Rule>,
    },
    /// One rule less of those that were accepted or added since the start.
    Remove {
        /// The experiment.
        experiment: String,
        /// Its name.
        name: String,
    },
}

impl Ask {
    /// The experiment that it would change; `None` for a question.
    #[must_use]
    pub fn changes(&self) -> Option<&str> {
        match self {
            Self::Report { .. } | Self::Cluster { .. } | Self::Verdicts { .. } | Self::Portions => None,
            Self::Accept { experiment, .. }
            | Self::Add { experiment, .. }
            | Self::Remove { experiment, .. } => Some(experiment),
        }
    }
}

/// What comes of it.
#[derive(Clone, Debug)]
pub enum Told {
    /// What was asked, as JSON.
    Report(Vec<u8>),
    /// What is known of each experiment that compares.
    Portions(Vec<JudgedPortion>),
    /// The rules that are there now beside those of the file, and those before.
    Rules {
        /// Who answers for the experiment.
        owner: Option<String>,
        /// Names before.
        before: Vec<String>,
        /// Those that are there.
        after: RulesTold,
    },
}

/// Rules that were accepted or added since the start.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct RulesTold {
    /// Each as in a configuration file, under `compare.rules`.
    pub rules: Vec<Value>,
    /// Arrays that are no sequences, as under `compare.arrays`.
    pub arrays: Vec<Value>,
}

/// Why there is no answer.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum AskError {
    /// There is no such experiment, or it does not compare.
    #[error("no experiment `{name}` compares answers; these do: {known}")]
    Unknown {
        /// The name.
        name: String,
        /// The names that there are, separated by commas.
        known: String,
    },
    /// There is nothing of this name.
    #[error("there is no proposal, or rule, `{name}`; there are: {known}")]
    UnknownRule {
        /// The name.
        name: String,
        /// The names that there are, separated by commas.
        known: String,
    },
    /// Nothing is kept of such a cluster.
    #[error("no such cluster is kept: it was seen too long ago, or never")]
    UnknownCluster,
    /// The rule cannot be applied.
    #[error(transparent)]
    Rule(#[from] RulesError),
    /// The thread has more questions than it can answer.
    #[error("the comparison is busy; ask again")]
    Busy,
    /// It has ended.
    #[error("the agent is stopping")]
    Stopping,
}

/// A question to the thread that compares, and who waits for the answer.
#[derive(Debug)]
pub(super) struct Message(pub(super) Ask, pub(super) oneshot::Sender<Result<Told, AskError>>);

/// The experiments that compare, as they were told last, until the thread has taken them.
#[derive(Debug, Default)]
pub(super) struct Latest(Mutex<Option<Vec<Installed>>>);

impl Latest {
    pub(super) fn take(&self) -> Option<Vec<Installed>> {
        self.lock().take()
    }

    fn lock(&self) -> MutexGuard<'_, Option<Vec<Installed>>> {
        // A list that is put in or taken out.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An experiment that compares.
#[derive(Clone, Debug)]
pub struct Installed {
    /// What its exchanges are made of.
    pub comparing: Arc<Comparing>,
    /// Who answers for it.
    pub owner: Option<String>,
}

/// Asks the thread that compares; cheap to clone.
#[derive(Clone, Debug)]
pub struct Teller {
    messages: mpsc::SyncSender<Message>,
    latest: Arc<Latest>,
}

/// The way to the thread: whoever asks has the first end, the thread the second.
pub(super) fn channel() -> (Teller, mpsc::Receiver<Message>) {
    let (message_tx, message_rx) = mpsc::sync_channel(QUESTIONS);
    (Teller { messages: message_tx, latest: Arc::default() }, message_rx)
}

impl Teller {
    /// Asks and waits for the answer.
    ///
    /// # Errors
    ///
    /// [`AskError::Busy`] if too many ask, [`AskError::Stopping`] if the thread has ended, and what it answers.
    pub async fn ask(&self, ask: Ask) -> Result<Told, AskError> {
        let (reply, answer) = oneshot::channel();
        self.messages.try_send(Message(ask, reply)).map_err(|error| match error {
            mpsc::TrySendError::Full(_) => AskError::Busy,
            mpsc::TrySendError::Disconnected(_) => AskError::Stopping,
        })?;
        answer.await.map_err(|_stopped| AskError::Stopping)?
    }

    /// Tells which experiments compare from now on. What is known of those that did before is kept, as far as they ask
    /// for the same.
    pub fn install(&self, experiments: Vec<Installed>) {
        *self.latest.lock() = Some(experiments);
    }

    /// Where the thread finds them.
    pub(super) fn latest(&self) -> Arc<Latest> {
        Arc::clone(&self.latest)
    }
}
