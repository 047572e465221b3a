//! Enters: requests, and shadows that behave in every way there is. Leaves: proof that the books balance.

mod at_once;
mod audit;
mod faults;
mod harness;
mod interlock;
mod kept;
mod limits;
mod order;
mod pipelined;
mod probes;
mod protection;
mod server;
mod sessions;
mod tls;
pub(in crate::io) mod tls_server;
mod torture;
mod transfer;

pub(in crate::io) use harness::request;
pub(super) use harness::{Books, Sockets};
