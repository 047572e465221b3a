//! Enters: addresses that copies would go to. Leaves: those that do not lead back to the live service.
//!
//! A service address hides its members. So a marked request is sent there first, over a connection that the kernel
//! program does not know as the agent's own: where it arrives at our own hook, so would the copies.

use std::{
    collections::HashMap,
    fmt,
    hash::{BuildHasher as _, RandomState},
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::time::{Instant, sleep, timeout};
use tracing::{debug, warn};

use super::{
    OwnSocketRegistry, Refusal, RefuseAddress, clock,
    event::{Event, Observer},
    sampled::{Taken, ports_beside},
    socket::{Connector, Registration},
    stream::Stream,
    tls::{Complaints, Tls},
};
use crate::{
    io::{capture::PortSample, join::join_all, ledger::CopyBooks},
    pipeline::{Endpoint, Probe, Timestamp, probe_id},
};

/// What has to be known of the agent's own hook before it means something that a probe was not seen there.
pub trait Hook: Send + Sync {
    /// Whether what arrives is seen: it is not before capture is attached, and while it is paused.
    fn is_watching(&self) -> bool;

    /// How often that was interrupted so far.
    fn pauses(&self) -> u64;

    /// What has arrived so far.
    fn arrived(&self) -> Arrived;

    /// Of a million connections that begin, those that are shed.
    fn shed_millionths(&self) -> u32;

    /// Whether everything that arrived before `at` has been looked at.
    fn has_read_until(&self, at: Timestamp) -> bool;
}

/// Segments that arrived at the hook.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Arrived {
    /// That were told of.
    pub taken: u64,
    /// That could not be told of.
    pub overlooked: u64,
}

impl Arrived {
    /// Of those since `earlier` the share that was overlooked, 0 to [`MOST_OVERLOOKED`]; `None` where there are none.
    fn overlooked_since(self, earlier: Self) -> Option<f64> {
        let overlooked = self.overlooked.saturating_sub(earlier.overlooked);
        let taken = self.taken.saturating_sub(earlier.taken);
        #[expect(clippy::cast_precision_loss, reason = "it is a share")]
        let share = overlooked as f64 / overlooked.saturating_add(taken) as f64;
        // Where the ring is full all the time, no number of probes would do.
        (overlooked > 0).then_some(share.min(MOST_OVERLOOKED))
    }
}

/// The probes that are out, by the value of their `x-mirror-id`: replay --sent--> probes <--seen-- capture.
pub struct Probes {
    /// Makes numbers that a stranger cannot guess.
    random: RandomState,
    next: AtomicU64,
    out: Mutex<Vec<Out>>,
    /// Of which connections the kernel program takes no others.
    samples: Mutex<Vec<PortSample>>,
    hook: Box<dyn Hook>,
}

#[derive(Debug)]
struct Out {
    id: String,
    to: Endpoint,
    /// Whether it arrived, elsewhere than where it was sent to.
    is_seen: bool,
    /// Whether it may have arrived without being told of.
    may_be_missed: bool,
}

impl fmt::Debug for Probes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Probes").field("out", &self.out).finish_non_exhaustive()
    }
}

impl Probes {
    /// None yet. They would be seen at `hook`.
    #[must_use]
    pub fn new(hook: impl Hook + 'static) -> Self {
        Self {
            random: RandomState::new(),
            next: AtomicU64::default(),
            out: Mutex::default(),
            samples: Mutex::default(),
            hook: Box::new(hook),
        }
    }

    /// Probes are sent so that they are in each of these samples from here on.
    pub fn set_samples(&self, samples: Vec<PortSample>) {
        let mut current = self.samples.lock().unwrap_or_else(PoisonError::into_inner);
        if *current != samples {
            *current = samples;
            // Those that are out are in the samples from before.
            self.missed();
        }
    }

    /// Ports to come from beside that of `from`, where so many of a million connections are shed; `None` where there are
    /// none that would be seen.
    fn ports_beside(&self, from: SocketAddr, shed_millionths: u32) -> Option<Vec<u16>> {
        let random = self.random.hash_one((from, self.next.load(Ordering::Relaxed)));
        let samples = self.samples.lock().unwrap_or_else(PoisonError::into_inner);
        ports_beside(&Taken { samples: &samples, shed_millionths }, from, random)
    }

