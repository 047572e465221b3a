//! Enters: the items of `--interface`, the interfaces and default routes that there are, what is attached. Leaves: what
//! has to change. Pure: the looking and the doing are elsewhere.

use std::collections::{BTreeMap, BTreeSet};

use crate::io::capture::{
    links::Link,
    pods::PodLinks,
    role::{InterfaceSpec, Pattern, Role},
};

/// An interface that exists, and its role.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Interface {
    /// Its index.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// What the kernel calls its kind, as in [`Link::kind`].
    pub kind: String,
    /// Its role, as said or as found.
    pub role: Role,
    /// Whether the role was said.
    pub is_role_said: bool,
    /// Whether the user named it, rather than describe it.
    pub is_named: bool,
}

/// What this network namespace looks like at one moment, as far as it decides what is attached.
#[derive(Clone, Debug, Default)]
pub struct View {
    /// The interfaces.
    pub links: Vec<Link>,
    /// Indices of those by which the default routes leave; empty where nobody asks for them.
    pub default_routes: BTreeSet<u32>,
    /// The host sides of the pods that experiments are about; nothing where none are.
    pub pods: PodLinks,
}

impl View {
    /// The interfaces that `specs` mean, and those of pods, by index. One that several items mean is there once: an item that names it
    /// goes before those that describe it, else the first one counts.
    #[must_use]
    pub fn desired(&self, specs: &[InterfaceSpec]) -> BTreeMap<u32, Interface> {
        self.links
            .iter()
            .filter_map(|link| {
                let named = specs.iter().find(|spec| spec.name() == Some(&link.name));
                let spec = named.or_else(|| specs.iter().find(|spec| self.is_meant(spec, link)));
                let is_pods = || self.pods.links.contains(&link.index).then(|| Interface::of_pod(link));
                let interface = spec.map(|spec| Interface::new(link, spec)).or_else(is_pods)?;
                Some((link.index, interface))
            })
            .collect()
    }

    /// The items that mean no interface that there is.
    pub fn unmatched<'a>(&self, specs: &'a [InterfaceSpec]) -> impl Iterator<Item = &'a InterfaceSpec> {
        specs.iter().filter(|spec| !self.links.iter().any(|link| self.is_meant(spec, link)))
    }

    /// Whether Cilium runs here: each of its nodes has this device.
    #[must_use]
    pub fn is_ciliums(&self) -> bool {
        self.links.iter().any(|link| link.name == "cilium_host")
    }

    /// Whether `spec` means `link`. The loopback device is meant only by its name: what passes there is as a rule seen
    /// elsewhere too.
    #[must_use]
    pub fn is_meant(&self, spec: &InterfaceSpec, link: &Link) -> bool {
        match &spec.pattern {
            Pattern::Name(name) => *name == link.name,
            Pattern::Glob(glob) => !link.is_loopback && glob.matches(&link.name),
            Pattern::Auto => !link.is_loopback && self.default_routes.contains(&link.index),
        }
    }
}

impl Interface {
    /// A loopback device, named by the user.
    #[must_use]
    pub fn loopback(link: &Link) -> Self {
        let spec = InterfaceSpec { pattern: Pattern::Name(link.name.clone()), role: Some(Role::Loopback) };
        Self::new(link, &spec)
    }

    /// The host side of a pod's interface, whatever addresses it has: some give it the gateway's.
    fn of_pod(link: &Link) -> Self {
        let spec = InterfaceSpec { pattern: Pattern::Auto, role: Some(Role::Pod) };
        Self::new(link, &spec)
    }

    /// The interface of `link`, meant by `spec`.
    #[must_use]
    pub fn new(link: &Link, spec: &InterfaceSpec) -> Self {
        Self {
            index: link.index,
            name: link.name.clone(),
            kind: link.kind.clone(),
            role: spec.role.unwrap_or_else(|| Role::detect(link)),
            is_role_said: spec.role.is_some(),
            is_named: spec.name().is_some(),
        }
    }
}

/// One step from what is attached to what should be.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Change {
    /// Attach the programs of the interface's role.
    Attach(Interface),
    /// Detach what is attached to the interface with this index.
    Detach(u32),
    /// Only the name, or what meant the interface, is another.
    Rename(Interface),
}

