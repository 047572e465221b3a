//! Enters: a number of seconds. Leaves: that much fuzzing of each target, and every input that breaks one.
//!
//! libFuzzer is driven directly: its flags are rustc's own, so that rustup's stable compiler is enough. Only the
//! sanitizer has to be unlocked, for this build alone. Inputs that reach something new stay under the target folder.

use std::{
    env,
    ffi::OsString,
    fs,
    io::BufReader,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};

use crate::{
    apt::{self, Mode, Need, Presence},
    child, workspace,
};

/// How to fuzz.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// Seconds of processor time for each target.
    pub(crate) seconds: u64,
    /// The targets; all where there is none.
    pub(crate) targets: Vec<String>,
    /// Targets at a time.
    pub(crate) jobs: usize,
    /// Whether to put what was found since into the corpora that are kept.
    pub(crate) minimize: bool,
}

/// The targets, each a binary of the fuzz crate and a folder of inputs.
pub(crate) const TARGETS: [&str; 10] =
    ["capture_file", "compare", "config", "flow", "frame", "http", "pipeline", "policy", "redact", "rewrite"];

/// What cargo-fuzz asks of rustc, too: coverage counters at every branch, and the operands of comparisons.
const COVERAGE_FLAGS: [&str; 6] = [
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "-Zsanitizer=address",
];

/// A target is given no more memory than this: what it holds is bounded far below.
const MEMORY_MIB: u32 = 2048;

/// An input may take this long. The slowest take milliseconds, but the machine may be busy.
const INPUT_TIMEOUT: Duration = Duration::from_secs(20);

/// Most bytes of an input. Longer ones are slower and seldom reach more.
const INPUT_BYTES: usize = 4096;

/// Most inputs that are kept for a target, and most bytes of each.
const KEPT_INPUTS: usize = 48;
const KEPT_BYTES: u64 = 2048;

/// The chore: builds the targets, replays what is kept, then fuzzes.
pub(crate) fn run(plan: &Plan) -> Result<()> {
    let targets: Vec<&str> = match plan.targets.as_slice() {
        [] => TARGETS.to_vec(),
        names => names.iter().map(|name| known_target(name)).collect::<Result<_>>()?,
    };
    let binaries = build()?;
    let bench = Bench { binaries, kept: kept_dir()?, found: workspace::target_dir()?.join("fuzz") };
    let next = AtomicUsize::new(0);
    let reports = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..plan.jobs.clamp(1, targets.len()) {
            scope.spawn(|| {
                while let Some(target) = targets.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let report = bench.fuzz(target, plan);
                    if let Ok(report) = &report {
                        println!("{report}");
                    }
                    if let Ok(mut reports) = reports.lock() {
                        reports.push(report);
                    }
                }
            });
        }
    });
    let Ok(reports) = reports.into_inner() else { bail!("a target's thread panicked") };
    let reports = reports.into_iter().collect::<Result<Vec<_>>>()?;
    let findings: Vec<&PathBuf> = reports.iter().flat_map(|report| &report.findings).collect();
    println!("\n{} targets, {} findings", reports.len(), findings.len());
    if !findings.is_empty() {
        let list: String = findings.iter().map(|path| format!("\n  {}", path.display())).collect();
        bail!("these inputs break a target:{list}");
    }
    Ok(())
}

fn known_target(name: &str) -> Result<&'static str> {
    let known = TARGETS.iter().find(|target| **target == name);
    known.copied().with_context(|| format!("no target `{name}`: there are {}", TARGETS.join(", ")))
}

/// Where the inputs are that belong to the sources.
fn kept_dir() -> Result<PathBuf> {
    Ok(workspace::root()?.join("tests/fuzz/corpus"))
}

/// The manifest of the crate that stands outside of the workspace.
pub(crate) fn manifest() -> Result<PathBuf> {
    Ok(workspace::root()?.join("tests/fuzz/libfuzzer/Cargo.toml"))
}