    /// A marked request arrived at the hook. One that arrived at the very address that it was sent to says no more than
    /// that the target's address is among those that are captured; where that is the live service's, it was refused
    /// before.
    pub fn saw(&self, probe: &Probe) {
        let leads_back = |out: &&mut Out| out.id.as_bytes() == probe.id && out.to != probe.server;
        for out in self.lock().iter_mut().filter(leads_back) {
            out.is_seen = true;
        }
    }

    /// More requests that look like probes arrived at the hook than could be kept: that one was not seen says nothing.
    pub fn missed(&self) {
        for out in self.lock().iter_mut() {
            out.may_be_missed = true;
        }
    }

    fn send_off(&self, to: SocketAddr) -> Sent<'_> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let id = probe_id(self.random.hash_one(number));
        self.lock().push(Out { id: id.clone(), to: to.into(), is_seen: false, may_be_missed: false });
        Sent { probes: self, id }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Out>> {
        // Entries are independent of each other.
        self.out.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A probe that is out; forgotten when this is let go.
struct Sent<'a> {
    probes: &'a Probes,
    id: String,
}

impl Sent<'_> {
    fn is_seen(&self) -> bool {
        self.probes.lock().iter().any(|out| out.id == self.id && out.is_seen)
    }

    fn may_be_missed(&self) -> bool {
        self.probes.lock().iter().any(|out| out.id == self.id && out.may_be_missed)
    }
}

impl Drop for Sent<'_> {
    fn drop(&mut self) {
        self.probes.lock().retain(|out| out.id != self.id);
    }
}

/// What a probe showed.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Finding {
    /// It did not arrive at our own hook, where it would have been seen.
    Elsewhere,
    /// It arrived at our own hook, for another server than it was sent to.
    Here,
    /// It did not arrive at our own hook, unless it was overlooked there: this share was meanwhile.
    Unsure(f64),
    /// It could not be sent, or would not have been seen.
    Unknown,
}

/// Judges the addresses of one target.
pub(super) struct Judge {
    /// `None` where nothing is captured.
    probes: Option<Arc<Probes>>,
    connector: Connector,
    /// How the probe is written but for its `x-mirror-id`.
    authority: String,
    connect_timeout: Duration,
    refuse: RefuseAddress,
    accepted: Vec<SocketAddr>,
    /// They lead back, and are not asked again while the target's name stands for them.
    refused: Vec<SocketAddr>,
    /// How likely it is that all probes to one that was never seen were overlooked.
    unsure: HashMap<SocketAddr, f64>,
    observer: Option<Arc<dyn Observer>>,
    books: Arc<CopyBooks>,
    complaints: Arc<Complaints>,
}

/// Which addresses are asked where they lead.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Ask {
    /// Those of which it is not known.
    Open,
    /// Those, and those that get copies meanwhile: what a service address stands for may have changed.
    Accepted,
}

/// What is known of a target's addresses.
#[derive(Debug, Default)]
pub(super) struct Judgement {
    /// Why addresses must not receive copies.
    pub(super) refusals: Vec<Refusal>,
    /// Whether there are addresses of which nothing is known yet.
    pub(super) is_open: bool,
}

impl Judge {
    pub(super) fn new(
        config: &super::ReplayConfig,
        tls: Option<Tls>,
        refuse: RefuseAddress,
        books: &Arc<CopyBooks>,
        complaints: Arc<Complaints>,
    ) -> Self {
        Self {
            probes: config.probes.clone(),
            // Neither marked nor registered: the kernel program is to take it for a stranger's.
            connector: Connector::new(Arc::new(Unregistered), 0, tls),
            authority: config.target.authority(),
            connect_timeout: config.connect_timeout.min(CONNECT_TIME),
            refuse,
            accepted: Vec::new(),
            refused: Vec::new(),
            unsure: HashMap::new(),
            observer: config.observer.clone(),
            books: Arc::clone(books),
            complaints,
        }
    }

    /// Waits until probes can be seen, as long as that takes.
    pub(super) async fn watched(&self) {
        while self.probes.as_ref().is_some_and(|probes| !probes.hook.is_watching()) {
            sleep(WATCH_INTERVAL).await;
        }
    }

