//! Enters: a kernel's name. Leaves: that kernel, unpacked from its Debian package in the user's cache.
//!
//! apt gets folders of its own, so that neither the machine's sources nor its package lists are touched. Where packages
//! come from is taken from the machine's own sources: only the names of the suites are added here.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, SystemTime},
};

use anyhow::{Context as _, Result, bail};

use crate::{child, workspace};

/// Which kernel was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// The one that runs this program.
    Host,
    /// The newest of a series.
    Series(u32, u32),
    /// This one: what its package is called after, without what names its flavour.
    Release(String),
}

impl Wanted {
    /// Reads what was typed: `host`, a series (`6.1`), a Debian release (`bookworm`) or a kernel's release.
    pub(crate) fn parse(word: &str) -> Result<Self> {
        if word == "host" {
            return Ok(Self::Host);
        }
        if let Some((_, series)) = DEBIAN_RELEASES.iter().find(|(name, _)| *name == word) {
            return Self::parse(series);
        }
        let release = FLAVOURS.iter().find_map(|flavour| word.strip_suffix(flavour)).unwrap_or(word);
        if !release.starts_with(|first: char| first.is_ascii_digit()) {
            let names: Vec<&str> = DEBIAN_RELEASES.iter().map(|(name, _)| *name).collect();
            bail!(
                "{word} is no kernel: say a series such as 6.1, a release, `host`, or one of {}",
                names.join(", ")
            );
        }
        match *numbers(release) {
            [major, minor] => Ok(Self::Series(major, minor)),
            _ => Ok(Self::Release(release.to_owned())),
        }
    }
}

/// Debian's releases by the series of their kernels.
const DEBIAN_RELEASES: [(&str, &str); 3] = [("bullseye", "5.10"), ("bookworm", "6.1"), ("trixie", "6.12")];

/// How the names of packages end, the one to take first first. The cloud's flavour has every network module and none
/// of the drivers that make the others three times as large; unsigned, since only firmware asks for signatures.
const FLAVOURS: [&str; 2] = ["-cloud-amd64-unsigned", "-cloud-amd64"];

/// A package of a kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Package {
    /// Its name.
    pub(crate) name: String,
    /// What its name says of the kernel: `6.1.0-56`.
    release: String,
}

impl Package {
    fn parse(name: &str) -> Option<Self> {
        let rest = name.strip_prefix("linux-image-")?;
        let release = FLAVOURS.iter().find_map(|flavour| rest.strip_suffix(flavour))?;
        // `linux-image-cloud-amd64` and its like are empty and depend on the newest.
        (numbers(release).len() > 2).then(|| Self { name: name.to_owned(), release: release.to_owned() })
    }

    fn is(&self, wanted: &Wanted) -> bool {
        match wanted {
            Wanted::Host => false,
            Wanted::Series(major, minor) => numbers(&self.release).starts_with(&[*major, *minor]),
            Wanted::Release(release) => self.release == *release,
        }
    }
}

/// A kernel that can be booted.
#[derive(Clone, Debug)]
pub(crate) struct Kernel {
    /// What it calls itself.
    pub(crate) release: String,
    /// Its image.
    pub(crate) image: PathBuf,
    /// The folder of its modules.
    pub(crate) modules: PathBuf,
}

/// The user's cache of kernels.
pub(crate) struct Store {
    dir: PathBuf,
}

impl Store {
    /// Opens the cache, and fetches the package lists if they are older than a day.
    pub(crate) fn open() -> Result<Self> {
        let cache = workspace::cache_dir()
            .context("find the user's cache: neither HOME nor XDG_CACHE_HOME is set")?;
        let store = Self { dir: cache.join("kernels") };
        for dir in ["apt/lists/partial", "apt/cache/archives/partial"] {
            let dir = store.dir.join(dir);
            fs::create_dir_all(&dir).with_context(|| format!("create {}", dir.display()))?;
        }
        store.refresh()?;
        Ok(store)
    }

    fn refresh(&self) -> Result<()> {
        let sources = self.sources();
        let list = source_list(&own_repositories()?)?;
        let is_recent = fs::metadata(&sources)
            .and_then(|facts| facts.modified())
            .is_ok_and(|written| SystemTime::now().duration_since(written).is_ok_and(|age| age < LISTS_AGE));
        if is_recent && fs::read_to_string(&sources).is_ok_and(|written| written == list) {
            return Ok(());
        }
        println!("Fetching the package lists of Debian's releases into {}.", self.dir.display());
        fs::write(&sources, &list).with_context(|| format!("write {}", sources.display()))?;
        // A suite that has left the mirror must not hide the others.
        if child::run(self.apt("apt-get").args(["update", "--quiet=2"])).is_err() {
            println!("Not all lists could be fetched; going on with those that there are.");
        }
        Ok(())
    }

