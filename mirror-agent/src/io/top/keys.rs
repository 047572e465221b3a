//! Enters: bytes of a terminal. Leaves: keys.

/// What somebody presses.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Key {
    /// One line up.
    Up,
    /// One line down.
    Down,
    /// Not this; enough.
    Escape,
    /// Yes.
    Enter,
    /// Ctrl-C or Ctrl-D.
    Interrupt,
    /// A character.
    Char(char),
}

/// The keys of what was read at once. What is none of them means nothing.
pub(super) fn keys(bytes: &[u8]) -> Vec<Key> {
    let mut keys = Vec::new();
    let mut rest = bytes;
    while let Some((&first, others)) = rest.split_first() {
        rest = others;
        let key = match first {
            0x1b => match others {
                [b'[' | b'O', sequence @ ..] => {
                    // ECMA-48 section 5.4: parameters, then one final byte.
                    let end = sequence.iter().position(|byte| (0x40..0x7f).contains(byte));
                    let end = end.unwrap_or(sequence.len());
                    rest = sequence.get(end.saturating_add(1)..).unwrap_or_default();
                    match sequence {
                        [b'A', ..] => Some(Key::Up),
                        [b'B', ..] => Some(Key::Down),
                        _ => None,
                    }
                }
                _ => Some(Key::Escape),
            },
            b'\r' | b'\n' => Some(Key::Enter),
            3 | 4 => Some(Key::Interrupt),
            0x20..0x7f => Some(Key::Char(char::from(first))),
            _ => None,
        };
        keys.extend(key);
    }
    keys
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrows_characters_and_nonsense_are_told_apart() {
        assert_eq!(keys(b"\x1b[A\x1bOBq"), [Key::Up, Key::Down, Key::Char('q')]);
        assert_eq!(keys(b"\x1b"), [Key::Escape]);
        assert_eq!(keys(b"\x1b[1;5C?"), [Key::Char('?')]);
        assert_eq!(keys(b"\x03\x04\r\n"), [Key::Interrupt, Key::Interrupt, Key::Enter, Key::Enter]);
        assert_eq!(keys(b"\x1b[\xff\x00\x80p"), []);
        assert_eq!(keys(&[0xff, 0x00, 0x80, b'p']), [Key::Char('p')]);
        assert_eq!(keys(b"\x1b["), []);
    }
}