    /// Those that may receive copies.
    pub(super) fn accepted(&self) -> &[SocketAddr] {
        &self.accepted
    }

    /// Those that were accepted may lead back by now, and have to be probed again.
    pub(super) fn forget_accepted(&mut self) {
        self.accepted.clear();
        self.unsure.clear();
    }

    /// Accepts none any more that is live by now, nor, where there are others, one that is not among `addrs`, all that the
    /// target stands for at this moment.
    pub(super) fn strike_off(&mut self, addrs: &[SocketAddr]) {
        self.accepted.retain(|addr| (self.refuse)(*addr).is_none());
        if self.accepted.iter().any(|addr| addrs.contains(addr)) {
            self.accepted.retain(|addr| addrs.contains(addr));
        }
    }

    /// Judges `addrs`, all that the target stands for at this moment, and asks `whom` of them. One that leads back is not asked
    /// again: the live service behind it may be down, or not captured, at that moment.
    pub(super) async fn judge(&mut self, addrs: &[SocketAddr], whom: Ask) -> Judgement {
        let mut judgement = Judgement::default();
        self.refused.retain(|addr| addrs.contains(addr));
        self.accepted.retain(|addr| addrs.contains(addr) && (self.refuse)(*addr).is_none());
        self.unsure.retain(|addr, _| addrs.contains(addr));
        let mut asked = Vec::new();
        for addr in addrs {
            if let Some(refusal) = (self.refuse)(*addr) {
                judgement.refusals.push(refusal);
            } else if self.refused.contains(addr) {
                judgement.refusals.push(Refusal::LeadsBack { target: *addr });
            } else if whom == Ask::Accepted || !self.accepted.contains(addr) {
                asked.push(*addr);
            }
        }
        for (addr, finding) in self.probe_all(asked).await {
            if finding == Finding::Here {
                self.accepted.retain(|accepted| *accepted != addr);
                self.unsure.remove(&addr);
                self.refused.push(addr);
                judgement.refusals.push(Refusal::LeadsBack { target: addr });
                self.tell();
                continue;
            }
            // One that was accepted and cannot be asked again stays so: it may be down.
            let is_accepted = self.accepted.contains(&addr);
            if !is_accepted && self.is_elsewhere(addr, finding) {
                self.accepted.push(addr);
            } else if !is_accepted {
                judgement.is_open = true;
            }
        }
        judgement
    }

    /// Where many probes were not seen, it is hardly for being overlooked, each of them.
    fn is_elsewhere(&mut self, addr: SocketAddr, finding: Finding) -> bool {
        let is_elsewhere = match finding {
            Finding::Elsewhere => true,
            Finding::Here | Finding::Unknown => false,
            Finding::Unsure(overlooked) => {
                let left = self.unsure.entry(addr).or_insert(1.0);
                *left *= overlooked.max(LEAST_OVERLOOKED);
                *left <= LEAST_DOUBT
            }
        };
        if is_elsewhere {
            self.unsure.remove(&addr);
        }
        is_elsewhere
    }

    fn tell(&self) {
        let (experiment, target) = (self.books.experiment(), self.books.target());
        warn!(
            experiment,
            target, "An address of the shadow leads back to the live service; it gets no copies."
        );
        if let Some(observer) = &self.observer {
            observer.handle_event(&self.books, Event::Refused);
        }
    }

    async fn probe_all(&self, addrs: Vec<SocketAddr>) -> Vec<(SocketAddr, Finding)> {
        let Some(probes) = &self.probes else {
            return addrs.into_iter().map(|addr| (addr, Finding::Elsewhere)).collect();
        };
        join_all(addrs.into_iter().map(|addr| async move { (addr, self.probe(probes, addr).await) })).await
    }

