//! Enters: lines of shell. Leaves: what is wrong with the commands in them, without running any.
//!
//! Options are held against what the programs say of themselves by `--help`, so a page cannot name one that is not there.

use std::{
    collections::{BTreeMap, BTreeSet},
    env,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};
use mirror_tests::agent;

/// What one subcommand of a program says of itself.
#[derive(Clone, Debug, Default)]
struct Help {
    options: BTreeSet<String>,
    commands: BTreeSet<String>,
    needs_command: bool,
}

/// Programs whose options are known.
#[derive(Debug)]
pub(crate) struct Programs {
    root: PathBuf,
    agent: PathBuf,
    /// The chores, where they were built.
    pub(crate) xtask: Option<PathBuf>,
    kubectl: Option<PathBuf>,
    known: BTreeMap<(PathBuf, Vec<String>), Help>,
}

/// Programs that pages may use and whose options are not looked at.
const OTHERS: [&str; 22] = [
    "bash", "cat", "cd", "cp", "curl", "docker", "echo", "export", "grep", "helm", "ip", "jq", "kill",
    "kind", "mkdir", "node", "openssl", "podman", "python3", "sed", "sleep", "wait",
];

/// Words of the shell that stand before a command.
const BEFORE: [&str; 7] = ["do", "then", "else", "if", "until", "while", "!"];

/// Words of the shell that are no commands.
const NONE: [&str; 4] = ["done", "fi", "for", "exit"];

impl Programs {
    /// Finds them.
    pub(crate) fn find(root: &Path) -> Result<Self> {
        let target = env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
        let xtask = Some(target.join("debug/xtask")).filter(|path| path.exists());
        let has_kubectl = Command::new("kubectl").args(["version", "--client"]).output().is_ok();
        Ok(Self {
            root: root.to_path_buf(),
            agent: agent::program().context("no mirror-agent was built")?,
            xtask,
            kubectl: has_kubectl.then(|| PathBuf::from("kubectl")),
            known: BTreeMap::new(),
        })
    }

