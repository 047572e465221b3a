//! Enters: segments. Leaves: in-order spans of each side of each flow.
//!
//! [`FlowTable`] finds the flow of a segment, decides when flows begin and end and keeps their number and memory
//! within [`Limits`](crate::pipeline::Limits). The bytes of each side go through an assembler, which gives what the
//! receiver's kernel gave its application. The spans go to a [`FlowHandler`], the stage after this one.
//!
//! **Offsets.** A stream begins at the byte behind its SYN; where that was not seen, at what the peer's SYN
//! acknowledged, else at the first data seen. What comes later but lies before is taken for a duplicate. An
//! acknowledgement of bytes before the beginning is offset 0, one by a side whose peer has shown neither SYN nor data
//! is `None`, and one of a FIN that the capture missed may be one more than the stream has bytes.
//!
//! **Order.** What an acknowledgement says about the peer's stream is handed on before the data of the segment that
//! carried it. So is what is held out of order when a flow is evicted or the capture ends, its gaps declared; at a
//! reset only what was acknowledged.
//!
//! **Interfaces.** A connection that passes two of them is one flow, also where it has another server address, tag or
//! network at the second: its client's address and port and its sequence numbers tell. What one of them missed, the
//! other makes up for. Two keys with the same client at one interface are always two flows.
//!
//! **Trust.** A number more than 1 GiB away from the next expected one moves nothing, and does not keep its flow from
//! being evicted as idle, unless both sides give one: then the stream goes on there, behind a gap of which nobody knows
//! how long it is. An RST must lie within [`Limits::reorder_bytes`](crate::pipeline::Limits::reorder_bytes).
//! After both sides have ended, a request whose numbers are none of the flow's opens another one, as it would where the first
//! had been forgotten; whatever may be sent again of the first opens nothing.
//! An ACK within 1 GiB is believed: whoever forges one damages what is mirrored of that flow, nothing else.
//!
//! **Refused.** What no receiver takes counts for nothing: a segment that has neither ACK nor SYN nor RST; data in a SYN
//! within a connection; data of a client that has not yet shown that it hears its server, where they acknowledge what the
//! server, whose SYN-ACK was seen, has not sent. The data of a SYN that opens a connection, and all that follows, wait until
//! its receiver acknowledges them, or the SYN alone. The last two ask for causal order, so not of capture files.

mod arrival;
mod assembler;
mod clock;
mod entry;
mod handler;
mod holders;
mod reorder;
mod sightings;
mod stats;
mod table;

pub use handler::{CloseCause, FlowHandler, FlowId, FlowInfo, Interest};
pub use stats::{FlowStats, SideStats};
pub use table::FlowTable;

#[cfg(test)]
mod tests;
