//! Enters: the requests of one capture thread. Leaves: a copy of each in the queue of every target that it is for.

use std::{mem, sync::Arc};

use super::directory::{Directory, Route, Table};
use crate::{
    io::{
        compare::{Awaiting, OpenExchange, Part},
        experiments::Reach,
        ledger::{DropReason, Ledger, LeftAside},
        replay::{Job, clock},
    },
    pipeline::{Answered, ExchangeId, Pipeline, Policy, Request, Timestamp, policy::Selection},
};

/// Hands the requests of one capture thread on.
pub struct Dispatcher {
    /// Which of the capture threads it is.
    pipeline: u16,
    ledger: Arc<Ledger>,
    directory: Arc<Directory>,
    /// The version of `table`.
    version: u64,
    table: Arc<Table>,
    /// Copies to be queued, at the position of their target.
    batches: Vec<Vec<Job>>,
    /// Positions of the targets that have some.
    busy: Vec<usize>,
    /// What experiments left aside.
    left_aside: Arc<LeftAside>,
    /// Targets of the request at hand, each with the place where its answer is awaited.
    chosen: Vec<(usize, Option<Part>)>,
    /// Exchanges whose live answer is awaited.
    awaiting: Awaiting,
    /// Number of what was captured last by the table.
    captured: u64,
    /// What has been captured since this was last asked for.
    missed: Vec<Arc<Reach>>,
    /// Copies that waited for the target with most of them, when some were handed on last.
    waiting: usize,
}

impl Dispatcher {
    /// For the capture thread of this number.
    #[must_use]
    pub fn new(pipeline: u16, ledger: Arc<Ledger>, directory: Arc<Directory>) -> Self {
        let left_aside = ledger.left_aside();
        let mut dispatcher = Self {
            pipeline,
            ledger,
            directory,
            version: 0,
            table: Arc::default(),
            batches: Vec::new(),
            busy: Vec::new(),
            left_aside,
            chosen: Vec::new(),
            awaiting: Awaiting::default(),
            captured: 0,
            missed: Vec::new(),
            waiting: 0,
        };
        dispatcher.turn();
        // There are no flows yet.
        dispatcher.missed.clear();
        dispatcher
    }

    /// The policy of the table that is gone by.
    #[must_use]
    pub fn policy(&self) -> Arc<Policy> {
        Arc::clone(&self.table.policy)
    }

    /// Longest body that is mirrored, in bytes.
    #[must_use]
    pub fn body_bytes(&self) -> usize {
        self.table.body_bytes
    }

    /// Longest content of an answer that is read, in bytes.
    #[must_use]
    pub fn answer_bytes(&self) -> usize {
        self.table.answer_bytes
    }

    /// Whether another table is in force.
    #[must_use]
    pub fn is_outdated(&self) -> bool {
        self.directory.version() != self.version
    }

    /// Takes the table in force and returns its policy. What was decided under the one before has been handed on, and
    /// [counted](Self::count_skips), before.
    pub fn turn(&mut self) -> Arc<Policy> {
        // The version first: a table that comes between is then taken again.
        self.version = self.directory.version();
        self.table = self.directory.table();
        self.batches.resize_with(self.table.lanes.len(), Vec::new);
        let books = |route: &Route| {
            let lanes = route.lanes.iter().filter_map(|lane| self.table.lanes.get(*lane));
            lanes.map(|lane| Arc::clone(&lane.books)).collect()
        };
        self.left_aside.turn(self.table.routes.iter().map(books).collect());
        let later = self.table.captured.iter().filter(|(number, _)| *number > self.captured);
        self.missed.extend(later.map(|(_, reach)| Arc::clone(reach)));
        self.captured = self.table.captured.last().map_or(self.captured, |(number, _)| *number);
        self.policy()
    }

    /// Whether something else is captured than before: [`interrupt`](Self::interrupt) is due when all that was captured
    /// before has been taken in.
    #[must_use]
    pub const fn has_missed(&self) -> bool {
        !self.missed.is_empty()
    }

    /// Interrupts the flows that were not captured for a time, or are not any more.
    pub fn interrupt(&mut self, pipeline: &mut Pipeline) {
        let missed = mem::take(&mut self.missed);
        pipeline.interrupt_some(clock::now(), |flow| missed.iter().any(|reach| !reach.takes(flow)));
    }

    /// Whether so many copies wait already that nobody is served by the next ones coming soon.
    #[must_use]
    pub const fn is_ahead(&self) -> bool {
        self.waiting >= AHEAD
    }

