//! Enters: packets. Leaves: copies of requests at a shadow, and an account of every one of them.
//!
//! [`pipeline`] is pure: it is told the time and the bytes and answers with values. [`io`] holds all that touches
//! the world and imports the pipeline, never the reverse. `ARCHITECTURE.md` draws the map.

#[cfg(any(feature = "captures", feature = "config"))]
pub mod io;
pub mod pipeline;
