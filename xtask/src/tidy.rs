//! Enters: the tracked files. Leaves: the house rules that no other tool checks, each breach with its place.

use std::{fs, path::Path, process::Command};

use anyhow::{Context as _, Result, bail};

use crate::{child, workspace};

/// Checks every text file of the repository.
pub(crate) fn run() -> Result<()> {
    let files = texts(&workspace::root()?)?;
    let breaches: Vec<String> = files.iter().flat_map(breaches_of).collect();
    for breach in &breaches {
        println!("{breach}");
    }
    if !breaches.is_empty() {
        bail!("{} breaches of the house rules", breaches.len());
    }
    Ok(())
}

/// A text file.
struct Text {
    /// From the root of the workspace, with `/`.
    path: String,
    content: String,
}

/// The endings of files that are written by hand; test data may hold whatever it needs.
const TEXT_ENDINGS: [&str; 9] =
    [".rs", ".toml", ".md", ".sh", ".yml", ".yaml", ".ci/run", ".gitignore", "Containerfile"];

fn texts(root: &Path) -> Result<Vec<Text>> {
    let mut git = Command::new("git");
    git.current_dir(root).args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"]);
    let list = child::answer(&mut git).context("list the repository's files with git")?;
    let mut files = Vec::new();
    for path in list.split('\0').filter(|path| TEXT_ENDINGS.iter().any(|ending| path.ends_with(ending))) {
        // A deleted file is listed until the deletion is staged.
        if root.join(path).is_file() {
            let content = fs::read_to_string(root.join(path)).with_context(|| format!("read {path}"))?;
            files.push(Text { path: path.to_owned(), content });
        }
    }
    Ok(files)
}

fn breaches_of(file: &Text) -> Vec<String> {
    let mut breaches = Breaches { path: &file.path, found: Vec::new() };
    for (index, line) in file.content.lines().enumerate() {
        if line.ends_with([' ', '\t']) {
            breaches.at(index, "white space at the end of the line");
        }
        if MACHINE_PATHS.iter().any(|path| line.contains(path)) {
            breaches.at(index, "a path of one machine");
        }
    }
    if !file.content.is_empty() && !file.content.ends_with('\n') {
        breaches.at(file.content.lines().count().saturating_sub(1), "no line end at the end of the file");
    }
    if file.path.ends_with(".rs") {
        check_rust(file, &mut breaches);
    }
    breaches.found
}

struct Breaches<'a> {
    path: &'a str,
    found: Vec<String>,
}

impl Breaches<'_> {
    /// Notes a breach; `index` counts lines from 0.
    fn at(&mut self, index: usize, what: &str) {
        self.found.push(format!("{}:{}: {what}", self.path, index + 1));
    }
}

/// Written in two parts, or this file would break its own rule.
const MACHINE_PATHS: [&str; 3] = [concat!("/ro", "ot/"), concat!("/wo", "rk/"), concat!("/tmp", "/wt")];

/// A file longer than this is two files.
const MOST_LINES: usize = 600;

fn check_rust(file: &Text, breaches: &mut Breaches<'_>) {
    if !file.content.starts_with("//!") {
        breaches.at(0, "the file does not begin by saying what enters and what leaves (`//!`)");
    }
    if file.content.lines().count() > MOST_LINES {
        breaches.at(MOST_LINES, "more than 600 lines");
    }
    let name = file.path.rsplit('/').find(|part| *part != "mod.rs").unwrap_or_default();
    if NOUNS.contains(&name.trim_end_matches(".rs")) {
        breaches.at(0, "the file's name says nothing");
    }
    let is_pure = file.path.starts_with("mirror-agent/src/pipeline/");
    for (index, line) in file.content.lines().enumerate() {
        let code = code_of(line);
        for (attribute, instead) in ATTRIBUTES {
            if code.starts_with(attribute) {
                breaches.at(index, instead);
            }
        }
        if MACROS.iter().any(|name| has_path(code, name)) {
            breaches.at(index, "unfinished code");
        }
        if let Some(name) = function_name(code).filter(|name| is_empty_word(name)) {
            breaches.at(index, &format!("the function name `{name}` says nothing"));
        }
        let is_in_memory = IN_MEMORY.iter().any(|line| code.starts_with(line));
        if is_pure
            && !is_in_memory
            && let Some(outside) = OUTSIDE.iter().find(|outside| has_path(code, outside))
        {
            breaches.at(index, &format!("the pipeline knows nothing of `{outside}`"));
        }
    }
}

/// Attributes that are not used, as a line begins with them.
const ATTRIBUTES: [(&str, &str); 5] = [
    ("#[allow(", "an exception is `#[expect(.., reason = ..)]`"),
    ("#![allow(", "an exception is `#![expect(.., reason = ..)]`"),
    ("#[ignore", "a test that cannot run prints why and passes"),
    ("#[should_panic", "a test asserts what it expects"),
    ("#[path", "a module is where its name says"),
];

const MACROS: [&str; 2] = [concat!("to", "do!"), concat!("unimpl", "emented!")];

/// The world outside the pipeline. `io::` covers the shell's `crate::io` and the standard library's.
const OUTSIDE: [&str; 14] = [
    "Instant",
    "SystemTime",
    "TcpStream",
    "TcpListener",
    "UdpSocket",
    "UnixStream",
    "aya",
    "env::",
    "fs::",
    "io::",
    "process::",
    "thread::",
    "tokio",
    "tracing",
];

/// Traits by which decoders of bytes in memory are read and written: lines that import them begin so.
const IN_MEMORY: [&str; 2] = ["use std::io::Read", "use std::io::Write"];

