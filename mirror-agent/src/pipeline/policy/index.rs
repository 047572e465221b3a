//! Enters: a request. Leaves: the experiments of which a rule fits it.
//!
//! A rule is looked at only where the request has a clue to it: one thing that the rule asks for, chosen so that few other
//! rules are found by the same. What is decided is what holding every rule against the request would decide.

use std::collections::BTreeMap;

use super::{
    ExperimentSet, MethodSet, Rule,
    asked::Asked,
    beginnings::Beginnings,
    clue::{Clue, HOST_BYTES, backwards},
    names::Values,
};

/// Rules of all experiments, found by clues.
#[derive(Clone, Debug, Default)]
pub(super) struct RuleIndex {
    /// Experiments with a rule that asks for methods alone.
    of_methods: Vec<(MethodSet, ExperimentSet)>,
    paths: Beginnings<Vec<Place>>,
    hosts: Beginnings<Vec<Place>>,
    fields: BTreeMap<usize, Named>,
    params: BTreeMap<usize, Named>,
    /// Those to which there is no clue, by experiment.
    others: BTreeMap<usize, Vec<Place>>,
}

/// Where a rule stands.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    /// Position of its experiment in the policy.
    pub(super) experiment: usize,
    /// Its own in the experiment's list.
    pub(super) rule: usize,
}

/// Rules that ask for a value by its name.
#[derive(Clone, Debug, Default)]
struct Named {
    /// For any value.
    any: Vec<Place>,
    /// For this one.
    exact: BTreeMap<Box<[u8]>, Vec<Place>>,
}

/// Of which experiments a rule fits a request.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Fitting {
    /// One fits.
    pub(super) fits: ExperimentSet,
    /// One fits but for its methods; what is in `fits` may be among them.
    pub(super) fits_beside_method: ExperimentSet,
}

/// Rules with the same clue that make it no worse than another: looking at them costs less than taking a head apart for
/// a clue that fewer have.
const FEW: usize = 4;

impl RuleIndex {
    /// The index of these rules, which know the places of what they ask for.
    pub(super) fn new<'r>(rules: impl Iterator<Item = (Place, &'r Rule)> + Clone) -> Self {
        let mut shared: BTreeMap<Clue, usize> = BTreeMap::new();
        for clue in rules.clone().flat_map(|(_, rule)| rule.clues()).flatten() {
            let count = shared.entry(clue).or_default();
            *count = count.saturating_add(1);
        }
        let weight = |clues: &Vec<Clue>| {
            clues.iter().filter_map(|clue| shared.get(clue)).fold(FEW, |most, count| most.max(*count))
        };

        let mut index = Self::default();
        let (mut paths, mut hosts) = (BTreeMap::new(), BTreeMap::new());
        for (place, rule) in rules {
            if let Some(methods) = rule.methods_alone() {
                index.add_methods(methods, place.experiment);
                continue;
            }
            // Of several that are as good the first, which costs the least to find.
            let Some(clues) = rule.clues().into_iter().min_by_key(weight) else {
                index.others.entry(place.experiment).or_default().push(place);
                continue;
            };
            for clue in clues {
                let places: &mut Vec<_> = match clue {
                    Clue::Path(text) => paths.entry(text).or_default(),
                    Clue::Host(text) => hosts.entry(text).or_default(),
                    Clue::Field(name, value) => index.fields.entry(name).or_default().places(value),
                    Clue::Param(name, value) => index.params.entry(name).or_default().places(value),
                };
                places.push(place);
            }
        }
        Self { paths: paths.into(), hosts: hosts.into(), ..index }
    }

    fn add_methods(&mut self, methods: &MethodSet, experiment: usize) {
        if let Some((_, experiments)) = self.of_methods.iter_mut().find(|(known, _)| known == methods) {
            return experiments.insert(experiment);
        }
        let mut experiments = ExperimentSet::default();
        experiments.insert(experiment);
        self.of_methods.push((methods.clone(), experiments));
    }

    /// Holds a request against the rules of the experiments in `among`; `rule` tells what stands at a place.
    pub(super) fn fitting<'r>(
        &self,
        asked: &Asked<'_, '_>,
        among: ExperimentSet,
        rule: impl Fn(Place) -> Option<&'r Rule>,
    ) -> Fitting {
        let mut found = Fitting::default();
        for (methods, experiments) in &self.of_methods {
            let to = if methods.contains(asked.method_bit, asked.head.method) {
                &mut found.fits
            } else {
                &mut found.fits_beside_method
            };
            *to = to.union(experiments.intersection(among));
        }
        if among.without(found.fits).is_empty() {
            return found;
        }
        let mut look = |places: &[Place]| {
            for place in places.iter().filter(|place| among.contains(place.experiment)) {
                found.look(asked, *place, &rule);
            }
        };
        if !self.paths.is_empty() {
            self.paths.of(asked.target().path).for_each(|places| look(places));
        }
        if let Some(host) = asked.target().host.filter(|_| !self.hosts.is_empty()) {
            self.hosts.of(backwards(host, &mut [0; HOST_BYTES])).for_each(|places| look(places));
        }
        if !self.fields.is_empty() {
            look_up(&self.fields, asked.fields(), &mut look);
        }
        if !self.params.is_empty() {
            look_up(&self.params, asked.params(), &mut look);
        }
        for (_, places) in self.others.iter().filter(|(experiment, _)| among.contains(**experiment)) {
            look(places);
        }
        found
    }
}

impl Named {
    fn places(&mut self, value: Option<Box<[u8]>>) -> &mut Vec<Place> {
        match value {
            Some(value) => self.exact.entry(value).or_default(),
            None => &mut self.any,
        }
    }
}

impl Fitting {
    /// Holds the request against the rule at a place, unless that could change nothing.
    fn look<'r>(&mut self, asked: &Asked<'_, '_>, place: Place, rule: &impl Fn(Place) -> Option<&'r Rule>) {
        let Place { experiment, .. } = place;
        if self.fits.contains(experiment) {
            return;
        }
        let Some(rule) = rule(place) else { return };
        let to = if rule.fits_method(asked) { &mut self.fits } else { &mut self.fits_beside_method };
        if !to.contains(experiment) && rule.fits_beside_method(asked) {
            to.insert(experiment);
        }
    }
}

/// Looks at the rules to which the values of a request are clues.
fn look_up(names: &BTreeMap<usize, Named>, values: &Values<'_>, look: &mut impl FnMut(&[Place])) {
    for (name, value) in values.iter() {
        let Some(named) = names.get(&name) else { continue };
        look(&named.any);
        if let Some(places) = named.exact.get(value) {
            look(places);
        }
    }
}
