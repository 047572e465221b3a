//! Enters: places that look like noise. Leaves: the rules that would explain them, to be accepted or not.

use std::{collections::BTreeMap, sync::Arc};

use serde::Serialize;

use super::{
    interval::{Interval, rate},
    look::{LAST_BITS, Look},
    place::{Looks, Place, Standing},
    scope::Scope,
};
use crate::pipeline::{
    compare::{Action, ArrayForm, ArrayRule, Place as RulePlace, Rule, Tolerance},
    reason::DivergenceKind,
};

/// What an identifier is made of: long runs, hashes, and whatever has a digit.
const IDENTIFIER: &str = "[0-9A-Za-z+/=_.-]{12,}|[0-9A-Fa-f]{8,}|[0-9A-Za-z]*[0-9][0-9A-Za-z]*";

/// Differences that look like noise, and what would explain them.
#[derive(Clone, Debug, Serialize)]
pub struct Proposal {
    /// Its name, by which it is accepted; the same as long as the place is.
    pub name: String,
    /// The endpoint alone for which it is; `None` for all.
    pub endpoint: Option<Arc<str>>,
    /// Where: `$.meta.served_at`, `header:etag`.
    pub path: Arc<str>,
    /// How they differ there.
    pub kind: DivergenceKind,
    /// What they look like.
    pub looks: Looks,
    /// Exchanges in which they differ there.
    pub seen: u64,
    /// Exchanges of the endpoints concerned.
    pub exchanges: u64,
    /// The share of them.
    pub rate: Interval,
    /// What the rule would do, in words.
    pub action: &'static str,
    /// What would explain them.
    #[serde(skip)]
    pub remedy: Remedy,
}

/// What explains noise.
#[derive(Clone, Debug, PartialEq)]
pub enum Remedy {
    /// A rule.
    Rule(Rule),
    /// That an array is a set; for all endpoints.
    Array(ArrayRule),
}

/// What was accepted as noise.
#[derive(Clone, Debug)]
pub(super) struct Accepted {
    endpoint: Option<Arc<str>>,
    path: Arc<str>,
    kind: DivergenceKind,
    look: Look,
}

impl Accepted {
    /// Whether it explains a place of this endpoint.
    pub(super) fn covers(&self, endpoint: &Arc<str>, place: &Place) -> bool {
        (self.path == place.path && self.kind == place.kind && self.look == place.look)
            && self.endpoint.as_ref().is_none_or(|only| only == endpoint)
    }
}

impl Proposal {
    /// What is noise once this is accepted.
    pub(super) fn accepted(&self) -> Accepted {
        Accepted {
            endpoint: self.endpoint.clone(),
            path: Arc::clone(&self.path),
            kind: self.kind,
            look: look(self.looks),
        }
    }
}

/// The places that are proposed, those of the same path in several endpoints as one, unless it is known to be more than
/// noise in another.
pub(super) fn proposals<'a>(scopes: impl Iterator<Item = &'a Scope> + Clone) -> Vec<Proposal> {
    let mut found = BTreeMap::<(&Arc<str>, usize, usize), Vec<(&Scope, &Place, Looks)>>::new();
    for scope in scopes.clone() {
        for (_, place) in scope.places.iter() {
            if let (Standing::Proposed, Some(looks)) = (place.standing, place.looks) {
                let key = (&place.path, place.kind.index(), looks.index());
                found.entry(key).or_default().push((scope, place, looks));
            }
        }
    }
    let mut proposals = Vec::new();
    for (_, of_one_path) in found {
        let Some((_, place, looks)) = of_one_path.first().copied() else { continue };
        let is_real_elsewhere = || {
            scopes
                .clone()
                .flat_map(|scope| scope.places.iter())
                .any(|(_, other)| other.standing == Standing::Real && other.hash == place.hash)
        };
        let is_for_all = looks == Looks::Order
            || ((of_one_path.len() > 1 || place.path.starts_with("header:")) && !is_real_elsewhere());
        if is_for_all {
            proposals.push(propose(None, place, looks, &of_one_path));
        } else {
            let each = of_one_path.iter().map(|one| propose(Some(&one.0.name), one.1, looks, &[*one]));
            proposals.extend(each);
        }
    }
    proposals
}

fn propose(
    endpoint: Option<&Arc<str>>,
    place: &Place,
    looks: Looks,
    of: &[(&Scope, &Place, Looks)],
) -> Proposal {
    let seen = of.iter().fold(0_u64, |sum, (_, place, _)| sum.saturating_add(place.raw));
    let exchanges = of.iter().fold(0_u64, |sum, (scope, ..)| sum.saturating_add(scope.compared.total()));
    let salt = endpoint.map_or(0, |endpoint| Scope::hash_of(endpoint));
    let name = format!("{}-{:08x}", looks.as_str().replace('_', "-"), (place.hash ^ salt) >> 32);
    let (action, remedy) = remedy(&name, endpoint, place, looks);
    Proposal {
        name,
        endpoint: endpoint.cloned(),
        path: Arc::clone(&place.path),
        kind: place.kind,
        looks,
        seen,
        exchanges,
        rate: rate(seen, exchanges, super::ALPHA),
        action,
        remedy,
    }
}

fn remedy(name: &str, endpoint: Option<&Arc<str>>, place: &Place, looks: Looks) -> (&'static str, Remedy) {
    let at = rule_place(&place.path);
    let within = |absolute: f64, relative: f64| Action::Tolerate(Tolerance { absolute, relative });
    let replace =
        |pattern: &str, with: &str| Action::Replace { pattern: pattern.to_owned(), with: with.to_owned() };
    let (words, action) = match (looks, &at) {
        (Looks::Order, RulePlace::Path(path)) => {
            return ("set", Remedy::Array(ArrayRule { path: path.clone(), form: ArrayForm::Set }));
        }
        (Looks::LastBits, _) => ("tolerate", within(0.0, LAST_BITS)),
        (Looks::Timestamp, _) => ("timestamp", Action::Timestamp),
        (Looks::Uuid, _) => ("uuid", Action::Uuid),
        (Looks::Identifier, _) => ("replace", replace(IDENTIFIER, "{}")),
        (Looks::Drawn, _) => ("replace", replace("(?s)^.*$", "{}")),
        (Looks::Counter | Looks::Order, _) => ("ignore", Action::Ignore),
    };
    let endpoint = endpoint.map(ToString::to_string);
    (words, Remedy::Rule(Rule { name: name.to_owned(), place: at, endpoint, action }))
}

/// The place of a rule for what is told of at this path.
fn rule_place(path: &str) -> RulePlace {
    if let Some(name) = path.strip_prefix("header:") {
        RulePlace::Header(name.to_owned())
    } else if let Some(name) = path.strip_prefix("form:") {
        RulePlace::Form(name.to_owned())
    } else if path.starts_with('$') {
        RulePlace::Path(path.replace("[]", "[*]"))
    } else {
        RulePlace::Text
    }
}

/// What values look like that are noise of this kind.
const fn look(looks: Looks) -> Look {
    match looks {
        Looks::Counter => Look::Number,
        Looks::Drawn => Look::Plain,
        Looks::Identifier => Look::Identifier,
        Looks::LastBits => Look::LastBits,
        Looks::Order => Look::Order,
        Looks::Timestamp => Look::Timestamp,
        Looks::Uuid => Look::Uuid,
    }
}
