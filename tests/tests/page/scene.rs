//! Enters: two versions of a service. Leaves: an agent between them, and the way to its page.

use std::{
    fs,
    net::SocketAddr,
    os::unix::fs::PermissionsExt as _,
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use mirror_tests::{
    agent::{Agent, Arguments, output},
    netns::{Host, Topology},
    scenario::{PATIENCE, PORT, Turn, Weight},
};
use serde_json::Value;
use tempfile::TempDir;

/// Where agents answer each other.
pub(super) const FLEET: u16 = 9479;

/// The token that they share.
pub(super) const FLEET_TOKEN: &str = "fedcba9876543210fedcba9876543210";

/// Hosts, an agent on the live one, and the files between them.
pub(super) struct Scene {
    pub(super) agent: Agent,
    pub(super) net: Topology,
    folder: TempDir,
    _turn: Turn,
}

impl Scene {
    /// Starts the agent; `open` opens the servers. `owner` answers for the experiment.
    pub(super) fn set<T>(owner: &str, open: impl FnOnce(&Topology) -> Result<T>) -> Result<(Self, T)> {
        Self::start(owner, |_net| None, open)
    }

    /// The same among other agents, which are at `peers`.
    pub(super) fn set_among<T>(
        owner: &str,
        peers: impl FnOnce(&Topology) -> Vec<SocketAddr>,
        open: impl FnOnce(&Topology) -> Result<T>,
    ) -> Result<(Self, T)> {
        Self::start(owner, |net| Some(peers(net)), open)
    }

    fn start<T>(
        owner: &str,
        peers: impl FnOnce(&Topology) -> Option<Vec<SocketAddr>>,
        open: impl FnOnce(&Topology) -> Result<T>,
    ) -> Result<(Self, T)> {
        let turn = Turn::take(Weight::Heavy)?;
        let net = Topology::new()?;
        let servers = open(&net)?;
        let peers = peers(&net);
        let folder = tempfile::tempdir()?;
        let file = folder.path().join("mirror.yaml");
        let token = folder.path().join("token");
        fs::write(&token, "0123456789abcdef".repeat(4))?;
        fs::set_permissions(&token, fs::Permissions::from_mode(0o600))?;
        let control = format!("listen: \"127.0.0.1:9478\", tokenFile: {}", token.display());
        let among = peers.map(|peers| fleet(&net.live, &folder, &peers)).transpose()?.unwrap_or_default();
        let control = format!("{control}{among}");
        fs::write(&file, configuration(&net, &folder, &net.live, ("eth0", PORT), owner, &control))?;
        let agent = Agent::start(&net.live, &Arguments::from_file(&file))?;
        Ok((Self { agent, net, folder, _turn: turn }, servers))
    }

    /// Starts another agent with the same experiment on a host's loopback, for a port of its own; others may ask it.
    pub(super) fn join(&self, host: &Host, port: u16, owner: &str) -> Result<Agent> {
        let fleet = fleet(host, &self.folder, &[])?;
        let file = self.folder.path().join(format!("{}.yaml", host.name()));
        fs::write(
            &file,
            configuration(&self.net, &self.folder, host, ("lo", port), owner, fleet.trim_start_matches(", ")),
        )?;
        Agent::start(host, &Arguments::from_file(&file))
    }

    fn socket(&self) -> PathBuf {
        socket(&self.folder, &self.net.live)
    }

    /// Runs the agent's program with words and the way to the running one; gives what it prints.
    pub(super) fn ask(&self, words: &[&str]) -> Result<String> {
        let socket = self.socket().display().to_string();
        let said = output(&self.net.live, &[&words[..1], &["--socket", &socket], &words[1..]].concat())?;
        ensure!(said.status.success(), "{words:?}: {}", String::from_utf8_lossy(&said.stderr));
        Ok(String::from_utf8(said.stdout)?)
    }

    /// An address at which the page opens, once.
    pub(super) fn invitation(&self) -> Result<String> {
        let said = self.ask(&["ctl", "open"])?;
        Ok(said.lines().next().context("no address")?.to_owned())
    }

    /// What the agent reports of the experiment.
    pub(super) fn report(&self) -> Result<Value> {
        Ok(serde_json::from_str(&self.ask(&["report", "--output", "json"])?)?)
    }

    /// Waits until so many exchanges are compared.
    pub(super) fn compared(&self, exchanges: u64) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let known = self.report()?["targets"][0]["exchanges"].as_u64().unwrap_or_default();
            if known >= exchanges {
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "{known} of {exchanges} exchanges were compared");
            thread::sleep(Duration::from_millis(200));
        }
    }
}

/// The control socket of the agent on a host.
fn socket(folder: &TempDir, host: &Host) -> PathBuf {
    folder.path().join(format!("{}.sock", host.name()))
}

/// What is said of other agents, behind a comma.
fn fleet(host: &Host, folder: &TempDir, peers: &[SocketAddr]) -> Result<String> {
    let token = folder.path().join("fleet.token");
    fs::write(&token, FLEET_TOKEN)?;
    fs::set_permissions(&token, fs::Permissions::from_mode(0o600))?;
    let peers: Vec<_> = peers.iter().map(|peer| format!("\"{peer}\"")).collect();
    Ok(format!(
        ", fleet: {{ listen: \"{}\", peers: [{}], tokenFile: {} }}",
        host.at_v4(FLEET),
        peers.join(", "),
        token.display()
    ))
}

/// The configuration of the agent on a host, which captures a port at an interface.
fn configuration(
    net: &Topology,
    folder: &TempDir,
    host: &Host,
    (interface, port): (&str, u16),
    owner: &str,
    control: &str,
) -> String {
    let at = |host: &Host| format!("http://{}", host.at_v4(PORT));
    format!(
        "capture: {{ interfaces: [{interface}] }}\n\
         control: {{ socket: {}, {control} }}\n\
         experiments:\n\
         \x20 - name: shop\n\
         \x20   owner: {}\n\
         \x20   expires: 2100-01-01T00:00:00Z\n\
         \x20   ports: [{port}]\n\
         \x20   matches: [{{ methods: [GET, POST] }}]\n\
         \x20   targets: [{{ name: v2, url: \"{}\", interlock: none }}]\n\
         \x20   control: {{ url: \"{}\", interlock: none }}\n\
         \x20   compare: {{ rules: [{{ name: old, path: \"$.gone\", ignore: true }}] }}\n\
         \x20   gate: {{ divergence: 1%, p95: 1.1, errors: 0.5%, minSamples: 200 }}\n\
         \x20   fields: [\"$.total\"]\n",
        socket(folder, host).display(),
        Value::from(owner),
        at(&net.shadow),
        at(&net.other),
    )
}