    /// Hands on what the pipeline has ready. Its counts have been published before: a request is seen before it can be
    /// settled. What experiments left aside comes before the copies that others make of the same requests, or, if somebody
    /// reads it just now, a round later.
    pub fn dispatch(&mut self, pipeline: &mut Pipeline) {
        self.left_aside.offer(|counts| pipeline.move_skips(counts));
        let now = clock::now();
        while let Some(request) = pipeline.poll_request() {
            self.take(request, now);
        }
        // Behind the requests, which come before their answers, and before any copy is on its way: what an answer tells of a
        // session, the copy of the next request needs.
        while let Some((id, answered)) = pipeline.poll_answer() {
            self.answered(id, &answered);
        }
        self.awaiting.expire(now);
        // In the order of the targets, not in that of their first requests.
        self.busy.sort_unstable();
        self.waiting = 0;
        for position in self.busy.drain(..) {
            if let (Some(lane), Some(batch)) =
                (self.table.lanes.get(position), self.batches.get_mut(position))
            {
                lane.queue.push_batch(batch.drain(..));
                self.waiting = self.waiting.max(lane.queue.len());
            }
        }
    }

    /// Hands on what experiments left aside, also where somebody reads it just now.
    pub fn count_skips(&self, pipeline: &mut Pipeline) {
        self.left_aside.add(|counts| pipeline.move_skips(counts));
    }

    /// Takes live's answer to a request that was handed on.
    pub fn answered(&mut self, id: ExchangeId, answered: &Answered) {
        self.awaiting.answered(id, answered);
    }

    fn take(&mut self, request: Request, queued_at: Timestamp) {
        let Self { pipeline, ledger, table, batches, busy, chosen, awaiting, .. } = self;
        let selection = &request.selection;
        let is_current = Arc::ptr_eq(&selection.policy, &table.policy);
        chosen.clear();
        for position in selection.experiments.iter() {
            let route = if is_current {
                table.routes.get(position)
            } else {
                // Decided under a policy that was replaced meanwhile: some of its experiments may go on.
                let experiment = selection.policy.experiments().get(position);
                experiment.and_then(|experiment| table.route(experiment.id))
            };
            let Some(route) = route else { continue };
            let comparing = route.comparing.as_ref().filter(|_| reads_answers(selection, position));
            let open = comparing.and_then(|comparing| OpenExchange::open(comparing, *pipeline, &request));
            let part = |target| open.as_ref().map(|open| open.part(target));
            chosen.extend(route.lanes.iter().enumerate().map(|(target, lane)| (*lane, part(target))));
            if let Some(open) = open {
                awaiting.open(request.id, open, queued_at);
            }
        }
        let Some((last, part)) = chosen.pop() else {
            return ledger.drop_request(DropReason::Removed);
        };
        let claim = ledger.claim(chosen.len() + 1);
        let mut push = |lane: usize, request: Request, part: Option<Part>| {
            if let (Some(batch), Some(to)) = (batches.get_mut(lane), table.lanes.get(lane)) {
                if batch.is_empty() {
                    busy.push(lane);
                }
                batch.push(Job {
                    request,
                    ticket: claim.ticket(&to.books),
                    pipeline: *pipeline,
                    queued_at,
                    part,
                    has_paid: false,
                });
            }
        };
        for (lane, part) in chosen.drain(..) {
            push(lane, request.clone(), part);
        }
        push(last, request, part);
    }
}

/// So many copies that wait are the work of about a millisecond.
const AHEAD: usize = 128;

