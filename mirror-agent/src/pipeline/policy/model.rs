//! Enters: a request. Leaves: what its policy decides about it, found the slow way.
//!
//! Each experiment for itself, and of each rule after rule: tests and the fuzz target `policy` hold the index against it.

use super::{Experiment, ExperimentSet, Policy, asked::Asked, sample::Refused};
use crate::pipeline::{Endpoint, FlowKey, http::RequestHead, reason::SkipReason};

/// What [`Policy::decide`] says, and each experiment that left the request aside with its reason, in their order.
///
/// # Errors
///
/// The reason to skip it.
pub fn decide(
    policy: &Policy,
    flow: &FlowKey,
    head: &RequestHead<'_>,
    draw: u64,
    mut skipped: impl FnMut(usize, SkipReason),
) -> Result<ExperimentSet, SkipReason> {
    for (is_so, reason) in [
        (head.facts.has_mirror_id, SkipReason::Marked),
        (head.facts.connect, SkipReason::Connect),
        (head.facts.upgrade, SkipReason::Upgrade),
    ] {
        if is_so {
            return Err(reason);
        }
    }
    let asked = Asked::new(&policy.wanted, flow, head, draw);
    let mut taken = ExperimentSet::default();
    let mut closest = SkipReason::Unmatched;
    for (position, experiment) in policy.experiments.iter().enumerate().take(ExperimentSet::CAPACITY) {
        if !concerns(experiment, &flow.server) {
            continue;
        }
        match refuse(experiment, &asked) {
            None => taken.insert(position),
            Some(reason) => {
                skipped(position, reason);
                if stage(reason) > stage(closest) {
                    closest = reason;
                }
            }
        }
    }
    if taken.is_empty() { Err(closest) } else { Ok(taken) }
}

/// Whether requests to `server` are the experiment's business at all.
pub(super) fn concerns(experiment: &Experiment, server: &Endpoint) -> bool {
    let Experiment { servers, ports, addresses, .. } = experiment;
    if let Some(servers) = servers {
        return servers.contains(server);
    }
    (ports.is_empty() || ports.contains(&server.port))
        && (addresses.is_empty() || addresses.iter().any(|network| network.contains(server.addr)))
}

/// Why the request is not the experiment's; `None` where it is.
fn refuse(experiment: &Experiment, asked: &Asked<'_, '_>) -> Option<SkipReason> {
    let Experiment { matches, excludes, sample, is_paused, .. } = experiment;
    if *is_paused {
        Some(SkipReason::Paused)
    } else if !matches.iter().any(|rule| rule.fits_beside_method(asked)) {
        Some(SkipReason::Unmatched)
    } else if !matches.iter().any(|rule| rule.fits_method(asked) && rule.fits_beside_method(asked)) {
        Some(SkipReason::Method)
    } else if excludes.iter().any(|rule| rule.fits_method(asked) && rule.fits_beside_method(asked)) {
        Some(SkipReason::Excluded)
    } else {
        sample.refuse(asked).map(|refused| match refused {
            Refused::NoKey => SkipReason::NoKey,
            Refused::NotDrawn => SkipReason::Sampled,
        })
    }
}

/// How far a request came before an experiment left it aside.
fn stage(reason: SkipReason) -> Option<usize> {
    let stages = [
        SkipReason::Unmatched,
        SkipReason::Paused,
        SkipReason::Method,
        SkipReason::Excluded,
        SkipReason::NoKey,
        SkipReason::Sampled,
    ];
    stages.iter().position(|stage| *stage == reason)
}
