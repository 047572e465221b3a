//! Enters: the names of kernel modules. Leaves: their files, unpacked, in an order in which they can be loaded.

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

/// A module and everything it needs.
#[derive(Debug, Default)]
pub(crate) struct Modules {
    /// Name and content, each after what it depends on.
    pub(crate) in_order: Vec<(String, Vec<u8>)>,
}

/// Collects modules from the folder of a kernel. One that is built in, or that the kernel does not have, is left out:
/// what needs it says so when it runs.
pub(crate) fn collect(dir: &Path, names: &[&str]) -> Result<Modules> {
    let mut files = HashMap::new();
    index(dir, &mut files)?;
    let mut modules = Modules::default();
    for name in names {
        add(name, &files, &mut modules, 0)?;
    }
    Ok(modules)
}

fn index(dir: &Path, files: &mut HashMap<String, PathBuf>) -> Result<()> {
    for entry in fs::read_dir(dir).with_context(|| format!("list {}", dir.display()))? {
        let entry = entry?;
        let path = entry.path();
        if entry.file_type()?.is_dir() {
            index(&path, files)?;
        } else if let Some((name, _)) = entry.file_name().to_string_lossy().split_once(".ko") {
            files.insert(name.replace('-', "_"), path);
        }
    }
    Ok(())
}

/// No chain of dependencies is longer.
const DEEPEST: usize = 16;

fn add(name: &str, files: &HashMap<String, PathBuf>, modules: &mut Modules, depth: usize) -> Result<()> {
    let name = name.replace('-', "_");
    if modules.in_order.iter().any(|(there, _)| *there == name) {
        return Ok(());
    }
    let Some(path) = files.get(&name) else { return Ok(()) };
    if depth > DEEPEST {
        bail!("the module {name} depends on too much");
    }
    let content = unpack(path)?;
    for needed in dependencies(&content) {
        add(&needed, files, modules, depth + 1)?;
    }
    modules.in_order.push((name, content));
    Ok(())
}

fn unpack(path: &Path) -> Result<Vec<u8>> {
    let program = match path.extension().and_then(|ending| ending.to_str()) {
        Some("xz") => "xz",
        Some("zst") => "zstd",
        _ => return fs::read(path).with_context(|| format!("read {}", path.display())),
    };
    let output = Command::new(program).arg("-dc").arg(path).output();
    let output = output.with_context(|| format!("run {program}"))?;
    if !output.status.success() {
        bail!("{program} cannot unpack {}: {}", path.display(), String::from_utf8_lossy(&output.stderr));
    }
    Ok(output.stdout)
}

/// What a module says it needs: `depends=a,b` among the strings of its `.modinfo`, each of which ends in a zero.
fn dependencies(module: &[u8]) -> Vec<String> {
    const KEY: &[u8] = b"\0depends=";
    let Some(at) = module.windows(KEY.len()).position(|bytes| bytes == KEY) else { return Vec::new() };
    let list = module[at + KEY.len()..].split(|byte| *byte == 0).next().unwrap_or_default();
    let list = String::from_utf8_lossy(list);
    list.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::dependencies;

    #[test]
    fn dependencies_are_read_from_the_modules_strings() {
        assert_eq!(dependencies(b"..license=GPL\0depends=stp,llc\0retpoline=Y\0"), ["stp", "llc"]);
        assert_eq!(dependencies(b"..license=GPL\0depends=\0retpoline=Y\0"), [""; 0]);
        assert_eq!(dependencies(b"nothing"), [""; 0]);
    }
}
