//! Enters: the eBPF object, items of `--interface`. Leaves: what this machine can do with them, line by line, and
//! whether `run` could work.

use std::{
    collections::BTreeSet,
    io::{self, Write},
    thread,
};

use crate::io::capture::{
    AttachMode, Capture, Kernel, KernelRules,
    bypass::Bypass,
    desired::{Interface, View},
    kernel::{
        Capabilities, Capability, KernelVersion, causes, has_btf, has_ring_buffers, has_tcx, lockdown,
        release,
    },
    links::{default_routes, links},
    role::{InterfaceSpec, Pattern, Role},
    sys::enter_new_network,
};

/// How many lines of the verifier's log are shown: its last ones say what it did not like.
const LOG_LINES: usize = 20;

/// How many interfaces are shown of an item that means more.
const SHOWN_INTERFACES: usize = 20;

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

/// Checks what `run` needs, tries to load and attach the programs of `object`, and writes a line each to `out`; for
/// each of `specs` too. Nothing that others could see is changed.
///
/// # Errors
///
/// Those of `out`.
pub fn check(object: &[u8], specs: &[InterfaceSpec], out: &mut impl Write) -> io::Result<Readiness> {
    let (programs, trial) = programs(object);
    let mut findings = vec![
        ("kernel", kernel()),
        ("BTF", btf()),
        ("lockdown", Finding::Ok(lockdown().unwrap_or_else(|| "none".to_owned()))),
        ("privileges", privileges()),
        ("ring buffer", ring_buffer()),
        ("hook", hook()),
        ("programs", programs),
        ("attaching", trial),
    ];
    findings.extend(memory_limit().map(|finding| ("memory limit", finding)));
    findings.extend(interfaces(specs).into_iter().map(|finding| ("interfaces", finding)));
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
        Ok(false) => Finding::Absent(
            "TCX, which came with Linux 6.6; with clsact, filters of a killed agent stay until the next start"
                .to_owned(),
        ),
        Err(error) => unknown(&error),
    }
}

/// The kernel did not answer a question that it answers to the privileged.
fn unknown(error: &io::Error) -> Finding {
    Finding::Missing(format!("the kernel does not say: {error}"), "see privileges".to_owned())
}

/// Before Linux 5.11 the maps count against the limit on locked memory.
fn memory_limit() -> Option<Finding> {
    let version = KernelVersion::parse(&release().ok()?)?;
    if version >= KernelVersion::WITHOUT_MEMLOCK {
        return None;
    }
    let limit = rustix::process::getrlimit(rustix::process::Resource::Memlock).current;
    let can_raise = Capabilities::effective().is_ok_and(|held| held.has(Capability::SysResource));
    Some(match limit {
        None => Finding::Ok("unlimited locked memory".to_owned()),
        Some(_) if can_raise => Finding::Ok("raised by the agent itself".to_owned()),
        Some(bytes) => Finding::Missing(
            format!("maps count against the limit of {bytes} bytes of locked memory"),
            format!("add the capability {}, or take the limit away", Capability::SysResource.as_str()),
        ),
    })
}

/// Whether the programs load, and whether they can be attached.
fn programs(object: &[u8]) -> (Finding, Finding) {
    // The rules do not matter to the verifier; the smallest ring asks for the least memory.
    let rules = KernelRules {
        ports: vec![80],
        addresses: Vec::new(),
        vxlan_ports: Vec::new(),
        geneve_ports: Vec::new(),
        ring_bytes: KernelRules::smallest_ring_bytes(),
        rings: 1,
        own_mark: 0,
        wake_interval_ns: 0,
    };
    match Capture::load(object, &rules) {
        Ok(mut capture) => (
            Finding::Ok("loaded, and accepted by the kernel's verifier".to_owned()),
            attaching(&mut capture.kernel),
        ),
        Err(error) => {
            let lines = causes(&error).join("\n");
            let lines: Vec<_> = lines.lines().collect();
            let shown = lines.get(lines.len().saturating_sub(LOG_LINES)..).unwrap_or_default();
            let first = lines.first().copied().filter(|_| shown.len() < lines.len());
            let detail: Vec<_> = first.into_iter().chain(shown.iter().copied()).collect();
            let finding = Finding::Missing(
                detail.join("\n"),
                "if nothing else is missing, report this with the kernel's version".to_owned(),
            );
            (finding, Finding::Absent("not tried: there is nothing to attach".to_owned()))
        }
    }
}

