//! Enters: the generator's own statement of what a capture holds, or a line of `inspect`. Leaves: values to compare.

use std::fmt;

use anyhow::{Context as _, Result};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

/// One exchange of a capture.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Exchange {
    /// The request, if it is in the capture.
    pub request: Option<Told>,
    /// Status codes of interim responses.
    pub interim: Vec<u64>,
    /// The final response, if it is in the capture.
    pub response: Option<Told>,
}

/// One message.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Told {
    /// Method and target, or status.
    pub start: String,
    /// The content.
    pub content: Content,
    /// Why `run` would not replay it.
    pub refused: Option<String>,
}

/// The content of a message.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Content {
    /// All of it: length and the start of its SHA-256.
    Whole(u64, String),
    /// Its beginning.
    Cut(u64, String),
    /// Bytes are missing in between; this many are there.
    Holed(u64),
}

/// A message without content. `start` is method and target, or status.
pub(super) fn told(start: &str) -> Told {
    Told { start: start.to_owned(), content: Content::Whole(0, short_hash(b"")), refused: None }
}

impl Told {
    /// With this content.
    pub(super) fn body(mut self, content: impl AsRef<[u8]>) -> Self {
        let content = content.as_ref();
        self.content = Content::Whole(content.len() as u64, short_hash(content));
        self
    }

    /// Seen up to here only.
    pub(super) fn cut(mut self) -> Self {
        if let Content::Whole(len, hash) = self.content {
            self.content = Content::Cut(len, hash);
        }
        self
    }

    /// With `there` bytes of content and others missing.
    pub(super) fn holed(mut self, there: u64) -> Self {
        self.content = Content::Holed(there);
        self
    }

    /// `run` would not replay it.
    pub(super) fn refused(mut self, reason: &str) -> Self {
        self.refused = Some(reason.to_owned());
        self
    }

    fn from_line(message: &Value) -> Result<Option<Self>> {
        if message.is_null() {
            return Ok(None);
        }
        let start = match message["status"].as_u64() {
            Some(status) => status.to_string(),
            None => {
                let text = |key: &str| message[key].as_str().with_context(|| key.to_owned());
                format!("{} {}", text("method")?, text("target")?)
            }
        };
        let len = message["body_bytes"].as_u64().context("body_bytes")?;
        let complete = message["complete"].as_bool().context("complete")?;
        let content =
            match message["body_sha256"].as_str().map(|hash| hash.chars().take(HASH_CHARS).collect()) {
                Some(hash) if complete => Content::Whole(len, hash),
                Some(hash) => Content::Cut(len, hash),
                None => Content::Holed(len),
            };
        let refused = message["refused"].as_str().map(str::to_owned);
        Ok(Some(Self { start, content, refused }))
    }
}

impl Exchange {
    /// What a line of `inspect` says.
    ///
    /// # Errors
    ///
    /// It is not as documented.
    pub fn from_line(line: &str) -> Result<Self> {
        let line: Value = serde_json::from_str(line)?;
        let interim = line["interim"].as_array().into_iter().flatten();
        Ok(Self {
            request: Told::from_line(&line["request"])?,
            interim: interim.filter_map(|message| message["status"].as_u64()).collect(),
            response: Told::from_line(&line["response"])?,
        })
    }
}

impl fmt::Display for Exchange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let message = |told: &Option<Told>| told.as_ref().map_or_else(|| "-".to_owned(), Told::to_string);
        write!(f, "{} > {:?} > {}", message(&self.request), self.interim, message(&self.response))
    }
}

impl fmt::Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let start: String = self.start.chars().take(60).collect();
        write!(f, "{start} {:?} {}", self.content, self.refused.as_deref().unwrap_or_default())
    }
}

/// Enough to tell one content from another, and to read a failure.
const HASH_CHARS: usize = 16;

fn short_hash(content: &[u8]) -> String {
    Sha256::digest(content).iter().map(|byte| format!("{byte:02x}")).take(HASH_CHARS / 2).collect()
}
