//! Enters: answers in every order, and none. Leaves: proof that each exchange comes out once, with all of them.

mod cell;
mod cost;
mod sessions;

use std::{sync::Arc, time::Duration};

use super::*;
use crate::{
    io::config::{SessionConfig, SessionSource, SessionUse},
    pipeline::{Answer, reason::UntimedReason},
};

/// An experiment with a target for each of `sessions`.
pub(in crate::io) fn comparing(
    config: Option<ComparisonConfig>,
    sessions: &[&[SessionConfig]],
    shared: &Shared,
) -> Arc<Comparing> {
    let targets = sessions.iter().enumerate().map(|(number, sessions)| ComparedTarget {
        name: format!("t{number}"),
        role: TargetRole::Shadow,
        sessions: Sessions::new(sessions).unwrap(),
    });
    let id = (ExperimentId(1), "orders");
    Arc::new(Comparing::new(id, config, None, targets.collect(), (1, shared.clone())))
}

/// A cookie of this name, as `set-cookie` has it and `cookie` bears it.
pub(in crate::io) fn cookie(name: &str) -> SessionConfig {
    SessionConfig {
        from: SessionSource::Cookie(name.to_owned()),
        into: vec![SessionUse::Cookie(name.to_owned())],
        ttl: Duration::from_secs(60),
        max: 100,
    }
}

/// An answer with these header lines and this content.
pub(in crate::io) fn answer(lines: &str, content: &str) -> Answered {
    Answered::Whole(Answer {
        status: 200,
        head: format!("HTTP/1.1 200 OK\r\n{lines}\r\n").into_bytes().into(),
        content: content.as_bytes().to_vec().into(),
        timing: Err(UntimedReason::Unknown),
    })
}

#[test]
fn experiment_is_the_same_while_its_targets_and_rules_are() {
    let shared = Shared::default();
    let known = comparing(Some(ComparisonConfig::default()), &[&[cookie("sid")]], &shared);
    let config = known.config.clone();
    assert!(known.is_of(config.as_ref(), &known.targets));
    assert!(!known.is_of(None, &known.targets) && !known.is_of(config.as_ref(), &[]));
    let mut other = config.clone();
    other.as_mut().unwrap().rules.content_bytes = 1;
    assert!(!known.is_of(other.as_ref(), &known.targets));
    let renewed = comparing(config.clone(), &[&[cookie("sid")]], &shared);
    assert!(!known.is_of(config.as_ref(), &renewed.targets), "its sessions are others");
}
