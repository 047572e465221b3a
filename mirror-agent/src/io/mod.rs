//! Enters and leaves: everything. All that touches the kernel, sockets, files, threads and clocks is below here.

#[cfg(feature = "runtime")]
pub mod admin;
#[cfg(feature = "runtime")]
pub mod agent;
#[cfg(feature = "runtime")]
pub mod capture;
#[cfg(feature = "runtime")]
pub mod check;
#[cfg(feature = "runtime")]
pub mod cli;
#[cfg(feature = "config")]
pub mod config;
#[cfg(feature = "runtime")]
pub mod experiments;
#[cfg(feature = "captures")]
pub mod file;
#[cfg(feature = "runtime")]
pub mod inspect;
#[cfg(feature = "runtime")]
pub mod interfaces;
#[cfg(feature = "runtime")]
mod join;
#[cfg(feature = "runtime")]
pub mod ledger;
#[cfg(feature = "runtime")]
pub mod metrics;
#[cfg(feature = "runtime")]
pub mod object;
#[cfg(feature = "runtime")]
pub mod replay;
#[cfg(feature = "config")]
pub mod target;
#[cfg(feature = "config")]
pub mod units;
#[cfg(feature = "runtime")]
pub mod worker;