/// Attaches to a loopback device that nobody else can see, in a network namespace made for that, and detaches.
fn attaching(kernel: &mut Kernel) -> Finding {
    let trial = || -> Result<Vec<String>, String> {
        if let Err(error) = enter_new_network() {
            return Err(format!("not tried: {error} (a network namespace for it takes SYS_ADMIN)"));
        }
        let view = View { links: links().map_err(|error| causes(&error).join(": "))?, ..View::default() };
        let mut outcomes = Vec::new();
        for (name, mode) in [("TCX", AttachMode::Tcx), ("clsact", AttachMode::Clsact)] {
            for link in view.links.iter().filter(|link| link.is_loopback) {
                let interface = Interface::loopback(link);
                outcomes.push(match kernel.attach(&interface, mode) {
                    Ok(()) => format!("{name} works"),
                    Err(error) => format!("{name} does not: {}", causes(&error).join(": ")),
                });
                kernel.detach();
            }
        }
        Ok(outcomes)
    };
    // On a thread of its own, whose namespace goes with it.
    let tried = thread::scope(|scope| {
        scope.spawn(trial).join().unwrap_or_else(|_panic| Err("not tried: it panicked".to_owned()))
    });
    match tried {
        Ok(outcomes) if outcomes.iter().any(|outcome| outcome.ends_with("works")) => {
            Finding::Ok(outcomes.join("; "))
        }
        Ok(outcomes) => Finding::Missing(
            outcomes.join("; "),
            "if nothing else is missing, report this with the kernel's version".to_owned(),
        ),
        Err(reason) => Finding::Absent(reason),
    }
}

/// What the items mean at the moment; without any, what there is to name.
fn interfaces(specs: &[InterfaceSpec]) -> Vec<Finding> {
    let has_auto = specs.iter().any(|spec| spec.pattern == Pattern::Auto);
    let routes = if has_auto { default_routes() } else { Ok(BTreeSet::new()) };
    let view =
        routes.and_then(|default_routes| Ok(View { links: links()?, default_routes, ..View::default() }));
    let view = match view {
        Ok(view) => view,
        Err(error) => {
            return vec![Finding::Missing(causes(&error).join(": "), "allow rtnetlink sockets".to_owned())];
        }
    };
    if specs.is_empty() {
        let up = view.links.iter().filter(|link| link.is_up);
        let roles: Vec<_> = up.map(|link| format!("{}:{}", link.name, Role::detect(link))).collect();
        return vec![Finding::Ok(if roles.is_empty() { "none is up".to_owned() } else { roles.join(" ") })];
    }
    specs.iter().map(|spec| meaning(spec, specs, &view)).collect()
}

/// What one of `specs` means.
fn meaning(spec: &InterfaceSpec, specs: &[InterfaceSpec], view: &View) -> Finding {
    let desired = view.desired(specs);
    let meant: Vec<_> = view
        .links
        .iter()
        .filter(|link| view.is_meant(spec, link))
        .filter_map(|link| desired.get(&link.index))
        .collect();
    if meant.is_empty() {
        return match spec.name() {
            Some(name) => Finding::Missing(
                format!("{spec}: no interface is named {name}"),
                "name one that exists; patterns wait for theirs".to_owned(),
            ),
            None => Finding::Absent(format!("{spec}: nothing matches yet; `run` waits for it")),
        };
    }
    let mut lines = vec![format!("{spec}:")];
    for interface in meant.iter().take(SHOWN_INTERFACES) {
        let hooks: Vec<_> = interface
            .role
            .programs()
            .iter()
            .map(|(program, hook)| format!("{program} at {}", hook.as_str()))
            .collect();
        lines.push(format!("{} role {}, {}", interface.name, interface.role, hooks.join(", ")));
        lines.extend(
            Bypass::suspected(interface, view.is_ciliums()).map(|bypass| format!("  warning: {bypass}")),
        );
    }
    if let Some(more) = meant.len().checked_sub(SHOWN_INTERFACES).filter(|&more| more > 0) {
        lines.push(format!("and {more} more"));
    }
    Finding::Ok(lines.join("\n"))
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
        let readiness = check(crate::io::object::EBPF_OBJECT, &[], &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert_eq!(readiness, Readiness::Ready, "{text}");
    }

    #[test]
    fn an_object_that_cannot_be_loaded_is_said_to_be_missing() {
        let mut out = Vec::new();
        let readiness =
            check(b"not an object", &["nothing*".parse().unwrap(), "nothing0".parse().unwrap()], &mut out)
                .unwrap();
        let text = String::from_utf8(out).unwrap();
        assert_eq!(readiness, Readiness::NotReady);
        for line in [
            "missing  programs     load the eBPF object",
            "absent   interfaces   nothing*: nothing matches yet; `run` waits for it",
            "missing  interfaces   nothing0: no interface is named nothing0",
        ] {
            assert!(text.contains(line), "{line} is not in {text}");
        }
    }
}