/// The code of a line: what stands before a comment. A `//` inside a string ends it too early, which is harmless.
fn code_of(line: &str) -> &str {
    line.split("//").next().unwrap_or_default().trim()
}

/// Whether `code` names `path` and not a longer word that it is the end or the beginning of.
fn has_path(code: &str, path: &str) -> bool {
    code.match_indices(path).any(|(start, _)| {
        let before = code.get(..start).and_then(|before| before.chars().next_back());
        let after = code.get(start + path.len()..).and_then(|after| after.chars().next());
        let ends_in_word = path.ends_with(is_word);
        !(before.is_some_and(is_word) || ends_in_word && after.is_some_and(is_word))
    })
}

fn is_word(character: char) -> bool {
    character.is_alphanumeric() || character == '_'
}

/// The name of the function that a line declares.
fn function_name(code: &str) -> Option<&str> {
    let (before, after) = code.split_once("fn ")?;
    let is_declaration = before.is_empty() || before.ends_with(' ');
    let end = after.find(|character| !is_word(character))?;
    after.get(..end).filter(|name| is_declaration && !name.is_empty())
}

/// Verbs that fit every function.
const VERBS: [&str; 3] = ["process", "manage", "do"];

/// Nouns that fit every module.
const NOUNS: [&str; 5] = ["util", "utils", "helper", "helpers", "misc"];

fn is_empty_word(name: &str) -> bool {
    let mut words = name.split('_');
    words.next().is_some_and(|verb| VERBS.contains(&verb))
        || name.split('_').any(|word| NOUNS.contains(&word))
}

#[cfg(test)]
mod tests {
    use super::{Text, breaches_of};

    #[test]
    fn file_that_says_what_it_takes_and_gives_is_clean() {
        assert_eq!(count("xtask/src/a.rs", "//! Enters: a. Leaves: b.\n\nfn poll_done() {}\n"), 0);
    }

    #[test]
    fn rust_file_without_first_line_is_a_breach() {
        assert_eq!(count("a.rs", "use std::fmt;\n"), 1);
    }

    #[test]
    fn six_hundred_lines_pass_and_one_more_does_not() {
        assert_eq!(count("a.rs", &"//!\n".repeat(600)), 0);
        assert_eq!(count("a.rs", &"//!\n".repeat(601)), 1);
    }

    #[test]
    fn white_space_at_line_end_is_a_breach_in_any_text() {
        assert_eq!(count("README.md", "a \nb\t\nc\n"), 2);
    }

    #[test]
    fn path_of_one_machine_is_a_breach() {
        assert_eq!(count("README.md", concat!("see /ro", "ot/x\n")), 1);
    }

    #[test]
    fn unfinished_last_line_is_a_breach() {
        assert_eq!(count("README.md", "a"), 1);
    }

    #[test]
    fn silenced_lints_and_tests_are_breaches() {
        for attribute in ["#[allow(x)]", "#![allow(x)]", "#[ignore]", "#[should_panic]"] {
            assert_eq!(count("a.rs", &format!("//!\n    {attribute}\n")), 1, "{attribute}");
        }
    }

    #[test]
    fn unfinished_code_is_a_breach() {
        assert_eq!(count("a.rs", concat!("//!\nfn a() { to", "do!() }\n")), 1);
    }

    #[test]
    fn function_names_that_say_nothing_are_breaches() {
        for name in ["process_segment", "manage", "do_it", "time_util", "helper_of_tests", "misc"] {
            assert_eq!(count("a.rs", &format!("//!\npub(crate) fn {name}() {{}}\n")), 1, "{name}");
        }
        for name in ["done", "processor", "window_does_fit", "dominant"] {
            assert_eq!(count("a.rs", &format!("//!\nfn {name}<T>() {{}}\n")), 0, "{name}");
        }
    }

    #[test]
    fn module_names_that_say_nothing_are_breaches() {
        assert_eq!(count("tests/src/utils.rs", "//!\n"), 1);
        assert_eq!(count("tests/src/helpers/mod.rs", "//!\n"), 1);
        assert_eq!(count("tests/src/mod.rs", "//!\n"), 0);
    }

    #[test]
    fn pipeline_that_looks_outside_is_a_breach() {
        for line in [
            "use crate::io::ledger;",
            "use super::super::io::Ledger;",
            "use std::{fmt, time::Instant};",
            "let file = std::fs::read(path);",
            "thread::sleep(pause);",
        ] {
            let text = format!("//!\n{line}\n");
            assert_eq!(count("mirror-agent/src/pipeline/flow/mod.rs", &text), 1, "{line}");
            assert_eq!(count("mirror-agent/src/io/mod.rs", &text), 0, "{line}");
        }
    }

    #[test]
    fn pipeline_may_read_bytes_in_memory() {
        let text = "//!\nuse std::io::Read;\nuse std::io::Write as _;\n";

        assert_eq!(count("mirror-agent/src/pipeline/flow/mod.rs", text), 0);
        assert_eq!(count("mirror-agent/src/pipeline/flow/mod.rs", "//!\nuse std::io::stdin;\n"), 1);
    }

    #[test]
    fn pipeline_may_speak_of_the_outside_in_comments_and_longer_words() {
        let text = "//!\n/// See `crate::io::ledger`.\nlet audio::Instantaneous = 1; // Instant\n";

        assert_eq!(count("mirror-agent/src/pipeline/flow/mod.rs", text), 0);
    }

    fn count(path: &str, content: &str) -> usize {
        breaches_of(&text(path, content)).len()
    }

    fn text(path: &str, content: &str) -> Text {
        Text { path: path.to_owned(), content: content.to_owned() }
    }
}
