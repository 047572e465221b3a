//! Enters: a Markdown file. Leaves: its blocks with their tags, its headings as anchors, its links and its code words.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

/// One page.
#[derive(Debug)]
pub(crate) struct Page {
    /// From the root of the repository.
    pub(crate) path: PathBuf,
    /// What stands between fences, in order.
    pub(crate) blocks: Vec<Block>,
    /// The lines outside of them, numbered from 1.
    lines: Vec<(usize, String)>,
}

/// What stands between two fences.
#[derive(Debug)]
pub(crate) struct Block {
    /// The line of the opening fence, from 1.
    pub(crate) line: usize,
    /// The words behind the opening fence.
    pub(crate) tag: String,
    /// The lines between, without the fence's own indentation.
    pub(crate) text: String,
}

/// Words between backticks.
#[derive(Debug)]
pub(crate) struct Code {
    /// The line, from 1.
    pub(crate) line: usize,
    /// Whether it stands in the first column of a table.
    pub(crate) is_in_first_column: bool,
    /// What stands between the backticks.
    pub(crate) text: String,
}

/// The root of the repository; `None` where the tests were taken elsewhere without it.
pub(crate) fn root() -> Option<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent()?;
    root.join("README.md").exists().then(|| root.to_path_buf())
}

/// The pages for users: the README, what is below `docs`, and that of `deploy`.
pub(crate) fn all(root: &Path) -> Result<Vec<Page>> {
    let mut paths = vec![PathBuf::from("README.md"), PathBuf::from("deploy/README.md")];
    collect(root, Path::new("docs"), &mut paths)?;
    paths.into_iter().map(|path| Page::read(root, path)).collect()
}

fn collect(root: &Path, folder: &Path, paths: &mut Vec<PathBuf>) -> Result<()> {
    let mut entries = fs::read_dir(root.join(folder))?.collect::<Result<Vec<_>, _>>()?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let path = folder.join(entry.file_name());
        if entry.path().is_dir() {
            collect(root, &path, paths)?;
        } else if path.extension().is_some_and(|ending| ending == "md") {
            paths.push(path);
        }
    }
    Ok(())
}

impl Page {
    /// Reads one.
    pub(crate) fn read(root: &Path, path: PathBuf) -> Result<Self> {
        let text =
            fs::read_to_string(root.join(&path)).with_context(|| format!("read {}", path.display()))?;
        Ok(Self::parse(path, &text))
    }

    /// Takes a text for one.
    pub(crate) fn parse(path: PathBuf, text: &str) -> Self {
        let (mut blocks, mut lines) = (Vec::new(), Vec::new());
        let mut open: Option<(usize, Block)> = None;
        for (index, line) in text.lines().enumerate() {
            let indent = line.len() - line.trim_start().len();
            let fence = line.trim_start().strip_prefix("```");
            match (&mut open, fence) {
                (None, None) => lines.push((index + 1, line.to_owned())),
                (None, Some(tag)) => {
                    let block = Block { line: index + 1, tag: tag.trim().to_owned(), text: String::new() };
                    open = Some((indent, block));
                }
                (Some(_), Some("")) => blocks.extend(open.take().map(|(_, block)| block)),
                (Some((outer, block)), _) => {
                    block.text.push_str(line.get((*outer).min(indent)..).unwrap_or_default());
                    block.text.push('\n');
                }
            }
        }
        // A fence that is not closed is a block that no test knows.
        blocks.extend(open.map(|(_, block)| Block { tag: "not closed".to_owned(), ..block }));
        Self { path, blocks, lines }
    }

    /// A place in it, for messages.
    pub(crate) fn at(&self, line: usize) -> String {
        format!("{}:{line}", self.path.display())
    }

    /// Whether it compares another program with this one: what stands in the first column of its tables is theirs.
    pub(crate) fn is_about_another(&self) -> bool {
        self.path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("migrating-"))
    }

    /// The anchors of its headings.
    pub(crate) fn anchors(&self) -> Vec<String> {
        let headings = self.lines.iter().filter_map(|(_, line)| line.strip_prefix('#'));
        headings.map(|heading| anchor(heading.trim_start_matches('#').trim())).collect()
    }

    /// The targets of its links, each with its line.
    pub(crate) fn links(&self) -> Vec<(usize, &str)> {
        let mut found = Vec::new();
        for (number, line) in &self.lines {
            for (start, _) in line.match_indices("](") {
                let rest = line.get(start + 2..).unwrap_or_default();
                found.extend(rest.split_once(')').map(|(target, _)| (*number, target)));
            }
        }
        found
    }

    /// What stands between single backticks.
    pub(crate) fn code(&self) -> Vec<Code> {
        let mut found = Vec::new();
        for (line, text) in &self.lines {
            let is_row = text.starts_with('|');
            let mut column = 0;
            for (index, piece) in text.split('`').enumerate() {
                if index % 2 == 1 {
                    let is_in_first_column = is_row && column == 1;
                    found.push(Code { line: *line, is_in_first_column, text: piece.to_owned() });
                } else {
                    column += piece.matches('|').count() - piece.matches("\\|").count();
                }
            }
        }
        found
    }
}

/// What GitHub makes of a heading: lower case, without what is no word, spaces as hyphens.
fn anchor(heading: &str) -> String {
    let is_kept = |symbol: &char| symbol.is_alphanumeric() || matches!(symbol, ' ' | '-' | '_');
    heading.to_lowercase().chars().filter(is_kept).collect::<String>().replace(' ', "-")
}

#[test]
fn blocks_are_told_from_text_also_in_lists() {
    let page = Page::parse(
        PathBuf::new(),
        "# Its `head`, 2\n- a\n\n  ```sh run\n  ls\n    -l\n  ```\n| `a` | `b` |\n",
    );
    assert_eq!((page.blocks[0].line, page.blocks[0].tag.as_str()), (4, "sh run"));
    assert_eq!(page.blocks[0].text, "ls\n  -l\n");
    assert_eq!(page.anchors(), ["its-head-2"]);
    let first: Vec<_> = page.code().into_iter().map(|code| (code.text, code.is_in_first_column)).collect();
    assert_eq!(first, [("head".to_owned(), false), ("a".to_owned(), true), ("b".to_owned(), false)]);
}

#[test]
fn fence_that_is_not_closed_is_a_block_of_no_known_kind() {
    assert_eq!(Page::parse(PathBuf::new(), "```sh\nls\n").blocks[0].tag, "not closed");
}
