//! Enters: what the kernel says of itself and of this process. Leaves: facts on which the capture depends.

use std::{fs, io, path::Path};

use aya::{
    programs::{ProgramError, SchedClassifier, TcAttachType},
    sys::{SyscallError, is_map_supported},
};

/// A version of the kernel, as far as features depend on it.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct KernelVersion {
    /// The first number.
    pub major: u32,
    /// The second number.
    pub minor: u32,
}

impl KernelVersion {
    /// The first kernel whose maps do not count against the limit on locked memory.
    pub const WITHOUT_MEMLOCK: Self = Self { major: 5, minor: 11 };
    /// The oldest kernel on which the programs run: ring buffers came with 5.8, the object was tried from 5.10 on.
    pub const OLDEST: Self = Self { major: 5, minor: 10 };

    /// The version at the start of a release such as `6.1.0-56-cloud-amd64`; `None` where there is none.
    #[must_use]
    pub fn parse(release: &str) -> Option<Self> {
        let mut numbers = release.trim().split(|c: char| !c.is_ascii_digit());
        Some(Self { major: numbers.next()?.parse().ok()?, minor: numbers.next()?.parse().ok()? })
    }
}

/// A privilege of which the agent needs one or the other.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Capability {
    /// CAP_BPF: make maps, load programs.
    Bpf,
    /// CAP_NET_ADMIN: attach them to interfaces.
    NetAdmin,
    /// CAP_PERFMON: have the verifier allow what the programs do.
    Perfmon,
    /// CAP_SYS_RESOURCE: raise the limit on locked memory, on old kernels.
    SysResource,
    /// CAP_SYS_ADMIN: stands in for CAP_BPF and CAP_PERFMON.
    SysAdmin,
}

impl Capability {
    /// Those that the agent cannot do without.
    pub const NEEDED: [Self; 3] = [Self::Bpf, Self::NetAdmin, Self::Perfmon];

    /// Their names, separated by commas.
    #[must_use]
    pub fn list(capabilities: &[Self]) -> String {
        capabilities.iter().map(|capability| capability.as_str()).collect::<Vec<_>>().join(", ")
    }

    /// Its number in `linux/capability.h`.
    const fn bit(self) -> u32 {
        match self {
            Self::NetAdmin => 12,
            Self::SysAdmin => 21,
            Self::SysResource => 24,
            Self::Perfmon => 38,
            Self::Bpf => 39,
        }
    }

    /// The name as in a container's `securityContext`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Bpf => "BPF",
            Self::NetAdmin => "NET_ADMIN",
            Self::Perfmon => "PERFMON",
            Self::SysAdmin => "SYS_ADMIN",
            Self::SysResource => "SYS_RESOURCE",
        }
    }
}

/// The effective capabilities of a process.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Capabilities(u64);

impl Capabilities {
    /// Those of this process.
    ///
    /// # Errors
    ///
    /// The kernel's, where `/proc/self/status` cannot be read; `InvalidData` where it does not say.
    pub fn effective() -> io::Result<Self> {
        let status = fs::read_to_string("/proc/self/status")?;
        Self::parse(&status).ok_or_else(|| io::ErrorKind::InvalidData.into())
    }

    /// The capabilities that the capture needs and this set lacks.
    #[must_use]
    pub fn missing(self) -> Vec<Capability> {
        Capability::NEEDED
            .into_iter()
            .filter(|&capability| {
                let has_stand_in = capability != Capability::NetAdmin && self.has(Capability::SysAdmin);
                !self.has(capability) && !has_stand_in
            })
            .collect()
    }

    /// Whether the set holds `capability`.
    #[must_use]
    pub const fn has(self, capability: Capability) -> bool {
        self.0 >> capability.bit() & 1 == 1
    }

    fn parse(status: &str) -> Option<Self> {
        let hex = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
        u64::from_str_radix(hex.trim(), 16).ok().map(Self)
    }
}

/// How the running kernel is called, such as `6.1.0-56-cloud-amd64`.
///
/// # Errors
///
/// The kernel's, where `/proc` cannot be read.
pub fn release() -> io::Result<String> {
    Ok(fs::read_to_string("/proc/sys/kernel/osrelease")?.trim().to_owned())
}

