//! Enters and leaves: everything. All that touches the kernel, sockets, files, threads and clocks is below here.

pub mod admin;
pub mod cli;
pub mod capture;
pub mod check;
pub mod inspect;
pub mod ledger;
pub mod metrics;
pub mod object;
pub mod units;
