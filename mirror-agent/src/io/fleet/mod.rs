//! Enters: the wish to know how all agents are. Leaves: what each says of itself, and all of it as one.
//!
//! Each agent tells others its counts, sketches and the names of what differs (`told`), never a sample, to whoever has the
//! token that all share. Any of them asks the others (`peers`, `fetch`) and adds up what they say (`merge`, `view`).
//! Nobody asks of itself: it happens only where somebody wants to know, and at most once a second.

mod fetch;
mod merge;
mod peers;
mod told;
mod view;

#[cfg(test)]
mod tests;

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use thiserror::Error;
use tokio::{
    sync::Mutex as AsyncMutex,
    task::{JoinError, spawn_blocking},
    time::timeout_at,
};

use self::{
    fetch::{Pace, fetch},
    merge::Merger,
};
pub use self::{
    told::{Identity, Told},
    view::{
        AgentView, CaptureSum, ExperimentView, LeftOut, LeftOutReason, Problem, TargetView, Trouble, View,
    },
};
use crate::io::{
    audit::Who,
    config::PeerConfig,
    control::{Answer, Command, Control, ControlError, Token},
    join::join_all,
    replay::clock,
    telling::{self, Ask, AskError},
};

/// How old an answer may be that is given again.
const FRESH: Duration = Duration::from_secs(1);

/// How long all agents together may take; those not asked by then are missing.
const FLEET_TIME: Duration = Duration::from_secs(8);

