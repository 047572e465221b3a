//! Enters: loaded programs and the interfaces to watch. Leaves: programs attached at the hooks of their roles.

use std::{collections::HashSet, fmt, io};

use aya::{
    Ebpf,
    programs::{
        LinkOrder, ProgramError, SchedClassifier, TcAttachType,
        tc::{self, NlOptions, SchedClassifierLink, TcAttachOptions, TcError, TcHandle},
    },
    sys::SyscallError,
};
use tracing::{info, warn};

use crate::io::capture::{
    filters::{self, Qdisc},
    links::Link,
    netlink::NetlinkError,
    presence::Presence,
    role::{Hook, InterfaceSpec, Role},
};

/// How programs are attached.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum AttachMode {
    /// By TCX where the kernel has it, by clsact elsewhere.
    #[default]
    Auto,
    /// By TCX only.
    Tcx,
    /// By clsact only.
    Clsact,
}

/// How one program was attached.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum AttachMethod {
    /// A TCX link: goes with the process, however it ends. Linux 6.6 and later.
    Tcx,
    /// A filter of a clsact qdisc: stays where the process is killed, until the next start.
    Clsact,
}

impl AttachMethod {
    /// The name in logs.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tcx => "tcx",
            Self::Clsact => "clsact",
        }
    }
}

/// An interface that exists, and its role.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Interface {
    /// Its index.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Its role, as said or as found.
    pub role: Role,
}

impl Interface {
    /// Finds the interfaces that `specs` name among `links`, and the roles that were not said.
    ///
    /// # Errors
    ///
    /// [`AttachError::UnknownInterface`] and [`AttachError::RepeatedInterface`].
    pub fn resolve(specs: &[InterfaceSpec], links: &[Link]) -> Result<Vec<Self>, AttachError> {
        let mut seen = HashSet::new();
        specs
            .iter()
            .map(|spec| {
                let name = spec.name.clone();
                let Some(link) = links.iter().find(|link| link.name == name) else {
                    return Err(AttachError::UnknownInterface { name });
                };
                if !seen.insert(link.index) {
                    return Err(AttachError::RepeatedInterface { name });
                }
                Ok(Self { index: link.index, name, role: spec.role.unwrap_or_else(|| Role::detect(link)) })
            })
            .collect()
    }
}

/// A program at a hook. Dropping it detaches the program.
pub struct Attachment {
    /// The interface's name.
    pub interface: String,
    /// The hook.
    pub hook: Hook,
    /// The program's name.
    pub program: &'static str,
    /// How it was attached.
    pub method: AttachMethod,
    link: SchedClassifierLink,
}

impl fmt::Debug for Attachment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { interface, hook, program, method, link: _ } = self;
        write!(f, "{program} at {} of {interface} by {}", hook.as_str(), method.as_str())
    }
}

