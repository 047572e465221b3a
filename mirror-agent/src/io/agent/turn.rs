//! Enters: the other agents of this network namespace. Leaves: this agent's turn, and the listener that says meanwhile why
//! it is not ready.

use std::{
    io::ErrorKind,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use tokio::{net::TcpListener, task::JoinHandle};
use tracing::{info, warn};

use super::signals::{Signals, Told};
use crate::io::{
    admin::{self, Admin, Answers, Health, Stage, StageCell},
    capture::{AgentName, NamespaceTurn},
    metrics,
};

/// How often it is looked whether the other agent is gone. A look costs the kernel a few microseconds.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);

/// How long an address that is in use may stay so after the other agent should have ended.
const BIND_PATIENCE: Duration = Duration::from_secs(10);

/// The listener for metrics and probes.
#[derive(Debug)]
pub(super) struct Front {
    address: SocketAddr,
    admin: Arc<Admin>,
    serving: Option<JoinHandle<()>>,
}

impl Front {
    /// Serves at `address`, if it can be had now. That it is in use is not the end: the agent before this one may have it.
    ///
    /// # Errors
    ///
    /// The address is not of this machine.
    pub(super) async fn open(address: SocketAddr, stage: Arc<StageCell>) -> Result<Self> {
        let answers = Answers { registry: metrics::waiting_registry(), stage, healthy: Arc::new(Idle) };
        let mut front = Self { address, admin: Arc::new(Admin::new(answers)), serving: None };
        match admin::bind(address, Some(Instant::now())).await {
            Ok(listener) => front.serve(listener),
            Err(error) if error.kind() == ErrorKind::AddrInUse => {
                warn!(%error, "The address for metrics and probes is in use; it is tried again.");
            }
            Err(error) => return Err(error).with_context(|| front.what()),
        }
        Ok(front)
    }

    /// Answers from these from now on.
    pub(super) fn exchange(&self, answers: Answers) {
        self.admin.exchange(answers);
    }

    /// Waits until the address can be had; for ever where it is served at already. May be given up and begun again.
    ///
    /// # Errors
    ///
    /// It cannot be had by `deadline`, `None` being never.
    pub(super) async fn bound(&self, deadline: Option<Instant>) -> Result<TcpListener> {
        if self.serving.is_some() {
            return std::future::pending().await;
        }
        admin::bind(self.address, deadline).await.with_context(|| self.what())
    }

    /// Until when to wait for the address, the agent before this one taking so long for its last copies.
    pub(super) fn deadline(drain_timeout: Duration) -> Option<Instant> {
        Instant::now().checked_add(drain_timeout)?.checked_add(BIND_PATIENCE)
    }

    /// Serves.
    pub(super) fn serve(&mut self, listener: TcpListener) {
        self.serving = Some(tokio::spawn(admin::serve(listener, Arc::clone(&self.admin))));
    }

    /// Serves no longer.
    pub(super) fn close(self) {
        if let Some(serving) = self.serving {
            serving.abort();
        }
    }

    fn what(&self) -> String {
        format!("listen on {} for metrics", self.address)
    }
}

/// Nothing runs yet that could be stuck.
#[derive(Debug)]
struct Idle;

impl Health for Idle {
    fn is_alive(&self) -> bool {
        true
    }
}

/// How the waiting ended.
#[derive(Debug)]
pub(super) enum Outcome {
    /// It is this agent's turn. `paused` says what a signal asked for meanwhile.
    Turn { turn: NamespaceTurn, paused: Option<Told> },
    /// The agent was told to stop.
    Stopped,
}

/// Waits for this agent's turn: until no other agent of its name captures in this network namespace.
///
/// # Errors
///
/// The kernel's, where it cannot be asked.
pub(super) async fn await_turn(
    name: Option<&AgentName>,
    front: &mut Front,
    stage: &StageCell,
    signals: &mut Signals,
) -> Result<Outcome> {
    let mut paused = None;
    let mut looks = tokio::time::interval(LOOK_INTERVAL);
    loop {
        tokio::select! {
            _ = looks.tick() => {
                if let Some(turn) = take(name)? {
                    if stage.read() == Stage::Waiting {
                        info!("The other agent is gone; it is this one's turn.");
                        stage.set(Stage::Starting);
                    }
                    return Ok(Outcome::Turn { turn, paused });
                }
                if stage.read() != Stage::Waiting {
                    info!("Another agent runs in this network namespace; this one waits until that is gone.");
                    stage.set(Stage::Waiting);
                }
            }
            told = signals.next() => match told {
                Told::Stop => return Ok(Outcome::Stopped),
                Told::Pause | Told::Resume => paused = Some(told),
                // The file is read when the turn comes.
                Told::Reload => {}
            },
            // The other agent may well have the address, too.
            listener = front.bound(None) => front.serve(listener?),
        }
    }
}

fn take(name: Option<&AgentName>) -> Result<Option<NamespaceTurn>> {
    NamespaceTurn::take(name).context("bind an abstract unix socket")
}
