//! Enters and leaves: everything. All that touches the kernel, sockets, files, threads and clocks is below here.

pub mod inspect;
pub mod ledger;
