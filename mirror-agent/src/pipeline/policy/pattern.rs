//! Enters: a regular expression of the user's. Leaves: whether a value is one that it describes, all of it.

use regex::bytes::{Regex, RegexBuilder};
use regex_syntax::{ParserBuilder, hir::literal::Extractor};

use super::RuleError;

/// Most bytes of an expression once compiled, and again of what is remembered of it while it runs, for each capture
/// thread. What people write to match paths takes a tenth; counted repetitions of large classes are refused by this.
const COMPILED_BYTES: usize = 256 * 1024;

/// Most texts that are told of what values begin with; expressions that leave more open are told by fewer bytes of it.
const BEGINNINGS: usize = 32;

/// A regular expression that must fit a whole value, over bytes: `.` and classes stand for single bytes, so that no byte
/// that is not UTF-8 keeps a value from fitting.
///
/// It runs in time linear in the value's length, whatever the expression.
#[derive(Clone, Debug)]
pub struct Pattern(Regex);

impl Pattern {
    /// Compiles `expression`.
    ///
    /// # Errors
    ///
    /// [`RuleError::Pattern`] where it is none, or too large.
    pub fn new(expression: &str) -> Result<Self, RuleError> {
        // By itself first: one that closes a group which it did not open is none.
        let compiled = compile(expression).and_then(|_| compile(&format!(r"\A(?:{expression})\z")));
        compiled
            .map(Self)
            .map_err(|source| RuleError::Pattern { pattern: expression.to_owned(), source: Box::new(source) })
    }

    /// Whether it describes all of `value`.
    #[must_use]
    pub fn fits(&self, value: &[u8]) -> bool {
        self.0.is_match(value)
    }

    /// Texts of which every value that fits begins with one; `None` where any value could.
    pub(super) fn beginnings(&self) -> Option<Vec<Box<[u8]>>> {
        let mut parser = ParserBuilder::new().unicode(false).utf8(false).build();
        // It was compiled, so it is an expression; if not, it is one that could begin with anything.
        let parsed = parser.parse(self.0.as_str()).ok()?;
        let found = Extractor::new().limit_total(BEGINNINGS).extract(&parsed);
        let texts: Vec<Box<[u8]>> =
            found.literals()?.iter().map(|literal| literal.as_bytes().into()).collect();
        texts.iter().all(|text| !text.is_empty()).then_some(texts)
    }
}

fn compile(expression: &str) -> Result<Regex, regex::Error> {
    RegexBuilder::new(expression)
        .unicode(false)
        .size_limit(COMPILED_BYTES)
        .dfa_size_limit(COMPILED_BYTES)
        .build()
}
