//! Enters: names of methods. Leaves: whether a request's is among them.

use crate::pipeline::http::Method;

/// A set of HTTP methods (RFC 9110 section 9.1: case-sensitive).
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Methods {
    /// Every method.
    All,
    /// These only.
    Only(Vec<String>),
}

impl Methods {
    const SAFE: [&str; 3] = ["GET", "HEAD", "OPTIONS"];

    /// Whether `method` is in the set.
    #[must_use]
    pub fn contains(&self, method: &[u8]) -> bool {
        match self {
            Self::All => true,
            Self::Only(list) => list.iter().any(|entry| entry.as_bytes() == method),
        }
    }

    /// Whether all of them are safe: RFC 9110 section 9.2.1, of those that are mirrored unless said otherwise.
    #[must_use]
    pub fn are_safe(&self) -> bool {
        match self {
            Self::All => false,
            Self::Only(list) => list.iter().all(|method| Self::SAFE.contains(&method.as_str())),
        }
    }
}

impl Default for Methods {
    /// The methods that RFC 9110 section 9.2.1 calls safe and that servers answer: a copy of any other is a write.
    fn default() -> Self {
        Self::Only(Self::SAFE.map(String::from).to_vec())
    }
}

/// The same set, as it is asked for each rule: methods that are known by a bit.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct MethodSet {
    known: u16,
    others: Vec<Box<[u8]>>,
}

impl MethodSet {
    /// Whether the method that is `token` and has this bit is in the set.
    pub(super) fn contains(&self, bit: u16, token: &[u8]) -> bool {
        self.known & bit != 0 || self.others.iter().any(|other| **other == *token)
    }
}

impl From<Methods> for MethodSet {
    fn from(methods: Methods) -> Self {
        let mut set = Self { known: 0, others: Vec::new() };
        match methods {
            // The bit of every other token, too.
            Methods::All => set.known = u16::MAX,
            Methods::Only(list) => {
                for name in list {
                    let method = Method::from_bytes(name.as_bytes());
                    if method == Method::Other {
                        set.others.push(name.into_bytes().into());
                    } else {
                        set.known |= bit(method);
                    }
                }
            }
        }
        set
    }
}

/// The bit of a method.
pub(super) fn bit(method: Method) -> u16 {
    1_u16.checked_shl(method as u32).unwrap_or(0)
}