    /// The packages that fit, the newest first.
    pub(crate) fn candidates(&self, wanted: &Wanted) -> Result<Vec<Package>> {
        let mut names = self.apt("apt-cache");
        names.args(["pkgnames", "linux-image-"]);
        let names = child::answer(&mut names).context("ask apt-cache for the names of the kernels")?;
        Ok(fitting(&names, wanted))
    }

    /// Where a package's kernel lies once it is unpacked; `None` where it is not.
    pub(crate) fn unpacked(&self, package: &Package) -> Option<Kernel> {
        find_kernel(&self.place(package))
    }

    /// The newest of `candidates` that can be had, downloaded and unpacked if it is not there yet.
    pub(crate) fn fetch(&self, candidates: &[Package]) -> Result<Kernel> {
        let mut tried = Vec::new();
        for package in candidates.iter().take(MOST_TRIES) {
            if let Some(kernel) = self.unpacked(package) {
                return Ok(kernel);
            }
            // Lists of security updates name packages that the archive has dropped since.
            match self.unpack(package) {
                Ok(()) => {
                    let kernel = self.unpacked(package);
                    return kernel.with_context(|| format!("find a kernel and modules in {}", package.name));
                }
                Err(_) => {
                    // apt and dpkg have said why.
                    println!("{} cannot be had.", package.name);
                    tried.push(package.name.as_str());
                }
            }
        }
        bail!("no such kernel can be had; tried: {}", tried.join(", "))
    }

    fn unpack(&self, package: &Package) -> Result<()> {
        let partial = self.dir.join("partial");
        remove(&partial)?;
        let unpacked = partial.join("unpacked");
        fs::create_dir_all(&unpacked).with_context(|| format!("create {}", unpacked.display()))?;
        println!("Downloading {}.", package.name);
        let mut download = self.apt("apt-get");
        child::run(download.current_dir(&partial).args(["download", "--quiet=2", &package.name]))?;
        let is_package = |path: &PathBuf| path.extension().is_some_and(|ending| ending == "deb");
        let archive =
            entries(&partial)?.into_iter().find(is_package).context("find the downloaded package")?;
        child::run(Command::new("dpkg-deb").arg("--extract").arg(&archive).arg(&unpacked))?;
        let place = self.place(package);
        remove(&place)?;
        fs::rename(&unpacked, &place).with_context(|| format!("move the kernel to {}", place.display()))?;
        remove(&partial)
    }

    fn place(&self, package: &Package) -> PathBuf {
        self.dir.join(&package.name)
    }

    fn sources(&self) -> PathBuf {
        self.dir.join("apt/sources.list")
    }

    /// A program of apt's that works in our folders. Proxies and the like are the machine's.
    fn apt(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        let in_cache = |option: &str, path: &str| format!("{option}={}", self.dir.join(path).display());
        for option in [
            in_cache("Dir::State::Lists", "apt/lists"),
            in_cache("Dir::Cache", "apt/cache"),
            in_cache("Dir::Etc::sourcelist", "apt/sources.list"),
            "Dir::Etc::sourceparts=/dev/null".to_owned(),
            "Dir::Etc::preferencesparts=/dev/null".to_owned(),
            "Dir::Etc::preferences=/dev/null".to_owned(),
            "Acquire::Languages=none".to_owned(),
            // The user that apt downloads as may not enter a home.
            "APT::Sandbox::User=root".to_owned(),
        ] {
            command.args(["-o", &option]);
        }
        command.env("LC_ALL", "C");
        command
    }
}

/// Lists older than this are fetched again.
const LISTS_AGE: Duration = Duration::from_secs(24 * 60 * 60);

/// So many packages of a series are tried, from the newest on.
const MOST_TRIES: usize = 6;

/// The repositories of Debian that this machine uses, as apt understands its own configuration.
fn own_repositories() -> Result<Vec<String>> {
    let mut targets = Command::new("apt-get");
    targets.args(["indextargets", "--format", "$(REPO_URI)", "Created-By: Packages"]);
    let list = child::answer(&mut targets).context("ask apt-get for this machine's sources")?;
    Ok(list.lines().map(|uri| uri.trim_end_matches('/').to_owned()).collect())
}

/// The suites with kernels, by the last part of their repository's address.
const SUITES: [(&str, &[&str]); 2] = [
    ("debian", &["bullseye", "bookworm", "trixie", "trixie-backports"]),
    ("debian-security", &["bullseye-security", "bookworm-security", "trixie-security"]),
];

