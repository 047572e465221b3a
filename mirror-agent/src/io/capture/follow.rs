//! Enters: the items of `--interface`, and that something changed in this network namespace. Leaves: programs attached
//! where the items say, at every moment.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet, VecDeque},
    error::Error,
    io, mem,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio::{
    sync::watch,
    task::{JoinError, JoinHandle},
};
use tracing::{debug, info, warn};

use crate::io::{
    capture::{
        AttachError, AttachMode, Attachment, Kernel, NetlinkError,
        bypass::Bypass,
        desired::{Change, Interface, View, changes},
        links, pods,
        role::{InterfaceSpec, Pattern, Role},
        watch::{LinkWatch, Routes},
    },
    pods::PodsStatus,
};

/// How long nothing more must change before a look: what makes a pod's interface consists of several changes.
const QUIET: Duration = Duration::from_millis(50);
/// How long changes may go on before a look is taken all the same.
const LONGEST_DELAY: Duration = Duration::from_millis(250);
/// The most that one look may put off the next. A look takes as many times longer as there are more interfaces; it is
/// kept to a fifth of the time.
const LONGEST_PAUSE: Duration = Duration::from_millis(400);
/// How often a look is taken though nothing was said to have changed: what failed is tried again then.
const ROUND: Duration = Duration::from_secs(30);
/// The same where changes are not told.
const ROUND_UNTOLD: Duration = Duration::from_millis(500);
/// The same where the last look failed.
const ROUND_BLIND: Duration = Duration::from_secs(1);
/// The same where interfaces of pods are missing, at first: a neighbour answers at once, a route may come late. Each time
/// that they still are, it is twice as long, up to [`ROUND`].
const ROUND_MISSING: Duration = Duration::from_millis(200);
/// Failures said one by one of each look; the others are counted.
const MAX_WARNINGS: usize = 5;

/// The interfaces that are attached, for the metrics: their names and roles by index.
#[derive(Debug, Default)]
pub struct Attached(Mutex<BTreeMap<u32, (String, Role)>>);

impl Attached {
    /// How many there are, by role in the order of [`Role::ALL`].
    #[must_use]
    pub fn counts(&self) -> [u64; Role::ALL.len()] {
        let attached = self.lock();
        Role::ALL.map(|role| {
            let count = attached.values().filter(|(_, theirs)| *theirs == role).count();
            u64::try_from(count).unwrap_or(u64::MAX)
        })
    }

    /// Their names.
    #[must_use]
    pub fn names(&self) -> BTreeMap<u32, String> {
        self.lock().iter().map(|(index, (name, _))| (*index, name.clone())).collect()
    }

