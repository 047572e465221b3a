//! Enters: when copies are queued, and when who sends them takes them. Leaves: whether that thread gives way to all else that
//! runs on the node.
//!
//! A copy that is sent keeps a processor from live for as long as that takes. So the thread that sends runs where nothing else
//! wants to (`SCHED_IDLE`), and a processor that runs it counts as free for whoever wakes up. On a node without idle time it
//! would not run at all: the capture threads, which are ordinary, look at every round whether it takes what they queue, and where
//! it does not it is an ordinary thread again, for longer each time that is in vain.

mod sys;

use std::{
    io,
    sync::{
        Mutex, MutexGuard, OnceLock, PoisonError, TryLockError,
        atomic::{AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use rustix::thread::Pid;
use tracing::debug;

use self::sys::Policy;
use crate::{io::replay::clock, pipeline::Timestamp};

/// The precedence of the one thread that sends, as it and the capture threads see it.
#[derive(Debug, Default)]
pub struct Precedence {
    /// Since when something is queued that the thread has not come to take; 0 where nothing is.
    asked: AtomicU64,
    /// When something was queued last.
    latest: AtomicU64,
    /// The thread; `None` where it is an ordinary one for good.
    thread: Option<Pid>,
    course: Mutex<Course>,
}

impl Precedence {
    /// That of the calling thread, which may give way from here on if the kernel lets it return, and if nobody has told it
    /// already how to run.
    #[must_use]
    pub fn of_this_thread() -> Self {
        let can_return =
            *CAN_RETURN.get_or_init(|| matches!(sys::policy(), Ok(Policy::Ordinary)) && try_out());
        debug!(can_return, "Whether the thread that sends may give way to others.");
        Self { thread: can_return.then(sys::this_thread), ..Self::default() }
    }

    /// Something was queued.
    pub(super) fn asked(&self, now: Timestamp) {
        let now = now.as_nanos();
        self.latest.store(now, Ordering::Relaxed);
        // Somebody else may have asked before; who loses the race has asked later.
        let _earlier = self.asked.compare_exchange(0, now, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// The thread takes what is queued.
    pub(super) fn came(&self) {
        self.asked.store(0, Ordering::Relaxed);
    }

    /// Looks whether the thread keeps up, and has it give way or not; where copies wait already it is behind. Called by capture
    /// threads, at least once a millisecond while anything is captured.
    pub fn review(&self, now: Timestamp, is_behind: bool) {
        let course = match self.course.try_lock() {
            Ok(course) => course,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            // Another capture thread looks just now.
            Err(TryLockError::WouldBlock) => return,
        };
        let asked = match self.asked.load(Ordering::Relaxed) {
            0 => None,
            at => Some(Timestamp::from_nanos(at)),
        };
        let latest = Timestamp::from_nanos(self.latest.load(Ordering::Relaxed));
        let is_late = is_behind || asked.is_some_and(|asked| now.since(asked) >= LATE);
        self.turn(course, |course| course.review(now, is_late, latest));
    }

    /// Nobody will look for a while: the thread is an ordinary one.
    pub fn rest(&self) {
        self.turn(self.lock(), |course| course.rest(clock::now()));
    }

    /// For how long the thread has given way, all in all.
    #[must_use]
    pub fn gave_way(&self) -> Duration {
        self.lock().gave_way(clock::now())
    }

    fn turn(&self, mut course: MutexGuard<'_, Course>, change: impl FnOnce(&mut Course) -> bool) {
        let Some(thread) = self.thread else { return };
        let did = course.gives_way;
        let gives_way = change(&mut course);
        if gives_way == did {
            return;
        }
        let policy = if gives_way { Policy::Idle } else { Policy::Ordinary };
        if let Err(error) = sys::set_policy(thread, policy) {
            // It was tried before anything began.
            debug!(%error, ?policy, "The thread that sends did not change its precedence.");
        }
    }

    fn lock(&self) -> MutexGuard<'_, Course> {
        // Nothing in here can panic between one field and the next.
        self.course.lock().unwrap_or_else(PoisonError::into_inner)
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

/// What a process may do about its threads is the same for all of them.
static CAN_RETURN: OnceLock<bool> = OnceLock::new();

/// When the thread gives way and when it does not.
#[derive(Debug)]
struct Course {
    gives_way: bool,
    /// Since when.
    since: Timestamp,
    /// How long it will not, when it next has to stop.
    pause: Duration,
    /// Until when it does not.
    until: Timestamp,
    /// Since when copies come without a lull; `None` in one.
    steady_since: Option<Timestamp>,
    /// For how long it gave way until `since`.
    before: Duration,
}

impl Course {
    /// Decides, given whether copies are late, and when one was queued last.
    fn review(&mut self, now: Timestamp, is_late: bool, latest: Timestamp) -> bool {
        let is_lull = now.since(latest) > LULL;
        self.steady_since = if is_lull { None } else { self.steady_since.or(Some(now)) };
        if self.gives_way && is_late {
            let was_worth_it = now.since(self.since) >= WORTH;
            self.pause = if was_worth_it { SHORTEST_PAUSE } else { (self.pause * 2).min(LONGEST_PAUSE) };
            self.until = now.after(self.pause);
        }
        let is_steady = self.steady_since.is_some_and(|since| now.since(since) >= STEADY);
        let is_due = is_steady && now >= self.until;
        self.set(!is_late && !is_lull && (self.gives_way || is_due), now)
    }

    fn rest(&mut self, now: Timestamp) -> bool {
        self.steady_since = None;
        self.set(false, now)
    }

    fn set(&mut self, gives_way: bool, now: Timestamp) -> bool {
        if gives_way != self.gives_way {
            self.before = self.gave_way(now);
            (self.gives_way, self.since) = (gives_way, now);
        }
        gives_way
    }

    fn gave_way(&self, now: Timestamp) -> Duration {
        if self.gives_way { self.before + now.since(self.since) } else { self.before }
    }
}

impl Default for Course {
    fn default() -> Self {
        Self {
            gives_way: false,
            since: Timestamp::ZERO,
            pause: SHORTEST_PAUSE,
            until: Timestamp::ZERO,
            steady_since: None,
            before: Duration::ZERO,
        }
    }
}

/// How long a copy may wait for the thread that gives way. It adds this much to the lag where the node is busy.
const LATE: Duration = Duration::from_micros(500);

/// After so long without a copy the thread is an ordinary one: what else it does, and who waits for that, is not looked after by
/// who queues copies.
const LULL: Duration = Duration::from_millis(10);

/// So long copies must have come without a lull.
const STEADY: Duration = Duration::from_millis(20);

/// Having given way for so long, until a copy was late, was worth a copy that was late.
const WORTH: Duration = Duration::from_millis(50);

/// How long the thread is an ordinary one at least, after a copy was late; twice as long each time when giving way was not worth
/// it.
const SHORTEST_PAUSE: Duration = Duration::from_millis(2);

/// How long at most: on a node without idle time one copy in a second's is late for this.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests;
