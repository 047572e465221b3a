//! Enters: a job that has left the queue. Leaves: the same until it is settled, its bytes counted as held until then.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use super::{lanes::Turn, protection::Pass, queue::Job};
use crate::{
    io::{
        compare::Part,
        ledger::{DropReason, ReplayOutcome, Ticket},
    },
    pipeline::{Request, Timestamp},
};

/// A job that has left the queue. Its bytes count as held until the lease is let go.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) request: Request,
    pub(super) ticket: Ticket,
    pub(super) pipeline: u16,
    pub(super) queued_at: Timestamp,
    /// Whether it counts against the target's rate already.
    pub(super) has_paid: bool,
    /// The circuit breaker's, once it has let it through.
    pub(super) pass: Option<Pass>,
    /// That of its lane, where order is kept. In a box, so that a job is no longer to move where it is not.
    pub(super) turn: Option<Box<Turn>>,
    /// How often a connection was opened for it.
    pub(super) openings: usize,
    /// Its number in its lane, where order is kept.
    pub(super) number: u64,
    /// Where its answer is awaited.
    pub(super) part: Option<Part>,
    /// Held for as long as the request is.
    lease: Lease,
}

impl Held {
    /// A job, the bytes of which `held_bytes` counts.
    pub(super) fn new(job: Job, held_bytes: Arc<AtomicUsize>) -> Self {
        let lease = Lease { held_bytes, len: job.request.raw.len() };
        Self {
            request: job.request,
            ticket: job.ticket,
            pipeline: job.pipeline,
            queued_at: job.queued_at,
            has_paid: job.has_paid,
            pass: None,
            turn: None,
            openings: 0,
            number: 0,
            part: job.part,
            lease,
        }
    }

    /// The job as it was in the queue; its bytes go on being counted.
    pub(super) fn into_job(self) -> Job {
        let Self { request, ticket, pipeline, queued_at, part, has_paid, lease, .. } = self;
        // The lease lets go of as much.
        lease.held_bytes.fetch_add(lease.len, Ordering::Relaxed);
        drop(lease);
        Job { request, ticket, pipeline, queued_at, part, has_paid }
    }

    /// Settles the copy as dropped.
    pub(super) fn drop_for(self, reason: DropReason) {
        self.ticket.dropped(reason);
    }

    /// Settles the copy as dropped because of how the attempt to send it ended.
    pub(super) fn fail(self, outcome: ReplayOutcome, reason: DropReason) {
        if let Some(pass) = self.pass {
            pass.ended(outcome, None);
        }
        self.ticket.dropped(reason);
    }
}

/// Bytes that count against the queue's limit.
#[derive(Debug)]
struct Lease {
    held_bytes: Arc<AtomicUsize>,
    len: usize,
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.held_bytes.fetch_sub(self.len, Ordering::Relaxed);
    }
}
