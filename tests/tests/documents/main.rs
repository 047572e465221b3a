//! Enters: the pages for users. Leaves: whether what they show works, and what they name is there.
//!
//! How a block is looked at is said by the words behind its fence, as `docs/README.md` tells.

mod commands;
mod guards;
mod names;
mod page;
mod scene;
mod settings;

use anyhow::{Result, ensure};
use commands::Programs;
use mirror_tests::{agent, require_agent};
use names::{Keys, Names};
use page::Page;
use scene::Scene;

/// Returns from the test, saying why, where there are no pages, or no agent to hold them against.
macro_rules! require_pages {
    () => {{
        let Some(root) = page::root() else {
            println!("SKIPPED: the pages are not here");
            return Ok(());
        };
        if agent::program().is_none() {
            println!("SKIPPED: no mirror-agent was built (cargo xtask build)");
            return Ok(());
        }
        root
    }};
}

/// Fails with all faults at once.
fn expect_none(what: &str, faults: &[String]) -> Result<()> {
    ensure!(faults.is_empty(), "{what}:\n{}", faults.join("\n"));
    Ok(())
}

#[test]
fn every_link_leads_to_a_file_and_an_anchor() -> Result<()> {
    let root = require_pages!();
    let mut pages = page::all(&root)?;
    for other in ["ARCHITECTURE.md", "CHANGELOG.md"] {
        pages.push(Page::read(&root, other.into())?);
    }
    let links: usize = pages.iter().map(|page| page.links().len()).sum();
    ensure!(links > 100, "only {links} links were found");
    expect_none("links that lead nowhere", &names::broken_links(&root, &pages))
}

#[test]
fn every_option_key_metric_and_file_that_is_named_is_there() -> Result<()> {
    let root = require_pages!();
    let mut programs = Programs::find(&root)?;
    let mut options = programs.all_options()?;
    // Options of others that the text explains.
    options.extend(OTHERS_OPTIONS.map(str::to_owned));
    let names = Names::new(&root, options, Keys::ask()?)?;
    let mut unknown = Vec::new();
    for page in page::all(&root)? {
        unknown.extend(names.unknown(&root, &page));
        for block in page.blocks.iter().filter(|block| block.tag == "promql") {
            unknown.extend(
                names
                    .unknown_metrics(&block.text)
                    .map(|name| format!("{}: the metric {name}", page.at(block.line))),
            );
        }
    }
    if programs.xtask.is_none() {
        println!("SKIPPED: names of options: the chores were not built, and some are theirs");
        return Ok(());
    }
    expect_none("what is named and not there", &unknown)
}

/// Options of `cargo`, `kubectl` and `curl` that are named in the text.
const OTHERS_OPTIONS: [&str; 2] = ["--previous", "--features"];

#[test]
fn every_command_is_one_that_its_program_understands() -> Result<()> {
    let root = require_pages!();
    let mut programs = Programs::find(&root)?;
    let (mut faults, mut count) = (Vec::new(), 0);
    for page in page::all(&root)? {
        let blocks =
            page.blocks.iter().filter(|block| block.tag.starts_with("sh") && block.tag != "sh theirs");
        let mut shell: Vec<(usize, String)> = blocks.map(|block| (block.line, block.text.clone())).collect();
        shell.extend(page.code().into_iter().filter_map(|code| {
            let is_whole = ["mirror-agent ", "kubectl ", "cargo xtask "]
                .iter()
                .any(|start| code.text.starts_with(start));
            // Two words alone are a command's name.
            let is_whole = is_whole && code.text.split(' ').count() > 2;
            let is_short = code.text.starts_with("ctl ");
            let prefix = if is_short { "mirror-agent " } else { "" };
            (is_whole || is_short).then(|| (code.line, format!("{prefix}{}", code.text)))
        }));
        for (line, text) in shell {
            count += 1;
            faults.extend(
                programs.faults(&text).into_iter().map(|fault| format!("{}: {fault}", page.at(line))),
            );
        }
    }
    for what in programs.missing() {
        println!("Not looked at here: {what}");
    }
    ensure!(count > 30, "only {count} commands were found");
    expect_none("commands that do not work", &faults)
}

