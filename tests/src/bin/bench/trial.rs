//! Enters: a work and what stands in the mirror's place. Leaves: how one run of it went.

use std::{
    fs,
    sync::atomic::Ordering,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};
use mirror_tests::{
    agent::{Agent, Arguments},
    load::{Pace, Plan, Report, Reuse, Running},
    metrics::Ledger,
    netns::Topology,
    nginx::Nginx,
    server::{Behavior, Record, Server},
    sys,
    traffic::Same,
};
use tempfile::TempDir;

use crate::{
    crowd::{Crowd, flows},
    probe::{CallCount, MemoryWatch, Processors, ProgramCost, Usage, all_pss, pin, quantile},
    sys::enable_program_stats,
};

/// The port of the live service and of the shadow.
pub(crate) const PORT: u16 = 8080;
/// The port of the shadow that is not well.
const ILL_PORT: u16 = 8081;
/// Connections of the load, and of the bare sender.
pub(crate) const CONNECTIONS: usize = 64;
/// Requests due so shortly after the start are not counted in the latencies, nor are copies sent so shortly after it in the lag.
const WARM_UP: Duration = Duration::from_millis(300);
/// How long the agent gets to settle its books after the load.
const PATIENCE: Duration = Duration::from_secs(20);

/// The hosts and the servers on them; every way out of the bench drops them.
pub(crate) struct Stage {
    live: Nginx,
    shadow: Nginx,
    /// The other one.
    ill: Server,
    pub(crate) net: Topology,
}

/// What is sent, and how.
#[derive(Clone, Debug)]
pub(crate) struct Work {
    pub(crate) name: String,
    pub(crate) request: Same,
    pub(crate) pace: Pace,
    pub(crate) reuse: Reuse,
    /// Requests on a connection at a time.
    pub(crate) pipeline: usize,
    /// How long the load runs before rate and latencies are taken: what adapts itself does so meanwhile.
    pub(crate) settle: Duration,
    pub(crate) setup: Setup,
    pub(crate) shadow: Shadow,
    /// Who is there beside the load.
    pub(crate) crowd: Crowd,
}

/// What the agent is told.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Setup {
    /// More options of `run`.
    Options(&'static [&'static str]),
    /// A file, written for the URL of the shadow and with so many of what it has many of.
    File { text: fn(&str, usize) -> String, size: usize },
}

/// What copies are sent to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Shadow {
    /// nginx, like live.
    Nginx,
    /// A server that is not well.
    Ill(Behavior),
}

impl Work {
    /// Small GETs on keep-alive connections.
    pub(crate) fn gets(name: impl Into<String>, pace: Pace) -> Self {
        Self {
            name: name.into(),
            request: Same::get(),
            pace,
            reuse: Reuse::KeepAlive,
            pipeline: 1,
            settle: Duration::ZERO,
            setup: Setup::Options(&[]),
            shadow: Shadow::Nginx,
            crowd: Crowd::Nobody,
        }
    }
}

/// What stands beside the live service.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Beside {
    /// Nothing.
    Nothing,
    /// The load generator, sending the same requests to the shadow at this rate in requests per second.
    BareSender(u32),
    /// The agent.
    Mirror(Watch),
}

/// How closely the agent is watched.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Watch {
    /// From outside: nothing is slowed down.
    Outside,
    /// The same, with the agent on this processor only.
    Pinned(usize),
    /// With the kernel's run-time statistics and a count of system calls, both of which cost something.
    Closely,
}

/// How a run went.
#[derive(Clone, Debug)]
pub(crate) struct Trial {
    /// Answers per second at live.
    pub(crate) rate: f64,
    /// Latencies at live in microseconds: median, 99 %, 99.9 %.
    pub(crate) latency: [f64; 3],
    /// How busy strangers kept the processors meanwhile, in percent.
    pub(crate) foreign: f64,
    /// What the load generator says of it.
    pub(crate) report: Report,
    /// Of the bare sender.
    pub(crate) bare: Option<Report>,
    /// Of the mirror.
    pub(crate) mirror: Option<Mirrored>,
}

