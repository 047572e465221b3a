//! Enters: arguments for `cargo test`. Leaves: the tests' output as it comes, and one line that sums it up.

use std::{
    ffi::OsString,
    io::{self, BufRead as _, BufReader, Read, Write},
    process::{Command, Stdio},
    thread,
};

use anyhow::{Context as _, Result, bail};

use crate::{
    build::{self, KernelLog, Profile},
    child, setup, workspace,
};

/// The chore: sets up what is missing, builds what the tests drive, runs them all.
pub(crate) fn run(args: &[OsString]) -> Result<()> {
    if workspace::is_root() {
        setup::tests()?;
    } else {
        println!("Not root: the kernel tests will say that they were skipped.");
    }
    build::object(KernelLog::Off)?;
    // Much of each build is one crate on one processor.
    let tests = workspace::cargo(&["test", "--locked", "--no-run", "--quiet"])?;
    let early = args.is_empty().then(|| whole(tests).spawn().context("build the tests")).transpose()?;
    // The kernel tests drive the agent as it ships.
    let agent = build::agent(Profile::Release);
    if let Some(mut early) = early {
        // Where this failed, the tests themselves say so.
        early.wait().context("wait for the tests to be built")?;
    }
    let agent = agent?;

    let mut cargo = workspace::cargo(&["test", "--locked", "--no-fail-fast"])?;
    if !args.iter().any(|arg| arg == "-p" || arg.to_string_lossy().starts_with("--package")) {
        cargo = whole(cargo);
    }
    cargo.args(args);
    if !args.iter().any(|arg| arg == "--") {
        cargo.arg("--");
    }
    // A test that cannot run here prints why and passes; the runner would keep that to itself.
    cargo.arg("--show-output").env("MIRROR_AGENT_BIN", agent);
    let (mut tally, mut failed) = observe(cargo)?;
    if args.is_empty() {
        // A workspace of its own, since it takes a client in C; what both have in common is built once.
        let target = workspace::target_dir()?;
        let mut cargo = workspace::cargo(&["test", "--locked", "--manifest-path", KAFKA, "--target-dir"])?;
        cargo.arg(target).args(["--", "--show-output"]);
        let (more, failed_too) = observe(cargo)?;
        tally = tally.plus(more);
        failed = failed.or(failed_too);
    }
    println!("\n{}", tally.summary());
    match failed {
        Some(how) => bail!(how),
        None if tally.failed > 0 => bail!("a test failed"),
        None => Ok(()),
    }
}

/// All tests of the workspace, those of what only the deployed agent has among them.
fn whole(mut cargo: Command) -> Command {
    cargo.args(["--workspace", "--features", &format!("mirror-agent/{}", build::TESTED_FEATURE)]);
    cargo
}

/// The sinks held against brokers.
const KAFKA: &str = "tests/kafka/Cargo.toml";

/// Runs a test runner to its end: what it counted, and how it failed if it did.
fn observe(mut cargo: Command) -> Result<(Tally, Option<String>)> {
    let name = child::describe(&cargo);
    cargo.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut running = cargo.spawn().with_context(|| format!("start `{name}`"))?;
    let stdout = running.stdout.take().context("read the tests' standard output")?;
    let stderr = running.stderr.take().context("read the tests' standard error")?;
    let diagnostics = thread::spawn(move || pass_on(stderr, io::stderr()));
    let results = pass_on(stdout, io::stdout())?;
    let Ok(diagnostics) = diagnostics.join() else { bail!("reading the tests' standard error failed") };
    let status = running.wait().with_context(|| format!("wait for `{name}`"))?;
    let failed = (!status.success()).then(|| format!("`{name}` ended with {status}"));
    Ok((results.plus(diagnostics?), failed))
}

/// Copies lines as they come, counting what they say. The runner's second list of the tests that passed, which
/// comes with their output, is left out.
fn pass_on(from: impl Read, mut to: impl Write) -> Result<Tally> {
    let mut lines = BufReader::new(from);
    let mut tally = Tally::default();
    let mut is_list = false;
    let mut line = Vec::new();
    while lines.read_until(b'\n', &mut line).context("read the tests' output")? > 0 {
        tally.note(&String::from_utf8_lossy(&line));
        is_list = line == b"successes:\n" || is_list && (line == b"\n" || line.starts_with(b"    "));
        if !is_list {
            to.write_all(&line).and_then(|()| to.flush()).context("pass the tests' output on")?;
        }
        line.clear();
    }
    Ok(tally)
}

