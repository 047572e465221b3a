//! Enters: signals. Leaves: orders to pause, to resume, or to end.

use tokio::signal::unix::{Signal, SignalKind, signal};

/// The signals that steer a run: SIGTERM and SIGINT end it, SIGUSR1 pauses and SIGUSR2 resumes capture.
pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    pause: Signal,
    resume: Signal,
}

/// Whether capture goes on.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Order {
    Pause,
    Resume,
}

impl Signals {
    pub(super) fn new() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            pause: signal(SignalKind::user_defined1())?,
            resume: signal(SignalKind::user_defined2())?,
        })
    }

    /// The next order; `None` to stop.
    pub(super) async fn pause_or_stop(&mut self) -> Option<Order> {
        tokio::select! {
            _ = self.terminate.recv() => None,
            _ = self.interrupt.recv() => None,
            _ = self.pause.recv() => Some(Order::Pause),
            _ = self.resume.recv() => Some(Order::Resume),
        }
    }
}
