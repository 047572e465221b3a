//! Enters: the names of kernels. Leaves: the kernel tests' results inside each of them, live, and a table in the end.

mod archive;
mod guest;
mod modules;
mod packages;
mod programs;
mod results;

use std::{
    fs,
    io::Write as _,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};

use crate::{
    apt::{self, Mode, Need, Presence},
    setup, workspace,
};
use guest::End;
use packages::{Store, Wanted};
use programs::Programs;
use results::{Outcome, Results, Show};

/// What the chore is told.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Kernels: a series (6.1), a kernel's release, a Debian release (bookworm), or `host` for the one that runs
    #[arg(value_name = "KERNEL", default_values = DEFAULT)]
    kernels: Vec<String>,
    /// Only says which kernels would be taken, and of which older ones there are packages
    #[arg(long)]
    list: bool,
    /// How long one kernel may take, in minutes
    #[arg(long, value_name = "MINUTES", default_value_t = 60)]
    timeout: u64,
    /// Runs these test programs only (for instance `classifier`), and not all that are about the kernel
    #[arg(long, value_name = "PROGRAM", value_delimiter = ',')]
    only: Vec<String>,
}

/// The oldest that is supported, the last without TCX, one with it, and this one.
const DEFAULT: [&str; 4] = ["5.10", "6.1", "6.12", "host"];

/// The chore: runs the tests on each kernel and sums them up.
pub(crate) fn run(options: &Options) -> Result<()> {
    if !cfg!(all(target_arch = "x86_64", target_os = "linux")) {
        bail!("the kernels that are booted are of x86-64, and so must this machine be");
    }
    let wanted: Vec<Wanted> =
        options.kernels.iter().map(|word| Wanted::parse(word)).collect::<Result<_>>()?;
    let needs_guests = wanted.iter().any(|wanted| *wanted != Wanted::Host);
    if options.list {
        return list(&options.kernels, &wanted);
    }
    if !workspace::is_root() {
        bail!("the kernel tests need root: they make network namespaces and load eBPF programs");
    }
    setup::tests()?;
    if needs_guests {
        apt::ensure(&needs(), Mode::Act)?;
    }
    let programs = programs::build(&options.only)?;
    let store = if needs_guests { Some(Store::open()?) } else { None };

    let mut runs = Vec::new();
    for (word, wanted) in options.kernels.iter().zip(&wanted) {
        runs.push(run_on(word, wanted, store.as_ref(), &programs, options)?);
    }
    conclude(&runs, options.only.is_empty())
}

/// What one kernel came to.
struct Run {
    kernel: String,
    results: Results,
    took: Duration,
}

fn run_on(
    word: &str,
    wanted: &Wanted,
    store: Option<&Store>,
    programs: &Programs,
    options: &Options,
) -> Result<Run> {
    let patience = Duration::from_secs(options.timeout.saturating_mul(60));
    let mut results = Results::default();
    let scratch = workspace::target_dir()?.join("kernels");
    fs::create_dir_all(&scratch).with_context(|| format!("create {}", scratch.display()))?;
    let log_path = scratch.join(format!("{word}.log"));
    let mut log = fs::File::create(&log_path).with_context(|| format!("create {}", log_path.display()))?;
    let mut take = |results: &mut Results, line: &str| -> Result<()> {
        writeln!(log, "{line}").with_context(|| format!("write {}", log_path.display()))?;
        if results.take(line) == Show::Yes {
            println!("{word:>6} | {line}");
        }
        Ok(())
    };
    let begun;
    let end = match (wanted, store) {
        (Wanted::Host, _) => {
            println!("\nThis machine's own kernel:");
            begun = Instant::now();
            guest::run_here(programs, patience, |line| take(&mut results, line))
        }
        (_, None) => bail!("{word} needs the cache of kernels"),
        (_, Some(store)) => {
            let candidates = store.candidates(wanted)?;
            if candidates.is_empty() {
                bail!(
                    "Debian's releases on this machine's mirror have no package of Linux {word}; see --list"
                );
            }
            let kernel = store.fetch(&candidates)?;
            println!("\nBooting {}, emulated:", kernel.release);
            begun = Instant::now();
            let mut boot = |results: &mut Results| {
                guest::run(&kernel, programs, &scratch, patience, |line| take(results, line))
            };
            let end = boot(&mut results);
            if results.kernel.is_some() || !matches!(end, Ok(End::Finished)) {
                end
            } else {
                println!("It ended before it came up, as emulated ones do now and then; once more:");
                boot(&mut results)
            }
        }
    };
    // What a machine does wrong is its result, and no reason not to try the next.
    let why = match &end {
        Ok(End::Finished) => None,
        Ok(End::TimedOut) => Some(format!("not done after {} minutes", options.timeout)),
        Err(error) => Some(format!("{error:#}")),
    };
    results.close(why.as_deref());
    let kernel = results.kernel.clone().unwrap_or_else(|| word.to_owned());
    println!("The whole output is in {}.", log_path.display());
    Ok(Run { kernel, results, took: begun.elapsed() })
}

