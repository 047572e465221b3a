//! Enters: the eBPF object. Leaves: what this machine can do with it, line by line, and whether `run` could work.

use std::io::{self, Write};

use crate::io::capture::{
    Capture, KernelRules,
    kernel::{
        Capabilities, Capability, KernelVersion, causes, has_btf, has_ring_buffers, has_tcx, lockdown,
        release,
    },
    links::links,
    role::Role,
};

/// How many lines of the verifier's log are shown: its last ones say what it did not like.
const LOG_LINES: usize = 20;

/// The outcome of one check.
#[derive(Debug)]
enum Finding {
    /// It is there.
    Ok(String),
    /// It is not there, and nothing depends on it.
    Absent(String),
    /// It is not there, and `run` cannot work; the second is what to do.
    Missing(String, String),
}

/// Whether `run` could work on this machine.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Readiness {
    /// It could.
    Ready,
    /// Something is missing, which was said.
    NotReady,
}

/// Checks what `run` needs, tries to load the programs of `object`, and writes a line each to `out`.
///
/// # Errors
///
/// Those of `out`.
pub fn check(object: &[u8], out: &mut impl Write) -> io::Result<Readiness> {
    let findings = [
        ("kernel", kernel()),
        ("BTF", btf()),
        ("lockdown", Finding::Ok(lockdown().unwrap_or_else(|| "none".to_owned()))),
        ("privileges", privileges()),
        ("ring buffer", ring_buffer()),
        ("hook", hook()),
        ("programs", programs(object)),
        ("interfaces", interfaces()),
    ];
    let mut readiness = Readiness::Ready;
    for (subject, finding) in findings {
        let (word, detail) = match &finding {
            Finding::Ok(detail) => ("ok", detail),
            Finding::Absent(detail) => ("absent", detail),
            Finding::Missing(detail, _) => ("missing", detail),
        };
        let detail = detail.replace('\n', &format!("\n{:22}", ""));
        writeln!(out, "{word:8} {subject:12} {detail}")?;
        if let Finding::Missing(_, advice) = &finding {
            writeln!(out, "{:8} {:12} {advice}", "", "->")?;
            readiness = Readiness::NotReady;
        }
    }
    Ok(readiness)
}

fn kernel() -> Finding {
    let oldest = KernelVersion::OLDEST;
    let advice = || format!("use Linux {}.{} or later", oldest.major, oldest.minor);
    match release() {
        Err(error) => Finding::Missing(error.to_string(), "mount /proc".to_owned()),
        Ok(release) if KernelVersion::parse(&release).is_some_and(|version| version < oldest) => {
            Finding::Missing(release, advice())
        }
        Ok(release) => Finding::Ok(release),
    }
}

fn btf() -> Finding {
    if has_btf() {
        Finding::Ok("/sys/kernel/btf/vmlinux".to_owned())
    } else {
        Finding::Absent("not needed".to_owned())
    }
}

fn privileges() -> Finding {
    let needed = Capability::list(&Capability::NEEDED);
    match Capabilities::effective() {
        Err(error) => Finding::Missing(error.to_string(), "mount /proc".to_owned()),
        Ok(capabilities) => match capabilities.missing().as_slice() {
            [] => Finding::Ok(needed),
            missing => Finding::Missing(
                format!("no {}", Capability::list(missing)),
                format!("run as root, or with the capabilities {needed}"),
            ),
        },
    }
}

fn ring_buffer() -> Finding {
    match has_ring_buffers() {
        Ok(true) => Finding::Ok("supported".to_owned()),
        Ok(false) => Finding::Missing("not supported".to_owned(), "use Linux 5.8 or later".to_owned()),
        Err(error) => unknown(&error),
    }
}

fn hook() -> Finding {
    match has_tcx() {
        Ok(true) => Finding::Ok("TCX: goes with the agent, however it ends".to_owned()),
        Ok(false) => Finding::Ok("clsact: the kernel has no TCX, which came with Linux 6.6".to_owned()),
        Err(error) => unknown(&error),
    }
}

/// The kernel did not answer a question that it answers to the privileged.
fn unknown(error: &io::Error) -> Finding {
    Finding::Missing(format!("the kernel does not say: {error}"), "see privileges".to_owned())
}

fn programs(object: &[u8]) -> Finding {
    // The rules do not matter to the verifier; the smallest ring asks for the least memory.
    let rules = KernelRules {
        ports: vec![80],
        addresses: Vec::new(),
        vxlan_ports: Vec::new(),
        geneve_ports: Vec::new(),
        ring_bytes: KernelRules::smallest_ring_bytes(),
        rings: 1,
        own_mark: 0,
        copies_responses: false,
        wake_interval_ns: 0,
    };
    match Capture::load(object, &rules) {
        Ok(_) => Finding::Ok("loaded, and accepted by the kernel's verifier".to_owned()),
        Err(error) => {
            let lines = causes(&error).join("\n");
            let lines: Vec<_> = lines.lines().collect();
            let shown = lines.get(lines.len().saturating_sub(LOG_LINES)..).unwrap_or_default();
            let first = lines.first().copied().filter(|_| shown.len() < lines.len());
            let detail: Vec<_> = first.into_iter().chain(shown.iter().copied()).collect();
            Finding::Missing(
                detail.join("\n"),
                "if nothing else is missing, report this with the kernel's version".to_owned(),
            )
        }
    }
}

fn interfaces() -> Finding {
    match links() {
        Err(error) => Finding::Missing(causes(&error).join(": "), "allow rtnetlink sockets".to_owned()),
        Ok(links) => {
            let roles = links.iter().filter(|link| link.is_up);
            let roles: Vec<_> = roles.map(|link| format!("{}:{}", link.name, Role::detect(link))).collect();
            Finding::Ok(if roles.is_empty() { "none is up".to_owned() } else { roles.join(" ") })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_object_of_this_build_can_be_loaded_with_privileges() {
        if !rustix::process::geteuid().is_root() {
            writeln!(io::stderr(), "SKIPPED: loading programs needs root").unwrap();
            return;
        }
        let mut out = Vec::new();
        let readiness = check(crate::io::object::EBPF_OBJECT, &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert_eq!(readiness, Readiness::Ready, "{text}");
    }

    #[test]
    fn an_object_that_cannot_be_loaded_is_said_to_be_missing() {
        let mut out = Vec::new();
        let readiness = check(b"not an object", &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert_eq!(readiness, Readiness::NotReady);
        assert!(text.contains("missing  programs     load the eBPF object"), "{text}");
    }
}