/// Why there is no answer.
#[derive(Debug, Error)]
pub enum FleetError {
    /// The main loop does not say how things are.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// The thread that compares does not say what it knows.
    #[error(transparent)]
    Ask(#[from] AskError),
    /// The configuration names no fleet.
    #[error("this agent knows of no others: the configuration has no control.fleet")]
    NoFleet,
    /// What the agents said could not be added up.
    #[error("the answers could not be added up")]
    Join(#[source] JoinError),
}

/// The agents of a cluster, as one of them sees them.
#[derive(Debug)]
pub struct Fleet {
    identity: Identity,
    /// Whom to ask, and with what; `None` where there is no fleet.
    others: Option<Others>,
    pace: Pace,
    /// The latest view. Whoever asks while it is made waits for it.
    latest: AsyncMutex<Option<(Instant, Arc<View>)>>,
    gauges: Arc<FleetGauges>,
}

#[derive(Debug)]
struct Others {
    peers: Vec<PeerConfig>,
    token: Token,
}

/// How the fleet was when it was last asked; zeros before.
#[derive(Debug, Default)]
pub struct FleetGauges {
    /// Agents that are known of.
    pub known: AtomicU64,
    /// Those of them that answered.
    pub answered: AtomicU64,
    /// When, in seconds since 1970.
    pub asked_at: AtomicU64,
}

impl Fleet {
    /// An agent among others.
    #[must_use]
    pub fn new(peers: Vec<PeerConfig>, token: Token, gauges: Arc<FleetGauges>) -> Self {
        Self { others: Some(Others { peers, token }), gauges, ..Self::alone() }
    }

    /// An agent that knows of no others.
    #[must_use]
    pub fn alone() -> Self {
        Self {
            identity: Identity::own(),
            others: None,
            pace: Pace::default(),
            latest: AsyncMutex::default(),
            gauges: Arc::default(),
        }
    }

    /// What this agent says of itself.
    ///
    /// # Errors
    ///
    /// [`FleetError::Control`], [`FleetError::Ask`].
    pub async fn told(&self, control: &Control) -> Result<Told, FleetError> {
        Ok(self.own(control).await?.0)
    }

    async fn own(&self, control: &Control) -> Result<(Told, Vec<telling::JudgedPortion>), FleetError> {
        let Answer::State(state) = control.give(Who::Agent, Command::State).await? else {
            return Err(ControlError::Unanswered.into());
        };
        let telling::Told::Portions(own) = control.ask(Who::Agent, Ask::Portions).await? else {
            return Err(AskError::Busy.into());
        };
        let compared = own.iter().map(|judged| judged.told.clone()).collect();
        let told = Told { format: told::FORMAT, agent: self.identity.clone(), state: *state, compared };
        Ok((told, own))
    }

    /// What all agents say together.
    ///
    /// # Errors
    ///
    /// All variants of [`FleetError`]; never because of another agent.
    pub async fn view(&self, control: &Control) -> Result<Arc<View>, FleetError> {
        let others = self.others.as_ref().ok_or(FleetError::NoFleet)?;
        let mut latest = self.latest.lock().await;
        if let Some((made, view)) = &*latest
            && made.elapsed() < FRESH
        {
            return Ok(Arc::clone(view));
        }
        let view = Arc::new(self.ask_all(others, control).await?);
        self.gauges.known.store(view.known, Ordering::Relaxed);
        self.gauges.answered.store(view.answered, Ordering::Relaxed);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.gauges.asked_at.store(now.as_secs(), Ordering::Relaxed);
        *latest = Some((Instant::now(), Arc::clone(&view)));
        Ok(view)
    }

    async fn ask_all(&self, others: &Others, control: &Control) -> Result<View, FleetError> {
        let asked = SystemTime::now();
        let deadline = tokio::time::Instant::now() + FLEET_TIME;
        let (told, own) = self.own(control).await?;
        let merger = Arc::new(Mutex::new(Some(Merger::new(told, own))));
        let peers::Found { addresses, missing } = peers::find(&others.peers).await;
        for (name, trouble) in missing {
            with(&merger, |merger| merger.miss(name, 0.0, trouble));
        }
        let token = others.token.as_str();
        join_all(addresses.into_iter().map(|address| {
            let request = format!(
                "GET /v1/fleet/self HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {token}\r\n\
                 Connection: close\r\n\r\n"
            );
            let merger = Arc::clone(&merger);
            async move {
                let begun = Instant::now();
                let take = |body| take(Arc::clone(&merger), address, begun, body);
                let asked = timeout_at(deadline, fetch(&self.pace, address, request.as_bytes(), take)).await;
                let late = || Trouble::with(Problem::NotAsked, "no time was left".to_owned());
                if let Err(trouble) = asked.map_err(|_elapsed| late()).flatten().flatten() {
                    let seconds = begun.elapsed().as_secs_f64();
                    with(&merger, |merger| merger.miss(address.to_string(), seconds, trouble));
                }
            }
        }))
        .await;
        let now = clock::now();
        // Judging takes milliseconds where there are many endpoints, and copies go on meanwhile.
        let finished = spawn_blocking(move || {
            let merger = merger.lock().unwrap_or_else(PoisonError::into_inner).take();
            merger.map(|merger| merger.finish(asked, now)).unwrap_or_default()
        });
        finished.await.map_err(FleetError::Join)
    }
}

type Shared = Arc<Mutex<Option<Merger>>>;

fn with(merger: &Shared, act: impl FnOnce(&mut Merger)) {
    // What a thread that panicked has added is there or not; an answer that came too late has nowhere to go.
    if let Some(merger) = &mut *merger.lock().unwrap_or_else(PoisonError::into_inner) {
        act(merger);
    }
}

/// Adds an answer, on a thread where it holds up nothing.
async fn take(merger: Shared, address: SocketAddr, begun: Instant, body: Vec<u8>) -> Result<(), Trouble> {
    let seconds = begun.elapsed().as_secs_f64();
    let taken = spawn_blocking(move || {
        let told = told::understand(&body)?;
        drop(body);
        with(&merger, |merger| merger.take(Some(address), seconds, told));
        Ok(())
    });
    let broken = |_panicked| Trouble::with(Problem::Garbled, "it could not be added up".to_owned());
    taken.await.unwrap_or_else(|error| Err(broken(error)))
}
