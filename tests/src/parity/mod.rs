//! Enters: a directory of captures. Leaves: where `mirror-agent inspect` and Wireshark disagree about the HTTP in them.

mod chunked;
pub mod compare;
mod dissected;
mod explain;
pub mod inspect;
mod layer;
mod markup;
pub mod message;
mod reading;
pub mod shape;
mod stream;
pub mod verdicts;
pub mod wireshark;

use std::{
    fs,
    io::{Read as _, Write},
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
};

use anyhow::{Context as _, Result, bail, ensure};
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;

use compare::{Accounts, Comparison};
use stream::Streams;
use verdicts::Verdicts;
use wireshark::{Patience, Ports};

/// What came of comparing files.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Summary {
    /// Files compared.
    pub files: u64,
    /// Requests of which both tell.
    pub requests: u64,
    /// Responses of which both tell.
    pub responses: u64,
    /// What was not compared, at all or in full, for a reason that is told.
    pub not_compared: u64,
    /// Disagreements with a verdict.
    pub explained: u64,
    /// Disagreements without one.
    pub unexplained: u64,
    /// Files that could not be compared, at all or in full.
    pub unread: u64,
    /// Verdicts that do not fit any more.
    pub stale: u64,
}

impl Summary {
    /// Whether nothing is left to look into.
    #[must_use]
    pub const fn is_clean(&self) -> bool {
        self.unexplained == 0 && self.unread == 0 && self.stale == 0
    }
}

/// Compares all captures in `directory` and below, and tells `out` of each.
///
/// # Errors
///
/// There is no capture, `directory` cannot be read, or `out` cannot be written. A file that cannot be compared is told
/// and counted as unread.
pub fn run(directory: &Path, agent: &Path, verdicts: &Verdicts, out: &mut impl Write) -> Result<Summary> {
    let mut summary = Summary::default();
    let mut seen = Vec::new();
    for compared in compare_files(&captures(directory)?, agent)? {
        let Compared { path, sha256, comparison, remarks, is_unread } = compared;
        let below = path.strip_prefix(directory).ok().filter(|below| *below != Path::new(""));
        let name = below.unwrap_or(&path).display().to_string();
        // As the verdicts know it, also where only a part of their directory is looked at.
        let full = path.canonicalize().unwrap_or(path).display().to_string();
        summary.files += 1;
        summary.requests += comparison.requests;
        summary.responses += comparison.responses;
        summary.not_compared += comparison.not_compared.values().sum::<u64>();
        summary.unread += u64::from(is_unread);
        for remark in remarks {
            writeln!(out, "  {name}: {remark}")?;
        }
        tell(&name, &comparison, out)?;
        for disagreement in &comparison.disagreements {
            writeln!(out, "  {name}: {disagreement}")?;
            match verdicts.explain(&full, &sha256, disagreement) {
                Some(reason) => {
                    summary.explained += 1;
                    writeln!(out, "    verdict:   {reason}")?;
                }
                None => summary.unexplained += 1,
            }
        }
        seen.push((full, sha256));
    }
    for stale in verdicts.stale(&seen) {
        summary.stale += 1;
        writeln!(out, "stale verdict: {stale}")?;
    }
    let Summary { files, requests, responses, not_compared, explained, unexplained, unread, stale } = summary;
    writeln!(
        out,
        "{files} files: {requests} requests and {responses} responses compared ({not_compared} things left out or not \
         in full), {unexplained} disagreements without a verdict, {explained} with one, {unread} files not read in full, {stale} stale verdicts"
    )?;
    Ok(summary)
}

/// What came of one file.
struct Compared {
    path: PathBuf,
    sha256: String,
    comparison: Comparison,
    /// What else there is to say, a line each.
    remarks: Vec<String>,
    /// It could not be compared, or was not read in full by `inspect`, but by Wireshark, which found HTTP in it.
    is_unread: bool,
}

impl Compared {
    /// A file that could not be compared, for this reason.
    fn failed(path: &Path, error: &anyhow::Error) -> Self {
        Self {
            path: path.to_owned(),
            sha256: hash(path).unwrap_or_default(),
            comparison: Comparison::default(),
            remarks: vec![format!("cannot be compared: {error:#}")],
            is_unread: true,
        }
    }
}