/// Builds the targets. Gives the folder of their binaries.
fn build() -> Result<PathBuf> {
    let why = "libFuzzer is C++";
    apt::ensure(&[Need { package: "g++".to_owned(), why, presence: Presence::Program("g++") }], Mode::Act)?;
    let host = host()?;
    let target_dir = workspace::target_dir()?.join("fuzz/build");
    let mut cargo =
        workspace::cargo(&["build", "--locked", "--release", "--quiet", "--bins", "--manifest-path"])?;
    // With `--target`, the flags are not those of build scripts, which would not start without the sanitizer.
    cargo.arg(manifest()?).args(["--target", &host]);
    cargo.env("CARGO_TARGET_DIR", &target_dir);
    cargo.env("RUSTC_BOOTSTRAP", "1").env("CARGO_ENCODED_RUSTFLAGS", COVERAGE_FLAGS.join("\x1f"));
    println!("Building the fuzz targets.");
    let began = Instant::now();
    child::run(&mut cargo)?;
    println!("Built in {} s.", began.elapsed().as_secs());
    Ok(target_dir.join(host).join("release"))
}

/// The machine's own target, as rustc names it.
fn host() -> Result<String> {
    let rustc = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let version = child::answer(Command::new(rustc).arg("-vV")).context("ask rustc for its host")?;
    let host = version.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(host.context("find the host in what rustc says")?.to_owned())
}

/// Where the parts are.
struct Bench {
    binaries: PathBuf,
    kept: PathBuf,
    found: PathBuf,
}

/// What came of one target.
struct Report {
    target: &'static str,
    kept: usize,
    executions: u64,
    coverage: u64,
    features: u64,
    processor: Duration,
    findings: Vec<PathBuf>,
}

impl std::fmt::Display for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { target, kept, executions, coverage, features, processor, findings } = self;
        let seconds = processor.as_secs_f64();
        write!(
            f,
            "{target:<14} {kept:>3} kept inputs replayed, {executions:>10} executions in {seconds:>7.1} s, "
        )?;
        write!(f, "coverage {coverage:>5}, features {features:>6}, {} findings", findings.len())?;
        for finding in findings {
            write!(f, "\n  {}", finding.display())?;
        }
        Ok(())
    }
}

/// What one run of libFuzzer said and took.
struct Run {
    said: Said,
    status: ExitStatus,
    processor: Duration,
}

impl Bench {
    /// Replays what is kept for a target, fuzzes it, and, if asked, puts what was found to what is kept.
    fn fuzz(&self, target: &'static str, plan: &Plan) -> Result<Report> {
        let kept = self.kept.join(target);
        let found = self.found.join("corpus").join(target);
        let findings = self.found.join("findings").join(target);
        for dir in [&kept, &found, &findings] {
            fs::create_dir_all(dir).with_context(|| format!("make the folder {}", dir.display()))?;
        }
        let before = files(&findings)?;
        let mut report = Report {
            target,
            kept: files(&kept)?.len(),
            executions: 0,
            coverage: 0,
            features: 0,
            processor: Duration::ZERO,
            findings: Vec::new(),
        };
        let replayed = self.libfuzzer(target, &findings, &["-runs=0".into(), kept.clone().into()])?;
        report.add(&replayed);
        let budget = Duration::from_secs(plan.seconds);
        let mut is_sound = replayed.status.success();
        // libFuzzer counts the seconds of the clock; on a busy machine a run gets fewer of the processor.
        while is_sound && report.processor + Duration::from_secs(1) <= budget {
            let left = (budget - report.processor).as_secs().max(1);
            let limit = format!("-max_total_time={left}").into();
            let run =
                self.libfuzzer(target, &findings, &[limit, found.clone().into(), kept.clone().into()])?;
            report.add(&run);
            is_sound = run.status.success();
        }
        report.findings = files(&findings)?.into_iter().filter(|file| !before.contains(file)).collect();
        if !is_sound && report.findings.is_empty() {
            // An input that is kept, or one found earlier, breaks it again: libFuzzer has named it.
            bail!("{target} fails and left no new input; run `{}`", self.replay_line(target, &kept));
        }
        if plan.minimize && is_sound {
            self.keep(target, &kept, &found)?;
        }
        Ok(report)
    }