    /// What could not be looked at here.
    pub(crate) fn missing(&self) -> Vec<&'static str> {
        let xtask = self.xtask.is_none().then_some("options of `cargo xtask`: it was not built");
        let kubectl = self.kubectl.is_none().then_some("options of `kubectl`: it is not installed");
        xtask.into_iter().chain(kubectl).collect()
    }

    /// Every option of the agent and of the chores, of whatever subcommand.
    pub(crate) fn all_options(&mut self) -> Result<BTreeSet<String>> {
        let mut found = BTreeSet::new();
        for program in [Some(self.agent.clone()), self.xtask.clone()].into_iter().flatten() {
            let mut open = vec![Vec::new()];
            while let Some(path) = open.pop() {
                let help = self.help(&program, &path)?;
                found.extend(help.options);
                open.extend(
                    help.commands
                        .iter()
                        .filter(|name| *name != "help")
                        .map(|name| [&path[..], std::slice::from_ref(name)].concat()),
                );
            }
        }
        Ok(found)
    }

    /// What is wrong with these lines of shell.
    pub(crate) fn faults(&mut self, shell: &str) -> Vec<String> {
        let mut faults = Vec::new();
        for words in commands(shell) {
            if let Err(error) = self.check(&words) {
                faults.push(format!("`{}`: {error:#}", words.join(" ")));
            }
        }
        faults
    }

    fn check(&mut self, words: &[String]) -> Result<()> {
        let is_before = |word: &&String| BEFORE.contains(&word.as_str()) || is_assignment(word);
        let start = words.iter().take_while(is_before).count();
        let Some((program, rest)) = words[start..].split_first() else { return Ok(()) };
        let name = program.rsplit('/').next().unwrap_or_default();
        match name {
            "mirror-agent" => self.check_options(&self.agent.clone(), rest, Rest::Positional),
            "cargo" => self.check_cargo(rest),
            "kubectl" => self.check_kubectl(rest),
            name if OTHERS.contains(&name) || NONE.contains(&name) => Ok(()),
            name => anyhow::bail!("no test knows the program {name}"),
        }
    }

    fn check_cargo(&mut self, words: &[String]) -> Result<()> {
        match (words.first().map(String::as_str), self.xtask.clone()) {
            (Some("xtask"), Some(xtask)) => self.check_options(&xtask, &words[1..], Rest::Positional),
            (Some("xtask" | "build" | "install"), _) => Ok(()),
            (other, _) => anyhow::bail!("no test knows `cargo {}`", other.unwrap_or_default()),
        }
    }

    fn check_kubectl(&mut self, words: &[String]) -> Result<()> {
        for pair in words.windows(2) {
            let is_path = ["--kustomize", "-k", "--filename", "-f"].contains(&pair[0].as_str());
            ensure!(!is_path || self.root.join(&pair[1]).exists(), "there is no {}", pair[1]);
        }
        let outer = words.iter().take_while(|word| *word != "--").count();
        if let Some(kubectl) = self.kubectl.clone() {
            self.check_options(&kubectl, &words[..outer], Rest::Anything)?;
        }
        match words.get(outer + 1..) {
            Some(inner) => self.check(inner),
            None => Ok(()),
        }
    }

    /// Descends into subcommands as the words name them, and looks for each option where it stands.
    fn check_options(&mut self, program: &Path, words: &[String], rest: Rest) -> Result<()> {
        let mut path = Vec::new();
        let mut help = self.help(program, &path)?;
        let mut is_general = false;
        for word in words {
            if help.commands.contains(word) {
                path.push(word.clone());
                help = self.help(program, &path)?;
            } else if word.starts_with('-') && word.len() > 1 {
                let option = word.split_once('=').map_or(word.as_str(), |(option, _)| option);
                let is_there = ["--help", "--version"].contains(&option) || help.options.contains(option);
                ensure!(is_there, "there is no option {option}");
                is_general |= ["--help", "--version"].contains(&option);
            }
        }
        let is_whole = !help.needs_command || is_general || rest == Rest::Anything;
        ensure!(is_whole, "one of {:?} is missing", help.commands);
        Ok(())
    }

    fn help(&mut self, program: &Path, path: &[String]) -> Result<Help> {
        let key = (program.to_path_buf(), path.to_vec());
        if let Some(help) = self.known.get(&key) {
            return Ok(help.clone());
        }
        let is_kubectl = self.kubectl.as_deref() == Some(program);
        let output = match chore(path).filter(|_| self.xtask.as_deref() == Some(program)) {
            Some(inner) => Command::new(inner).arg("--help").output()?,
            None => Command::new(program).args(path).arg("--help").output()?,
        };
        ensure!(output.status.success(), "{} {path:?} --help fails", program.display());
        let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
        if is_kubectl {
            text += &String::from_utf8_lossy(&Command::new(program).arg("options").output()?.stdout);
        }
        let help = understand(&text, is_kubectl);
        self.known.insert(key, help.clone());
        Ok(help)
    }
}

/// The program to which a chore hands all its options, `--help` among them, once it has built what that needs.
fn chore(path: &[String]) -> Option<&'static str> {
    match path.first()?.as_str() {
        "bench" => Some(env!("CARGO_BIN_EXE_bench")),
        "demo" => Some(env!("CARGO_BIN_EXE_demo")),
        "parity" => Some(env!("CARGO_BIN_EXE_parity")),
        "soak" => Some(env!("CARGO_BIN_EXE_soak")),
        "verdict-bench" => Some(env!("CARGO_BIN_EXE_verdict-bench")),
        _ => None,
    }
}

/// What may follow the subcommands.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Rest {
    /// What the program's usage says.
    Positional,
    /// Anything: the program names its subcommands in a way that is not understood to the last.
    Anything,
}

