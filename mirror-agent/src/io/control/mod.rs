//! Enters: orders of whoever steers the agent. Leaves: what came of them.
//!
//! Orders come from a unix socket, from a TCP listener, from signals. All of them go through one channel to the main
//! loop, so that whoever obeys them ([`Steering`]) does one thing at a time: `listeners --Order--> main loop`, with a
//! reply for each. What an order changed is written into the audit log where it is obeyed, in [`Order::obey`].

mod api;
pub mod ctl;
mod door;
mod invitation;
mod listen;
#[cfg(feature = "ui")]
mod page;
mod server;
mod socket;
mod state;
#[cfg(test)]
mod tests;
pub mod time;
mod token;

use std::{sync::Arc, time::SystemTime};

use serde::{Deserialize, Serialize};
use thiserror::Error;
use tokio::sync::{mpsc, oneshot};

pub use self::{
    listen::{DEFAULT_SOCKET, Listeners},
    state::{
        CaptureState, ChangedKey, CopyState, Counted, ExperimentState, InterlockState, Reasons, RequestState,
        State, TargetState,
    },
    token::{Token, TokenError},
};
use crate::io::{
    audit::{Audit, Who},
    config::Expiry,
    fleet::{self, Fleet, FleetError},
    telling::{Ask, AskError, Teller, Told},
};

/// Orders that may wait for the main loop; whoever brings another waits.
const ORDERS: usize = 64;

/// What one can order.
#[derive(Clone, Debug, PartialEq)]
pub enum Command {
    /// Say how things are.
    State,
    /// Copy and send nothing more, of one experiment or of all.
    Pause {
        /// Its name; `None` for all.
        experiment: Option<String>,
    },
    /// Go on. Resuming all resumes those too that were paused by name.
    Resume {
        /// Its name; `None` for all.
        experiment: Option<String>,
    },
    /// Take another share of the requests.
    SetPercent {
        /// The experiment.
        experiment: String,
        /// 0 to 100, inclusive.
        percent: f64,
    },
    /// End at another time.
    SetExpiry {
        /// The experiment.
        experiment: String,
        /// The time, which is to come.
        expires: Expiry,
    },
}

/// One setting before or after a change.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Setting {
    /// Whether it is paused.
    Paused(bool),
    /// The share of requests, in percent.
    Percent(f64),
    /// When it ends.
    Expires(#[serde(with = "time::expiry")] Expiry),
}

/// What an order changed.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Change {
    /// Name of the experiment; `None` where it is about all of them.
    pub experiment: Option<String>,
    /// Who answers for it.
    pub owner: Option<String>,
    /// What it was.
    pub before: Setting,
    /// What it is.
    pub after: Setting,
}

/// What comes of an order.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// How things are.
    State(Box<State>),
    /// What is different: nothing where all was so already.
    Changed(Vec<Change>),
}

/// Why an order cannot be obeyed.
#[derive(Debug, Error)]
pub enum ControlError {
    /// There is no such experiment.
    #[error("there is no experiment `{name}`; there are: {known}")]
    UnknownExperiment {
        /// The name.
        name: String,
        /// The names that there are, separated by commas.
        known: String,
    },
    /// It has expired or been removed while the order was under way.
    #[error("experiment `{name}` has ended")]
    Ended {
        /// The name.
        name: String,
    },
    /// A share that is none.
    #[error("{percent} percent: expected a number from 0 to 100")]
    Percent {
        /// What was ordered.
        percent: f64,
    },
    /// It would end before the order was given.
    #[error("the time has passed already")]
    Past,
    /// It was tried and failed, for instance because the kernel refused.
    #[error("the change could not be made: {0}")]
    Failed(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The agent is about to end.
    #[error("the agent is stopping")]
    Stopping,
    /// The main loop did not answer in time.
    #[error("the agent does not answer")]
    Unanswered,
}

impl ControlError {
    /// There is no experiment `name` among `known`.
    pub fn unknown<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Self {
        let known = known.into_iter().collect::<Vec<_>>().join(", ");
        Self::UnknownExperiment { name: name.to_owned(), known }
    }
}

/// What the running agent can be made to do. Whoever implements this need not write audit records: [`Order::obey`]
/// does, from the changes that are returned.
pub trait Steering {
    /// How things are.
    fn state(&mut self) -> State;

    /// Copies and sends nothing more, of one experiment or of all. Returns once that holds.
    fn pause(&mut self, experiment: Option<&str>) -> impl Future<Output = Result<Vec<Change>, ControlError>>;

    /// Goes on.
    fn resume(&mut self, experiment: Option<&str>)
    -> impl Future<Output = Result<Vec<Change>, ControlError>>;

    /// Takes another share of the requests. `percent` is 0 to 100.
    fn set_percent(
        &mut self,
        experiment: &str,
        percent: f64,
    ) -> impl Future<Output = Result<Vec<Change>, ControlError>>;

