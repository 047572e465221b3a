//! Enters: an interface of the `pod` role. Leaves: whether requests are likely to reach the pod past its hook.

use std::fmt;

use aya::programs::{SchedClassifier, TcAttachType};

use crate::io::capture::{
    desired::Interface,
    filters::{self, Filter},
    role::{Hook, Role},
};

/// What Cilium's programs are called.
const CILIUM_PROGRAM: &str = "cil_";

/// Why requests to a pod may not pass the hook at the host side of its interface.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Bypass {
    /// The pair is netkit: whoever sends into the pod redirects into its inner end.
    Netkit,
    /// Cilium runs at the interface, whose host routing sends by `bpf_redirect_peer`.
    HostRouting,
}

impl Bypass {
    /// Judges by the kind of `interface` and the programs at it, as far as this process may see them; `is_ciliums` says
    /// whether the machine is one of Cilium's.
    #[must_use]
    pub fn suspected(interface: &Interface, is_ciliums: bool) -> Option<Self> {
        if interface.role != Role::Pod {
            return None;
        }
        if interface.kind == "netkit" {
            return Some(Self::Netkit);
        }
        // Names of programs can be asked for with CAP_SYS_ADMIN only. Without it, programs at a node of Cilium's are
        // taken for Cilium's.
        let is_at_tcx = match SchedClassifier::query_tcx(&interface.name, TcAttachType::Ingress) {
            Ok((_, programs)) => programs
                .iter()
                .any(|program| program.name_as_str().is_some_and(|name| name.starts_with(CILIUM_PROGRAM))),
            Err(_) => is_ciliums,
        };
        let is_of_cilium =
            |filter: &Filter| filter.name.as_ref().is_some_and(|name| name.starts_with(CILIUM_PROGRAM));
        let is_at_clsact = || {
            let filters = filters::filters(interface.index, Hook::Ingress);
            filters.is_ok_and(|filters| filters.iter().any(is_of_cilium))
        };
        (is_at_tcx || is_at_clsact()).then_some(Self::HostRouting)
    }
}

impl fmt::Display for Bypass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Netkit => "it is a netkit device",
            Self::HostRouting => "Cilium's programs are at it",
        })?;
        f.write_str(
            ": requests may bypass this hook (bpf_redirect_peer); attach to the uplink or in the pod's network namespace",
        )
    }
}
