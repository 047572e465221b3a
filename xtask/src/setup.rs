//! Enters: the machine as it is. Leaves: a compiler that builds eBPF and a linker that matches it.
//!
//! Two routes, chosen by what the machine has: a rustup toolchain with its sources next to it, or the
//! distribution's compiler with its source package. The linker is built for the LLVM major of the one chosen.

use std::{fmt::Write as _, path::PathBuf};

use anyhow::{Result, bail};

use crate::{
    apt::{self, Mode, Need, Presence},
    compiler::{self, Compiler},
    linker::{self, LinkerState},
    parity, prometheus,
};

/// What builds the eBPF object.
pub(crate) struct Toolchain {
    /// The compiler.
    pub(crate) compiler: Compiler,
    /// The linker's executable.
    pub(crate) linker: PathBuf,
}

/// The chore: makes the toolchain usable and, if asked, the tests and the demo too.
pub(crate) fn run(dry_run: bool, all: bool) -> Result<()> {
    let mode = if dry_run { Mode::DryRun } else { Mode::Act };
    if all {
        apt::ensure(&test_needs(), mode)?;
    }
    match toolchain(mode)? {
        Some(toolchain) => {
            println!("Compiler: {}", toolchain.compiler.describe());
            println!("Linker: {}", toolchain.linker.display());
        }
        None => println!("Nothing was changed."),
    }
    Ok(())
}

/// Installs what the demo, the soak and the benches start.
pub(crate) fn scene() -> Result<()> {
    apt::ensure(&scene_needs(), Mode::Act)
}

/// Installs what the tests start, which is that and more.
pub(crate) fn tests() -> Result<()> {
    apt::ensure(&test_needs(), Mode::Act)
}

/// A usable toolchain, installing what is missing. `None` only if something is missing and this is a dry run.
pub(crate) fn toolchain(mode: Mode) -> Result<Option<Toolchain>> {
    // Each round makes one thing usable: a compiler, then the linker that its LLVM asks for.
    for _ in 0..MOST_ROUNDS {
        let compilers = compiler::installed();
        let Some((compiler, linker)) = compiler::choose(&compilers, compiler::oldest(), linker::state) else {
            install_compiler(&compilers, mode)?;
            if mode == Mode::DryRun {
                return Ok(None);
            }
            continue;
        };
        match linker {
            LinkerState::Ready(linker) => {
                return Ok(Some(Toolchain { compiler: compiler.clone(), linker }));
            }
            LinkerState::Unproven(linker) => {
                println!("{} does not say which LLVM it has inside; trying it.", linker.display());
                return Ok(Some(Toolchain { compiler: compiler.clone(), linker }));
            }
            LinkerState::Buildable(_) | LinkerState::Installable | LinkerState::Impossible => {
                println!("The eBPF object will be built by {}.", compiler.describe());
                let major = compiler.facts.llvm_major;
                apt::ensure(&linker::needs(major), mode)?;
                linker::build(major, mode)?;
                if mode == Mode::DryRun {
                    return Ok(None);
                }
            }
        }
    }
    bail!("what was installed does not make a usable toolchain; {}", advice(&compiler::installed()))
}

/// A compiler, its LLVM if it is another than apt foretold, and a look at the end.
const MOST_ROUNDS: usize = 4;

/// A distribution's compiler with sources that match it.
struct Offer {
    compiler: &'static str,
    sources: &'static str,
    libraries: &'static str,
}

/// Debian's compilers. The one that its browsers are built with is kept new in the stable release.
const OFFERS: [Offer; 2] = [
    Offer { compiler: "rustc-web", sources: "rust-web-src", libraries: "libstd-rust-web-dev" },
    Offer { compiler: "rustc", sources: "rust-src", libraries: "libstd-rust-dev" },
];