/// Compares files, several at a time: most of it is waiting for programs to start.
fn compare_files(paths: &[PathBuf], agent: &Path) -> Result<Vec<Compared>> {
    let next = AtomicUsize::new(0);
    let work = || {
        let mut done = Vec::new();
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some(path) = paths.get(index) else { return done };
            // One file that cannot be compared takes nothing from the others.
            let compared = compare_file(path, agent).unwrap_or_else(|error| Compared::failed(path, &error));
            done.push((index, compared));
        }
    };
    let mut compared = thread::scope(|scope| {
        let workers: Vec<_> = (0..WORKERS).map(|_| scope.spawn(work)).collect();
        let mut compared = Vec::new();
        for worker in workers {
            let Ok(done) = worker.join() else { bail!("a worker of the comparison panicked") };
            compared.extend(done);
        }
        Ok(compared)
    })?;
    compared.sort_by_key(|(index, _)| *index);
    Ok(compared.into_iter().map(|(_, compared)| compared).collect())
}

/// Files compared at a time.
const WORKERS: usize = 4;

fn compare_file(path: &Path, agent: &Path) -> Result<Compared> {
    let unpacked = Unpacked::new(path)?;
    let file = unpacked.path();
    let inspected = inspect::messages(agent, file)?;
    let mut remarks: Vec<String> =
        inspected.warnings.iter().map(|warning| format!("inspect: {warning}")).collect();
    let mut patience = Patience::Whole;
    let dissected = told_in_time(file, &mut patience, Ports::AsKnown)?;
    let mut accounts = Accounts { whole: dissected.messages, ..Accounts::default() };
    let untold = compare::untold_flows(&accounts.whole, &inspected.messages);
    let ports = if untold.is_empty() { Ports::AsKnown } else { Ports::Any };
    if ports == Ports::Any {
        let again = told_in_time(file, &mut patience, ports)?.messages;
        compare::replace_flows(&mut accounts.whole, &again, &untold);
        remarks.push(format!(
            "Wireshark was asked for HTTP on any port, having told nothing of a side of {} flows",
            untold.len()
        ));
    }
    if patience != Patience::Whole {
        remarks
            .push("Wireshark comes to no end where it waits for late segments; it did not wait".to_owned());
    }
    if !compare::is_covered(&accounts.whole, &inspected.messages) {
        accounts.present = wireshark::messages(file, Patience::Present, ports)?.messages;
        accounts.heads = wireshark::messages(file, Patience::Head, ports)?.messages;
        let segments = wireshark::messages(file, Patience::Nothing, ports)?.messages;
        (accounts.segments, accounts.beginnings) =
            segments.into_iter().partition(|message| message.has_whole_head);
    }
    let mut comparison = compare::compare(&accounts, &inspected.messages);
    let disputed = compare::disputed_flows(&comparison);
    if !disputed.is_empty() {
        let streams = Streams::of(file, &disputed)?;
        explain::explain(&mut comparison, &accounts.whole, &inspected.messages, &streams);
        if dissected.error.is_some() {
            comparison.set_aside("behind where Wireshark stops reading", |one| {
                one.is_only_ours() && streams.find(one.way.0, one.way.1, one.seq).is_none()
            });
        }
    }
    for (reason, count) in dissected.left_out {
        *comparison.not_compared.entry(reason).or_default() += count;
    }
    // Of a file without HTTP, as one of a link that carries no IP, nothing is missed.
    let has_http = !accounts.whole.is_empty();
    let is_unread = inspected.error.is_some() && dissected.error.is_none() && has_http;
    for (who, error) in [("inspect", inspected.error), ("Wireshark", dissected.error)] {
        remarks.extend(error.map(|error| format!("{who} stops reading: {error}")));
    }
    Ok(Compared { path: path.to_owned(), sha256: hash(path)?, comparison, remarks, is_unread })
}

/// What Wireshark tells; where it comes to no end, with less patience from then on.
fn told_in_time(file: &Path, patience: &mut Patience, ports: Ports) -> Result<wireshark::Dissected> {
    let dissected = wireshark::messages(file, *patience, ports)?;
    if !dissected.is_stopped {
        return Ok(dissected);
    }
    *patience = Patience::Present;
    let dissected = wireshark::messages(file, *patience, ports)?;
    ensure!(!dissected.is_stopped, "Wireshark comes to no end");
    Ok(dissected)
}

fn tell(name: &str, comparison: &Comparison, out: &mut impl Write) -> Result<()> {
    let Comparison { requests, responses, disagreements, not_compared } = comparison;
    let count = disagreements.len();
    writeln!(out, "{name}: {requests} requests, {responses} responses, {count} disagreements")?;
    for (reason, count) in not_compared {
        writeln!(out, "  {name}: not compared: {count} {reason}")?;
    }
    Ok(())
}

