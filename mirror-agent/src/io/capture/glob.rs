//! Enters: a pattern as in shells, and an interface's name. Leaves: whether the one describes the other.

use std::fmt;

/// A pattern: `*` for any run of characters, `?` for one, `[a-f0-9]` for one of a set, `[!…]` or `[^…]` for one that
/// is not in it. In a set, `]` stands for itself where it comes first, `-` where it comes first or last.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Glob {
    text: String,
    items: Vec<Item>,
}

#[derive(Clone, Debug, Eq, PartialEq)]
enum Item {
    Literal(char),
    Any,
    Run,
    Set { ranges: Vec<(char, char)>, is_inverted: bool },
}

impl Glob {
    /// Whether `text` holds anything that only a pattern has.
    #[must_use]
    pub fn is_pattern(text: &str) -> bool {
        text.contains(['*', '?', '['])
    }

    /// Reads a pattern; `None` where a set is empty or not closed.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut items = Vec::new();
        let mut rest = text.chars();
        while let Some(first) = rest.next() {
            items.push(match first {
                '*' => Item::Run,
                '?' => Item::Any,
                '[' => {
                    let (set, after) = parse_set(rest.as_str())?;
                    rest = after.chars();
                    set
                }
                literal => Item::Literal(literal),
            });
        }
        // Runs that follow each other say no more than one, and would only make matching slower.
        items.dedup_by(|next, item| *next == Item::Run && *item == Item::Run);
        Some(Self { text: text.to_owned(), items })
    }

    /// Whether the pattern describes the whole of `name`.
    #[must_use]
    pub fn matches(&self, name: &str) -> bool {
        let name: Vec<char> = name.chars().collect();
        let (mut item, mut at) = (0, 0);
        // The last run, and where what follows it was last tried: only that has to be tried again further on, since
        // an earlier run could gain nothing that the last one cannot.
        let mut retry: Option<(usize, usize)> = None;
        loop {
            match self.items.get(item) {
                Some(Item::Run) => {
                    retry = Some((item + 1, at));
                    item += 1;
                    continue;
                }
                Some(wanted) if name.get(at).is_some_and(|&symbol| wanted.takes(symbol)) => {
                    item += 1;
                    at += 1;
                    continue;
                }
                None if at == name.len() => return true,
                Some(_) | None => {}
            }
            match retry {
                Some((after_run, tried)) if tried < name.len() => {
                    retry = Some((after_run, tried + 1));
                    (item, at) = (after_run, tried + 1);
                }
                _ => return false,
            }
        }
    }
}

impl Item {
    fn takes(&self, symbol: char) -> bool {
        match self {
            Self::Literal(literal) => *literal == symbol,
            Self::Any | Self::Run => true,
            Self::Set { ranges, is_inverted } => {
                ranges.iter().any(|&(first, last)| (first..=last).contains(&symbol)) != *is_inverted
            }
        }
    }
}

/// Reads a set from after its bracket on; gives what follows it too.
fn parse_set(text: &str) -> Option<(Item, &str)> {
    let inside = text.strip_prefix(['!', '^']);
    let is_inverted = inside.is_some();
    let inside = inside.unwrap_or(text);
    // A bracket in the first place is a member.
    let first_len = inside.chars().next()?.len_utf8();
    let end = first_len + inside.get(first_len..)?.find(']')?;
    let members: Vec<char> = inside.get(..end)?.chars().collect();
    let mut ranges = Vec::new();
    let mut rest = members.as_slice();
    while let Some((&first, after)) = rest.split_first() {
        if let ['-', last, after @ ..] = after {
            ranges.push((first, *last));
            rest = after;
        } else {
            ranges.push((first, first));
            rest = after;
        }
    }
    Some((Item::Set { ranges, is_inverted }, inside.get(end + 1..)?))
}

impl fmt::Display for Glob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_as_in_shells() {
        let cases = [
            ("veth*", "veth0", true),
            ("veth*", "veth", true),
            ("veth*", "xveth", false),
            ("*", "anything", true),
            ("**", "", true),
            ("lxc?", "lxc1", true),
            ("lxc?", "lxc", false),
            ("lxc?", "lxc12", false),
            ("cali[0-9a-f]*", "cali7b", true),
            ("cali[0-9a-f]*", "calix", false),
            ("eth[!0]", "eth1", true),
            ("eth[^0]", "eth0", false),
            ("[]x]y", "]y", true),
            ("[a-]", "-", true),
            ("[-a]", "-", true),
            ("e*th*0", "ethXth0", true),
            ("e*th*0", "ethXth01", false),
            ("*a*b", "aXbXaXb", true),
            ("*a*b", "aXbXaX", false),
            ("eth0.[1-2]*", "eth0.100", true),
        ];
        for (pattern, name, expected) in cases {
            assert_eq!(Glob::parse(pattern).unwrap().matches(name), expected, "{pattern} {name}");
        }
    }

    #[test]
    fn sets_that_do_not_end_are_no_patterns() {
        for pattern in ["[", "a[]", "[!]", "[a-", "x[^"] {
            assert_eq!(Glob::parse(pattern), None, "{pattern}");
        }
    }

    #[test]
    fn matching_takes_time_that_grows_with_the_product_of_the_lengths() {
        let glob = Glob::parse(&"*a".repeat(500)).unwrap();
        assert!(!glob.matches(&"a".repeat(400)));
        assert!(glob.matches(&"ab".repeat(500)[..999]));
    }
}
