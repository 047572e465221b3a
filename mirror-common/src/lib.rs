//! Enters: nothing. Leaves: the definitions that the kernel program and the agent must agree on.
//!
//! This crate is the ground floor: it has no dependencies, no unsafe code and no standard library, and it is
//! the only place where the layout of a record, the names of the maps and the counters are written down.
#![no_std]
#![forbid(unsafe_code)]

pub mod counter;
pub mod maps;
pub mod packet;
pub mod record;
pub mod sample;
pub mod unread;

pub use counter::Counter;
pub use record::{RecordFlags, RecordHeader, RecordSide};