/// The keys of all of Debian's releases.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

fn source_list(repositories: &[String]) -> Result<String> {
    let key = if Path::new(KEYRING).is_file() { format!(" signed-by={KEYRING}") } else { String::new() };
    let mut list = String::new();
    for (name, suites) in SUITES {
        let Some(uri) = repositories.iter().find(|uri| uri.rsplit('/').next() == Some(name)) else {
            continue;
        };
        for suite in suites {
            list += &format!("deb [arch=amd64{key}] {uri} {suite} main\n");
        }
    }
    if list.is_empty() {
        bail!("this machine's apt has no source of Debian's packages, from which the kernels come");
    }
    Ok(list)
}

fn fitting(names: &str, wanted: &Wanted) -> Vec<Package> {
    let mut packages: Vec<Package> =
        names.lines().filter_map(Package::parse).filter(|package| package.is(wanted)).collect();
    let rank = |package: &Package| FLAVOURS.iter().position(|flavour| package.name.ends_with(flavour));
    packages.sort_by_key(|package| (std::cmp::Reverse(numbers(&package.release)), rank(package)));
    packages
}

/// The numbers in a version, in order: what it is compared by.
fn numbers(version: &str) -> Vec<u32> {
    version.split(|symbol: char| !symbol.is_ascii_digit()).filter_map(|part| part.parse().ok()).collect()
}

/// The kernel in an unpacked package; older packages keep everything in `/lib`.
fn find_kernel(root: &Path) -> Option<Kernel> {
    let dirs = ["lib/modules", "usr/lib/modules"].map(|dir| root.join(dir));
    let modules = dirs.iter().find_map(|dir| entries(dir).ok()?.into_iter().next())?;
    let release = modules.file_name()?.to_str()?.to_owned();
    let image = root.join(format!("boot/vmlinuz-{release}"));
    image.is_file().then_some(Kernel { release, image, modules })
}

fn entries(dir: &Path) -> Result<Vec<PathBuf>> {
    let list = fs::read_dir(dir).with_context(|| format!("list {}", dir.display()))?;
    list.map(|entry| Ok(entry?.path())).collect()
}

fn remove(dir: &Path) -> Result<()> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("remove {}", dir.display()))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::{Wanted, fitting, source_list};

    const NAMES: &str = "linux-image-6.1.0-9-cloud-amd64\nlinux-image-6.1.0-56-cloud-amd64\n\
        linux-image-6.1.0-56-cloud-amd64-unsigned\nlinux-image-6.1.0-56-rt-amd64\nlinux-image-cloud-amd64\n\
        linux-image-6.12.117+deb13-cloud-amd64-unsigned\nlinux-image-6.1.0-9-cloud-amd64-unsigned\n\
        linux-image-6.1.0-56-cloud-amd64-dbg\n";

    #[test]
    fn newest_package_of_a_series_comes_first_and_unsigned() {
        let found = fitting(NAMES, &Wanted::parse("6.1").unwrap());

        let names: Vec<&str> = found.iter().map(|package| package.name.as_str()).collect();
        let [newest, signed, older, oldest] = names[..] else { panic!("{names:?}") };
        assert_eq!(newest, "linux-image-6.1.0-56-cloud-amd64-unsigned");
        assert_eq!(signed, "linux-image-6.1.0-56-cloud-amd64");
        assert_eq!(older, "linux-image-6.1.0-9-cloud-amd64-unsigned");
        assert_eq!(oldest, "linux-image-6.1.0-9-cloud-amd64");
    }

    #[test]
    fn kernels_can_be_named_by_debian_release_and_by_their_own() {
        assert_eq!(Wanted::parse("trixie").unwrap(), Wanted::Series(6, 12));
        assert_eq!(Wanted::parse("host").unwrap(), Wanted::Host);
        let own = Wanted::parse("6.12.117+deb13-cloud-amd64").unwrap();
        assert_eq!(fitting(NAMES, &own).len(), 1);
        assert!(Wanted::parse("jessie").is_err());
    }

    #[test]
    fn suites_are_added_to_the_machines_own_repositories() {
        let own = ["http://a.example/x/debian".to_owned(), "http://b.example/debian-security".to_owned()];
        let list = source_list(&own).unwrap();

        assert!(list.contains("http://a.example/x/debian bullseye main\n"), "{list}");
        assert!(list.contains("http://b.example/debian-security trixie-security main\n"), "{list}");
        assert!(source_list(&["http://a.example/ubuntu".to_owned()]).is_err());
    }
}