/// Reads what a program says by `--help`: options wherever a line begins with them, commands below a title.
fn understand(text: &str, is_kubectl: bool) -> Help {
    let mut help = Help::default();
    let mut is_list = false;
    for line in text.lines() {
        let word = line.split_whitespace().next().unwrap_or_default();
        if !line.starts_with(' ') {
            is_list = line.starts_with("Commands:") || is_kubectl && line.contains("Commands");
            help.needs_command |= line.starts_with("Usage:") && line.contains("<COMMAND>");
        } else if word.starts_with('-') {
            let words = line.split([' ', ',', '=', '[']).map_while(|word| {
                let is_option = word.starts_with('-') || word.is_empty();
                is_option.then(|| word.trim_end_matches(':').to_owned())
            });
            help.options.extend(words.filter(|word| !word.is_empty()));
        } else if is_list && line.starts_with("  ") && !line.starts_with("   ") {
            help.commands.insert(word.to_owned());
        }
    }
    // `-f, --filename=[]:` and `-n, --namespace='':` have their long name behind the comma.
    for line in text.lines().filter(|line| line.trim_start().starts_with('-')) {
        let long = line.split([' ', '=', ':', ',']).filter(|word| word.starts_with("--"));
        help.options.extend(long.map(str::to_owned).take(1));
    }
    help
}

fn is_assignment(word: &str) -> bool {
    let is_name = |name: &str| name.chars().all(|symbol| symbol.is_ascii_alphanumeric() || symbol == '_');
    word.split_once('=').is_some_and(|(name, _)| !name.is_empty() && is_name(name))
}

/// The commands of some lines, as words without quotes. What stands in `$(…)` within quotes stays a part of its word.
fn commands(shell: &str) -> Vec<Vec<String>> {
    let mut all = Vec::new();
    let (mut words, mut word) = (Vec::new(), None::<String>);
    let mut quote = None;
    let mut symbols = shell.chars().peekable();
    while let Some(symbol) = symbols.next() {
        match (quote, symbol) {
            (Some(open), symbol) if symbol == open => quote = None,
            (Some(_), symbol) => word.get_or_insert_default().push(symbol),
            (None, '\'' | '"') => {
                quote = Some(symbol);
                word.get_or_insert_default();
            }
            (None, '\\') => {
                // A line that goes on, or a symbol that means itself.
                if let Some(next) = symbols.next().filter(|next| *next != '\n') {
                    word.get_or_insert_default().push(next);
                }
            }
            (None, '#') if word.is_none() => while symbols.next_if(|symbol| *symbol != '\n').is_some() {},
            (None, '>' | '<') => {
                words.extend(word.take().filter(|word| !["1", "2"].contains(&word.as_str())));
                // A redirection and its file are no words of the command.
                while symbols.next_if(|symbol| matches!(symbol, '>' | '&' | ' ')).is_some() {}
                while symbols.next_if(|symbol| !matches!(symbol, ' ' | '\n' | ')' | ';')).is_some() {}
            }
            (None, '$') if symbols.peek() == Some(&'(') => {
                symbols.next();
                words.extend(word.take());
                all.push(std::mem::take(&mut words));
            }
            (None, '\n' | ';' | '|' | '&' | ')') => {
                words.extend(word.take());
                all.push(std::mem::take(&mut words));
            }
            (None, symbol) if symbol.is_whitespace() => words.extend(word.take()),
            (None, symbol) => word.get_or_insert_default().push(symbol),
        }
    }
    words.extend(word);
    all.push(words);
    all.retain(|words| !words.is_empty());
    all
}

#[test]
fn commands_are_found_behind_what_joins_them() {
    let found = commands("a --b 'c d' \\\n  e | f > g # h\nfor x in $(i --j); do k \"$x l\" & done\n");
    let found: Vec<_> = found.iter().map(|words| words.join(" ")).collect();
    assert_eq!(found, ["a --b c d e", "f", "for x in", "i --j", "do k $x l", "done"]);
}

#[test]
fn options_and_commands_are_found_in_what_a_program_says_of_itself() {
    let help = understand(
        "Does.\n\nUsage: p <COMMAND>\n\nCommands:\n  run   Runs\n  help  Helps\n\nOptions:\n  -a, --all\n      --b <C>  D\n",
        false,
    );
    assert!(help.needs_command);
    assert!(help.commands.contains("run") && !help.commands.contains("Does."));
    assert_eq!(help.options.into_iter().collect::<Vec<_>>(), ["--all", "--b", "-a"]);
}