    fn libfuzzer(&self, target: &str, findings: &Path, arguments: &[OsString]) -> Result<Run> {
        let mut command = Command::new(self.binaries.join(target));
        command.arg(format!("-artifact_prefix={}/", findings.display()));
        command.args([format!("-max_len={INPUT_BYTES}"), format!("-rss_limit_mb={MEMORY_MIB}")]);
        command.arg(format!("-timeout={}", INPUT_TIMEOUT.as_secs())).arg("-print_final_stats=1");
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut running = command.spawn().with_context(|| format!("start the target {target}"))?;
        let stderr = running.stderr.take().context("read what libFuzzer says")?;
        let reader = thread::spawn(move || Said::read(BufReader::new(stderr)));
        let (status, processor) = wait(&mut running)?;
        let Ok(said) = reader.join() else { bail!("reading what libFuzzer says failed") };
        let said = said?;
        if !status.success() {
            print!("{}", said.tail);
        }
        Ok(Run { said, status, processor })
    }

    /// Puts those inputs that reach something to the ones that are kept, short ones first, as many as are kept.
    fn keep(&self, target: &str, kept: &Path, found: &Path) -> Result<()> {
        let merged = self.found.join("merged").join(target);
        if merged.exists() {
            fs::remove_dir_all(&merged).with_context(|| format!("remove {}", merged.display()))?;
        }
        fs::create_dir_all(&merged).with_context(|| format!("make the folder {}", merged.display()))?;
        let arguments = ["-set_cover_merge=1".into(), merged.clone().into(), kept.into(), found.into()];
        let run = self.libfuzzer(target, &self.found.join("findings").join(target), &arguments)?;
        if !run.status.success() {
            bail!("merging the inputs of {target} ended with {}", run.status);
        }
        let before: Vec<Vec<u8>> = files(kept)?.iter().filter_map(|file| fs::read(file).ok()).collect();
        let mut room = KEPT_INPUTS.saturating_sub(before.len());
        let mut candidates: Vec<(u64, PathBuf)> = Vec::new();
        for file in files(&merged)? {
            let len = fs::metadata(&file).with_context(|| format!("look at {}", file.display()))?.len();
            candidates.push((len, file));
        }
        candidates.sort();
        // The longest of those that are short enough reach most.
        for (_, file) in candidates.iter().rev().filter(|(len, _)| *len <= KEPT_BYTES) {
            let bytes = fs::read(file).with_context(|| format!("read {}", file.display()))?;
            if room == 0 || before.contains(&bytes) {
                continue;
            }
            let name = file.file_name().context("name an input")?.to_string_lossy().into_owned();
            let short = kept.join(format!("found-{}", name.get(..12).unwrap_or(&name)));
            fs::write(&short, bytes).with_context(|| format!("write {}", short.display()))?;
            room -= 1;
        }
        Ok(())
    }

    fn replay_line(&self, target: &str, inputs: &Path) -> String {
        format!("{} -runs=0 {}", self.binaries.join(target).display(), inputs.display())
    }
}

impl Report {
    fn add(&mut self, run: &Run) {
        self.executions += run.said.executions;
        self.coverage = self.coverage.max(run.said.coverage);
        self.features = self.features.max(run.said.features);
        self.processor += run.processor;
    }
}

