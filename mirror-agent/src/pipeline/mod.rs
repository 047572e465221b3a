//! Enters: segments and a kernel timestamp. Leaves: requests to replay, and counts of everything else.
//!
//! Plain state machines: no clock, socket, file, thread, lock or log. `handle_*` takes input and never fails
//! (bad input is a counted reason), `poll_*` gives output, time only moves forward, every allocation has a limit.
#![forbid(unsafe_code)]
#![warn(
    clippy::arithmetic_side_effects,
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]
#![cfg_attr(
    test,
    expect(clippy::arithmetic_side_effects, reason = "test arithmetic may overflow: it panics")
)]

pub mod answer;
mod calendar;
pub mod compare;
mod encapsulation;
pub mod engine;
pub mod exchange;
pub mod flow;
pub mod fragment;
pub mod frame;
pub mod http;
pub mod judge;
pub mod limits;
pub mod link;
mod list;
pub mod message;
pub mod orient;
pub mod policy;
pub mod reason;
pub mod redact;
pub mod rewrite;
pub mod segment;
pub mod seq;
pub mod session;
pub mod span;
pub mod stats;
pub mod time;

pub use answer::{Answer, Answered, Timing};
pub use engine::Pipeline;
pub use exchange::{Probe, Unread, probe_id};
pub use limits::Limits;
pub use message::{ExchangeId, ReplyTo, Request};
pub use policy::Policy;
pub use segment::{Endpoint, FlowKey, Segment, Side, TcpFlags};
pub use seq::SeqNumber;
pub use span::{Acked, GapCause, Span};
pub use stats::Stats;
pub use time::Timestamp;
