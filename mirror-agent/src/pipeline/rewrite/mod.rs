//! Enters: the head of a request, and what one target wants changed of it. Leaves: the head of its copy.
//!
//! What is configured is checked and put into the form in which it is written once, by [`Rewrite::new`]. After that
//! each head is gone through once, from the front: what is not concerned is copied in runs, and nothing is allocated.
//! The edits, in this order: prefix of the path, query, host, fields removed, set and added, sampled flags of tracing;
//! then the markers, right before the empty line. Each works on what the one before it left. The body is not touched,
//! nor is any field that frames it or belongs to the connection, nor any byte that no edit is about.
//!
//! The output is well-formed where the input is. Heads that only a lenient decoder gives are rewritten as well as they
//! can be read: lines may end in a bare line feed, and a folded line belongs to the field that it continues.

mod check;
mod copier;
mod fields;
#[cfg(any(test, feature = "model"))]
#[expect(
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    reason = "never part of the agent; a panic is a finding"
)]
pub mod model;
mod session;
mod target;
mod trace;

#[cfg(test)]
mod tests;

pub use check::{RewriteError, check_header_edit, check_header_value, check_host};
pub use session::{Known, Substituted, Use, substitute};

use self::{fields::FieldEdits, target::TargetEdits};
use crate::pipeline::http::find_line_feed;

/// What is to be changed of each copy for one target. Nothing, by default, but for the sampled flags.
#[derive(Clone, Copy, Debug, Default)]
pub struct Rules<'a> {
    /// The experiment's name, for the marker.
    pub experiment: &'a str,
    /// Prefixes of paths, and what takes their place. The longest that fits is taken.
    ///
    /// A prefix is made of whole path elements, compared byte for byte; a slash at its end says nothing, as in Gateway
    /// API. What takes its place may be empty.
    pub replace_prefix: &'a [(String, String)],
    /// Query parameters that are left out, by name. Names are compared as a server reads them, without
    /// percent-encoding and with `+` for a space.
    pub remove_query: &'a [String],
    /// Query parameters that take the place of the first of the same name; others of that name are left out. Put behind
    /// the rest where there is none.
    pub set_query: &'a [(String, String)],
    /// What stands in the Host line; `None` for what the live client wrote.
    pub host: Option<&'a str>,
    /// Names of fields that are left out, in any case.
    pub remove_headers: &'a [String],
    /// Fields that take the place of the first of the same name; others of that name are left out. Put behind the rest
    /// where there is none.
    pub set_headers: &'a [(String, String)],
    /// Fields that are put behind all others.
    pub add_headers: &'a [(String, String)],
    /// What becomes of the sampled flags.
    pub trace: TraceFlags,
}

/// What becomes of the flag by which the sender of a request says that its trace is recorded.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum TraceFlags {
    /// It is cleared, so that copies do not flood the tracing; trace and parent keep their numbers.
    #[default]
    Clear,
    /// It is kept.
    Keep,
}

/// Why an experiment has taken a request, as `x-mirror-match` says.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Chosen {
    /// It takes every request that fits.
    Targeted,
    /// It takes a share of them.
    Sampled,
}

impl Chosen {
    /// The marker's value.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Targeted => "targeted",
            Self::Sampled => "sampled",
        }
    }
}

/// What is known of one copy.
#[derive(Clone, Copy, Debug)]
pub struct CopyFacts<'a> {
    /// The value of `x-mirror-id`.
    pub id: &'a [u8; MIRROR_ID_BYTES],
    /// Why the experiment has taken the request.
    pub chosen: Chosen,
    /// Whether the head has markers that the live client wrote; they are left out.
    pub has_marker: bool,
}

/// How the head of each copy for one target is made.
#[derive(Clone, Debug)]
pub struct Rewrite {
    /// `None` where all lines stay as they are.
    edits: Option<Box<Edits>>,
    /// The same for a head with markers of the client's, which a shadow could read in the place of ours.
    unmarking: Box<Edits>,
    /// What follows the identifier in its marker: the line's end and the other markers.
    targeted: Box<[u8]>,
    sampled: Box<[u8]>,
}

