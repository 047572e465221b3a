//! Enters: packets of the named interfaces, through the kernel program. Leaves: segments for the pipeline.

mod answers;
mod attach;
pub mod bypass;
mod counters;
pub mod desired;
mod filters;
pub mod follow;
mod glob;
pub mod kernel;
pub mod links;
mod loader;
mod lock;
mod matched;
mod netlink;
mod own;
pub mod pods;
mod presence;
mod ring;
pub mod role;
mod rules;
mod samples;
pub(super) mod sys;
mod tables;
mod unread;
mod watch;

pub use attach::{AttachError, AttachMethod, AttachMode, Attachment};
pub use counters::{CounterValues, FRAME_DROPS, KernelCounters};
pub use glob::Glob;
pub use loader::{Capture, Kernel, LoadError, Shed};
pub use lock::{AgentName, AgentNameError, NamespaceTurn};
pub use matched::Matched;
pub use netlink::NetlinkError;
pub use own::{OwnSockets, OwnSocketsError};
pub use ring::{Captured, RingReader};
pub use rules::{KernelRules, RulesError};
pub use samples::{PortSample, port_samples};
pub use unread::UnreadFlows;

#[cfg(test)]
mod tests;
