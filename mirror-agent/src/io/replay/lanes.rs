//! Enters: copies of the requests of many live connections. Leaves: those of one connection in their order, one at a
//! time; those of different connections as they come.
//!
//! A lane is what waits of one live connection. It has its turn, and then none until the copy that it sent is over;
//! other lanes go on meanwhile. A lane of which nothing waits and nothing is under way is forgotten.

use std::{
    collections::{BTreeMap, HashMap, hash_map::Entry},
    sync::{Arc, Mutex, PoisonError},
};

use super::queue::{Job, Waiting};
use crate::pipeline::{FlowKey, Request, Timestamp, flow::FlowId};

/// A live connection, told from later ones between the same ends.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Live {
    pub(super) key: FlowKey,
    id: FlowId,
}

impl Live {
    pub(super) const fn of(request: &Request) -> Self {
        Self { key: request.flow, id: request.flow_id }
    }
}

/// Jobs that wait, by live connection.
///
/// A later connection between the same ends shares the lane of the earlier: what waits of that one goes first.
#[derive(Debug, Default)]
pub(super) struct Lanes {
    /// By number, which is the order in which they came.
    jobs: BTreeMap<u64, Waits>,
    lanes: HashMap<FlowKey, Lane>,
    /// Lanes that may send, by the number of their first job.
    ready: BTreeMap<u64, FlowKey>,
    next: u64,
}

#[derive(Debug)]
struct Waits {
    job: Job,
    /// The number of the job behind it in its lane.
    behind: Option<u64>,
}

#[derive(Debug)]
struct Lane {
    /// The numbers of the first and the last job that waits.
    ends: Option<(u64, u64)>,
    /// A copy is under way.
    is_busy: bool,
}

impl Lanes {
    pub(super) fn len(&self) -> usize {
        self.jobs.len()
    }

    pub(super) fn push(&mut self, job: Job) {
        let number = self.next;
        self.next += 1;
        let key = job.request.flow;
        let lane = self.lanes.entry(key).or_insert(Lane { ends: None, is_busy: false });
        let first = if let Some((first, last)) = lane.ends {
            if let Some(before) = self.jobs.get_mut(&last) {
                before.behind = Some(number);
            }
            first
        } else {
            if !lane.is_busy {
                self.ready.insert(number, key);
            }
            number
        };
        lane.ends = Some((first, number));
        self.jobs.insert(number, Waits { job, behind: None });
    }

    /// When the oldest job was queued.
    pub(super) fn oldest(&self) -> Option<Timestamp> {
        self.jobs.first_key_value().map(|(_, waits)| waits.job.queued_at)
    }

    /// Takes the oldest job, though it may not be its turn.
    pub(super) fn pop_oldest(&mut self) -> Option<Job> {
        let (number, waits) = self.jobs.pop_first()?;
        self.ready.remove(&number);
        Some(self.leave(waits, false))
    }

    /// The live connection whose turn it is, and the number by which to take its job.
    pub(super) fn next_ready(&self) -> Option<(u64, Live)> {
        let (number, _) = self.ready.first_key_value()?;
        self.jobs.get(number).map(|waits| (*number, Live::of(&waits.job.request)))
    }

    /// Takes the job of this number, if it is its turn; its lane has none until [`Self::done`].
    pub(super) fn pop_ready(&mut self, number: u64) -> Option<Job> {
        self.ready.remove(&number)?;
        let waits = self.jobs.remove(&number)?;
        Some(self.leave(waits, true))
    }

    /// Takes the job behind the one of this connection that has the turn, if it is `meant`, with its number.
    pub(super) fn pop_behind(
        &mut self,
        live: &Live,
        is_meant: impl FnOnce(&Job) -> bool,
    ) -> Option<(u64, Job)> {
        let (number, _) = self.lanes.get(&live.key).filter(|lane| lane.is_busy)?.ends?;
        let job = &self.jobs.get(&number)?.job;
        if Live::of(&job.request) != *live || !is_meant(job) {
            return None;
        }
        let waits = self.jobs.remove(&number)?;
        Some((number, self.leave(waits, true)))
    }

    /// Takes a job back that was the first of its lane when it left, and is so again.
    pub(super) fn put_back(&mut self, number: u64, job: Job) {
        let key = job.request.flow;
        let lane = self.lanes.entry(key).or_insert(Lane { ends: None, is_busy: false });
        let behind = lane.ends.map(|(first, _)| first);
        lane.ends = Some((number, lane.ends.map_or(number, |(_, last)| last)));
        if !lane.is_busy {
            if let Some(behind) = behind {
                self.ready.remove(&behind);
            }
            self.ready.insert(number, key);
        }
        self.jobs.insert(number, Waits { job, behind });
    }

    /// The copy of a lane is over.
    fn done(&mut self, key: FlowKey) {
        let Entry::Occupied(mut entry) = self.lanes.entry(key) else { return };
        match entry.get().ends {
            Some((first, _)) => {
                entry.get_mut().is_busy = false;
                self.ready.insert(first, key);
            }
            None => drop(entry.remove()),
        }
    }