/// Waits for the end of a child and gives the processor time that it took.
fn wait(running: &mut Child) -> Result<(ExitStatus, Duration)> {
    let stat = PathBuf::from(format!("/proc/{}/stat", running.id()));
    let mut processor = Duration::ZERO;
    loop {
        if let Some(so_far) = fs::read_to_string(&stat).ok().as_deref().and_then(processor_time) {
            processor = so_far;
        }
        match running.try_wait().context("wait for libFuzzer")? {
            Some(status) => return Ok((status, processor)),
            None => thread::sleep(Duration::from_millis(20)),
        }
    }
}

/// The processor time of a process in the words of /proc/PID/stat; its clock ticks 100 times a second on Linux.
fn processor_time(stat: &str) -> Option<Duration> {
    // The name of the program is in brackets and may hold anything.
    let mut fields = stat.get(stat.rfind(')')? + 1..)?.split_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(Duration::from_millis((user + system) * 10))
}

/// What libFuzzer said.
#[derive(Debug, Default)]
struct Said {
    executions: u64,
    coverage: u64,
    features: u64,
    /// The last lines, for a run that ends badly.
    tail: String,
}

/// Lines kept of what libFuzzer says.
const TAIL_LINES: usize = 20;

impl Said {
    fn read(lines: impl std::io::BufRead) -> Result<Self> {
        let mut said = Self::default();
        let mut tail = std::collections::VecDeque::new();
        for line in lines.split(b'\n') {
            let line = String::from_utf8_lossy(&line.context("read what libFuzzer says")?).into_owned();
            said.note(&line);
            if is_stack(&line) {
                continue;
            }
            if tail.len() == TAIL_LINES {
                tail.pop_front();
            }
            tail.push_back(line);
        }
        said.tail = tail.into_iter().map(|line| line + "\n").collect();
        Ok(said)
    }

    fn note(&mut self, line: &str) {
        if let Some(count) = line.strip_prefix("stat::number_of_executed_units:") {
            self.executions = count.trim().parse().unwrap_or(self.executions);
        } else if line.starts_with('#') {
            let number = |name: &str| line.split_once(name)?.1.split_whitespace().next()?.parse().ok();
            self.coverage = number(" cov: ").unwrap_or(self.coverage);
            self.features = number(" ft: ").unwrap_or(self.features);
        }
    }
}

/// Whether a line is a part of a stack's trace, which the reproducer shows again.
fn is_stack(line: &str) -> bool {
    let line = line.trim_start();
    line.starts_with("at ")
        || line.split_once(": ").is_some_and(|(number, _)| number.parse::<u32>().is_ok())
        || line.strip_prefix('#').is_some_and(|rest| rest.contains(" in ") || rest.contains("  ("))
}

fn files(dir: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(dir).with_context(|| format!("list {}", dir.display()))?;
    let mut files = entries
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<Vec<_>, _>>()
        .with_context(|| format!("list {}", dir.display()))?;
    files.retain(|file| file.is_file());
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Said, TARGETS, processor_time};

    #[test]
    fn what_libfuzzer_says_is_understood() {
        let output = "#2\tINITED cov: 12 ft: 13 corp: 1/1b exec/s: 0 rss: 41Mb\n\
                      #7\tNEW    cov: 14 ft: 19 corp: 2/5b lim: 4 exec/s: 0 rss: 41Mb L: 4/4\n\
                      stat::number_of_executed_units: 123456\n";

        let said = Said::read(output.as_bytes()).unwrap();

        assert_eq!((said.executions, said.coverage, said.features), (123_456, 14, 19));
    }

    #[test]
    fn processor_time_is_found_behind_a_name_with_brackets() {
        let stat = "7 (a) b) R 1 7 7 0 -1 4194304 90 0 0 0 250 50 0 0 20 0 1 0 100 0 0";

        assert_eq!(processor_time(stat), Some(Duration::from_secs(3)));
    }

    #[test]
    fn each_target_has_inputs_that_are_kept() {
        for target in TARGETS {
            let dir = super::kept_dir().unwrap().join(target);
            assert!(!super::files(&dir).unwrap().is_empty(), "{target}");
        }
    }
}