/// The steps from `attached` to `desired`. Interfaces with an index in `vanished` have gone at least for a moment, and
/// what was attached to them with them, even where an interface of that index is there again.
#[must_use]
pub fn changes(
    attached: &BTreeMap<u32, Interface>,
    desired: BTreeMap<u32, Interface>,
    vanished: &BTreeSet<u32>,
) -> Vec<Change> {
    let stays = |interface: &Interface| {
        !vanished.contains(&interface.index)
            && desired.get(&interface.index).is_some_and(|wanted| wanted.role == interface.role)
    };
    // All detaching goes first: where a role moves from one interface to another, nothing is seen twice in between.
    let mut changes: Vec<_> = attached
        .values()
        .filter(|interface| !stays(interface))
        .map(|interface| Change::Detach(interface.index))
        .collect();
    changes.extend(desired.into_values().filter_map(|wanted| match attached.get(&wanted.index) {
        Some(interface) if interface.role == wanted.role && !vanished.contains(&wanted.index) => {
            (*interface != wanted).then_some(Change::Rename(wanted))
        }
        _ => Some(Change::Attach(wanted)),
    }));
    changes
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    fn link(index: u32, name: &str, kind: &str) -> Link {
        Link {
            index,
            name: name.to_owned(),
            kind: kind.to_owned(),
            master: None,
            is_up: true,
            is_loopback: name == "lo",
            has_global_address: false,
        }
    }

    fn specs(texts: &[&str]) -> Vec<InterfaceSpec> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn view() -> View {
        View {
            links: vec![
                link(1, "lo", ""),
                link(2, "eth0", ""),
                link(3, "veth1", "veth"),
                link(4, "veth2", "veth"),
            ],
            default_routes: BTreeSet::from([2, 99]),
            pods: PodLinks::default(),
        }
    }

    fn roles(view: &View, texts: &[&str]) -> Vec<(u32, Role)> {
        view.desired(&specs(texts)).into_values().map(|interface| (interface.index, interface.role)).collect()
    }

    #[test]
    fn names_patterns_and_default_routes_mean_interfaces() {
        let view = view();
        assert_eq!(roles(&view, &["eth0"]), [(2, Role::Node)]);
        assert_eq!(roles(&view, &["veth*"]), [(3, Role::Pod), (4, Role::Pod)]);
        assert_eq!(roles(&view, &["auto"]), [(2, Role::Node)]);
        assert_eq!(roles(&view, &["veth[2-9]", "lo"]), [(1, Role::Loopback), (4, Role::Pod)]);
        assert_eq!(roles(&view, &["nothing*"]), []);
    }

    #[test]
    fn loopback_is_meant_by_its_name_only() {
        let mut view = view();
        view.default_routes.insert(1);
        assert_eq!(roles(&view, &["*", "auto"]).first(), Some(&(2, Role::Node)));
        assert_eq!(roles(&view, &["lo"]), [(1, Role::Loopback)]);
    }

    #[test]
    fn a_said_role_goes_before_the_found_one_and_a_name_before_a_pattern() {
        let view = view();
        assert_eq!(roles(&view, &["veth1:node", "eth0:pod"]), [(2, Role::Pod), (3, Role::Node)]);
        assert_eq!(roles(&view, &["veth*:pod", "veth1:node"]), [(3, Role::Node), (4, Role::Pod)]);
        assert_eq!(roles(&view, &["veth?:node", "*:pod"])[1..], [(3, Role::Node), (4, Role::Node)]);
    }

    #[test]
    fn interfaces_of_pods_are_attached_to_beside_those_that_are_named() {
        let mut view = view();
        view.links[3].has_global_address = true;
        view.pods.links = BTreeSet::from([3, 4, 77]);
        assert_eq!(roles(&view, &["eth0"]), [(2, Role::Node), (3, Role::Pod), (4, Role::Pod)]);
        assert_eq!(roles(&view, &["veth1:node"]), [(3, Role::Node), (4, Role::Pod)]);
        assert_eq!(roles(&view, &[]), [(3, Role::Pod), (4, Role::Pod)]);
    }

    #[test]
    fn items_that_mean_nothing_are_told() {
        let (view, specs) = (view(), specs(&["eth0", "lxc*", "auto", "lo*"]));
        let told: Vec<_> = view.unmatched(&specs).map(ToString::to_string).collect();
        assert_eq!(told, ["lxc*", "lo*"]);
    }

    #[test]
    fn only_differences_are_changes() {
        let specs = specs(&["veth*", "eth0"]);
        let attached = view().desired(&specs);
        let none = BTreeSet::new();
        assert_eq!(changes(&attached, view().desired(&specs), &none), []);

        let mut later = view();
        later.links[1].name = "eth1".to_owned();
        later.links[2].has_global_address = true;
        later.links[3].name = "veth9".to_owned();
        later.links.push(link(5, "veth5", "veth"));
        let desired = later.desired(&specs);
        let wanted = |index: u32| desired.get(&index).unwrap().clone();
        assert_eq!(
            changes(&attached, desired.clone(), &none),
            [
                Change::Detach(2),
                Change::Detach(3),
                Change::Attach(wanted(3)),
                Change::Rename(wanted(4)),
                Change::Attach(wanted(5)),
            ]
        );
    }

    #[test]
    fn an_interface_that_was_away_is_attached_again_though_its_index_is_the_same() {
        let attached = view().desired(&specs(&["eth0"]));
        let changes = changes(&attached, attached.clone(), &BTreeSet::from([2, 77]));
        assert_eq!(changes, [Change::Detach(2), Change::Attach(attached.get(&2).unwrap().clone())]);
    }

    #[test]
    fn ten_times_as_many_interfaces_take_some_ten_times_as_long() {
        let specs = specs(&["eth0", "lxc*", "cali*", "veth*", "auto"]);
        let compare = |count: u32| {
            let links = (1..=count).map(|index| link(index, &format!("veth{index:08x}"), "veth")).collect();
            let view = View { links, ..View::default() };
            let begun = Instant::now();
            let attached = view.desired(&specs);
            assert_eq!(changes(&attached, view.desired(&specs), &BTreeSet::new()), []);
            assert_eq!(changes(&BTreeMap::new(), attached, &BTreeSet::new()).len(), count as usize);
            begun.elapsed()
        };
        let quickest = |count| (0..3).map(|_| compare(count)).min().unwrap();

        let (few, many) = (quickest(1_000), quickest(10_000));
        // To hold each against each other would take a hundred times as long.
        assert!(many < 50 * few, "{few:?}, {many:?}");
    }
}
