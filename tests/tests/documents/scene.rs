//! Enters: the blocks of a page that are to be run. Leaves: what each did, in one shell on the host of a live service.
//!
//! The names `live`, `shadow` and `control` are hosts with a shop on port 8080: the live version twice, and a new one with a
//! bug; customers come to live for as long as the page runs. Pages that do not name the shadow bring servers of their own.
//! What a page shows under a name is in the shell's folder.

use std::{
    fs,
    net::TcpStream,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use mirror_tests::{
    agent,
    client::RawClient,
    netns::Topology,
    scenario::{PORT, Turn, Weight},
    shop::{Bug, Bugs, Character, Shop, Shopper, Version},
};
use tempfile::TempDir;

use crate::page::{Block, Page};

/// What a page says that is about the shops.
const SHADOW: &str = "http://shadow:8080";

/// How long the blocks of one page may take together.
const PATIENCE: Duration = Duration::from_secs(150);

/// Customers: each asks again when it is answered, which takes some 20 ms.
const CUSTOMERS: u64 = 5;

/// Requests of a customer before another one comes in its place. On a connection that is older than the agent and never
/// rests nothing would be compared.
const VISIT: usize = 20;

/// How a page's blocks are run: hosts, shops, customers and a folder.
#[derive(Debug)]
pub(crate) struct Scene {
    shops: Vec<Shop>,
    net: Topology,
    customers: Vec<JoinHandle<Result<()>>>,
    stop: Arc<AtomicBool>,
    folder: TempDir,
    _turn: Turn,
}

impl Drop for Scene {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for customer in self.customers.drain(..) {
            drop(customer.join());
        }
    }
}

impl Scene {
    /// Makes the hosts and the folder; opens the shops, and has customers come, where the page is about them.
    pub(crate) fn set(root: &Path, page: &Page) -> Result<Self> {
        let turn = Turn::take(Weight::Light)?;
        let net = Topology::new()?;
        let folder = tempfile::Builder::new().prefix("mirror-page-").tempdir()?;
        let place = folder.path().join("place");
        fs::create_dir_all(place.join("target/release"))?;
        symlink(
            agent::program().context("no mirror-agent was built")?,
            place.join("target/release/mirror-agent"),
        )?;
        symlink(root.join("deploy"), place.join("deploy"))?;
        let stop = Arc::new(AtomicBool::new(false));
        let mut scene = Self { shops: Vec::new(), net, customers: Vec::new(), stop, folder, _turn: turn };
        if page.blocks.iter().any(|block| block.text.contains(SHADOW)) {
            scene.open()?;
        }
        Ok(scene)
    }

    fn open(&mut self) -> Result<()> {
        let character = |version, bugs, seed| Character { version, bugs, seed };
        let bug = Bugs::NONE.with(Bug::TypeChange);
        self.shops = vec![
            Shop::open(&self.net.live, PORT, character(Version::One, Bugs::NONE, 1))?,
            Shop::open(&self.net.shadow, PORT, character(Version::Two, bug, 2))?,
            Shop::open(&self.net.other, PORT, character(Version::One, Bugs::NONE, 3))?,
        ];
        for customer in 0..CUSTOMERS {
            let (stop, live) = (Arc::clone(&self.stop), self.net.live.at_v4(PORT));
            self.customers.push(self.net.client.spawn("customer", move || {
                let shopper = Shopper::new(customer);
                let mut numbers = 0..;
                while !stop.load(Ordering::Relaxed) {
                    let mut client = RawClient::over(TcpStream::connect(live)?, Duration::from_secs(5))?;
                    for number in numbers.by_ref().take(VISIT) {
                        client.ask(&shopper.request(number).1)?;
                    }
                }
                Ok(())
            })?);
        }
        Ok(())
    }

    /// Runs the blocks of a page in order, having put those that have a name into the folder. Gives what they said.
    pub(crate) fn play(&self, page: &Page) -> Result<String> {
        let place = self.folder.path().join("place");
        for block in &page.blocks {
            if let Some(name) = named(&block.tag) {
                fs::write(place.join(name), &block.text)?;
            }
        }
        let steps: Vec<&Block> = page.blocks.iter().filter(|block| is_run(&block.tag)).collect();
        self.run(&steps)?;
        for (index, step) in steps.iter().enumerate() {
            let at = page.at(step.line);
            let said = self.said(index, "out");
            let status = self.said(index, "status");
            ensure!(!status.is_empty(), "{at} did not end within {PATIENCE:?}: {said}");
            let expected = expected_status(&step.tag);
            ensure!(status.trim() == expected, "{at} ended with {status}instead of {expected}: {said}");
            let failed = self.said(index, "failed");
            ensure!(failed.is_empty() || expected != "0", "{at}: {failed}failed: {said}");
        }
        for pair in page.blocks.windows(2) {
            if let Some(index) = steps.iter().position(|step| step.line == pair[0].line)
                && pair[1].tag == "text output"
            {
                let said = self.said(index, "out");
                ensure!(
                    is_as_shown(&said, &pair[1].text),
                    "{} is not what was said:\n{said}",
                    page.at(pair[1].line)
                );
            }
        }
        Ok((0..steps.len()).map(|index| self.said(index, "out")).collect())
    }

