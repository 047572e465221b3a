//! Enters and leaves: everything. All that touches the kernel, sockets, files, threads and clocks is below here.

pub mod ledger;
pub mod replay;