/// Why programs could not be attached.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// There is no such interface in this network namespace.
    #[error("no interface is named {name}")]
    UnknownInterface {
        /// The name.
        name: String,
    },
    /// The interface was named twice.
    #[error("interface {name} is named twice")]
    RepeatedInterface {
        /// The name.
        name: String,
    },
    /// Where filters and qdiscs could not be listed.
    #[error("list the filters of {interface}")]
    Netlink {
        /// The interface's name.
        interface: String,
        /// What went wrong.
        #[source]
        source: NetlinkError,
    },
    /// The interface carries an `ingress` qdisc, which has no egress hook and leaves no room for clsact.
    #[error("{interface} has an ingress qdisc: its egress can be watched on Linux 6.6 and later only")]
    NoEgressHook {
        /// The interface's name.
        interface: String,
    },
    /// TCX was asked for and the kernel does not have it.
    #[error(
        "the kernel has no TCX, which came with Linux 6.6: attach by clsact, or leave the choice to the agent"
    )]
    NoTcx,
    /// The clsact qdisc could not be added.
    #[error("add a clsact qdisc to {interface}")]
    Qdisc {
        /// The interface's name.
        interface: String,
        /// What went wrong.
        #[source]
        source: TcError,
    },
    /// The object does not hold the program.
    #[error("the object has no classifier {program}")]
    MissingProgram {
        /// The program's name.
        program: &'static str,
    },
    /// The kernel refused to attach the program.
    #[error("attach {program} to the {} of {interface} by {}", hook.as_str(), method.as_str())]
    Attach {
        /// The program's name.
        program: &'static str,
        /// The interface's name.
        interface: String,
        /// The hook.
        hook: Hook,
        /// How it was tried.
        method: AttachMethod,
        /// What went wrong.
        #[source]
        source: Box<ProgramError>,
    },
    /// The kernel refused to detach the program.
    #[error("detach {program} from the {} of {interface}", hook.as_str())]
    Detach {
        /// The program's name.
        program: &'static str,
        /// The interface's name.
        interface: String,
        /// The hook.
        hook: Hook,
        /// What went wrong.
        #[source]
        source: Box<ProgramError>,
    },
    /// The agent could not make itself known in its network namespace.
    #[error("bind an abstract unix socket")]
    Lock(#[from] io::Error),
}

/// Attaches the programs of one interface's role.
pub(super) fn attach(
    ebpf: &mut Ebpf,
    interface: &Interface,
    mode: AttachMode,
    presence: &Presence,
) -> Result<Vec<Attachment>, AttachError> {
    let mut attachments = Vec::new();
    for &(program, hook) in interface.role.programs() {
        let classifier = ebpf.program_mut(program).and_then(|program| program.try_into().ok());
        let Some(classifier) = classifier else { return Err(AttachError::MissingProgram { program }) };
        let (method, link) = attach_program(classifier, program, interface, hook, mode, presence)?;
        let name = &interface.name;
        info!(interface = %name, role = %interface.role, hook = hook.as_str(), method = method.as_str(), program, "Attached.");
        attachments.push(Attachment { interface: name.clone(), hook, program, method, link });
    }
    Ok(attachments)
}

/// Detaches a program; one whose interface or filter is gone already is no error.
pub(super) fn detach(attachment: Attachment) -> Result<(), AttachError> {
    let Attachment { interface, hook, program, method: _, link } = attachment;
    match aya::programs::Link::detach(link) {
        Err(source) if !is_gone(&source) => {
            Err(AttachError::Detach { program, interface, hook, source: Box::new(source) })
        }
        _ => Ok(()),
    }
}

fn attach_program(
    classifier: &mut SchedClassifier,
    program: &'static str,
    interface: &Interface,
    hook: Hook,
    mode: AttachMode,
    presence: &Presence,
) -> Result<(AttachMethod, SchedClassifierLink), AttachError> {
    let name = &interface.name;
    let mut try_attach = |method, options| {
        classifier
            .attach_with_options(name, attach_type(hook), options)
            .and_then(|id| classifier.take_link(id))
            .map(|link| (method, link))
            .map_err(|source| (method, source))
    };
    let failed = |(method, source)| AttachError::Attach {
        program,
        interface: name.clone(),
        hook,
        method,
        source: Box::new(source),
    };
    if mode != AttachMode::Clsact {
        // At the head: behind a filter that accepts packets, nothing would be seen.
        match try_attach(AttachMethod::Tcx, TcAttachOptions::TcxOrder(LinkOrder::first())) {
            Err((_, error)) if is_unknown_to_kernel(&error) => {
                if mode == AttachMode::Tcx {
                    return Err(AttachError::NoTcx);
                }
            }
            attached => return attached.map_err(failed),
        }
    }
    let listed = |source| AttachError::Netlink { interface: name.clone(), source };
    match filters::qdiscs().map_err(listed)?.get(&interface.index) {
        Some(Qdisc::IngressOnly) if hook == Hook::Egress => {
            return Err(AttachError::NoEgressHook { interface: name.clone() });
        }
        Some(_) => {}
        // The qdisc is never removed again: between a look whether it is empty and its removal somebody could
        // attach to it, and would lose the filter. An empty one costs next to nothing.
        None => match tc::qdisc_add_clsact(name) {
            Err(source) if errno_of_tc(&source) != Some(libc::EEXIST) => {
                return Err(AttachError::Qdisc { interface: name.clone(), source });
            }
            _ => {}
        },
    }
    let mut others = filters::filters(interface.index, hook).map_err(listed)?;
    others.retain(|filter| !filter.is_mirror());
    let options = NlOptions {
        priority: filters::priority_before(&others),
        handle: TcHandle::from(presence.number()),
        classid: None,
    };
    if others.first().is_some_and(|first| first.priority < options.priority) {
        warn!(interface = %name, hook = hook.as_str(), "A filter runs before ours and may hide packets from it.");
    }
    try_attach(AttachMethod::Clsact, TcAttachOptions::Netlink(options)).map_err(failed)
}