#[derive(Clone, Debug, Default)]
struct Edits {
    target: TargetEdits,
    fields: FieldEdits,
}

impl Rewrite {
    /// Checks the rules and makes them ready to be applied.
    ///
    /// # Errors
    ///
    /// A name or a value that could not be written without changing what the head means, a field that must not be
    /// edited, or two rules for the same thing: see [`RewriteError`].
    pub fn new(rules: &Rules<'_>) -> Result<Self, RewriteError> {
        check::experiment(rules.experiment)?;
        let target = TargetEdits::new(rules)?;
        let fields = FieldEdits::new(rules)?;
        let edits = Edits { target, fields };
        let has_edits = !(edits.target.is_empty() && edits.fields.is_empty());
        Ok(Self {
            unmarking: Box::new(edits.without_markers()),
            edits: has_edits.then(|| Box::new(edits)),
            ..Self::unchanged(rules.experiment)
        })
    }

    /// All lines stay as they are. The name has been checked.
    fn unchanged(experiment: &str) -> Self {
        let markers = |chosen: Chosen| {
            let chosen = chosen.as_str();
            let text = format!(
                "\r\nx-shadow: true\r\nx-mirror-experiment: {experiment}\r\nx-mirror-match: {chosen}\r\n"
            );
            text.into_bytes().into_boxed_slice()
        };
        Self {
            edits: None,
            unmarking: Box::new(Edits::default().without_markers()),
            targeted: markers(Chosen::Targeted),
            sampled: markers(Chosen::Sampled),
        }
    }

    /// Appends to `out` the head of the copy of a request whose head is `head`: start line through the empty line.
    pub fn write(&self, out: &mut Vec<u8>, head: &[u8], facts: CopyFacts<'_>) {
        let lines_len = head.len().saturating_sub(empty_line_len(head));
        let (lines, empty_line) = head.split_at_checked(lines_len).unwrap_or((head, b""));
        match if facts.has_marker { Some(&self.unmarking) } else { self.edits.as_ref() } {
            None => out.extend_from_slice(lines),
            Some(edits) => edits.write(out, lines),
        }
        out.extend_from_slice(b"x-mirror-id: ");
        out.extend_from_slice(facts.id);
        out.extend_from_slice(match facts.chosen {
            Chosen::Targeted => &self.targeted,
            Chosen::Sampled => &self.sampled,
        });
        out.extend_from_slice(empty_line);
    }
}

impl Default for Rewrite {
    /// Markers of an experiment named `default`, and no edits.
    fn default() -> Self {
        Self::unchanged("default")
    }
}

impl Edits {
    fn without_markers(&self) -> Self {
        Self { target: self.target.clone(), fields: self.fields.without_markers() }
    }

    fn write(&self, out: &mut Vec<u8>, lines: &[u8]) {
        let line_len = find_line_feed(lines).map_or(lines.len(), |line_feed| line_feed.saturating_add(1));
        let (request_line, section) = lines.split_at_checked(line_len).unwrap_or((lines, b""));
        self.target.write(out, request_line);
        self.fields.write(out, section, needs_host(request_line));
    }
}

/// Whether a request must have a Host line (RFC 9112 section 3.2): not so before HTTP/1.1.
fn needs_host(request_line: &[u8]) -> bool {
    !request_line.trim_ascii_end().ends_with(b" HTTP/1.0")
}

/// Length of the line terminator that ends the head: a lone LF is one too (RFC 9112 section 2.2).
fn empty_line_len(head: &[u8]) -> usize {
    if head.ends_with(b"\n\r\n") { 2 } else { usize::from(head.ends_with(b"\n\n")) }
}

/// Length of the value of `x-mirror-id`.
pub const MIRROR_ID_BYTES: usize = 38;
