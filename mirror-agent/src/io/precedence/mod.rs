//! Enters: when copies are queued, and when who sends them comes to take them. Leaves: whether that thread gives way to all else
//! that runs on the node.
//!
//! A copy that is sent keeps a processor from live for as long as that takes. So the thread that sends runs where nothing else
//! wants to (`SCHED_IDLE`), and a processor that runs it counts as free for whoever wakes up. On a node without idle time it
//! would not run at all: the capture threads, which are ordinary, look at every round whether it comes for what they queue, and
//! where it does not it is an ordinary thread again, for longer each time that is in vain. A thread that gives way may hold a lock
//! that a capture thread waits for; so a thread of its own looks whether they look.

mod course;
mod sys;

use std::{
    io,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError, TryLockError,
        atomic::{AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use rustix::{system::uname, thread::Pid};
use tracing::{debug, warn};

use self::{course::Course, sys::Policy};
use crate::{io::replay::clock, pipeline::Timestamp};

/// The precedence of the one thread that sends, as it and those that look after it see it. It takes no lock of it.
#[derive(Debug, Default)]
pub struct Precedence {
    /// Since when something is queued that the thread has not come for; 0 where nothing is.
    asked: AtomicU64,
    /// When something was queued last.
    latest: AtomicU64,
    /// When a capture thread looked last.
    reviewed: AtomicU64,
    /// The thread; `None` where it is an ordinary one for good.
    thread: Option<Pid>,
    course: Mutex<Course>,
    /// It gives way from now on, or never will again.
    turned: Condvar,
    account: Account,
}

impl Precedence {
    /// That of the calling thread, which may give way from here on if the kernel lets it return, and if nobody has told it
    /// already how to run.
    #[must_use]
    pub fn of_this_thread() -> Arc<Self> {
        let can_return = *CAN_RETURN
            .get_or_init(|| is_fair() && matches!(sys::policy(), Ok(Policy::Ordinary)) && try_out());
        let thread = can_return.then(sys::this_thread);
        let precedence = Arc::new(Self { thread, ..Self::default() });
        let looked_after = Arc::clone(&precedence);
        if thread.is_some()
            && let Err(error) = spawn("precedence".to_owned(), move || looked_after.look_after())
        {
            debug!(%error, "Nobody can look after the thread that sends.");
            precedence.end();
        }
        debug!(can_return, "Whether the thread that sends may give way to others.");
        precedence
    }

    /// Something was queued.
    pub(super) fn asked(&self, now: Timestamp) {
        let now = now.as_nanos();
        self.latest.store(now, Ordering::Relaxed);
        // Somebody else may have asked before; who loses the race has asked later.
        let _earlier = self.asked.compare_exchange(0, now, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// The thread comes for what is queued.
    pub(super) fn came(&self) {
        self.asked.store(0, Ordering::Relaxed);
    }

    /// Looks whether the thread keeps up, and has it give way or not; where copies wait already it is behind. Called by capture
    /// threads, each time they go round.
    pub fn review(&self, now: Timestamp, is_behind: bool) {
        self.reviewed.store(now.as_nanos(), Ordering::Relaxed);
        let course = match self.course.try_lock() {
            Ok(course) => course,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            // Another thread looks just now.
            Err(TryLockError::WouldBlock) => return,
        };
        let asked = match self.asked.load(Ordering::Relaxed) {
            0 => None,
            at => Some(Timestamp::from_nanos(at)),
        };
        let latest = Timestamp::from_nanos(self.latest.load(Ordering::Relaxed));
        let is_late = is_behind || asked.is_some_and(|asked| now.since(asked) >= LATE);
        drop(self.turn(course, now, |course| course.review(now, is_late, latest)));
    }

    /// The thread is an ordinary one for good.
    pub fn end(&self) {
        drop(self.turn(self.lock(), clock::now(), Course::end));
    }

    /// For how long the thread has given way, all in all.
    #[must_use]
    pub fn gave_way(&self) -> Duration {
        self.account.read(clock::now())
    }

    /// Has the thread be an ordinary one where nobody else looks any more: those who should may wait for it.
    fn look_after(&self) {
        let mut course = self.lock();
        while !course.is_over {
            if !course.gives_way {
                course = self.turned.wait(course).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            let waited = self.turned.wait_timeout(course, UNSEEN);
            (course, _) = waited.unwrap_or_else(PoisonError::into_inner);
            let now = clock::now();
            let reviewed = Timestamp::from_nanos(self.reviewed.load(Ordering::Relaxed));
            if now.since(reviewed) >= UNSEEN {
                course = self.turn(course, now, |course| course.interrupt(now));
            }
        }
    }

    /// Has the kernel hear of a change.
    fn turn<'a>(
        &'a self,
        mut course: MutexGuard<'a, Course>,
        now: Timestamp,
        change: impl FnOnce(&mut Course),
    ) -> MutexGuard<'a, Course> {
        let Some(thread) = self.thread else { return course };
        let did = course.gives_way;
        change(&mut course);
        if course.gives_way == did {
            if course.is_over {
                self.turned.notify_all();
            }
            return course;
        }
        let policy = if course.gives_way { Policy::Idle } else { Policy::Ordinary };
        match sys::set_policy(thread, policy) {
            Ok(()) => {
                self.account.turn(course.gives_way, now);
                self.turned.notify_all();
            }
            // It was tried before anything began; what was allowed then is not any more.
            Err(error) if did => {
                if !course.is_stuck {
                    warn!(%error, "The thread that sends copies gives way to all else, and cannot stop to.");
                }
                // Tried again at the next look.
                (course.gives_way, course.is_stuck) = (true, true);
            }
            Err(error) => {
                debug!(%error, "The thread that sends copies cannot give way any more.");
                course.end();
            }
        }
        course
    }

    fn lock(&self) -> MutexGuard<'_, Course> {
        // Nothing in here can panic between one field and the next.
        self.course.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// For how long the thread gave way.
#[derive(Debug, Default)]
struct Account {
    /// Until it last stopped, in nanoseconds.
    before: AtomicU64,
    /// Since when it does; 0 where it does not.
    since: AtomicU64,
    /// The most that was told: a counter never goes back.
    told: AtomicU64,
}

impl Account {
    fn turn(&self, gives_way: bool, now: Timestamp) {
        if gives_way {
            self.since.store(now.as_nanos(), Ordering::Relaxed);
        } else {
            let since = self.since.swap(0, Ordering::Relaxed);
            self.before.fetch_add(now.as_nanos().saturating_sub(since), Ordering::Relaxed);
        }
    }

    fn read(&self, now: Timestamp) -> Duration {
        let so_far = match self.since.load(Ordering::Relaxed) {
            0 => 0,
            since => now.as_nanos().saturating_sub(since),
        };
        let sum = self.before.load(Ordering::Relaxed).saturating_add(so_far);
        Duration::from_nanos(self.told.fetch_max(sum, Ordering::Relaxed).max(sum))
    }
}

/// Starts a thread that is an ordinary one, whoever starts it: the kernel has threads begin as their parents run.
///
/// # Errors
///
/// No thread could be started.
pub(super) fn spawn<T: Send + 'static>(
    name: String,
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<JoinHandle<T>> {
    thread::Builder::new().name(name).spawn(|| {
        be_ordinary();
        work()
    })
}

/// The calling thread, which has just been started by one that may have given way, does not.
pub(super) fn be_ordinary() {
    let may_return = CAN_RETURN.get().is_some_and(|can_return| *can_return);
    if may_return && matches!(sys::policy(), Ok(Policy::Idle)) {
        // That this can be done has been tried out.
        drop(sys::set_policy(sys::this_thread(), Policy::Ordinary));
    }
}

/// Whether a thread of this process can give way and come back.
fn try_out() -> bool {
    let tried = thread::Builder::new().name("precedence".to_owned()).spawn(|| {
        let this = sys::this_thread();
        sys::set_policy(this, Policy::Idle).and_then(|()| sys::set_policy(this, Policy::Ordinary))
    });
    matches!(tried.map(JoinHandle::join), Ok(Ok(Ok(()))))
}

/// Whether a thread that comes back is treated as if it had never been away. Before Linux 6.6 what it ran meanwhile is held
/// against it 340 times over, and on a full node it would wait for that:
/// <https://github.com/torvalds/linux/commit/147f3efaa24182a21706bca15eab2f3f4630b5fe>
fn is_fair() -> bool {
    let uname = uname();
    let mut parts = uname.release().to_str().unwrap_or_default().split(|c: char| !c.is_ascii_digit());
    let mut next = || parts.next().and_then(|part| part.parse::<u32>().ok()).unwrap_or(0);
    (next(), next()) >= (6, 6)
}

/// What a process may do about its threads is the same for all of them.
static CAN_RETURN: OnceLock<bool> = OnceLock::new();

/// How long a copy may wait for the thread that gives way, as seen by a capture thread that goes round.
const LATE: Duration = Duration::from_micros(500);

/// After so long nobody looks any more: capture threads that find nothing are about to block, others wait or have ended.
const UNSEEN: Duration = Duration::from_millis(10);

#[cfg(test)]
mod tests;