fn install_compiler(compilers: &[Compiler], mode: Mode) -> Result<()> {
    let oldest = compiler::oldest();
    println!("No compiler here can build the eBPF object, which takes one with its sources next to it.");
    print!("{}", objections(compilers));
    let mut offer = find_offer(oldest);
    if offer.is_none() && apt::is_available() && mode == Mode::Act && crate::workspace::is_root() {
        apt::refresh()?;
        offer = find_offer(oldest);
    }
    let Some(offer) = offer else { bail!("no usable compiler; {}", advice(compilers)) };

    let package = |name: &str, why| Need { package: name.to_owned(), why, presence: Presence::Package };
    let mut needs = vec![
        package(offer.compiler, "the compiler that builds the eBPF object"),
        package(
            offer.sources,
            "the sources of `core`, which has no ready-made build for the kernel's target",
        ),
        package(offer.libraries, "the standard library for the build's macros"),
    ];
    let foretold = apt::llvm_major_below(offer.compiler);
    if let Some(major) = foretold {
        needs.extend(linker::needs(major));
    }
    apt::ensure(&needs, mode)?;
    if let (Mode::DryRun, Some(major)) = (mode, foretold) {
        linker::build(major, mode)?;
    }
    Ok(())
}

fn find_offer(oldest: (u32, u32)) -> Option<&'static Offer> {
    choose_offer(oldest, apt::candidate)
}

fn choose_offer(
    oldest: (u32, u32),
    candidate: impl Fn(&'static str) -> Option<String>,
) -> Option<&'static Offer> {
    OFFERS.iter().find(|offer| {
        let release = candidate(offer.compiler).as_deref().and_then(compiler::parse_release);
        release >= Some(oldest) && candidate(offer.sources).is_some()
    })
}

fn objections(compilers: &[Compiler]) -> String {
    let mut list = String::new();
    for compiler in compilers {
        let linker = linker::state(compiler.facts.llvm_major);
        if let Some(why) = compiler::objection(compiler, compiler::oldest(), &linker)
            && writeln!(list, "  {} {why}", compiler.describe()).is_err()
        {
            break;
        }
    }
    list
}

/// The one message for a machine where neither route is possible.
fn advice(compilers: &[Compiler]) -> String {
    format!(
        "install one of\n  \
           a rustup toolchain with its sources: rustup toolchain install nightly --component rust-src\n  \
           Debian's compiler with its sources: rustc-web rust-web-src libstd-rust-web-dev (apt-get update first)\n\
         and, where apt cannot, LLVM's development files of the compiler's LLVM major (llvm-config must be found) \
         or a bpf-linker built on it.\nFound:\n{}",
        objections(compilers)
    )
}

/// The programs that the kernel tests, the demo and the bench start.
fn scene_needs() -> Vec<Need> {
    vec![
        program("iproute2", "hosts are network namespaces joined by veth pairs (ip, tc)", "ip"),
        program(
            "iptables",
            "the soak and the kernel tests lose and duplicate packets on purpose",
            "iptables",
        ),
        program(
            "nginx-light",
            "the live service and the shadow (Debian also starts it as a service)",
            "nginx",
        ),
        program("procps", "settings of the namespaces' network stacks (sysctl)", "sysctl"),
    ]
}

fn test_needs() -> Vec<Need> {
    let why = "a test opens the agent's page in a browser without a window";
    let browser = [
        program("chromium", why, "chromium"),
        program("chromium-driver", "drives that browser, by WebDriver", "chromedriver"),
    ];
    let others = parity::needs().into_iter().chain(prometheus::needs());
    scene_needs().into_iter().chain(browser).chain(others).collect()
}

fn program(package: &str, why: &'static str, program: &'static str) -> Need {
    Need { package: package.to_owned(), why, presence: Presence::Program(program) }
}

#[cfg(test)]
mod tests {
    use super::choose_offer;

    #[test]
    fn offer_that_is_new_enough_is_taken() {
        let candidate = |package: &str| match package {
            "rustc" | "rust-src" => Some("1.63.0+dfsg1-2".to_owned()),
            "rustc-web" | "rust-web-src" => Some("1.96.0+dfsg1-1~deb12u2".to_owned()),
            _ => None,
        };

        assert_eq!(choose_offer((1, 95), candidate).map(|offer| offer.compiler), Some("rustc-web"));
    }

    #[test]
    fn plain_compiler_is_taken_where_it_is_new_enough() {
        let candidate = |package: &str| package.ends_with("rustc").then(|| "1.97.0+dfsg1-1".to_owned());
        let with_sources = |package: &str| candidate(package).or((package == "rust-src").then(String::new));

        assert_eq!(choose_offer((1, 95), with_sources).map(|offer| offer.compiler), Some("rustc"));
    }

    #[test]
    fn compiler_without_source_package_is_no_offer() {
        let candidate = |package: &str| (package == "rustc-web").then(|| "1.96.0".to_owned());

        assert!(choose_offer((1, 95), candidate).is_none());
    }
}
