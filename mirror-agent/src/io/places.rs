//! Enters: connections as they are accepted. Leaves: a place for each: where there is none left, whoever asks nothing makes way.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::{
    task::{AbortHandle, JoinHandle},
    time::sleep,
};

/// How often it is looked for a place while all are being answered, which takes some seconds at most.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);

/// The connections of one listener. One more than there are places for ends the oldest of those with no request under way: who
/// holds a connection open and says nothing, or does not read what it asked for, keeps nobody out. One that is being
/// answered stays: whoever gave an order learns what came of it.
#[derive(Debug)]
pub(super) struct Places {
    limit: usize,
    oldest_first: VecDeque<Place>,
}

#[derive(Debug)]
struct Place {
    task: AbortHandle,
    activity: Activity,
}

/// Whether a connection has a request under way.
#[derive(Clone, Debug, Default)]
pub(super) struct Activity(Arc<AtomicBool>);

impl Activity {
    /// A request is under way until what is returned is let go. A connection has one at a time.
    pub(super) fn begin(&self) -> UnderWay {
        self.0.store(true, Ordering::Relaxed);
        UnderWay(Self::clone(self))
    }

    fn is_under_way(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// A request that is under way.
#[derive(Debug)]
pub(super) struct UnderWay(Activity);

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.0.store(false, Ordering::Relaxed);
    }
}

impl Places {
    /// Places for so many connections at once.
    pub(super) const fn new(limit: usize) -> Self {
        Self { limit, oldest_first: VecDeque::new() }
    }

    /// Returns once there is a place: at once where not all are being answered.
    pub(super) async fn make_room(&mut self) {
        loop {
            self.oldest_first.retain(|place| !place.task.is_finished());
            if self.oldest_first.len() < self.limit {
                return;
            }
            let silent = self.oldest_first.iter().position(|place| !place.activity.is_under_way());
            match silent.and_then(|index| self.oldest_first.remove(index)) {
                Some(place) => place.task.abort(),
                None => sleep(LOOK_INTERVAL).await,
            }
        }
    }

    /// Gives a place to the connection that `task` serves.
    pub(super) fn take(&mut self, task: &JoinHandle<()>, activity: Activity) {
        self.oldest_first.push_back(Place { task: task.abort_handle(), activity });
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use tokio::time::timeout;

    use super::*;

    const LIMIT: usize = 32;

    /// Longest that a busy machine takes for what is done at once.
    const DEADLINE: Duration = Duration::from_secs(10);

    #[tokio::test]
    async fn oldest_with_nothing_under_way_makes_way_and_none_that_is_being_answered() {
        let mut places = Places::new(LIMIT);
        let mut tasks = Vec::new();
        let mut under_way = Vec::new();
        for number in 0..LIMIT {
            timeout(DEADLINE, places.make_room()).await.unwrap();
            let (task, activity) = (tokio::spawn(pending()), Activity::default());
            if number != 7 {
                under_way.push(activity.begin());
            }
            places.take(&task, activity);
            tasks.push(task);
        }
        timeout(DEADLINE, places.make_room()).await.unwrap();
        let ended = timeout(DEADLINE, &mut tasks[7]).await.unwrap();
        assert!(ended.unwrap_err().is_cancelled());
        let (task, activity) = (tokio::spawn(pending()), Activity::default());
        under_way.push(activity.begin());
        places.take(&task, activity);
        assert!(timeout(10 * LOOK_INTERVAL, places.make_room()).await.is_err(), "all are being answered");
        // The first is answered.
        under_way.remove(0);
        timeout(DEADLINE, places.make_room()).await.unwrap();
        assert!(timeout(DEADLINE, &mut tasks[0]).await.unwrap().unwrap_err().is_cancelled());
    }
}
