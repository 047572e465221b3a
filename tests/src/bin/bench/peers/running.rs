//! Enters: a peer and a work. Leaves: how one run of it went, and nothing of the peer's behind.

use std::{
    collections::BTreeSet,
    net::{Ipv4Addr, SocketAddr, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use mirror_tests::{netns::INTERFACE, sys};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::Peer;
use crate::{
    probe::{Processors, Usage, all_pss},
    trial::{PORT, Stage, Trial, Work},
};

/// Where a peer that stands in the way listens.
pub(super) const ENTRY_PORT: u16 = 8079;
/// How long a peer may take to start; one that does not listen is given all of it.
const START: Duration = Duration::from_secs(3);
/// How long it may take to stop.
const STOP: Duration = Duration::from_secs(3);
/// How long copies may still come after the load.
const AFTER: Duration = Duration::from_millis(500);

/// What a run says of a peer.
#[derive(Debug)]
pub(super) struct Peering {
    usage: Usage,
    at_live: u64,
    at_shadow: u64,
    at_shadow_finally: u64,
    /// Proportional set sizes of its processes together when the load had ended, in bytes.
    pub(super) memory: u64,
}

impl Peering {
    /// CPU milliseconds for 1,000 requests at the shadow; `None` where none came.
    pub(super) fn cpu_per_thousand(&self) -> Option<f64> {
        let copies = self.at_shadow_finally as f64;
        (copies > 0.0).then(|| self.usage.cpu.as_secs_f64() * 1e6 / copies)
    }

    /// The share of live's requests at the shadow when the load ended, in percent.
    pub(super) fn share_at_end(&self) -> f64 {
        100.0 * self.at_shadow as f64 / self.at_live.max(1) as f64
    }
}

/// Starts a peer and stops it again.
///
/// # Errors
///
/// It does not stay.
pub(super) fn try_out(stage: &Stage, peer: &Peer) -> Result<()> {
    Started::start(stage, peer).map(drop)
}

/// Runs the work once beside a peer.
pub(super) fn run(stage: &Stage, peer: &Peer, work: &Work, duration: Duration) -> Result<(Trial, Peering)> {
    if sys::interrupted() {
        bail!("interrupted");
    }
    let started = Started::start(stage, peer).with_context(|| format!("start {}", peer.name))?;
    let pids = started.pids()?;
    let before = Processors::read()?;
    let (live, shadow) = stage.counts()?;
    let usage = started.usage()?;
    let (loaded, ()) = stage.load(work, started.port, duration, || Ok(()))?;
    let memory = all_pss(&pids);
    let (at_live, at_shadow) = stage.counts()?;
    thread::sleep(AFTER);
    let peering = Peering {
        usage: started.usage()?.since(usage),
        at_live: at_live - live,
        at_shadow: at_shadow - shadow,
        at_shadow_finally: stage.counts()?.1 - shadow,
        memory,
    };
    let foreign = Processors::read()?.foreign_since(before);
    Ok((Trial { foreign, ..loaded }, peering))
}

/// A peer that runs, with all its processes; they end with it.
struct Started<'a> {
    stage: &'a Stage,
    peer: &'a Peer,
    child: Child,
    /// Processes that were on live's host before.
    others: BTreeSet<u32>,
    /// Where the load is to be sent.
    port: u16,
}

impl<'a> Started<'a> {
    fn start(stage: &'a Stage, peer: &'a Peer) -> Result<Self> {
        let others = processes(stage)?;
        let child = shell(stage, &peer.start).spawn()?;
        let mut started = Self { stage, peer, child, others, port: PORT };
        let deadline = Instant::now() + START;
        while Instant::now() < deadline {
            let entry = SocketAddr::from((Ipv4Addr::LOCALHOST, ENTRY_PORT));
            if stage.net.live.within(|| Ok(TcpStream::connect_timeout(&entry, START)?)).is_ok() {
                started.port = ENTRY_PORT;
                break;
            }
            thread::sleep(Duration::from_millis(50));
        }
        if started.pids()?.is_empty() {
            bail!("it ended at once: {}", peer.start);
        }
        Ok(started)
    }

    fn pids(&self) -> Result<Vec<u32>> {
        Ok(processes(self.stage)?.difference(&self.others).copied().collect())
    }

    /// What its processes have used so far; one that ends meanwhile takes its share along.
    fn usage(&self) -> Result<Usage> {
        let pids = self.pids()?;
        Ok(pids.into_iter().filter_map(|pid| Usage::of(pid).ok()).fold(Usage::default(), Usage::plus))
    }

    /// Tells all that is left to end, and waits a moment for it.
    fn end(&mut self, signal: Signal) {
        let deadline = Instant::now() + STOP;
        for pid in self.pids().unwrap_or_default() {
            if let Ok(pid) = i32::try_from(pid) {
                // It may have ended by itself meanwhile.
                kill(Pid::from_raw(pid), signal).ok();
            }
        }
        while Instant::now() < deadline && !self.pids().unwrap_or_default().is_empty() {
            drop(self.child.try_wait());
            thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Started<'_> {
    fn drop(&mut self) {
        if let Some(stop) = &self.peer.stop {
            drop(shell(self.stage, stop).status());
        }
        self.end(Signal::SIGTERM);
        self.end(Signal::SIGKILL);
        drop(self.child.wait());
    }
}

/// A line for the shell on live's host.
fn shell(stage: &Stage, line: &str) -> Command {
    let net = &stage.net;
    let mut command = net.live.command(Path::new("sh"));
    command
        .args(["-c", line])
        .env("MIRROR_INTERFACE", INTERFACE)
        .env("MIRROR_LIVE", net.live.at_v4(PORT).to_string())
        .env("MIRROR_SHADOW", net.shadow.at_v4(PORT).to_string())
        .env("MIRROR_ENTRY", format!("0.0.0.0:{ENTRY_PORT}"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command
}

/// The processes on live's host, however they came there.
fn processes(stage: &Stage) -> Result<BTreeSet<u32>> {
    let output = Command::new("ip").args(["netns", "pids", stage.net.live.name()]).output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.split_ascii_whitespace().map(|pid| Ok(pid.parse()?)).collect()
}