/// What a run says of the mirror.
#[derive(Clone, Debug)]
pub(crate) struct Mirrored {
    /// The books when they were settled.
    pub(crate) books: Ledger,
    /// Requests that live has counted.
    pub(crate) at_live: u64,
    /// Requests that the shadow had counted when the load ended.
    pub(crate) at_shadow: u64,
    /// Requests that the shadow had counted when the books were settled.
    pub(crate) at_shadow_finally: u64,
    /// What the agent used.
    pub(crate) usage: Usage,
    /// Replay lag in seconds, but for that of the start: median, 99 %.
    pub(crate) lag: [Option<f64>; 2],
    /// Proportional set size in bytes: the peak where it was watched closely, else that when the load had ended.
    pub(crate) memory: u64,
    /// Connections in its table at the end.
    pub(crate) flows: f64,
    /// Cost of the kernel programs, if it was watched.
    pub(crate) programs: Option<ProgramCost>,
    /// System calls a second, if they were counted.
    pub(crate) calls: Option<f64>,
}

impl Mirrored {
    /// CPU milliseconds for 1,000 mirrored requests.
    pub(crate) fn cpu_per_thousand(&self) -> f64 {
        self.per_request(self.usage.cpu.as_secs_f64()) * 1e6
    }

    /// A total, by mirrored requests.
    pub(crate) fn per_request(&self, total: f64) -> f64 {
        total / (self.books.mirrored.max(1) as f64)
    }

    /// The share of live's requests at the shadow when the load ended, in percent.
    pub(crate) fn share_at_end(&self) -> f64 {
        100.0 * self.at_shadow as f64 / self.at_live.max(1) as f64
    }

    /// The share of live's requests that were mirrored in the end, in percent.
    pub(crate) fn share_mirrored(&self) -> f64 {
        100.0 * self.books.mirrored as f64 / self.at_live.max(1) as f64
    }

    /// What the books leave open, or say otherwise than the servers do. Connections that were left out in the kernel are
    /// not seen; what was dropped or lost for a reason is in the books.
    pub(crate) fn faults(&self, sees_all: bool) -> Vec<String> {
        let books = &self.books;
        let mut faults = Vec::new();
        if !books.is_balanced() {
            faults.push("not balanced".to_owned());
        }
        if books.pending != 0 {
            faults.push(format!("pending {}", books.pending));
        }
        if books.seen > self.at_live || (sees_all && books.seen < self.at_live) {
            faults.push(format!("seen {} of {}", books.seen, self.at_live));
        }
        if books.mirrored != self.at_shadow_finally {
            faults.push(format!("mirrored {}, at shadow {}", books.mirrored, self.at_shadow_finally));
        }
        faults
    }

    /// Whether all was mirrored and the books say what the servers say: `exact`, or what else.
    pub(crate) fn verdict(&self) -> String {
        let books = &self.books;
        let mut faults = self.faults(true);
        let reasons =
            [("frames dropped", &books.frames_dropped), ("dropped", &books.dropped), ("lost", &books.lost)];
        for (kind, by_reason) in reasons {
            let by_reason =
                by_reason.iter().map(|(reason, count)| format!("{reason} {count}")).collect::<Vec<_>>();
            if !by_reason.is_empty() {
                faults.push(format!("{kind}: {}", by_reason.join(", ")));
            }
        }
        if faults.is_empty() { "exact".to_owned() } else { faults.join("; ") }
    }
}

impl Stage {
    /// Makes the hosts, with one nginx worker each at live and shadow.
    pub(crate) fn set() -> Result<Self> {
        let net = Topology::new()?;
        let live = Nginx::start(&net.live, PORT, 1)?;
        let shadow = Nginx::start(&net.shadow, PORT, 1)?;
        let ill = Server::start(&net.shadow, ILL_PORT, Record::Count)?;
        Ok(Self { live, shadow, ill, net })
    }

