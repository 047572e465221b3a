//! Enters: which agent, which shadow. Leaves: the whole arrangement of a test, and its usual conclusion.

use std::{
    env,
    fs::{File, TryLockError},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};

use crate::{
    agent::{Agent, Arguments},
    client::RawClient,
    digest::{Difference, digest},
    http,
    load::{Pace, Plan, Running},
    metrics::Ledger,
    netns::Topology,
    server::{Arrived, Record, Server},
    slowness::slowed,
    traffic::Same,
};

/// The port of the live service, and of the shadow too: its copies must not be taken for requests.
pub const PORT: u16 = 8080;
/// How long the agent may take to settle its books after the last request; long, for machines that are emulated.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// The right to use the machine. Tests that measure or load it take it alone, others share it.
#[derive(Debug)]
pub struct Turn {
    _lock: File,
}

/// Whether a test can bear others beside it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Weight {
    /// Others may run.
    Light,
    /// Alone.
    Heavy,
}

impl Turn {
    /// Waits for a turn, also behind other processes.
    ///
    /// # Errors
    ///
    /// It does not come within three minutes, longer on a machine that is [slow](slowed).
    pub fn take(weight: Weight) -> Result<Self> {
        let path = env::temp_dir().join("mirror-tests.lock");
        let file = File::options().create(true).append(true).open(&path).context("open the lock file")?;
        let deadline = Instant::now() + slowed(Duration::from_secs(180));
        loop {
            let taken = match weight {
                Weight::Light => file.try_lock_shared(),
                Weight::Heavy => file.try_lock(),
            };
            match taken {
                Ok(()) => return Ok(Self { _lock: file }),
                Err(TryLockError::WouldBlock) if Instant::now() < deadline => {
                    thread::sleep(Duration::from_millis(20));
                }
                Err(TryLockError::WouldBlock) => bail!("other tests do not end"),
                Err(TryLockError::Error(error)) => return Err(error).context("lock"),
            }
        }
    }
}

/// Hosts, a live service, a shadow and an agent, ended in this order.
#[derive(Debug)]
pub struct Scenario {
    /// The agent, beside the live service.
    pub agent: Agent,
    /// The live service.
    pub live: Server,
    /// The shadow.
    pub shadow: Server,
    /// The hosts.
    pub net: Topology,
    _turn: Turn,
}

/// Hosts and servers before there is an agent.
#[derive(Debug)]
pub struct Stage {
    /// The live service.
    pub live: Server,
    /// The shadow.
    pub shadow: Server,
    /// The hosts.
    pub net: Topology,
    /// The right to use the machine, to be kept as long as they are.
    pub turn: Turn,
}

impl Stage {
    /// Starts hosts and servers. What they keep is `record`; `Digest` is for the shadow, live counts.
    ///
    /// # Errors
    ///
    /// Something does not start.
    pub fn set(weight: Weight, record: Record) -> Result<Self> {
        let turn = Turn::take(weight)?;
        let net = Topology::new()?;
        let live_record = if record == Record::Digest { Record::Count } else { record };
        let live = Server::start(&net.live, PORT, live_record)?;
        let shadow = Server::start(&net.shadow, PORT, record)?;
        Ok(Self { live, shadow, net, turn })
    }

    /// The command line of an agent that mirrors live to the shadow.
    #[must_use]
    pub fn arguments(&self) -> Arguments {
        Arguments::new(PORT, self.net.shadow.at_v4(PORT))
    }

    /// Adds the agent; `options` are added to its command line.
    ///
    /// # Errors
    ///
    /// It does not start.
    pub fn with_agent(self, options: &[&str]) -> Result<Scenario> {
        let agent = Agent::start(&self.net.live, &self.arguments().with(options))?;
        Ok(self.around(agent))
    }

    /// Adds an agent that runs already, wherever it does.
    #[must_use]
    pub fn around(self, agent: Agent) -> Scenario {
        Scenario { agent, live: self.live, shadow: self.shadow, net: self.net, _turn: self.turn }
    }
}

impl Scenario {
    /// Starts everything; `options` are added to the agent's command line.
    ///
    /// # Errors
    ///
    /// Something does not start.
    pub fn start(weight: Weight, options: &[&str]) -> Result<Self> {
        Self::with_record(weight, options, Record::Raw)
    }

    /// The same, with a choice of what the servers keep; `Digest` is for the shadow, live counts.
    ///
    /// # Errors
    ///
    /// Something does not start.
    pub fn with_record(weight: Weight, options: &[&str], record: Record) -> Result<Self> {
        Stage::set(weight, record)?.with_agent(options)
    }