    async fn probe(&self, probes: &Probes, addr: SocketAddr) -> Finding {
        let hook = &probes.hook;
        let (before, shed, pauses) = (hook.arrived(), hook.shed_millionths(), hook.pauses());
        if !hook.is_watching() {
            return Finding::Unknown;
        }
        let sent = probes.send_off(addr);
        // No cache on the way has the answer to this.
        let message = format!(
            "HEAD /?{id} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\ncache-control: no-cache\r\nx-mirror-id: {id}\r\n\
             x-shadow: true\r\n\r\n",
            self.authority,
            id = sent.id
        );
        let Some(first) = self.open(None, addr).await else { return Finding::Unknown };
        let mut from = first.1.local();
        let mut opened = vec![first];
        let Some(ports) = probes.ports_beside(from, shed) else { return Finding::Unknown };
        for port in ports {
            // Somebody else may have the port: then others are tried the next time.
            from.set_port(port);
            let Some(next) = self.open(Some(from), addr).await else { return Finding::Unknown };
            opened.push(next);
        }
        let asked = opened.iter_mut().map(|(stream, _)| {
            timeout(ANSWER_TIME, async {
                stream.write_all(message.as_bytes()).await?;
                // Whatever it answers: what counts is where the request arrived.
                stream.read(&mut [0; 512]).await
            })
        });
        // Nor does it matter that there is no answer, as long as the request could have arrived.
        let answers = join_all(asked).await;
        let is_answered = answers.into_iter().all(|answer| answer.is_ok_and(|read| read.is_ok()));
        debug!(%addr, is_answered, "An address of the shadow was probed.");
        let (answered, answered_at) = (Instant::now(), clock::now());
        let is_over = || {
            let waited = answered.elapsed();
            waited >= READ_TIME || (waited >= ARRIVAL_TIME && hook.has_read_until(answered_at))
        };
        while !is_over() && !sent.is_seen() {
            sleep(LOOK_INTERVAL).await;
        }
        // What is asked first may change first.
        let is_read = hook.has_read_until(answered_at);
        if sent.is_seen() {
            return Finding::Here;
        }
        let was_watching = hook.is_watching() && hook.pauses() == pauses && hook.shed_millionths() <= shed;
        if !is_read || !was_watching || sent.may_be_missed() {
            return Finding::Unknown;
        }
        hook.arrived().overlooked_since(before).map_or(Finding::Elsewhere, Finding::Unsure)
    }
}

impl Judge {
    /// Opens a connection to probe `addr`, from a local end where one is given; `None` where that cannot be had yet.
    async fn open(&self, from: Option<SocketAddr>, addr: SocketAddr) -> Option<(Stream, Registration)> {
        match timeout(self.connect_timeout, self.connector.open_from(from, addr)).await {
            Ok(Ok(opened)) => return Some(opened),
            Ok(Err(error)) => {
                debug!(%addr, %error, "An address of the shadow could not be probed.");
                self.complaints.hear(&error);
            }
            Err(_) => debug!(%addr, "Probing an address of the shadow took too long."),
        }
        None
    }
}

/// Tells nobody of the connections.
struct Unregistered;

impl OwnSocketRegistry for Unregistered {
    fn opened(&self, _local: SocketAddr, _is_marked: bool) {}

    fn closed(&self, _local: SocketAddr) {}
}

/// An agent that starts waits for this.
const CONNECT_TIME: Duration = Duration::from_secs(2);

/// How long an answer to a probe is waited for: a proxy may have to connect first.
const ANSWER_TIME: Duration = Duration::from_secs(1);

/// How long after its answer a probe is looked for at least: who answers may have sent it on.
const ARRIVAL_TIME: Duration = Duration::from_millis(250);

/// How long the capture threads may take to read what arrived before the answer. It is 100 ms at most where they keep up.
const READ_TIME: Duration = Duration::from_secs(2);

/// The share of segments that counts as overlooked at the least where any was: they come in bursts.
const LEAST_OVERLOOKED: f64 = 0.5;

/// And at the most.
const MOST_OVERLOOKED: f64 = 0.9;

/// An address is believed to lead elsewhere once it is this unlikely that it does not: after ten probes where half of what
/// arrives is overlooked.
const LEAST_DOUBT: f64 = 0.001;

const LOOK_INTERVAL: Duration = Duration::from_millis(5);

/// How often it is looked whether capture goes on.
const WATCH_INTERVAL: Duration = Duration::from_millis(100);

/// Everything is seen at once.
#[cfg(test)]
impl Hook for () {
    fn is_watching(&self) -> bool {
        true
    }

    fn pauses(&self) -> u64 {
        0
    }

    fn arrived(&self) -> Arrived {
        Arrived::default()
    }

    fn shed_millionths(&self) -> u32 {
        0
    }

    fn has_read_until(&self, _at: Timestamp) -> bool {
        true
    }
}
