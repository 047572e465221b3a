//! Enters: a command line. Leaves: a running agent, its metrics, and what it printed at its end.

use std::{
    env,
    fs::{self, File},
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::{Child, ExitStatus, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use nix::{
    sys::signal::{Signal, kill},
    unistd::{Pid, SysconfVar, sysconf},
};
use tempfile::TempDir;

use crate::{
    metrics::{Ledger, Metrics},
    netns::{Host, INTERFACE},
    slowness::{slowdown, slowed},
};

/// Where the agent's metrics listener is unless told otherwise.
const METRICS_PORT: u16 = 9477;

/// How long the agent lets a copy wait for a connection unless told otherwise.
const QUEUE_TIMEOUT: Duration = Duration::from_secs(1);

/// How long an agent may take to start. Verifiers of emulated machines on a busy host take minutes for the programs.
const START_PATIENCE: Duration = Duration::from_secs(300);

/// A worker's longest wait for its ring, and half of that.
const LONGEST_UNREAD: Duration = Duration::from_millis(150);

/// How long an agent that is paused or resumed may take to say so.
const HEED_PATIENCE: Duration = Duration::from_secs(10);

/// Where the agent's program is, if it is there: `MIRROR_AGENT_BIN`, else what the workspace has built.
#[must_use]
pub fn program() -> Option<PathBuf> {
    if let Some(path) = env::var_os("MIRROR_AGENT_BIN") {
        return Some(PathBuf::from(path));
    }
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent()?;
    let target = env::var_os("CARGO_TARGET_DIR").map_or_else(|| workspace.join("target"), PathBuf::from);
    ["release", "debug"]
        .into_iter()
        .map(|profile| target.join(profile).join("mirror-agent"))
        .find(|path| path.exists())
}

/// Returns from the test, saying why, where the agent cannot be run.
#[macro_export]
macro_rules! require_agent {
    () => {
        $crate::require_hosts!();
        if $crate::agent::program().is_none() {
            println!(
                "SKIPPED: no mirror-agent was built (cargo xtask build), nor does MIRROR_AGENT_BIN name one"
            );
            return Ok(());
        }
    };
}

/// An agent's command line for `run`, on the host's one interface unless said otherwise.
#[derive(Clone, Debug)]
pub struct Arguments {
    words: Vec<String>,
    variables: Vec<(String, String)>,
    metrics_port: u16,
}

impl Arguments {
    /// Mirrors a port to a shadow.
    #[must_use]
    pub fn new(port: u16, shadow: SocketAddr) -> Self {
        Self::to_url(port, &format!("http://{shadow}"))
    }

    /// Mirrors a port to a shadow said as URL.
    #[must_use]
    pub fn to_url(port: u16, shadow: &str) -> Self {
        Self::on(INTERFACE, port, shadow)
    }

    /// The same on other interfaces, separated by commas.
    #[must_use]
    pub fn on(interfaces: &str, port: u16, shadow: &str) -> Self {
        let port = port.to_string();
        let words = ["run", "--interface", interfaces, "--port", &port, "--shadow", shadow];
        Self { words: words.map(str::to_owned).to_vec(), variables: Vec::new(), metrics_port: METRICS_PORT }
    }

    /// Does what a configuration file says.
    #[must_use]
    pub fn from_file(path: &Path) -> Self {
        let words = ["run", "--config"].map(str::to_owned).into_iter().chain([path.display().to_string()]);
        Self { words: words.collect(), variables: Vec::new(), metrics_port: METRICS_PORT }
    }

    /// Adds options.
    #[must_use]
    pub fn with(mut self, options: &[&str]) -> Self {
        self.words.extend(options.iter().map(|option| (*option).to_owned()));
        self
    }

    /// Adds a variable to its environment.
    #[must_use]
    pub fn with_variable(mut self, name: &str, value: &str) -> Self {
        self.variables.push((name.to_owned(), value.to_owned()));
        self
    }

    /// What lets copies wait for longer on a machine that is slow, where they may be told on the command line and were not.
    fn patience(&self) -> Vec<String> {
        let is_said = |option: &str| self.words.iter().any(|word| word == option);
        if slowdown() > 1.0 && is_said("--shadow") && !is_said("--queue-timeout") {
            vec!["--queue-timeout".to_owned(), format!("{}ms", slowed(QUEUE_TIMEOUT).as_millis())]
        } else {
            Vec::new()
        }
    }

    /// Moves the metrics listener, for a second agent on the same host.
    #[must_use]
    pub fn with_metrics_port(mut self, port: u16) -> Self {
        self.metrics_port = port;
        self.with(&["--metrics-listen", &format!("127.0.0.1:{port}")])
    }
}

/// A running agent; killed when dropped.
#[derive(Debug)]
pub struct Agent {
    child: Child,
    metrics_at: SocketAddr,
    directory: TempDir,
    namespace: Namespace,
}

/// How to reach the agent's loopback from outside.
#[derive(Debug)]
struct Namespace(File);

/// How an agent ended.
#[derive(Debug)]
pub struct Ended {
    /// Its exit status.
    pub status: ExitStatus,
    /// What it printed.
    pub stdout: String,
    /// What it logged.
    pub stderr: String,
    /// From the signal to the end.
    pub took: Duration,
}

impl Ended {
    /// The first number after a word in what was printed, for instance after `seen`.
    #[must_use]
    pub fn printed_figure(&self, word: &str) -> Option<u64> {
        let text = format!("{}\n{}", self.stdout, self.stderr);
        let start = text.rfind(word)? + word.len();
        let digits = text[start..].trim_start_matches(|symbol: char| !symbol.is_ascii_digit());
        digits.split(|symbol: char| !symbol.is_ascii_digit()).next()?.parse().ok()
    }
}

impl Ended {
    /// A figure of the sum over all requests, for instance `seen`; zero where none was printed.
    #[must_use]
    pub fn book_figure(&self, word: &str) -> u64 {
        let line = self.stdout.lines().find(|line| line.starts_with("ledger:")).unwrap_or_default();
        let mut words = line.split_ascii_whitespace().skip_while(|found| *found != word).skip(1);
        words.next().and_then(|figure| figure.parse().ok()).unwrap_or(0)
    }
}

impl Agent {
    /// Starts an agent and waits until it is ready.
    ///
    /// # Errors
    ///
    /// It ends, or is not ready within five minutes; what it logged is in the error.
    pub fn start(host: &Host, arguments: &Arguments) -> Result<Self> {
        let mut agent = Self::launch(host, arguments)?;
        agent.until_ready()?;
        Ok(agent)
    }

    /// Waits until it is ready.
    ///
    /// # Errors
    ///
    /// It ends, or is not ready within five minutes; what it logged is in the error.
    pub fn until_ready(&mut self) -> Result<()> {
        self.until_answer(200, "ok")
    }

    /// Waits until its `/readyz` answers with this status and a text that holds these words.
    ///
    /// # Errors
    ///
    /// It ends, or does not answer so within five minutes; what it logged is in the error.
    pub fn until_answer(&mut self, status: u16, words: &str) -> Result<()> {
        let deadline = Instant::now() + START_PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait()? {
                bail!("the agent ended with {status}: {}", self.printed("stderr"));
            }
            match self.get("/readyz") {
                Ok((found, text)) if found == status && text.contains(words) => return Ok(()),
                answer if Instant::now() > deadline => {
                    bail!("/readyz answers {answer:?}, not {status}: {}", self.printed("stderr"))
                }
                _ => thread::sleep(Duration::from_millis(5)),
            }
        }
    }

    /// Starts an agent that is expected to refuse, and waits for its end.
    ///
    /// # Errors
    ///
    /// It still runs after five minutes.
    pub fn refuse(host: &Host, arguments: &Arguments) -> Result<Ended> {
        let mut agent = Self::launch(host, arguments)?;
        agent.wait(START_PATIENCE)
    }

    /// Starts an agent and waits for nothing.
    ///
    /// # Errors
    ///
    /// It cannot be started.
    pub fn launch(host: &Host, arguments: &Arguments) -> Result<Self> {
        Self::launch_with(host, arguments, None)
    }

    /// The same, with its standard error somewhere else than in a file.
    ///
    /// # Errors
    ///
    /// It cannot be started.
    pub fn launch_with(host: &Host, arguments: &Arguments, stderr: Option<Stdio>) -> Result<Self> {
        let program = program().context("no mirror-agent was built")?;
        let directory = tempfile::Builder::new().prefix("mirror-agent-").tempdir()?;
        let file = |name: &str| File::create(directory.path().join(name));
        let child = host
            .command(&program)
            .args(&arguments.words)
            .args(arguments.patience())
            .envs(arguments.variables.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(file("stdout")?)
            .stderr(stderr.map_or_else(|| file("stderr").map(Stdio::from), Ok)?)
            .spawn()
            .context("start the agent")?;
        let namespace = host.within(|| Ok(Namespace(File::open("/proc/thread-self/ns/net")?)))?;
        let metrics_at = SocketAddr::from((Ipv4Addr::LOCALHOST, arguments.metrics_port));
        Ok(Self { child, metrics_at, directory, namespace })
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Asks its listener for a path; gives status and body.
    ///
    /// # Errors
    ///
    /// It cannot be reached, or does not answer within two seconds, longer on a machine that is [slow](slowed).
    pub fn get(&self, path: &str) -> Result<(u16, String)> {
        let mut stream = thread::scope(|scope| {
            let inside = scope.spawn(|| -> Result<TcpStream> {
                nix::sched::setns(&self.namespace.0, nix::sched::CloneFlags::CLONE_NEWNET)?;
                Ok(TcpStream::connect_timeout(&self.metrics_at, slowed(Duration::from_secs(2)))?)
            });
            inside.join().unwrap_or_else(|_panic| bail!("connecting panicked"))
        })?;
        stream.set_read_timeout(Some(slowed(Duration::from_secs(2))))?;
        stream.write_all(
            format!("GET {path} HTTP/1.1\r\nHost: agent\r\nConnection: close\r\n\r\n").as_bytes(),
        )?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let (head, body) = answer.split_once("\r\n\r\n").context("an answer without a head")?;
        let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).context("no status")?;
        let chunked = head.to_ascii_lowercase().contains("transfer-encoding: chunked");
        Ok((status, if chunked { without_chunks(body) } else { body.to_owned() }))
    }

    /// Scrapes its metrics.
    ///
    /// # Errors
    ///
    /// They cannot be had or read.
    pub fn metrics(&self) -> Result<Metrics> {
        let (status, text) = self.get("/metrics")?;
        if status != 200 {
            bail!("/metrics answered {status}");
        }
        Metrics::parse(&text)
    }

    /// Scrapes its books, which must balance at every scrape.
    ///
    /// # Errors
    ///
    /// They cannot be had, or do not balance.
    pub fn ledger(&self) -> Result<Ledger> {
        let ledger = self.metrics()?.ledger();
        if !ledger.is_balanced() {
            bail!("the books do not balance: {ledger}");
        }
        Ok(ledger)
    }

    /// Scrapes until the books fulfil a condition.
    ///
    /// # Errors
    ///
    /// They do not balance, or do not fulfil it in time; they are in the error.
    pub fn wait_for(&self, patience: Duration, mut condition: impl FnMut(&Ledger) -> bool) -> Result<Ledger> {
        let deadline = Instant::now() + patience;
        loop {
            let ledger = self.ledger()?;
            if condition(&ledger) {
                return Ok(ledger);
            }
            if Instant::now() > deadline {
                bail!("not within {patience:?}: {ledger}; log: {}", self.printed("stderr"));
            }
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// The books once nothing is pending and nothing more comes: what was captured last may not have been read when
    /// nothing is pending for the first time.
    ///
    /// # Errors
    ///
    /// They do not balance, or are not at rest in time; they are in the error.
    pub fn at_rest(&self, patience: Duration) -> Result<Ledger> {
        let deadline = Instant::now() + patience;
        let mut seen = u64::MAX;
        loop {
            let ledger = self.wait_for(patience, |ledger| ledger.pending == 0)?;
            if ledger.seen == seen {
                return Ok(ledger);
            }
            ensure!(Instant::now() < deadline, "more comes after {patience:?}: {ledger}");
            seen = ledger.seen;
            thread::sleep(LONGEST_UNREAD);
        }
    }

    /// CPU time so far, all threads.
    ///
    /// # Errors
    ///
    /// It has ended.
    pub fn cpu(&self) -> Result<Duration> {
        cpu_time_of(self.pid())
    }

    /// Proportional set size in bytes: memory, with shared pages shared out.
    ///
    /// # Errors
    ///
    /// It has ended.
    pub fn pss(&self) -> Result<u64> {
        let text = fs::read_to_string(format!("/proc/{}/smaps_rollup", self.pid()))?;
        let line = text.lines().find_map(|line| line.strip_prefix("Pss:")).context("no Pss")?;
        let kilobytes: u64 = line.trim().trim_end_matches(" kB").parse()?;
        Ok(kilobytes * 1024)
    }

    /// Asks it to stop and waits for its end.
    ///
    /// # Errors
    ///
    /// It still runs after fifteen seconds.
    pub fn stop(mut self) -> Result<Ended> {
        kill(self.id()?, Signal::SIGTERM)?;
        self.wait(Duration::from_secs(15))
    }

    /// Ends it without warning.
    ///
    /// # Errors
    ///
    /// It has ended before.
    pub fn kill(mut self) -> Result<()> {
        kill(self.id()?, Signal::SIGKILL)?;
        self.child.wait()?;
        Ok(())
    }

    /// Pauses capture, and waits until the agent says so.
    ///
    /// # Errors
    ///
    /// It does not.
    pub fn pause(&self) -> Result<()> {
        self.heed(Signal::SIGUSR1, 1.0)
    }

    /// Resumes capture, and waits until the agent says so.
    ///
    /// # Errors
    ///
    /// It does not.
    pub fn resume(&self) -> Result<()> {
        self.heed(Signal::SIGUSR2, 0.0)
    }

    fn heed(&self, signal: Signal, paused: f64) -> Result<()> {
        kill(self.id()?, signal)?;
        let start = Instant::now();
        while self.metrics()?.sum("mirror_capture_paused") != paused {
            ensure!(start.elapsed() < HEED_PATIENCE, "the agent did not heed {signal}");
            thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    fn id(&self) -> Result<Pid> {
        Ok(Pid::from_raw(i32::try_from(self.pid())?))
    }

    fn wait(&mut self, patience: Duration) -> Result<Ended> {
        let start = Instant::now();
        while start.elapsed() < patience {
            if let Some(status) = self.child.try_wait()? {
                let (stdout, stderr) = (self.printed("stdout"), self.printed("stderr"));
                return Ok(Ended { status, stdout, stderr, took: start.elapsed() });
            }
            thread::sleep(Duration::from_millis(5));
        }
        bail!("the agent still runs after {patience:?}: {}", self.printed("stderr"))
    }

    /// What it has printed so far.
    #[must_use]
    pub fn printed(&self, stream: &str) -> String {
        let bytes = fs::read(self.directory.path().join(stream)).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Runs the agent with other arguments than `run`'s to its end, inside a host.
///
/// # Errors
///
/// It cannot be started.
pub fn output(host: &Host, arguments: &[&str]) -> Result<Output> {
    let program = program().context("no mirror-agent was built")?;
    host.command(&program).args(arguments).stdin(Stdio::null()).output().context("run the agent")
}

/// CPU time of a process so far, all threads.
///
/// # Errors
///
/// There is no such process.
pub fn cpu_time_of(pid: u32) -> Result<Duration> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name in brackets may hold anything; fields are counted from behind it. utime and stime are 14 and 15.
    let fields = text.rsplit(')').next().context("no fields")?;
    let ticks: u64 =
        fields.split_ascii_whitespace().skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
    let per_second = sysconf(SysconfVar::CLK_TCK)?.and_then(|ticks| u64::try_from(ticks).ok()).unwrap_or(100);
    Ok(Duration::from_millis(ticks * 1000 / per_second))
}

/// Takes the chunk framing out of a body that is text.
fn without_chunks(body: &str) -> String {
    let mut text = String::new();
    let mut rest = body;
    while let Some((size, after)) = rest.split_once("\r\n") {
        match usize::from_str_radix(size.trim(), 16) {
            Ok(size) if size > 0 && after.len() >= size => {
                text.push_str(&after[..size]);
                rest = after[size..].trim_start_matches("\r\n");
            }
            _ => break,
        }
    }
    text
}
