//! Enters and leaves: everything. All that touches the kernel, sockets, files, threads and clocks is below here.

pub mod admin;
pub mod agent;
pub mod capture;
pub mod check;
pub mod cli;
pub mod inspect;
pub mod interfaces;
pub mod ledger;
pub mod metrics;
pub mod object;
pub mod replay;
pub mod units;
pub mod worker;
