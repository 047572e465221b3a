//! Enters: segments. Leaves: in-order spans of each side of each flow.
//!
//! [`FlowTable`] finds the flow of a segment, decides when flows begin and end and keeps their number and memory
//! within [`Limits`](crate::pipeline::Limits). The bytes of each side go through an assembler, which gives what the
//! receiver's kernel gave its application. The spans go to a [`FlowHandler`], the stage after this one.

mod assembler;
mod entry;
mod list;
mod reorder;
mod stats;
mod table;

pub use stats::{FlowStats, SideStats};
pub use table::{CloseCause, FlowHandler, FlowId, FlowInfo, FlowTable, Interest};
