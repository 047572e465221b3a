//! Enters: the classifier filters and qdiscs of an interface, from rtnetlink. Leaves: which are ours, and where one
//! of ours can stand without being in anybody's way.

use std::collections::HashMap;

use mirror_common::maps::program;

use crate::io::capture::{
    netlink::{NetlinkError, attributes, dump, read_u32, text},
    role::Hook,
};

/// The priority taken where no filter is in the way. Scripts commonly say `prio 1`, and adding a filter of another
/// kind fails where the priority is taken; the lowest numbers are left to others.
const PREFERRED_PRIORITY: u16 = 9;

/// `ETH_P_ALL`: a filter that sees every packet.
const PROTOCOL_ALL: u16 = 0x0003;

const TCMSG_LEN: usize = 20;
const TCA_OPTIONS: u16 = 2;
const TCA_CHAIN: u16 = 11;
const TCA_BPF_NAME: u16 = 7;

/// A classifier filter at a hook.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Filter {
    /// What the kernel calls its kind: `bpf`, `matchall`, `flower`.
    pub(super) kind: String,
    /// Its priority; the lowest number runs first.
    pub(super) priority: u16,
    /// The protocol it sees, as an `ETH_P_*`.
    pub(super) protocol: u16,
    /// Its handle; zero for the entry that stands for all filters of a priority.
    pub(super) handle: u32,
    /// The name that a `bpf` filter was given.
    pub(super) name: Option<String>,
}

impl Filter {
    /// Whether it bears the name of one of this agent's programs.
    pub(super) fn is_mirror(&self) -> bool {
        let ours = [program::REQUESTS, program::RESPONSES, program::BOTH];
        self.kind == "bpf"
            && self.handle != 0
            && self.name.as_deref().is_some_and(|name| ours.contains(&name))
    }
}

/// The qdisc that carries classifiers.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Qdisc {
    /// `clsact`: ingress and egress.
    Clsact,
    /// `ingress`: no egress hook, and no room for a `clsact` beside it.
    IngressOnly,
}

/// Lists the filters at a hook, in the order in which they run.
pub(super) fn filters(ifindex: u32, hook: Hook) -> Result<Vec<Filter>, NetlinkError> {
    let parse = |body: &[u8]| (read_u32(body, 4) == Some(ifindex)).then(|| parse_filter(body)).flatten();
    let mut filters = dump(libc::RTM_GETTFILTER, &tcmsg(ifindex, parent(hook)), parse)?;
    filters.sort_by_key(|filter| filter.priority);
    Ok(filters)
}

/// Finds the qdiscs that carry classifiers, by interface index.
pub(super) fn qdiscs() -> Result<HashMap<u32, Qdisc>, NetlinkError> {
    let qdiscs = dump(libc::RTM_GETQDISC, &tcmsg(0, 0), |body| {
        let kind = match kind(body) {
            Some("clsact") => Qdisc::Clsact,
            Some("ingress") => Qdisc::IngressOnly,
            _ => return None,
        };
        Some((read_u32(body, 4)?, kind))
    })?;
    Ok(qdiscs.into_iter().collect())
}

/// The priority at which a `bpf` filter runs before as many of `others` as can be.
///
/// Filters at one priority share a kind and a protocol. Among `bpf` filters at one priority the youngest runs first.
pub(super) fn priority_before(others: &[Filter]) -> u16 {
    let Some(first) = others.iter().min_by_key(|filter| filter.priority) else { return PREFERRED_PRIORITY };
    if first.priority > 1 {
        return PREFERRED_PRIORITY.min(first.priority - 1);
    }
    let shares = |filter: &Filter| filter.kind == "bpf" && filter.protocol == PROTOCOL_ALL;
    (1..=u16::MAX)
        .find(|&priority| others.iter().filter(|filter| filter.priority == priority).all(shares))
        .unwrap_or(PREFERRED_PRIORITY)
}

/// A `struct tcmsg`: family, three bytes of padding, interface, handle, parent, info.
fn tcmsg(ifindex: u32, parent: u32) -> [u8; TCMSG_LEN] {
    let mut message = [0; TCMSG_LEN];
    message[4..8].copy_from_slice(&ifindex.to_ne_bytes());
    message[12..16].copy_from_slice(&parent.to_ne_bytes());
    message
}

/// The parent that names a hook: `TC_H_MAKE(TC_H_CLSACT, TC_H_MIN_INGRESS)` and `..._EGRESS`.
const fn parent(hook: Hook) -> u32 {
    match hook {
        Hook::Ingress => 0xffff_fff2,
        Hook::Egress => 0xffff_fff3,
    }
}

fn kind(body: &[u8]) -> Option<&str> {
    attributes(body, TCMSG_LEN)
        .find(|&(attribute, _)| attribute == libc::TCA_KIND)
        .and_then(|(_, value)| text(value))
}

fn parse_filter(body: &[u8]) -> Option<Filter> {
    // Chains other than the first are entered by a jump only: what stands there is not in our way.
    let chain = attributes(body, TCMSG_LEN).find(|&(attribute, _)| attribute == TCA_CHAIN);
    if chain.and_then(|(_, value)| read_u32(value, 0)).is_some_and(|chain| chain != 0) {
        return None;
    }
    let info = read_u32(body, 16)?;
    let options = attributes(body, TCMSG_LEN).find(|&(attribute, _)| attribute == TCA_OPTIONS);
    let name = options
        .and_then(|(_, value)| attributes(value, 0).find(|&(attribute, _)| attribute == TCA_BPF_NAME))
        .and_then(|(_, value)| text(value));
    let kind = kind(body)?.to_owned();
    Some(Filter {
        name: name.filter(|_| kind == "bpf").map(str::to_owned),
        kind,
        priority: u16::try_from(info >> 16).ok()?,
        protocol: u16::from_be(u16::try_from(info & 0xffff).ok()?),
        handle: read_u32(body, 8)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter(kind: &str, priority: u16, protocol: u16, name: Option<&str>) -> Filter {
        Filter { kind: kind.to_owned(), priority, protocol, handle: 1, name: name.map(str::to_owned) }
    }

    #[test]
    fn own_filter_stands_before_the_others_without_taking_their_place() {
        let all = PROTOCOL_ALL;
        let cases: [(&[Filter], u16); 6] = [
            (&[], 9),
            (&[filter("matchall", 49_152, all, None)], 9),
            (&[filter("flower", 4, all, None), filter("bpf", 7, all, None)], 3),
            (&[filter("bpf", 1, all, None)], 1),
            (&[filter("matchall", 1, all, None), filter("bpf", 2, 0x0800, None)], 3),
            (&[filter("bpf", 1, 0x0800, None), filter("bpf", 2, all, None)], 2),
        ];
        for (others, priority) in cases {
            assert_eq!(priority_before(others), priority, "{others:?}");
        }
    }

    #[test]
    fn only_bpf_filters_with_a_program_name_of_ours_are_ours() {
        assert!(filter("bpf", 9, PROTOCOL_ALL, Some(program::REQUESTS)).is_mirror());
        assert!(!filter("bpf", 9, PROTOCOL_ALL, Some("cil_from_netdev")).is_mirror());
        assert!(!filter("bpf", 9, PROTOCOL_ALL, None).is_mirror());
        assert!(!filter("matchall", 9, PROTOCOL_ALL, Some(program::REQUESTS)).is_mirror());
    }
}