    /// Starts an agent as a work wants it.
    fn agent_for(&self, work: &Work) -> Result<(Agent, Option<TempDir>)> {
        let port = match work.shadow {
            Shadow::Nginx => PORT,
            Shadow::Ill(behavior) => {
                self.ill.behave(behavior);
                ILL_PORT
            }
        };
        let shadow = self.net.shadow.at_v4(port);
        match work.setup {
            Setup::Options(options) => {
                Ok((Agent::start(&self.net.live, &Arguments::new(PORT, shadow).with(options))?, None))
            }
            Setup::File { text, size } => {
                let folder = tempfile::tempdir()?;
                let file = folder.path().join("mirror.yaml");
                fs::write(&file, text(&format!("http://{shadow}"), size))?;
                Ok((Agent::start(&self.net.live, &Arguments::from_file(&file))?, Some(folder)))
            }
        }
    }

    /// Requests that the work's shadow has counted.
    fn at_shadow(&self, work: &Work) -> Result<u64> {
        match work.shadow {
            Shadow::Nginx => self.shadow.requests(&self.net.shadow),
            Shadow::Ill(_) => Ok(self.ill.requests()),
        }
    }

    /// Starts an agent beside live.
    pub(crate) fn agent(&self, options: &[&str]) -> Result<Agent> {
        Agent::start(&self.net.live, &Arguments::new(PORT, self.net.shadow.at_v4(PORT)).with(options))
    }

    /// Runs the work once.
    pub(crate) fn run(&self, work: &Work, beside: Beside, duration: Duration) -> Result<Trial> {
        if sys::interrupted() {
            bail!("interrupted");
        }
        let _crowd = match beside {
            Beside::Nothing | Beside::BareSender(_) => work.crowd.gather(self, None)?,
            // Behind its start: it is to know them from the beginning.
            Beside::Mirror(_) => Crowd::Nobody.gather(self, None)?,
        };
        let before = Processors::read()?;
        let trial = match beside {
            Beside::Nothing => self.load(work, PORT, duration, || Ok(()))?.0,
            Beside::BareSender(rate) => self.run_beside_bare_sender(work, rate, duration)?,
            Beside::Mirror(watch) => self.run_beside_mirror(work, watch, duration)?,
        };
        Ok(Trial { foreign: Processors::read()?.foreign_since(before), ..trial })
    }

    fn plan(work: &Work, duration: Duration) -> Plan {
        Plan {
            warm_up: work.settle + warm_up(duration),
            reuse: work.reuse,
            pipeline: work.pipeline,
            ..Plan::new(([0, 0, 0, 0], 0).into(), work.pace, work.settle + duration, CONNECTIONS)
        }
    }

    /// Requests that live and nginx as the shadow have counted.
    pub(crate) fn counts(&self) -> Result<(u64, u64)> {
        Ok((self.live.requests(&self.net.live)?, self.shadow.requests(&self.net.shadow)?))
    }

    /// Sends the load to a port of live's host, and looks at something shortly before it counts.
    pub(crate) fn load<T>(
        &self,
        work: &Work,
        port: u16,
        duration: Duration,
        look: impl FnOnce() -> Result<T>,
    ) -> Result<(Trial, T)> {
        let plan = Plan { target: self.net.live.at_v4(port), ..Self::plan(work, duration) };
        let begun = Instant::now();
        let running = Running::start(&self.net.client, plan, work.request.clone())?;
        let progress = std::sync::Arc::clone(&running.progress);
        thread::sleep(work.settle);
        let (settled, settled_after) = (progress.answered.load(Ordering::Relaxed), begun.elapsed());
        // What the look costs is over when latencies count.
        thread::sleep(warm_up(duration).mul_f64(0.8));
        let seen = look()?;
        let report = running.finish()?;
        if report.answered == 0 {
            bail!("live answered nothing: {report:?}");
        }
        let latency = progress.latency.snapshot();
        let latency = [50.0, 99.0, 99.9].map(|percent| latency.percentile(percent).as_secs_f64() * 1e6);
        let rate = if work.settle.is_zero() {
            report.answered as f64 / report.elapsed.as_secs_f64()
        } else {
            (report.answered - settled) as f64 / (begun.elapsed() - settled_after).as_secs_f64()
        };
        Ok((Trial { rate, latency, foreign: 0.0, report, bare: None, mirror: None }, seen))
    }

