//! Enters: nothing. Leaves: how an experiment is judged, as a configuration says it.

use std::time::Duration;

/// How the comparisons of one experiment are judged.
#[derive(Clone, Debug, PartialEq)]
pub struct JudgeConfig {
    /// Templates of paths that are known: `/orders/{id}`. Others are learned.
    pub endpoints: Vec<String>,
    /// Most endpoints that are told apart; the rest are one, `other`.
    pub max_endpoints: usize,
    /// When a difference is more than noise.
    pub noise: NoiseThresholds,
    /// What the verdict asks for; `None` where there is none.
    pub gate: Option<GateConfig>,
}

impl Default for JudgeConfig {
    fn default() -> Self {
        Self { endpoints: Vec::new(), max_endpoints: 200, noise: NoiseThresholds::default(), gate: None }
    }
}

/// By how much the rate of a difference must exceed that of its noise: both.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct NoiseThresholds {
    /// As a share of the sum of both, 0 to 1.
    pub relative: f64,
    /// As a share of the endpoint's exchanges, 0 to 1.
    pub absolute: f64,
}

impl Default for NoiseThresholds {
    fn default() -> Self {
        Self { relative: 0.2, absolute: 0.0003 }
    }
}

/// What a new version has to keep to.
#[derive(Clone, Debug, PartialEq)]
pub struct GateConfig {
    /// Largest share of exchanges that diverge, 0 to 1.
    pub divergence: f64,
    /// Largest p95 of the service time, as a multiple of live's, or of the control's where there is one; `None` for any.
    pub p95: Option<f64>,
    /// By how much the share of errors may exceed live's, or the control's where there is one, 0 to 1.
    pub errors: f64,
    /// Exchanges that are needed for a verdict.
    pub min_samples: u64,
    /// How far back a verdict looks; `None` for all that was seen.
    pub window: Option<Duration>,
    /// What happens when it fails.
    pub on_fail: OnFail,
    /// Whether more than twice the allowed rate of divergences pauses the experiment at once.
    pub pause_on_burn: bool,
}

impl Default for GateConfig {
    fn default() -> Self {
        Self {
            divergence: 0.01,
            p95: Some(1.1),
            errors: 0.005,
            min_samples: 1000,
            window: None,
            on_fail: OnFail::Report,
            pause_on_burn: false,
        }
    }
}

/// What happens when a verdict fails.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum OnFail {
    /// It is told.
    #[default]
    Report,
    /// The experiment is paused, too.
    Pause,
}
