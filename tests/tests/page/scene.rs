//! Enters: two versions of a service. Leaves: an agent between them, and the way to its page.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use mirror_tests::{
    agent::{Agent, Arguments, output},
    netns::Topology,
    scenario::{PATIENCE, PORT, Turn, Weight},
};
use serde_json::Value;
use tempfile::TempDir;

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
        let turn = Turn::take(Weight::Heavy)?;
        let net = Topology::new()?;
        let servers = open(&net)?;
        let folder = tempfile::tempdir()?;
        let file = folder.path().join("mirror.yaml");
        let token = folder.path().join("token");
        fs::write(&token, "0123456789abcdef".repeat(4))?;
        fs::set_permissions(&token, fs::Permissions::from_mode(0o600))?;
        let at = |host: &mirror_tests::netns::Host| format!("http://{}", host.at_v4(PORT));
        fs::write(
            &file,
            format!(
                "capture: {{ interfaces: [eth0] }}\n\
                 control: {{ socket: {}, listen: \"127.0.0.1:9478\", tokenFile: {} }}\n\
                 experiments:\n\
                 \x20 - name: shop\n\
                 \x20   owner: {}\n\
                 \x20   expires: 2100-01-01T00:00:00Z\n\
                 \x20   ports: [{PORT}]\n\
                 \x20   matches: [{{ methods: [GET, POST] }}]\n\
                 \x20   targets: [{{ name: v2, url: \"{}\", interlock: none }}]\n\
                 \x20   control: {{ url: \"{}\", interlock: none }}\n\
                 \x20   compare: {{ rules: [{{ name: old, path: \"$.gone\", ignore: true }}] }}\n\
                 \x20   gate: {{ divergence: 1%, p95: 1.1, errors: 0.5%, minSamples: 200 }}\n\
                 \x20   fields: [\"$.total\"]\n",
                folder.path().join("control.sock").display(),
                token.display(),
                Value::from(owner),
                at(&net.shadow),
                at(&net.other),
            ),
        )?;
        let agent = Agent::start(&net.live, &Arguments::from_file(&file))?;
        Ok((Self { agent, net, folder, _turn: turn }, servers))
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("control.sock")
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