/// The capture files in `root` and below, in order, and what cannot be looked into: comparing it tells why.
fn captures(root: &Path) -> Result<Vec<PathBuf>> {
    if root.is_file() {
        return Ok(vec![root.to_owned()]);
    }
    let mut found = Vec::new();
    let mut open = vec![root.to_owned()];
    while let Some(directory) = open.pop() {
        let entries = match fs::read_dir(&directory) {
            Ok(entries) => entries,
            Err(error) if directory == root => {
                return Err(error).with_context(|| format!("read {}", root.display()));
            }
            Err(_) => {
                found.push(directory);
                continue;
            }
        };
        for entry in entries {
            let path = entry?.path();
            if path.is_dir() {
                open.push(path);
            } else if path.is_file() && is_capture(&path).unwrap_or(true) {
                found.push(path);
            }
        }
    }
    ensure!(!found.is_empty(), "there is no capture in {}", root.display());
    found.sort();
    Ok(found)
}

/// Whether a file is a capture: names are all over the place in public collections.
fn is_capture(path: &Path) -> Result<bool> {
    let mut magic = Vec::new();
    fs::File::open(path)?.take(4).read_to_end(&mut magic)?;
    if magic.starts_with(GZIP) {
        let name = path.to_string_lossy();
        return Ok([".pcap.gz", ".pcapng.gz", ".cap.gz"].iter().any(|end| name.ends_with(end)));
    }
    Ok(MAGICS.iter().any(|known| magic == known))
}

const GZIP: &[u8] = b"\x1f\x8b";

/// How captures begin: pcap with micro- and nanoseconds and as modified by Kuznetzov, in both byte orders; pcapng.
const MAGICS: [[u8; 4]; 7] = [
    [0xa1, 0xb2, 0xc3, 0xd4],
    [0xd4, 0xc3, 0xb2, 0xa1],
    [0xa1, 0xb2, 0x3c, 0x4d],
    [0x4d, 0x3c, 0xb2, 0xa1],
    [0xa1, 0xb2, 0xcd, 0x34],
    [0x34, 0xcd, 0xb2, 0xa1],
    [0x0a, 0x0d, 0x0d, 0x0a],
];

fn hash(path: &Path) -> Result<String> {
    let bytes = fs::read(path).with_context(|| format!("read {}", path.display()))?;
    Ok(Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect())
}

/// A capture that is not compressed, or not any more.
enum Unpacked {
    AsItWas(PathBuf),
    Copy { _directory: TempDir, path: PathBuf },
}

impl Unpacked {
    fn new(path: &Path) -> Result<Self> {
        let mut magic = Vec::new();
        fs::File::open(path)?.take(2).read_to_end(&mut magic)?;
        if magic != GZIP {
            return Ok(Self::AsItWas(path.to_owned()));
        }
        let directory = TempDir::new()?;
        let copy = directory.path().join("capture");
        let mut gzip = Command::new("gzip");
        gzip.arg("-dc").stdin(fs::File::open(path)?).stdout(fs::File::create(&copy)?);
        let output = gzip.output().context("start gzip")?;
        let said = String::from_utf8_lossy(&output.stderr);
        // 2 is a warning: all was decompressed, and something else follows.
        ensure!(matches!(output.status.code(), Some(0 | 2)), "cannot be decompressed: {}", said.trim());
        Ok(Self::Copy { _directory: directory, path: copy })
    }

    fn path(&self) -> &Path {
        match self {
            Self::AsItWas(path) | Self::Copy { path, .. } => path,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_that_cannot_be_compared_is_told_and_does_not_end_the_run() {
        let directory = tempfile::tempdir().unwrap();
        for name in ["a.pcap.gz", "b.pcap.gz"] {
            fs::write(directory.path().join(name), b"\x1f\x8bno more of it").unwrap();
        }
        let mut out = Vec::new();
        let summary =
            run(directory.path(), Path::new("/nonexistent"), &Verdicts::default(), &mut out).unwrap();
        let told = String::from_utf8(out).unwrap();
        assert_eq!((summary.files, summary.unread), (2, 2));
        assert!(!summary.is_clean());
        assert_eq!(told.matches("cannot be compared: ").count(), 2, "{told}");
    }

    #[test]
    fn directory_without_captures_is_an_error() {
        let directory = tempfile::tempdir().unwrap();
        captures(directory.path()).unwrap_err();
        captures(&directory.path().join("elsewhere")).unwrap_err();
    }
}
