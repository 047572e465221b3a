//! Enters: requests, and shadows that behave in every way there is. Leaves: proof that the books balance.

mod faults;
mod harness;
mod interlock;
mod limits;
mod probes;
mod server;
mod tls;
mod tls_server;
mod transfer;

pub(super) use harness::{Books, Sockets, request};
