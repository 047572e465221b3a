//! Enters: loaded programs and the interfaces to watch. Leaves: programs attached at the hooks of their roles.

use std::{fmt, io, os::unix::net::UnixDatagram};

use aya::{
    Ebpf,
    programs::{
        LinkOrder, ProgramError, SchedClassifier, TcAttachType,
        tc::{self, NlOptions, SchedClassifierLink, TcAttachOptions, TcError, TcHandle},
    },
    sys::SyscallError,
};
use rustix::net::netdevice::name_to_index;
use tracing::warn;

use crate::io::capture::{
    desired::Interface,
    filters::{self, Qdisc},
    netlink::NetlinkError,
    presence::Presence,
    role::Hook,
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
    /// The interface is gone, or its name is another's.
    #[error("interface {interface} is gone or renamed")]
    Vanished {
        /// The interface's name.
        interface: String,
    },
    /// The interface's index could not be asked for.
    #[error("ask for the index of {interface}")]
    Index {
        /// The interface's name.
        interface: String,
        /// What went wrong.
        #[source]
        source: io::Error,
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

impl AttachError {
    /// Whether there is nothing wrong but that the interface is not there (any more).
    #[must_use]
    pub fn is_for_want_of_interface(&self) -> bool {
        match self {
            Self::Vanished { .. } => true,
            Self::Qdisc { source, .. } => errno_of_tc(source).is_some_and(is_no_device),
            Self::Attach { source, .. } => errno(source).is_some_and(is_no_device),
            Self::Index { .. }
            | Self::Netlink { .. }
            | Self::NoEgressHook { .. }
            | Self::NoTcx
            | Self::MissingProgram { .. }
            | Self::Detach { .. }
            | Self::Lock(_) => false,
        }
    }
}

const fn is_no_device(errno: i32) -> bool {
    matches!(errno, libc::ENODEV | libc::ENXIO)
}

/// Attaches the programs of one interface's role, all or none.
pub(super) fn attach(
    ebpf: &mut Ebpf,
    interface: &Interface,
    mode: AttachMode,
    presence: &Presence,
) -> Result<Vec<Attachment>, AttachError> {
    let mut attachments = Vec::new();
    let mut qdisc = None;
    for &(program, hook) in interface.role.programs() {
        let classifier = ebpf.program_mut(program).and_then(|program| program.try_into().ok());
        let Some(classifier) = classifier else { return Err(AttachError::MissingProgram { program }) };
        require_name(interface)?;
        let (method, link) =
            attach_program(classifier, program, interface, hook, mode, presence, &mut qdisc)?;
        attachments.push(Attachment { interface: interface.name.clone(), hook, program, method, link });
    }
    // Attaching goes by the name. Where that was given to another interface meanwhile, the programs may be there.
    require_name(interface)?;
    Ok(attachments)
}

/// Makes sure that the interface is there by its name.
fn require_name(interface: &Interface) -> Result<(), AttachError> {
    let name = &interface.name;
    let found = UnixDatagram::unbound().and_then(|socket| Ok(name_to_index(socket, name)?));
    match found {
        Ok(index) if index == interface.index => Ok(()),
        Err(source) if source.raw_os_error() != Some(libc::ENODEV) => {
            Err(AttachError::Index { interface: name.clone(), source })
        }
        Ok(_) | Err(_) => Err(AttachError::Vanished { interface: name.clone() }),
    }
}

/// Makes sure that the interface has a qdisc that carries classifiers, and says which.
fn ensure_qdisc(interface: &Interface) -> Result<Qdisc, AttachError> {
    let name = &interface.name;
    // The qdisc is never removed again: between a look whether it is empty and its removal somebody could attach to
    // it, and would lose the filter. An empty one costs next to nothing.
    match tc::qdisc_add_clsact(name) {
        Ok(()) => Ok(Qdisc::Clsact),
        Err(source) if errno_of_tc(&source) == Some(libc::EEXIST) => {
            let listed = |source| AttachError::Netlink { interface: name.clone(), source };
            Ok(filters::qdiscs().map_err(listed)?.remove(&interface.index).unwrap_or(Qdisc::Clsact))
        }
        Err(source) => Err(AttachError::Qdisc { interface: name.clone(), source }),
    }
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
    qdisc: &mut Option<Qdisc>,
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
    let found = match *qdisc {
        Some(found) => found,
        None => *qdisc.insert(ensure_qdisc(interface)?),
    };
    if found == Qdisc::IngressOnly && hook == Hook::Egress {
        return Err(AttachError::NoEgressHook { interface: name.clone() });
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