    fn publish(&self, kernel: &Kernel) {
        let interfaces = kernel.interfaces().iter();
        *self.lock() =
            interfaces.map(|(index, interface)| (*index, (interface.name.clone(), interface.role))).collect();
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u32, (String, Role)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why the interfaces cannot be followed.
#[derive(Debug, thiserror::Error)]
pub enum FollowError {
    /// There is no such interface in this network namespace.
    #[error("no interface is named {name}")]
    UnknownInterface {
        /// The name.
        name: String,
    },
    /// The interface was named twice.
    #[error("interface {name} is named twice")]
    RepeatedInterface {
        /// The name.
        name: String,
    },
    /// The interfaces could not be listed.
    #[error("list the interfaces")]
    Look(#[from] NetlinkError),
    /// An interface that was named could not be attached to, or none that was described.
    #[error(transparent)]
    Attach(#[from] AttachError),
}

/// Keeps programs attached where the items say.
#[derive(Debug)]
pub struct Follower {
    specs: Arc<[InterfaceSpec]>,
    mode: AttachMode,
    routes: Routes,
    /// `None` where the kernel does not tell of changes.
    watch: Option<LinkWatch>,
    pace: Pace,
    vanished: BTreeSet<u32>,
    /// A look being taken.
    look: Option<JoinHandle<Result<View, NetlinkError>>>,
    /// What the last look showed, until it is compared with what is attached.
    view: Option<View>,
    work: VecDeque<Change>,
    /// A change being made.
    job: Option<JoinHandle<Outcome>>,
    /// Interfaces whose failure was said; each is said once until it is attached or gone.
    failed: HashSet<u32>,
    warnings: usize,
    /// Whether the last look failed, which is said once.
    is_blind: bool,
    /// Whether Cilium runs here.
    is_ciliums: bool,
    attached: Arc<Attached>,
    /// That another interface is attached to than were: follower --news--> owner.
    news: watch::Sender<()>,
    /// Whether that is to be said once the work is done.
    is_news: bool,
    pods: Option<FollowedPods>,
}

/// Pods whose interfaces are attached to beside those that the items mean.
#[derive(Debug)]
struct FollowedPods {
    /// Their addresses: owner --addresses--> follower.
    addresses: watch::Receiver<BTreeSet<IpAddr>>,
    status: Arc<PodsStatus>,
    /// Addresses whose interface was not found when it was last looked for.
    missing: BTreeSet<IpAddr>,
    /// Those of them of which that was said.
    said: BTreeSet<IpAddr>,
    /// How long until those are looked for again.
    round: Duration,
}

impl Follower {
    /// Looks at the interfaces for the first time; attaches nothing. Must be called within a tokio runtime.
    ///
    /// # Errors
    ///
    /// `UnknownInterface` and `RepeatedInterface` for items that are names, `Look`.
    pub fn open(specs: Vec<InterfaceSpec>, mode: AttachMode) -> Result<Self, FollowError> {
        let mut names = HashSet::new();
        if let Some(name) = specs.iter().filter_map(InterfaceSpec::name).find(|name| !names.insert(*name)) {
            return Err(FollowError::RepeatedInterface { name: name.to_owned() });
        }
        let is_auto = specs.iter().any(|spec| spec.pattern == Pattern::Auto);
        let routes = if is_auto { Routes::Watched } else { Routes::Ignored };
        // Before the look, or what changes in between would be missed.
        let watch = subscribe(routes);
        let view = look(routes, &BTreeSet::new())?;
        for spec in view.unmatched(&specs) {
            if let Some(name) = spec.name() {
                return Err(FollowError::UnknownInterface { name: name.to_owned() });
            }
            warn!(interface = %spec, "No interface matches yet; waiting for one.");
        }
        Ok(Self {
            specs: specs.into(),
            mode,
            routes,
            watch,
            pace: Pace::new(Instant::now()),
            vanished: BTreeSet::new(),
            look: None,
            view: Some(view),
            work: VecDeque::new(),
            job: None,
            failed: HashSet::new(),
            warnings: 0,
            is_blind: false,
            is_ciliums: false,
            attached: Arc::default(),
            news: watch::Sender::default(),
            is_news: false,
            pods: None,
        })
    }

    /// Attaches to the interfaces of pods, too: of those with the addresses that are told.
    #[must_use]
    pub fn with_pods(self, addresses: watch::Receiver<BTreeSet<IpAddr>>, status: Arc<PodsStatus>) -> Self {
        let pods = FollowedPods {
            addresses,
            status,
            missing: BTreeSet::new(),
            said: BTreeSet::new(),
            round: ROUND_MISSING,
        };
        Self { pods: Some(pods), ..self }
    }

    /// Told each time that it has attached to other interfaces than before, those that it began with aside.
    #[must_use]
    pub fn news(&self) -> watch::Receiver<()> {
        self.news.subscribe()
    }

    /// What is attached, for the metrics.
    #[must_use]
    pub fn attached(&self) -> Arc<Attached> {
        Arc::clone(&self.attached)
    }

    /// Attaches to all interfaces that the first look showed.
    ///
    /// # Errors
    ///
    /// `Attach`: an interface that was named cannot be attached to, or none of those that were described can.
    pub fn attach_all(&mut self, kernel: &mut Kernel) -> Result<(), FollowError> {
        let view = self.view.take().unwrap_or_default();
        kernel.establish(&view.links)?;
        self.is_ciliums = view.is_ciliums();
        let mut first_failure = None;
        for interface in view.desired(&self.specs).into_values() {
            match attach(kernel, &interface, self.mode, self.is_ciliums) {
                Err(error) if interface.is_named => return Err(error.into()),
                Err(error) if first_failure.is_none() => first_failure = Some(error),
                Err(error) => self.note_failure(interface.index, &interface.name, &error),
                Ok(()) => {}
            }
        }
        self.attached.publish(kernel);
        match first_failure {
            Some(error) if kernel.interfaces().is_empty() && !error.is_for_want_of_interface() => {
                Err(error.into())
            }
            Some(error) => {
                warn!(error = &error as &dyn Error, "Attaching to an interface failed.");
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// Keeps programs attached for as long as it is polled. Nothing is lost where that is given up and begun again, but
    /// a change that is being made goes on: see [`Self::stop`].
    pub async fn follow(&mut self, kernel: &Arc<Mutex<Kernel>>) {
        loop {
            if let Some(job) = &mut self.job {
                let outcome = job.await;
                self.job = None;
                self.note_outcome(outcome);
            } else if let Some(change) = self.work.pop_front() {
                // Attaching takes tens of milliseconds: the kernel waits until no processor uses the chain as it was.
                let (kernel, mode, is_ciliums) = (Arc::clone(kernel), self.mode, self.is_ciliums);
                let attached = Arc::clone(&self.attached);
                self.job = Some(tokio::task::spawn_blocking(move || {
                    let mut kernel = lock(&kernel);
                    let outcome = make(&mut kernel, change, mode, is_ciliums);
                    attached.publish(&kernel);
                    outcome
                }));
            } else {
                if mem::take(&mut self.is_news) {
                    self.news.send_replace(());
                }
                self.look_when_due().await;
                self.plan(kernel);
            }
        }
    }

    /// Waits for a change that is being made; makes no more.
    pub async fn stop(mut self) {
        if let Some(job) = self.job.take() {
            let outcome = job.await;
            self.note_outcome(outcome);
        }
    }

    /// Waits until something may have changed, and looks.
    async fn look_when_due(&mut self) {
        while self.view.is_none() {
            if let Some(look) = &mut self.look {
                let outcome = look.await;
                self.look = None;
                self.take_look(outcome);
                continue;
            }
            let changed = async {
                match &self.watch {
                    Some(watch) => watch.changed().await,
                    None => std::future::pending().await,
                }
            };
            let told = async {
                if let Some(pods) = &mut self.pods
                    && pods.addresses.changed().await.is_ok()
                {
                    pods.round = ROUND_MISSING;
                } else {
                    std::future::pending::<()>().await;
                }
            };
            tokio::select! {
                () = tokio::time::sleep_until(self.pace.due().into()) => {
                    if self.watch.is_none() {
                        self.watch = subscribe(self.routes);
                    }
                    self.pace.begin(Instant::now());
                    let routes = self.routes;
                    let pods = self.pods.as_ref().map(|pods| pods.addresses.borrow().clone()).unwrap_or_default();
                    // Thousands of interfaces take long to list, and other changes to them may hold the kernel's lock.
                    self.look = Some(tokio::task::spawn_blocking(move || look(routes, &pods)));
                }
                () = told => self.pace.note_change(Instant::now()),
                news = changed => match news {
                    Ok(news) => {
                        self.vanished.extend(news.vanished);
                        self.pace.note_change(Instant::now());
                    }
                    Err(error) => {
                        warn!(%error, "Changes of interfaces are not told any more; looking for them instead.");
                        self.watch = None;
                        self.pace.note_change(Instant::now());
                    }
                },
            }
        }
    }

    /// Compares what the look showed with what is attached.
    fn plan(&mut self, kernel: &Mutex<Kernel>) {
        let Some(view) = self.view.take() else { return };
        let vanished = mem::take(&mut self.vanished);
        self.work = changes(lock(kernel).interfaces(), view.desired(&self.specs), &vanished).into();
        let indices: HashSet<u32> = view.links.iter().map(|link| link.index).collect();
        self.failed.retain(|index| indices.contains(index));
        self.warnings = 0;
        self.is_ciliums = view.is_ciliums();
        if let Some(pods) = &mut self.pods {
            pods.note(view.pods.missing);
            if !pods.missing.is_empty() {
                self.pace.sooner(Instant::now() + pods.round);
                pods.round = (pods.round * 2).min(ROUND);
            }
        }
    }

    fn note_outcome(&mut self, outcome: Result<Outcome, JoinError>) {
        match outcome {
            Ok(Ok(Made { index, sees_more })) => {
                self.failed.remove(&index);
                self.is_news |= sees_more;
            }
            Ok(Err((interface, error))) => self.note_failure(interface.index, &interface.name, &error),
            Err(error) => warn!(%error, "Attaching or detaching ended in a panic."),
        }
    }

    fn note_failure(&mut self, index: u32, name: &str, error: &AttachError) {
        let error_value = error as &dyn Error;
        if error.is_for_want_of_interface() {
            debug!(interface = name, error = error_value, "An interface went before it was attached to.");
        } else if self.failed.insert(index) && self.warnings < MAX_WARNINGS {
            self.warnings += 1;
            warn!(
                interface = name,
                error = error_value,
                "Attaching to an interface failed; it is tried again at the next change."
            );
        } else {
            debug!(interface = name, error = error_value, "Attaching to an interface failed again.");
        }
    }

    fn take_look(&mut self, outcome: Result<Result<View, NetlinkError>, JoinError>) {
        let failure: Box<dyn Error + Send + Sync> = match outcome {
            Ok(Ok(view)) => {
                let round = if self.watch.is_some() { ROUND } else { ROUND_UNTOLD };
                self.pace.end(Instant::now(), round);
                self.is_blind = false;
                self.view = Some(view);
                return;
            }
            Ok(Err(error)) => error.into(),
            Err(error) => error.into(),
        };
        self.pace.end(Instant::now(), ROUND_BLIND);
        if !self.is_blind {
            self.is_blind = true;
            warn!(
                error = &*failure as &dyn Error,
                "The interfaces cannot be listed; what is attached stays."
            );
        }
    }
}

impl FollowedPods {
    /// Takes note of the addresses whose interface was not found.
    fn note(&mut self, missing: BTreeSet<IpAddr>) {
        let count = missing.len();
        self.status.set_without_interface(u64::try_from(count).unwrap_or(u64::MAX));
        // One that is missing for the first time is there a moment later as a rule.
        if self.round > ROUND_MISSING * 2 && missing.difference(&self.said).next().is_some() {
            warn!(
                addresses = count,
                "The interfaces of some pods were not found; their requests are seen where capture.interfaces says, if there."
            );
            debug!(?missing, "Their interfaces were not found.");
            self.said.clone_from(&missing);
        }
        self.said.retain(|address| missing.contains(address));
        self.missing = missing;
    }
}

fn look(routes: Routes, pods: &BTreeSet<IpAddr>) -> Result<View, NetlinkError> {
    let default_routes = match routes {
        Routes::Watched => links::default_routes()?,
        Routes::Ignored => BTreeSet::new(),
    };
    let links = links::links()?;
    let pods = pods::locate(pods, &links)?;
    Ok(View { links, default_routes, pods })
}

fn subscribe(routes: Routes) -> Option<LinkWatch> {
    let unheard = |error: &io::Error| debug!(%error, "Changes of interfaces are not told.");
    LinkWatch::open(routes).inspect_err(unheard).ok()
}

/// A change that was made, or why the interface could not be attached to.
type Outcome = Result<Made, (Interface, AttachError)>;

#[derive(Clone, Copy, Debug)]
struct Made {
    /// The interface.
    index: u32,
    /// Whether it is attached to that was not before.
    sees_more: bool,
}

/// A thread that panicked has said so, and what it left is no worse than what a failed change leaves.
fn lock(kernel: &Mutex<Kernel>) -> MutexGuard<'_, Kernel> {
    kernel.lock().unwrap_or_else(PoisonError::into_inner)
}

fn make(kernel: &mut Kernel, change: Change, mode: AttachMode, is_ciliums: bool) -> Outcome {
    match change {
        Change::Attach(interface) => match attach(kernel, &interface, mode, is_ciliums) {
            Ok(()) => Ok(Made { index: interface.index, sees_more: true }),
            Err(error) => Err((interface, error)),
        },
        Change::Detach(index) => {
            detach(kernel, index);
            Ok(Made { index, sees_more: false })
        }
        Change::Rename(interface) => {
            let index = interface.index;
            info!(interface = %interface.name, "An attached interface has another name.");
            kernel.rename(interface);
            Ok(Made { index, sees_more: false })
        }
    }
}

fn attach(
    kernel: &mut Kernel,
    interface: &Interface,
    mode: AttachMode,
    is_ciliums: bool,
) -> Result<(), AttachError> {
    let bypass = Bypass::suspected(interface, is_ciliums);
    kernel.attach(interface, mode)?;
    for Attachment { interface: name, hook, program, method, .. } in kernel.attachments_of(interface.index) {
        let (hook, method) = (hook.as_str(), method.as_str());
        info!(interface = %name, role = %interface.role, hook, method, program, "Attached.");
    }
    if let Some(bypass) = bypass {
        warn!(interface = %interface.name, role = %interface.role, "Requests may not be seen here: {bypass}.");
    }
    Ok(())
}

fn detach(kernel: &mut Kernel, index: u32) {
    let name = kernel.interfaces().get(&index).map(|interface| interface.name.clone()).unwrap_or_default();
    for error in kernel.detach_from(index) {
        warn!(error = &error as &dyn Error, "Detaching a mirror program failed.");
    }
    info!(interface = %name, "Detached.");
}

/// When the next look is due.
#[derive(Clone, Copy, Debug)]
struct Pace {
    /// When a look is due for a change that was told.
    quiet_at: Option<Instant>,
    /// When it is due though changes go on.
    latest_at: Option<Instant>,
    /// When it is due though nothing was told.
    round_at: Instant,
    /// Not before this.
    pause_until: Instant,
    begun_at: Instant,
}

impl Pace {
    fn new(now: Instant) -> Self {
        Self { quiet_at: None, latest_at: None, round_at: now + ROUND, pause_until: now, begun_at: now }
    }

    fn note_change(&mut self, now: Instant) {
        let latest_at = *self.latest_at.get_or_insert(now + LONGEST_DELAY);
        self.quiet_at = Some(latest_at.min(now + QUIET));
    }

    /// A look is due by then, though nothing is told.
    fn sooner(&mut self, at: Instant) {
        self.round_at = self.round_at.min(at);
    }

    fn due(&self) -> Instant {
        self.quiet_at.map_or(self.round_at, |quiet_at| quiet_at.min(self.round_at)).max(self.pause_until)
    }

    fn begin(&mut self, now: Instant) {
        (self.quiet_at, self.latest_at, self.begun_at) = (None, None, now);
    }

    fn end(&mut self, now: Instant, round: Duration) {
        self.pause_until = now + (now.duration_since(self.begun_at) * 4).min(LONGEST_PAUSE);
        self.round_at = now + round;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_look_waits_for_quiet_but_not_for_ever() {
        let start = Instant::now();
        let mut pace = Pace::new(start);
        assert_eq!(pace.due(), start + ROUND);
        pace.note_change(start);
        assert_eq!(pace.due(), start + QUIET);
        for step in 1..100 {
            pace.note_change(start + step * 10 * MS);
        }
        assert_eq!(pace.due(), start + LONGEST_DELAY);
    }

    #[test]
    fn looks_that_take_long_are_further_apart() {
        let start = Instant::now();
        let mut pace = Pace::new(start);
        pace.note_change(start);
        pace.begin(start + QUIET);
        pace.end(start + QUIET + 20 * MS, ROUND);
        pace.note_change(start + QUIET + 20 * MS);
        assert_eq!(pace.due(), start + QUIET + 100 * MS);

        pace.begin(start);
        pace.end(start + 1000 * MS, ROUND);
        pace.note_change(start + 1000 * MS);
        assert_eq!(pace.due(), start + 1000 * MS + LONGEST_PAUSE);
    }
}