/// Prints the table, and what no kernel ran where `is_all` was asked for; an error if anything has failed.
fn conclude(runs: &[Run], is_all: bool) -> Result<()> {
    println!();
    for run in runs {
        let tests = |is: fn(&Outcome) -> bool| run.results.tests.iter().filter(move |test| is(&test.outcome));
        for test in tests(|outcome| matches!(outcome, Outcome::Skipped(_))) {
            if let Outcome::Skipped(reason) = &test.outcome {
                println!("{}: skipped {}: {reason}", run.kernel, test.name);
            }
        }
        for test in tests(|outcome| *outcome == Outcome::Failed) {
            println!("{}: FAILED {}", run.kernel, test.name);
        }
    }
    println!(
        "\n{:34} {:>6} {:>6} {:>7} {:>7}  instructions verified",
        "kernel", "passed", "failed", "skipped", "time"
    );
    for run in runs {
        let [passed, failed, skipped] = run.results.tally();
        let verified: Vec<String> = run
            .results
            .verified
            .iter()
            .map(|(program, count)| format!("{} {count}", program.trim_start_matches("mirror_")))
            .collect();
        let verified = if verified.is_empty() { "not said".to_owned() } else { verified.join(", ") };
        let seconds = run.took.as_secs();
        println!("{:34} {passed:>6} {failed:>6} {skipped:>7} {seconds:>5} s  {verified}", run.kernel);
    }
    if is_all {
        programs::left_out().iter().for_each(|what| println!("left out, {what}"));
    }
    let failed: usize = runs.iter().map(|run| run.results.tally()[1]).sum();
    if failed > 0 {
        bail!("{failed} failed");
    }
    Ok(())
}

fn list(words: &[String], wanted: &[Wanted]) -> Result<()> {
    let store = Store::open()?;
    for (word, wanted) in words.iter().zip(wanted) {
        if *wanted == Wanted::Host {
            println!("{word}: this machine's own");
            continue;
        }
        let candidates = store.candidates(wanted)?;
        println!("{word}: {} packages", candidates.len());
        for package in &candidates {
            let state = if store.unpacked(package).is_some() { " (here)" } else { "" };
            println!("  {}{state}", package.name);
        }
    }
    Ok(())
}

/// What booting kernels takes beside what the kernel tests do.
fn needs() -> Vec<Need> {
    let need = |package: &str, why, program| Need {
        package: package.to_owned(),
        why,
        presence: Presence::Program(program),
    };
    vec![
        need("qemu-system-x86", "boots the kernels, emulated", "qemu-system-x86_64"),
        need("ethtool", "VLAN tags with and without the device's help", "ethtool"),
        need("wireguard-tools", "requests through WireGuard", "wg"),
        need("busybox-static", "mounts and loads modules inside", "busybox"),
        need("xz-utils", "kernel modules are packed with it", "xz"),
        need("zstd", "kernel modules may be packed with it", "zstd"),
        need("util-linux", "lets no emulated machine outlive this program (setpriv)", "setpriv"),
    ]
}
