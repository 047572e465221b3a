//! Enters: exchanges, compared. Leaves: rates with their intervals, clusters of divergences, and a verdict.

mod config;

pub use self::config::{GateConfig, JudgeConfig, NoiseThresholds, OnFail};
