//! Enters and leaves: everything. All that touches the kernel, sockets, files, threads and clocks is below here.

#[cfg(feature = "runtime")]
pub mod admin;
#[cfg(feature = "runtime")]
pub mod agent;
#[cfg(feature = "runtime")]
pub mod audit;
#[cfg(feature = "runtime")]
pub mod capture;
#[cfg(feature = "runtime")]
pub mod check;
#[cfg(feature = "runtime")]
pub mod cli;
#[cfg(feature = "runtime")]
pub mod compare;
#[cfg(feature = "config")]
pub mod config;
#[cfg(feature = "runtime")]
pub mod control;
#[cfg(feature = "runtime")]
pub mod evidence;
#[cfg(feature = "runtime")]
pub mod experiments;
#[cfg(feature = "captures")]
pub mod file;
#[cfg(feature = "runtime")]
pub mod guard;
#[cfg(feature = "runtime")]
pub mod inspect;
#[cfg(feature = "runtime")]
pub mod interfaces;
#[cfg(feature = "runtime")]
mod join;
#[cfg(feature = "runtime")]
pub mod ledger;
#[cfg(feature = "runtime")]
mod lines;
#[cfg(feature = "runtime")]
pub mod metrics;
#[cfg(feature = "runtime")]
pub mod object;
#[cfg(feature = "runtime")]
mod random;
#[cfg(feature = "runtime")]
pub mod replay;
#[cfg(feature = "runtime")]
pub mod sinks;
#[cfg(feature = "runtime")]
pub mod steering;
#[cfg(feature = "config")]
pub mod target;
#[cfg(feature = "runtime")]
pub mod telling;
#[cfg(feature = "config")]
pub mod units;
#[cfg(feature = "runtime")]
pub mod worker;