/// Whether live's answer to a request comes that the experiment at this position took.
fn reads_answers(selection: &Selection, position: usize) -> bool {
    selection.policy.experiments().get(position).is_some_and(|experiment| experiment.reads_answers)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use mirror_common::sample::WHOLE_MILLIONTHS;

    use super::*;
    use crate::{
        io::{
            capture::{Matched, PortSample},
            compare::{
                Comparing, Shared,
                tests::{answer, comparing},
            },
            config::ComparisonConfig,
            experiments::{Lane, Route},
            replay::{Queue, tests::request},
        },
        pipeline::{
            FlowKey, Limits, Segment, SeqNumber, Side, Stats, TcpFlags,
            exchange::Purpose,
            policy::{Experiment, ExperimentId, ExperimentSet},
        },
    };

    fn lane(ledger: &Ledger, target: &str) -> Lane {
        Lane {
            queue: Arc::new(Queue::new(AHEAD, 1 << 20)),
            books: ledger.copies("e", target),
            gauges: Arc::default(),
            is_sampled: Arc::default(),
            sessions: None,
        }
    }

    /// The first segment of a connection to port 80 that is older than the capture.
    fn segment(payload: &[u8]) -> Segment<'_> {
        let end = |port: u16| std::net::SocketAddr::from(([192, 0, 2, 1], port)).into();
        Segment {
            flow: FlowKey { client: end(40_000), server: end(80), vlan: 0, vni: 0 },
            interface: 1,
            side: Side::Client,
            at: Timestamp::from_nanos(1),
            seq: SeqNumber(1),
            ack: SeqNumber(1),
            flags: TcpFlags::ACK,
            payload,
            payload_len: u32::try_from(payload.len()).unwrap(),
        }
    }

    /// A dispatcher with one experiment of two targets, and what one request of it is.
    fn dispatcher(comparing: Option<Arc<Comparing>>) -> (Dispatcher, Request, Arc<Ledger>) {
        let ledger = Arc::<Ledger>::default();
        ledger.publish(&Stats { seen: 1, ..Stats::default() });
        let mut table = Table::default();
        let reads_answers = comparing.is_some();
        table.policy = Arc::new(Policy::from(Experiment { reads_answers, ..Experiment::default() }));
        let lanes = ["a", "b"].map(|target| table.add(lane(&ledger, target))).to_vec();
        table.routes.push(Route { id: ExperimentId(0), lanes, comparing });
        let mut experiments = ExperimentSet::default();
        experiments.insert(0);
        let selection = Selection { policy: Arc::clone(&table.policy), experiments };
        let directory = Arc::<Directory>::default();
        directory.replace(table);
        let request = Request { selection: Arc::new(selection), ..request(b"GET / HTTP/1.1\r\n\r\n", 18) };
        (Dispatcher::new(0, Arc::clone(&ledger), directory), request, ledger)
    }

    #[test]
    fn request_is_handed_on_to_all_targets_and_joined_with_what_live_answers() {
        let shared = Shared::default();
        let experiment = comparing(Some(ComparisonConfig::default()), &[&[], &[]], &shared);
        let (mut dispatcher, request, _ledger) = dispatcher(Some(experiment));
        let id = request.id;
        dispatcher.take(request, clock::now());
        let jobs: Vec<Job> = dispatcher.batches.iter_mut().flat_map(|batch| batch.drain(..)).collect();
        assert_eq!((jobs.len(), dispatcher.awaiting.len()), (2, 1));
        for job in jobs {
            assert!(shared.queue.is_empty());
            job.part.unwrap().answered(answer("", "same"), shared.budget.charge());
        }
        dispatcher.answered(id, &answer("", "live"));
        let exchange = shared.queue.pop(Duration::ZERO).unwrap();
        assert!(
            [&exchange.live, &exchange.answers[0].1, &exchange.answers[1].1]
                .iter()
                .all(|answered| matches!(answered, Answered::Whole(_)))
        );
    }

    #[test]
    fn dispatcher_is_ahead_while_many_copies_wait() {
        let (mut dispatcher, request, _ledger) = dispatcher(None);
        let mut pipeline = Pipeline::new(Purpose::Inspect, Limits::default(), 0);
        for count in 1..=AHEAD {
            dispatcher.take(request.clone(), clock::now());
            dispatcher.dispatch(&mut pipeline);
            assert_eq!(dispatcher.is_ahead(), count == AHEAD, "{count}");
        }
        dispatcher.dispatch(&mut pipeline);
        assert!(!dispatcher.is_ahead(), "nothing came");
    }

    #[test]
    fn connection_that_no_sample_takes_any_more_is_interrupted_and_others_go_on() {
        for (millionths, is_open) in [(WHOLE_MILLIONTHS, true), (0, false)] {
            let directory = Arc::<Directory>::default();
            let mut dispatcher = Dispatcher::new(0, Arc::default(), Arc::clone(&directory));
            let mut pipeline = Pipeline::new(Purpose::Inspect, Limits::default(), 0);
            let bytes = b"POST / HTTP/1.1\r\nContent-Length: 9\r\n\r\nabc";
            pipeline.handle_segment(&segment(bytes));
            let matched = Matched::new(&[80], &[]);
            // Of which it is taken again at once: what passed in between was not.
            let samples = [vec![PortSample { port: 80, lanes: vec![(1, millionths)] }], vec![]];
            let captured = samples.map(|samples| Arc::new(Reach { matched: matched.clone(), samples }));
            directory.replace(Table { captured: (1..).zip(captured).collect(), ..Table::default() });
            dispatcher.turn();
            assert!(dispatcher.has_missed());
            dispatcher.interrupt(&mut pipeline);
            assert!(!dispatcher.has_missed());
            assert_eq!(pipeline.poll_report().is_none(), is_open, "{millionths}");
        }
    }

    #[test]
    fn request_of_which_live_s_answer_is_not_read_opens_nothing() {
        let shared = Shared::default();
        let experiment = comparing(Some(ComparisonConfig::default()), &[&[], &[]], &shared);
        let (mut dispatcher, mut request, _ledger) = dispatcher(Some(experiment));
        // Decided before the experiment came to read answers.
        let policy = Arc::new(Policy::from(Experiment::default()));
        request.selection = Arc::new(Selection { policy, experiments: request.selection.experiments });
        dispatcher.take(request, clock::now());
        let mut jobs = dispatcher.batches.iter_mut().flat_map(|batch| batch.drain(..));
        assert!(jobs.by_ref().all(|job| job.part.is_none()));
        drop(jobs);
        assert!(dispatcher.awaiting.is_empty() && shared.queue.is_empty());
        let (mut dispatcher, request, _ledger) = self::dispatcher(None);
        dispatcher.take(request, clock::now());
        assert_eq!(dispatcher.batches.iter().flatten().filter(|job| job.part.is_none()).count(), 2);
    }
}