    fn run_beside_bare_sender(&self, work: &Work, rate: u32, duration: Duration) -> Result<Trial> {
        let plan = Plan {
            target: self.net.shadow.at_v4(PORT),
            pace: Pace::PerSecond(f64::from(rate)),
            ..Self::plan(work, duration)
        };
        let sender = Running::start(&self.net.live, plan, work.request.clone())?;
        let (loaded, ()) = self.load(work, PORT, duration, || Ok(()))?;
        Ok(Trial { bare: Some(sender.finish()?), ..loaded })
    }

    fn run_beside_mirror(&self, work: &Work, watch: Watch, duration: Duration) -> Result<Trial> {
        let statistics = if watch == Watch::Closely { Some(enable_program_stats()?) } else { None };
        let (agent, _folder) = self.agent_for(work)?;
        if let Watch::Pinned(processor) = watch {
            pin(agent.pid(), processor)?;
        }
        let pid = agent.pid();
        let counted = duration.mul_f64(0.8);
        let count = statistics.as_ref().and_then(|_on| CallCount::start(pid, counted));
        let _crowd = work.crowd.gather(self, Some(&agent))?;
        let memory = statistics.as_ref().map(|_on| MemoryWatch::start(vec![pid]));
        let (live, shadow) = (self.live.requests(&self.net.live)?, self.at_shadow(work)?);
        let (usage, programs) = (Usage::of(pid)?, ProgramCost::of(pid)?);

        let (loaded, begun) = self.load(work, PORT, duration, || Ok(agent.get("/metrics")?.1))?;

        let memory = memory.map_or_else(|| all_pss(&[pid]), |watch| watch.peak());
        let at_shadow = self.at_shadow(work)? - shadow;
        let at_live = self.live.requests(&self.net.live)? - live;
        let programs = ProgramCost::of(pid)?.since(programs);
        let calls = count.and_then(CallCount::finish).map(|calls| calls as f64 / counted.as_secs_f64());
        let books = settle(&agent, at_live)?;
        let usage = Usage::of(pid)?.since(usage);
        let text = agent.get("/metrics")?.1;
        let flows = flows(&agent)?;
        let lag = [0.5, 0.99].map(|share| quantile(&begun, &text, "mirror_replay_lag_seconds", share));
        let at_shadow_finally = self.at_shadow(work)? - shadow;
        agent.stop()?;
        let programs = statistics.map(|_on| programs);
        let mirror = Mirrored {
            books,
            at_live,
            at_shadow,
            at_shadow_finally,
            usage,
            lag,
            memory,
            flows,
            programs,
            calls,
        };
        Ok(Trial { mirror: Some(mirror), ..loaded })
    }
}

/// The beginning of a load that is left out.
fn warm_up(duration: Duration) -> Duration {
    WARM_UP.min(duration / 4)
}

/// Waits until nothing is pending and, unless something was lost on the way, everything was seen.
fn settle(agent: &Agent, at_live: u64) -> Result<Ledger> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let books = agent.metrics()?.ledger();
        let is_whole = books.seen >= at_live || books.all_frames_dropped() > 0;
        if (books.pending == 0 && is_whole) || Instant::now() > deadline {
            return Ok(books);
        }
        thread::sleep(Duration::from_millis(20));
    }
}

impl Trial {
    /// Requests that live did not answer as it should have, those among them that were due and never sent.
    pub(crate) fn failed(&self) -> u64 {
        let Report { failed, refused, unfinished, unsent, .. } = self.report;
        failed + refused + unfinished + unsent
    }
}

/// What the figures hold for: processors, kernel, and settings that everybody pays for.
pub(crate) fn machine() -> String {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default().trim().to_owned();
    let info = read("/proc/cpuinfo");
    let model = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let filtered = read("/proc/sys/net/bridge/bridge-nf-call-iptables") == "1";
    format!(
        "{} processors ({}), Linux {}, TCP {}, packet filter on bridges {}",
        thread::available_parallelism().map_or(0, usize::from),
        model.map_or("unknown model", |(_, name)| name),
        read("/proc/sys/kernel/osrelease"),
        read("/proc/sys/net/ipv4/tcp_congestion_control"),
        if filtered { "on" } else { "off" }
    )
}