/// What the runners said so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Tally {
    passed: u64,
    failed: u64,
    /// Tests the runner left out.
    ignored: u64,
    /// Tests that started, said why they cannot run here, and are among the passed.
    skipped: u64,
    /// In the output of one test: whether it has said so.
    has_said: Option<bool>,
}

impl Tally {
    fn note(&mut self, line: &str) {
        let line = line.trim();
        if let Some((_, counts)) = line.strip_prefix("test result: ").and_then(|rest| rest.split_once(". ")) {
            self.passed += count(counts, "passed");
            self.failed += count(counts, "failed");
            self.ignored += count(counts, "ignored");
            self.has_said = None;
        } else if line.starts_with("---- ") {
            self.has_said = Some(false);
        } else if line.contains("SKIPPED: ") {
            // One that leaves out several things is one test; what is not within the output of one is each of another.
            self.skipped += u64::from(self.has_said != Some(true));
            self.has_said = self.has_said.map(|_| true);
        }
    }

    fn plus(self, other: Self) -> Self {
        Self {
            passed: self.passed + other.passed,
            failed: self.failed + other.failed,
            ignored: self.ignored + other.ignored,
            skipped: self.skipped + other.skipped,
            has_said: None,
        }
    }

    fn summary(self) -> String {
        let passed = self.passed.saturating_sub(self.skipped);
        format!("{passed} passed, {} failed, {} skipped", self.failed, self.skipped + self.ignored)
    }
}

/// The number before `what` in `3 passed; 0 failed; 1 ignored`.
fn count(counts: &str, what: &str) -> u64 {
    let number = counts.split("; ").find_map(|part| part.trim().strip_suffix(what)?.trim().parse().ok());
    number.unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::{Tally, pass_on};

    #[test]
    fn runs_are_summed() {
        let output = "test result: ok. 3 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.1s\n\
                      noise\n\
                      test result: FAILED. 2 passed; 1 failed; 4 ignored; 0 measured; 0 filtered out\n";

        assert_eq!(summary(output), "5 passed, 1 failed, 4 skipped");
    }

    #[test]
    fn skipped_tests_are_taken_from_the_passed() {
        let output = "SKIPPED: vlan: this kernel has no vlan device\n\
                      test result: ok. 3 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out\n";

        assert_eq!(summary(output), "2 passed, 0 failed, 1 skipped");
        let output = "---- a stdout ----\nSKIPPED: no tun\nSKIPPED: no bond\n\n---- b stdout ----\nSKIPPED: no tun\n\n\
                      test result: ok. 3 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out\n";

        assert_eq!(summary(output), "1 passed, 0 failed, 2 skipped");
        let output = "SKIPPED: a: needs root\nSKIPPED: b: needs root\n\
                      test result: ok. 3 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out\n";

        assert_eq!(summary(output), "1 passed, 0 failed, 2 skipped");
    }

    #[test]
    fn output_is_passed_on_unchanged_even_if_it_is_not_text() {
        let output = b"\xff\xfe\nlast line without end";
        let mut copy = Vec::new();

        pass_on(&output[..], &mut copy).unwrap();

        assert_eq!(copy, output);
    }

    #[test]
    fn output_of_passed_tests_is_kept_and_their_second_list_is_not() {
        let output = "successes:\n\n---- vlan stdout ----\nSKIPPED: no vlan\n\nsuccesses:\n    vlan\n    ipv6\n\n\
                      test result: ok. 2 passed; 0 failed; 0 ignored\n";
        let mut copy = Vec::new();

        pass_on(output.as_bytes(), &mut copy).unwrap();

        let kept =
            "---- vlan stdout ----\nSKIPPED: no vlan\n\ntest result: ok. 2 passed; 0 failed; 0 ignored\n";
        assert_eq!(String::from_utf8(copy).unwrap(), kept);
    }

    #[test]
    fn no_output_is_no_tests() {
        assert_eq!(Tally::default().summary(), "0 passed, 0 failed, 0 skipped");
    }

    fn summary(output: &str) -> String {
        pass_on(output.as_bytes(), std::io::sink()).unwrap().summary()
    }
}