#[test]
fn every_configuration_is_accepted_and_every_block_is_of_a_known_kind() -> Result<()> {
    let root = require_pages!();
    let folder = tempfile::tempdir()?;
    let (mut faults, mut count) = (Vec::new(), 0);
    for page in page::all(&root)? {
        for block in &page.blocks {
            let words: Vec<&str> = block.tag.split(' ').filter(|word| !word.contains('=')).collect();
            let found = match words.as_slice() {
                ["yaml", kind @ ..] => {
                    count += 1;
                    settings::check(&kind.join(" "), &block.text, folder.path())
                }
                ["json"] => settings::parse_json(&block.text),
                ["sh"] | ["sh", "run"] | ["text"] | ["text", "output"] | ["promql"] | [_, "theirs"] => Ok(()),
                [language, "guard"] if guards::LANGUAGES.contains(language) => Ok(()),
                _ => Err(anyhow::anyhow!("no test knows blocks of the kind `{}`", block.tag)),
            };
            faults.extend(found.err().map(|error| format!("{}: {error:#}", page.at(block.line))));
        }
    }
    ensure!(count > 5, "only {count} configurations were found");
    expect_none("blocks that are not right", &faults)
}

#[test]
fn what_is_wrong_is_found() -> Result<()> {
    let root = require_pages!();
    let wrong = "`--no-such-option` `capture.ringSizes` `mirror_nothing_total` `deploy/nothing.yaml` \
                 `sample: { percent: 1 }` [a](nothing.md) [b](#nothing)\n";
    let page = Page::parse("docs/wrong.md".into(), wrong);
    let mut programs = Programs::find(&root)?;
    let names = Names::new(&root, programs.all_options()?, Keys::ask()?)?;
    let unknown = names.unknown(&root, &page);
    ensure!(unknown.len() == 4, "{unknown:?}");
    let broken = names::broken_links(&root, &[page]);
    ensure!(broken.len() == 2, "{broken:?}");
    let shell = "mirror-agent run --prot 80\nmirror-agent ctl stat\nkubectl apply -k deploy/nothing\nno-such-program\n";
    let faults = programs.faults(shell);
    ensure!(faults.len() == 4, "{faults:?}");
    let folder = tempfile::tempdir()?;
    for (kind, text) in
        [("", "capture: { interfaces: [lo] }"), ("target", "limits: { ques: 1 }"), ("theirs", "a: [")]
    {
        ensure!(settings::check(kind, text, folder.path()).is_err(), "{text} is taken for right");
    }
    Ok(())
}

/// `MIRROR_PAGE=sampling` runs the pages in whose names this stands, and prints what their blocks said.
#[test]
fn pages_do_what_they_show() -> Result<()> {
    require_agent!();
    let root = require_pages!();
    if let Some(program) = scene::missing() {
        println!("SKIPPED: needs `{program}`");
        return Ok(());
    }
    let only = std::env::var("MIRROR_PAGE").unwrap_or_default();
    let (mut faults, mut played) = (Vec::new(), 0);
    for page in page::all(&root)? {
        let is_asked_for = page.path.display().to_string().contains(&only);
        if is_asked_for && page.blocks.iter().any(|block| scene::is_run(&block.tag)) {
            let found = Scene::set(&root, &page).and_then(|scene| scene.play(&page));
            println!("{}: {}", page.path.display(), if found.is_ok() { "ran" } else { "failed" });
            if let (false, Ok(said)) = (only.is_empty(), &found) {
                println!("{said}");
            }
            faults.extend(found.err().map(|error| format!("{error:#}")));
            played += 1;
        }
    }
    ensure!(played > 0, "no page was run");
    expect_none("what does not do what is shown", &faults)
}
