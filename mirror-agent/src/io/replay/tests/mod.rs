//! Enters: requests, and shadows that behave in every way there is. Leaves: proof that the books balance.

mod audit;
mod faults;
mod harness;
mod limits;
mod order;
mod protection;
mod server;
mod torture;
mod transfer;

pub(in crate::io) use harness::request;
pub(super) use harness::{Books, Sockets};
