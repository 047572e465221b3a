//! Enters: exchanges, compared. Leaves: rates with their intervals, clusters of divergences, and a verdict.

mod config;
mod endpoint;
mod interval;
mod look;
mod sketch;
mod tally;

pub use self::config::{GateConfig, JudgeConfig, NoiseThresholds, OnFail};
pub use self::interval::Interval;