/// Whether the kernel describes its own types, which makes dumps of the programs readable; nothing depends on it.
#[must_use]
pub fn has_btf() -> bool {
    Path::new("/sys/kernel/btf/vmlinux").exists()
}

/// The kernel's lockdown mode where there is one: `none`, `integrity` or `confidentiality`.
#[must_use]
pub fn lockdown() -> Option<String> {
    let modes = fs::read_to_string("/sys/kernel/security/lockdown").ok()?;
    parse_lockdown(&modes).map(str::to_owned)
}

/// Whether the kernel has BPF ring buffers.
///
/// # Errors
///
/// The kernel's, where it cannot be asked: without privileges.
pub fn has_ring_buffers() -> io::Result<bool> {
    is_map_supported(aya::maps::MapType::RingBuf).map_err(|SyscallError { io_error, .. }| io_error)
}

/// Whether the kernel has TCX, asked by listing the programs at the loopback device, which changes nothing.
///
/// # Errors
///
/// The kernel's, where it cannot be asked: without privileges.
pub fn has_tcx() -> io::Result<bool> {
    match SchedClassifier::query_tcx("lo", TcAttachType::Ingress) {
        Ok(_) => Ok(true),
        Err(ProgramError::SyscallError(SyscallError { call: "bpf_prog_query", io_error })) => {
            match io_error.raw_os_error() {
                Some(libc::EINVAL | libc::EOPNOTSUPP) => Ok(false),
                _ => Err(io_error),
            }
        }
        // The list was given; looking at the programs on it takes CAP_SYS_ADMIN, and is not needed.
        Err(ProgramError::SyscallError(_)) => Ok(true),
        Err(error) => Err(io::Error::other(error)),
    }
}

/// An error and all that caused it, as one line a cause.
pub(in crate::io) fn causes(error: &dyn std::error::Error) -> Vec<String> {
    let mut lines = vec![error.to_string()];
    let mut source = error.source();
    while let Some(error) = source {
        // Some layers print their source themselves.
        let line = error.to_string();
        if lines.last().is_none_or(|last| !last.ends_with(&line)) {
            lines.push(line);
        }
        source = error.source();
    }
    lines
}

fn parse_lockdown(modes: &str) -> Option<&str> {
    let (_, rest) = modes.split_once('[')?;
    rest.split_once(']').map(|(mode, _)| mode)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_of_any_distribution_have_a_version() {
        let version = |major, minor| Some(KernelVersion { major, minor });
        let cases = [
            ("6.18.44-fc-v595", version(6, 18)),
            ("5.10.0-43-cloud-amd64", version(5, 10)),
            ("7.2-rc1", version(7, 2)),
            ("6.6+", version(6, 6)),
            ("linux", None),
            ("6", None),
        ];
        for (release, expected) in cases {
            assert_eq!(KernelVersion::parse(release), expected, "{release}");
        }
        assert!(version(5, 9) < Some(KernelVersion::OLDEST) && version(6, 1) > Some(KernelVersion::OLDEST));
    }

    #[test]
    fn sys_admin_stands_in_for_bpf_and_perfmon_but_not_for_net_admin() {
        let missing =
            |hex: &str| Capabilities::parse(&format!("Name:\tx\nCapEff:\t{hex}\n")).unwrap().missing();
        assert_eq!(missing("000001ffffffffff"), []);
        assert_eq!(missing("000000c000001000"), []);
        assert_eq!(missing("0000000000201000"), []);
        assert_eq!(missing("0000000000200000"), [Capability::NetAdmin]);
        assert_eq!(missing("0"), [Capability::Bpf, Capability::NetAdmin, Capability::Perfmon]);
        assert_eq!(missing("0000008000001000"), [Capability::Perfmon]);
    }

    #[test]
    fn the_lockdown_mode_is_the_one_in_brackets() {
        assert_eq!(parse_lockdown("none [integrity] confidentiality\n"), Some("integrity"));
        assert_eq!(parse_lockdown(""), None);
    }
}
