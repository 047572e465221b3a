//! Enters: nothing. Leaves: what the kernel tests, the demo and the bench share.
//!
//! Hosts are network namespaces of this machine, servers and load are threads of this process that have moved into
//! them, and the agent is a child process. Nothing here uses the agent's own code: it is the yardstick.

pub mod agent;
mod answers;
pub mod browser;
pub mod classifier;
pub mod client;
pub mod cluster;
pub mod corpus;
pub mod digest;
pub mod foreign;
pub mod frame_gen;
pub mod frames;
pub mod histogram;
pub mod http;
pub mod load;
pub mod metrics;
pub mod netns;
pub mod nginx;
pub mod overlay;
pub mod parity;
pub mod relay;
pub mod report;
pub mod rng;
pub mod scenario;
pub mod server;
pub mod shop;
pub mod slowness;
pub mod soak;
pub mod sys;
pub mod terminal;
pub mod traffic;
pub mod verdict;