    /// A client's connection to the live service, over IPv4.
    ///
    /// # Errors
    ///
    /// It cannot be opened.
    pub fn client(&self) -> Result<RawClient> {
        RawClient::connect(&self.net.client, self.net.live.at_v4(PORT))
    }

    /// A client's connection to the live service, over IPv6.
    ///
    /// # Errors
    ///
    /// It cannot be opened.
    pub fn client_v6(&self) -> Result<RawClient> {
        RawClient::connect(&self.net.client, self.net.live.at_v6(PORT))
    }

    /// Waits until the agent has seen what live has counted and nothing is pending; asserts that both counts and the
    /// shadow's are the agent's own.
    ///
    /// # Errors
    ///
    /// They are not, or the books do not balance.
    pub fn settle(&self) -> Result<Ledger> {
        let live = self.live.requests();
        let ledger = self.agent.wait_for(PATIENCE, |ledger| ledger.seen >= live && ledger.pending == 0)?;
        ensure!(ledger.seen == live, "live counts {live}, the agent: {ledger}");
        self.expect_at_shadow(ledger.mirrored)?;
        Ok(ledger)
    }

    /// Waits until the shadow has counted so many requests, and a moment longer for any that are too many.
    ///
    /// # Errors
    ///
    /// It counts fewer or more.
    pub fn expect_at_shadow(&self, expected: u64) -> Result<()> {
        expect_requests(&self.shadow, expected)
    }

    /// Asserts that the shadow has received exactly the requests that live has received and that `is_expected` picks,
    /// each once, byte for byte apart from the markers, and that no two carry the same identifier.
    ///
    /// # Errors
    ///
    /// They differ.
    pub fn expect_faithful(&self, is_expected: impl Fn(&[u8]) -> bool) -> Result<()> {
        let sent = self.live.arrived().into_iter().map(|request| request.raw).filter(|raw| is_expected(raw));
        let sent = sent.collect::<Vec<_>>();
        let copies = originals(&self.shadow.arrived())?;
        if let Some(foreign) = copies.iter().find(|copy| !sent.contains(copy)) {
            let start = String::from_utf8_lossy(&foreign[..foreign.len().min(2000)]);
            bail!("the shadow received what live did not: {start:?}");
        }
        let digests =
            |requests: &[Vec<u8>]| requests.iter().map(|request| digest(request)).collect::<Vec<_>>();
        let difference = Difference::between(&digests(&sent), &digests(&copies));
        ensure!(difference.is_none(), "of {} requests: {difference:?}", sent.len());
        Ok(())
    }
}

/// Takes the markers out of copies.
///
/// # Errors
///
/// One lacks them or carries them twice, or two carry the same identifier.
pub fn originals(copies: &[Arrived]) -> Result<Vec<Vec<u8>>> {
    let mut ids = Vec::new();
    let mut requests = Vec::new();
    for copy in copies {
        let marked = http::without_markers(&copy.raw).with_context(|| {
            format!("not exactly one of each marker: {:?}", String::from_utf8_lossy(&copy.raw))
        })?;
        ids.push(marked.id);
        requests.push(marked.original);
    }
    let count = ids.len();
    ids.sort_unstable();
    ids.dedup();
    ensure!(ids.len() == count, "{} identifiers on {count} copies", ids.len());
    Ok(requests)
}

/// A thousand requests a second for a moment: the 99th percentile of live's answers, and how many were asked for.
///
/// # Errors
///
/// Live does not answer each as it should.
pub fn p99(net: &Topology) -> Result<(Duration, u64)> {
    let plan = Plan::new(net.live.at_v4(PORT), Pace::PerSecond(1_000.0), Duration::from_millis(900), 16);
    let running = Running::start(&net.client, plan, Same::get())?;
    let progress = Arc::clone(&running.progress);
    let report = running.finish()?;
    ensure!(report.is_clean(), "live does not answer as it should: {report:?}");
    Ok((progress.latency.snapshot().percentile(99.0), report.issued))
}

/// Asserts that a server gets exactly so many requests. A copy is mirrored once it is written, which is before the server has
/// read it.
///
/// # Errors
///
/// It has got others.
pub fn expect_requests(server: &Server, expected: u64) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while server.requests() < expected && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(5));
    }
    thread::sleep(Duration::from_millis(20));
    let counted = server.requests();
    ensure!(counted == expected, "the server counts {counted} requests, expected are {expected}");
    Ok(())
}