    /// Takes leave of the first job of a lane.
    fn leave(&mut self, Waits { job, behind }: Waits, is_sent: bool) -> Job {
        let key = job.request.flow;
        if let Entry::Occupied(mut entry) = self.lanes.entry(key) {
            let lane = entry.get_mut();
            lane.is_busy |= is_sent;
            lane.ends = behind.zip(lane.ends.map(|(_, last)| last));
            match lane.ends {
                Some((first, _)) if !lane.is_busy => drop(self.ready.insert(first, key)),
                None if !lane.is_busy => drop(entry.remove()),
                Some(_) | None => {}
            }
        }
        job
    }

    #[cfg(test)]
    fn is_consistent(&self) -> bool {
        let is_live = |(key, lane): (&FlowKey, &Lane)| {
            let is_ready = lane.ends.is_some_and(|(first, _)| self.ready.get(&first) == Some(key));
            (lane.is_busy || lane.ends.is_some()) && is_ready == (!lane.is_busy && lane.ends.is_some())
        };
        self.lanes.iter().all(is_live) && self.ready.len() <= self.lanes.len()
    }
}

/// The turn of a lane; letting go of it is the next one's.
#[derive(Debug)]
pub(super) struct Turn {
    pub(super) waiting: Arc<Mutex<Waiting>>,
    pub(super) key: FlowKey,
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(lanes) = waiting.lanes() {
            lanes.done(self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::{
        super::tests::{Books, request},
        *,
    };
    use crate::pipeline::ExchangeId;

    fn job(books: &Books, port: u16, id: u64) -> Job {
        let mut request = request(b"x", 1);
        request.id = ExchangeId(id);
        request.flow.client = std::net::SocketAddr::from(([192, 0, 2, 1], port)).into();
        books.job(request)
    }

    fn pop(lanes: &mut Lanes) -> Option<Job> {
        let (number, _) = lanes.next_ready()?;
        lanes.pop_ready(number)
    }

    #[test]
    fn lane_has_one_turn_at_a_time_and_others_go_on() {
        let (books, mut lanes) = (Books::default(), Lanes::default());
        for (port, id) in [(1, 10), (1, 11), (2, 20), (1, 12), (3, 30)] {
            lanes.push(job(&books, port, id));
        }
        let taken: Vec<_> = std::iter::from_fn(|| pop(&mut lanes)).map(|job| job.request).collect();
        assert_eq!(taken.iter().map(|request| request.id.0).collect::<Vec<_>>(), [10, 20, 30]);
        lanes.done(taken[0].flow);
        assert_eq!(pop(&mut lanes).unwrap().request.id.0, 11);
        assert!(pop(&mut lanes).is_none());
        assert_eq!((lanes.len(), lanes.lanes.len()), (1, 3));
        for request in taken {
            lanes.done(request.flow);
        }
        assert_eq!(lanes.lanes.len(), 1, "idle lanes are forgotten");
        assert_eq!(pop(&mut lanes).unwrap().request.id.0, 12);
    }

    proptest! {
        #[test]
        fn order_of_each_connection_is_kept_and_every_job_leaves_once(
            steps in prop::collection::vec((0..4_u8, 0..6_u16), 1..300),
        ) {
            let (books, mut lanes) = (Books::default(), Lanes::default());
            let mut under_way: Vec<FlowKey> = Vec::new();
            let mut last: BTreeMap<String, u64> = BTreeMap::new();
            let (mut pushed, mut left) = (0_u64, 0_u64);
            for (action, choice) in steps {
                let gone = match action {
                    0 => {
                        lanes.push(job(&books, choice, pushed));
                        pushed += 1;
                        None
                    }
                    1 => pop(&mut lanes).inspect(|job| {
                        assert!(!under_way.contains(&job.request.flow), "one at a time");
                        under_way.push(job.request.flow);
                    }),
                    2 => lanes.pop_oldest(),
                    _ => {
                        if !under_way.is_empty() {
                            let key = under_way.swap_remove(usize::from(choice) % under_way.len());
                            lanes.done(key);
                        }
                        None
                    }
                };
                if let Some(job) = gone {
                    left += 1;
                    let before = last.insert(format!("{}", job.request.flow.client), job.request.id.0);
                    prop_assert!(before.is_none_or(|before| before < job.request.id.0));
                }
                prop_assert!(lanes.is_consistent(), "{lanes:?}");
                prop_assert_eq!(lanes.len() as u64, pushed - left);
            }
            under_way.drain(..).for_each(|key| lanes.done(key));
            while let Some(job) = pop(&mut lanes) {
                lanes.done(job.request.flow);
                left += 1;
            }
            prop_assert_eq!((left, lanes.lanes.len(), lanes.ready.len()), (pushed, 0, 0));
        }
    }
}
