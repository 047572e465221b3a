//! Enters: the field lines of a head. Leaves: those of its copy, but for the markers.

use super::{
    Rules, TraceFlags,
    check::{RewriteError, check_header_edit, check_header_value, check_host},
    copier::Copier,
    trace::TraceField,
};
use crate::pipeline::http::{MARKERS, find_line_feed, trim_whitespace};

/// What is changed of the field lines.
#[derive(Clone, Debug, Default)]
pub(super) struct FieldEdits {
    /// The fields that are met with an edit. Of several with one name the first counts, so that what is removed is
    /// removed before the same is set.
    named: Vec<Named>,
    /// A bit for each length of a name in the list: most lines are known by it to be no concern of it.
    lengths: u64,
    /// The value of Host.
    host: Option<Box<[u8]>>,
    /// Lines that follow all others.
    added: Box<[u8]>,
}

#[derive(Clone, Debug)]
struct Named {
    /// In lower case.
    name: Box<[u8]>,
    edit: Edit,
}

#[derive(Clone, Debug)]
enum Edit {
    Remove,
    Set {
        line: Box<[u8]>,
        /// Which of the bits says that it was met: one of [`MOST_SET`].
        bit: u64,
    },
    Host,
    Clear(TraceField),
}

/// What is set is known by a bit of a number.
pub(super) const MOST_SET: usize = 64;

impl FieldEdits {
    pub(super) fn new(rules: &Rules<'_>) -> Result<Self, RewriteError> {
        let mut edits = Self::default();
        for name in rules.remove_headers {
            check_header_edit(name)?;
            edits.push(name, Edit::Remove);
        }
        if rules.set_headers.len() > MOST_SET {
            return Err(RewriteError::TooMany { key: "headers", limit: MOST_SET });
        }
        for ((name, value), bit) in rules.set_headers.iter().zip(bits()) {
            let line = line(name, value)?.into_boxed_slice();
            let is_set = |named: &Named| {
                matches!(named.edit, Edit::Set { .. }) && named.name.eq_ignore_ascii_case(name.as_bytes())
            };
            if edits.named.iter().any(is_set) {
                return Err(RewriteError::Twice { key: "headers", name: name.clone() });
            }
            edits.push(name, Edit::Set { line, bit });
        }
        if let Some(host) = rules.host {
            check_host(host)?;
            edits.host = Some(host.as_bytes().into());
            edits.push("host", Edit::Host);
        }
        if rules.trace == TraceFlags::Clear {
            for field in TraceField::ALL {
                edits.push(field.name(), Edit::Clear(field));
            }
        }
        let mut added = Vec::new();
        for (name, value) in rules.add_headers {
            added.extend(line(name, value)?);
        }
        edits.added = added.into();
        Ok(edits)
    }

    /// The same edits, and the mirror's own fields removed.
    pub(super) fn without_markers(&self) -> Self {
        let mut edits = self.clone();
        for name in MARKERS {
            edits.push(name, Edit::Remove);
        }
        edits
    }

    pub(super) fn is_empty(&self) -> bool {
        self.named.is_empty() && self.added.is_empty()
    }

    /// Appends the lines of `section` as they are to be, then those that are missing. `needs_host`: the request is of a
    /// version that must have a Host line.
    pub(super) fn write(&self, out: &mut Vec<u8>, section: &[u8], needs_host: bool) {
        let mut copier = Copier::new(out, section);
        let mut has_host = false;
        let mut set = 0_u64;
        let mut start = 0;
        while let Some(rest) = section.get(start..).filter(|rest| !rest.is_empty()) {
            let end = start.saturating_add(field_len(rest));
            let line = section.get(start..end).unwrap_or(rest);
            let colon = line.iter().position(|byte| *byte == b':');
            let (name, value) = colon.and_then(|colon| line.split_at_checked(colon)).unwrap_or_default();
            match self.edit_of(trim_whitespace(name)) {
                None => {}
                Some(Edit::Remove) => _ = copier.replace(start, end),
                Some(Edit::Set { line, bit }) => {
                    let out = copier.replace(start, end);
                    if set & bit == 0 {
                        out.extend_from_slice(line);
                    }
                    set |= bit;
                }
                Some(Edit::Host) => {
                    let out = copier.replace(start, end);
                    if !has_host {
                        self.write_host(out, trim_whitespace(name));
                    }
                    has_host = true;
                }
                Some(Edit::Clear(field)) => {
                    if let Some(patch) = field.clear(value) {
                        let value_start = start.saturating_add(name.len());
                        let place = |offset: usize| value_start.saturating_add(offset);
                        copier.replace(place(patch.start), place(patch.end)).push(patch.with);
                    }
                }
            }
            start = end;
        }
        let out = copier.finish();
        if needs_host && !has_host {
            self.write_host(out, b"Host");
        }
        for named in &self.named {
            if let Edit::Set { line, bit } = &named.edit
                && set & bit == 0
            {
                out.extend_from_slice(line);
            }
        }
        out.extend_from_slice(&self.added);
    }

    fn push(&mut self, name: &str, edit: Edit) {
        self.lengths |= length_bit(name.len());
        self.named.push(Named { name: name.to_ascii_lowercase().into_bytes().into(), edit });
    }

    fn edit_of(&self, name: &[u8]) -> Option<&Edit> {
        if self.lengths & length_bit(name.len()) == 0 {
            return None;
        }
        self.named.iter().find(|named| named.name.eq_ignore_ascii_case(name)).map(|named| &named.edit)
    }

    /// Writes the Host line, if it is not the live client's; its name is spelled as it was.
    fn write_host(&self, out: &mut Vec<u8>, name: &[u8]) {
        if let Some(host) = &self.host {
            out.extend_from_slice(name);
            out.extend_from_slice(b": ");
            out.extend_from_slice(host);
            out.extend_from_slice(b"\r\n");
        }
    }
}

/// Length of the first field: its line, and all that continue it (RFC 9112 section 5.2).
pub(super) fn field_len(section: &[u8]) -> usize {
    let mut len = 0_usize;
    loop {
        let rest = section.get(len..).unwrap_or_default();
        let Some(line_feed) = find_line_feed(rest) else { return section.len() };
        len = len.saturating_add(line_feed).saturating_add(1);
        if !matches!(section.get(len), Some(b' ' | b'\t')) {
            return len;
        }
    }
}

fn line(name: &str, value: &str) -> Result<Vec<u8>, RewriteError> {
    check_header_edit(name)?;
    check_header_value(name, value)?;
    Ok(format!("{name}: {value}\r\n").into_bytes())
}

/// All lengths from 63 bytes on share a bit.
fn length_bit(len: usize) -> u64 {
    u32::try_from(len).ok().and_then(|len| 1_u64.checked_shl(len)).unwrap_or(1 << 63)
}

/// A bit each for what is set.
pub(super) fn bits() -> impl Iterator<Item = u64> {
    (0..u64::BITS).filter_map(|place| 1_u64.checked_shl(place))
}
