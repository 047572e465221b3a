//! Enters: signals. Leaves: what they tell the agent.

use tokio::signal::unix::{Signal, SignalKind, signal};

/// The signals that steer a run: SIGTERM and SIGINT end it, SIGUSR1 pauses and SIGUSR2 resumes, SIGHUP has the
/// configuration file read again.
pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    pause: Signal,
    resume: Signal,
    reload: Signal,
}

/// What a signal tells.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Told {
    Stop,
    Pause,
    Resume,
    Reload,
}

impl Signals {
    pub(super) fn new() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            pause: signal(SignalKind::user_defined1())?,
            resume: signal(SignalKind::user_defined2())?,
            reload: signal(SignalKind::hangup())?,
        })
    }

    /// What the next signal tells.
    pub(super) async fn next(&mut self) -> Told {
        tokio::select! {
            _ = self.terminate.recv() => Told::Stop,
            _ = self.interrupt.recv() => Told::Stop,
            _ = self.pause.recv() => Told::Pause,
            _ = self.resume.recv() => Told::Resume,
            _ = self.reload.recv() => Told::Reload,
        }
    }
}