    /// Ends an experiment at another time, which is to come.
    fn set_expiry(
        &mut self,
        experiment: &str,
        expires: Expiry,
    ) -> impl Future<Output = Result<Vec<Change>, ControlError>>;
}

/// A command on its way to the main loop.
#[derive(Debug)]
pub struct Order {
    /// Who gives it.
    pub who: Who,
    /// What is to be done.
    pub command: Command,
    /// `None` where nobody waits, as for a signal.
    reply: Option<oneshot::Sender<Result<Answer, ControlError>>>,
}

impl Order {
    /// An order whose giver does not wait for the answer.
    #[must_use]
    pub const fn unasked(who: Who, command: Command) -> Self {
        Self { who, command, reply: None }
    }

    /// Obeys the order, writes what changed into the audit log, and answers.
    pub async fn obey(self, steering: &mut impl Steering, audit: &Audit) {
        let Self { who, command, reply } = self;
        let answer = command.obey(steering).await;
        match &answer {
            Ok(Answer::State(_)) => {}
            Ok(Answer::Changed(changes)) => audit.obeyed(&who, &command, changes),
            Err(error) => audit.refused(&who, &command, error),
        }
        match reply {
            // Who asked has gone meanwhile; what was ordered is done all the same.
            Some(reply) => drop(reply.send(answer)),
            None => {
                if let Err(error) = answer {
                    tracing::warn!(%error, "An order could not be obeyed.");
                }
            }
        }
    }
}

impl Command {
    async fn obey(&self, steering: &mut impl Steering) -> Result<Answer, ControlError> {
        let changes = match self {
            Self::State => return Ok(Answer::State(Box::new(steering.state()))),
            Self::Pause { experiment } => steering.pause(experiment.as_deref()).await?,
            Self::Resume { experiment } => steering.resume(experiment.as_deref()).await?,
            Self::SetPercent { percent, .. } if !(0.0..=100.0).contains(percent) => {
                return Err(ControlError::Percent { percent: *percent });
            }
            Self::SetPercent { experiment, percent } => steering.set_percent(experiment, *percent).await?,
            Self::SetExpiry { expires: Expiry::At(time), .. } if *time <= SystemTime::now() => {
                return Err(ControlError::Past);
            }
            Self::SetExpiry { experiment, expires } => steering.set_expiry(experiment, *expires).await?,
        };
        Ok(Answer::Changed(changes))
    }
}

/// Brings orders to the main loop, and questions to the thread that compares. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Control {
    orders: mpsc::Sender<Order>,
    teller: Teller,
    audit: Audit,
    fleet: Arc<Fleet>,
}

/// The way for orders: the listeners have the first end, the main loop the second.
#[must_use]
pub fn channel(teller: Teller, audit: Audit) -> (Control, mpsc::Receiver<Order>) {
    let (orders, order_rx) = mpsc::channel(ORDERS);
    (Control { orders, teller, audit, fleet: Arc::new(Fleet::alone()) }, order_rx)
}

impl Control {
    /// The same among other agents.
    #[must_use]
    pub fn among(self, fleet: Arc<Fleet>) -> Self {
        Self { fleet, ..self }
    }

    /// What this agent says of itself to others.
    ///
    /// # Errors
    ///
    /// Those of [`Fleet::told`].
    pub async fn fleet_self(&self) -> Result<fleet::Told, FleetError> {
        self.fleet.told(self).await
    }

    /// What all agents say together.
    ///
    /// # Errors
    ///
    /// Those of [`Fleet::view`].
    pub async fn fleet_view(&self) -> Result<Arc<fleet::View>, FleetError> {
        self.fleet.view(self).await
    }

    /// Asks the thread that compares; what it changes is written into the audit log.
    ///
    /// # Errors
    ///
    /// All variants of [`AskError`].
    pub async fn ask(&self, who: Who, ask: Ask) -> Result<Told, AskError> {
        let experiment = ask.changes().map(str::to_owned);
        let told = self.teller.ask(ask).await;
        if let Some(experiment) = experiment {
            self.audit.rules(&who, &experiment, &told);
        }
        told
    }

    /// Gives an order and does not wait; false where the main loop has too many, or has ended.
    #[must_use]
    pub fn order(&self, who: Who, command: Command) -> bool {
        self.orders.try_send(Order::unasked(who, command)).is_ok()
    }

    /// Gives an order and waits for what comes of it.
    ///
    /// # Errors
    ///
    /// [`ControlError::Stopping`] if the main loop has ended, and what [`Steering`] answers.
    pub async fn give(&self, who: Who, command: Command) -> Result<Answer, ControlError> {
        let (reply, answer) = oneshot::channel();
        let order = Order { who, command, reply: Some(reply) };
        self.orders.send(order).await.map_err(|_stopped| ControlError::Stopping)?;
        answer.await.map_err(|_stopped| ControlError::Stopping)?
    }
}