pub(super) const fn attach_type(hook: Hook) -> TcAttachType {
    match hook {
        Hook::Ingress => TcAttachType::Ingress,
        Hook::Egress => TcAttachType::Egress,
    }
}

/// Whether TCX failed because the kernel does not know it: before Linux 6.6, or built without `CONFIG_NET_XGRESS`.
fn is_unknown_to_kernel(error: &ProgramError) -> bool {
    matches!(errno(error), Some(libc::EINVAL | libc::EOPNOTSUPP))
}

/// Whether detaching failed because there is nothing left to detach from: the interface is gone, or the filter, or, as
/// `EINVAL`, the qdisc that held it.
pub(super) fn is_gone(error: &ProgramError) -> bool {
    matches!(errno(error), Some(libc::ENODEV | libc::ENOENT | libc::EINVAL))
}

/// The number of the kernel's error inside `error`.
fn errno(error: &ProgramError) -> Option<i32> {
    if let ProgramError::SyscallError(SyscallError { io_error, .. }) = error {
        io_error.raw_os_error()
    } else if let ProgramError::TcError(error) = error {
        errno_of_tc(error)
    } else if let ProgramError::NetlinkError(error) = error {
        error.raw_os_error()
    } else {
        None
    }
}

fn errno_of_tc(error: &TcError) -> Option<i32> {
    if let TcError::NetlinkError(error) = error {
        error.raw_os_error()
    } else if let TcError::IoError(error) = error {
        error.raw_os_error()
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn links() -> Vec<Link> {
        let link = |index, name: &str, kind: &str| Link {
            index,
            name: name.to_owned(),
            kind: kind.to_owned(),
            master: None,
            is_up: true,
            is_loopback: false,
            has_global_address: false,
        };
        vec![link(2, "eth0", ""), link(3, "veth1", "veth")]
    }

    fn resolve(specs: &[&str]) -> Result<Vec<(u32, Role)>, AttachError> {
        let specs: Vec<_> = specs.iter().map(|spec| spec.parse().unwrap()).collect();
        let interfaces = Interface::resolve(&specs, &links())?;
        Ok(interfaces.into_iter().map(|interface| (interface.index, interface.role)).collect())
    }

    #[test]
    fn a_said_role_goes_before_the_found_one() {
        assert_eq!(resolve(&["veth1", "eth0"]).unwrap(), [(3, Role::Pod), (2, Role::Node)]);
        assert_eq!(resolve(&["veth1:node", "eth0:pod"]).unwrap(), [(3, Role::Node), (2, Role::Pod)]);
    }

    #[test]
    fn unknown_and_repeated_interfaces_are_refused_by_name() {
        let unknown = resolve(&["eth0", "eth9"]).unwrap_err();
        assert!(matches!(unknown, AttachError::UnknownInterface { name } if name == "eth9"));
        let repeated = resolve(&["eth0", "eth0:pod"]).unwrap_err();
        assert!(matches!(repeated, AttachError::RepeatedInterface { name } if name == "eth0"));
    }
}