    fn said(&self, index: usize, what: &str) -> String {
        let bytes = fs::read(self.folder.path().join(format!("{index}.{what}"))).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// One shell for all steps, so that what one has started the next one meets.
    fn run(&self, steps: &[&Block]) -> Result<()> {
        let folder = self.folder.path();
        let hosts = [("live", &self.net.live), ("shadow", &self.net.shadow), ("control", &self.net.other)];
        let hosts: String = hosts.iter().map(|(name, host)| format!("{} {name}\n", host.v4)).collect();
        fs::write(folder.join("hosts"), format!("127.0.0.1 localhost\n{hosts}"))?;
        // Mounts are this shell's alone: `ip netns exec` has given it a mount namespace of its own.
        let mut script = format!(
            "set -e\nmount --bind {0}/hosts /etc/hosts\nmount -t tmpfs tmpfs /run\ncd {0}/place\n\
             PATH={0}/place/target/release:$PATH\nset +e\n",
            folder.display()
        );
        for (index, step) in steps.iter().enumerate() {
            let step_file = folder.join(format!("{index}.sh"));
            fs::write(&step_file, &step.text)?;
            let stem = folder.join(index.to_string()).display().to_string();
            script += &format!(
                ": > {stem}.failed\ntrap 'echo \"$BASH_COMMAND\" >> {stem}.failed' ERR\n\
                 . {stem}.sh > {stem}.out 2>&1\nstatus=$?\ntrap - ERR\necho $status > {stem}.status\n"
            );
        }
        // What a page has started ends with it.
        script += "jobs=$(jobs -p); [ -z \"$jobs\" ] || kill $jobs\nwait\n";
        let mut shell = self
            .net
            .live
            .command(&bash())
            .args(["-c", &script])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(fs::File::create(folder.join("shell"))?)
            .spawn()
            .context("start a shell")?;
        let deadline = Instant::now() + PATIENCE;
        while shell.try_wait()?.is_none() && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(50));
        }
        if shell.try_wait()?.is_none() {
            shell.kill()?;
            shell.wait()?;
        }
        let complaints = fs::read_to_string(folder.join("shell"))?;
        ensure!(!complaints.contains("mount"), "the shell cannot be set up: {complaints}");
        Ok(())
    }
}

fn bash() -> PathBuf {
    PathBuf::from("bash")
}

/// Whether a block is to be run.
pub(crate) fn is_run(tag: &str) -> bool {
    tag.starts_with("sh run")
}

/// The name of the file that a block is, as in `yaml file=mirror.yaml`.
pub(crate) fn named(tag: &str) -> Option<&str> {
    tag.split(' ').find_map(|word| word.strip_prefix("file="))
}

/// With which status a block ends, as in `sh run status=1`.
fn expected_status(tag: &str) -> &str {
    tag.split(' ').find_map(|word| word.strip_prefix("status=")).unwrap_or("0")
}

/// Whether what is shown was said, in this order; `…` stands for anything, but behind a counter for a number above 0, and any
/// space for any other.
fn is_as_shown(said: &str, shown: &str) -> bool {
    let flat = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let said = flat(said);
    let mut rest = said.as_str();
    let mut pieces = shown.split('…').map(flat).peekable();
    while let Some(piece) = pieces.next() {
        match rest.split_once(piece.as_str()) {
            Some((_, after)) => rest = after,
            None => return false,
        }
        let is_counter = piece.rsplit(' ').next().is_some_and(|word| word.contains("_total"));
        let number = rest.split_whitespace().next().and_then(|word| word.parse::<f64>().ok());
        if is_counter && pieces.peek().is_some() && number.is_none_or(|number| number <= 0.0) {
            return false;
        }
    }
    true
}

/// What has to be there for pages to be run, and is not.
pub(crate) fn missing() -> Option<&'static str> {
    ["bash", "curl", "python3"].into_iter().find(|name| Command::new(name).arg("--version").output().is_err())
}

#[test]
fn what_is_shown_may_leave_out_but_not_invent() {
    assert!(is_as_shown("a  b 12\nc", "b … c"));
    assert!(!is_as_shown("a  b 12\nc", "c … b"));
    let counter = |said| is_as_shown(said, "copies_total{a=\"b\"} …\nother");
    assert!(counter("copies_total{a=\"b\"} 7 other"));
    assert!(!counter("copies_total{a=\"b\"} 0 other") && !counter("copies_total{a=\"b\"} other"));
}
