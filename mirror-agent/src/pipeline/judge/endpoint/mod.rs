//! Enters: methods and targets of requests. Leaves: endpoints: a method and a template of paths, `GET /orders/{id}`.
//!
//! Segments that look like values become place holders at once (`shape`). What looks like a word is one, until
//! there are too many different ones at one place: then they are values, too, and become `{}`.

mod pattern;
mod shape;
mod tree;

use std::{collections::BTreeSet, sync::Arc};

pub(super) use self::shape::is_uuid;
use self::{pattern::Patterns, tree::Tree};

/// The endpoint of everything beyond the bound.
pub(super) const OTHER: &str = "other";

/// Methods that are told apart: RFC 9110 section 9.3, RFC 5789.
const METHODS: [&str; 9] = ["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"];

/// How much of a target is looked at, in bytes.
const TARGET_BYTES: usize = 2048;

/// Finds the endpoint of a request, and learns which there are.
#[derive(Clone, Debug)]
pub(super) struct Endpoints {
    patterns: Patterns,
    tree: Tree,
    names: BTreeSet<Arc<str>>,
    max: usize,
    other: Arc<str>,
    /// A name being put together.
    scratch: String,
}

impl Endpoints {
    pub(super) fn new(templates: &[String], max: usize) -> Self {
        Self {
            patterns: Patterns::new(templates),
            tree: Tree::default(),
            names: BTreeSet::default(),
            max,
            other: Arc::from(OTHER),
            scratch: String::new(),
        }
    }

    /// The endpoint of a request. The query is no part of it.
    pub(super) fn find(&mut self, method: &[u8], target: &[u8]) -> Arc<str> {
        let known = METHODS.into_iter().find(|known| known.as_bytes() == method);
        let mut name = std::mem::take(&mut self.scratch);
        name.clear();
        name.push_str(known.unwrap_or("OTHER"));
        name.push(' ');
        self.append_template(path(target), &mut name);
        let endpoint = self.intern(&name);
        self.scratch = name;
        endpoint
    }

    /// The endpoint of what was found by this name before words became values.
    pub(super) fn again(&mut self, name: &Arc<str>) -> Arc<str> {
        match self.template_again(name) {
            Some(again) if *again == **name => Arc::clone(name),
            Some(again) => self.intern(&again),
            None => Arc::clone(&self.other),
        }
    }

    /// Endpoints that became others since this was last asked, because words became values: which, and what they are.
    pub(super) fn take_renamed(&mut self) -> Vec<(Arc<str>, Arc<str>)> {
        if !self.tree.take_collapsed() {
            return Vec::new();
        }
        let mut renamed = Vec::new();
        for name in self.names.clone() {
            let Some(again) = self.template_again(&name).filter(|again| **again != *name) else { continue };
            self.names.remove(&name);
            renamed.push((name, self.intern(&again)));
        }
        renamed
    }

    fn template_again(&mut self, name: &str) -> Option<String> {
        let (method, template) = name.split_once(' ')?;
        let mut again = format!("{method} ");
        self.append_template(template.as_bytes(), &mut again);
        Some(again)
    }

    fn append_template(&mut self, path: &[u8], name: &mut String) {
        let segments: Vec<&[u8]> = path
            .split(|byte| *byte == b'/')
            .filter(|segment| !segment.is_empty())
            .take(tree::DEPTH.saturating_add(1))
            .collect();
        // A template that is found again fits itself.
        if let Some(template) = self.patterns.find(&segments) {
            name.push_str(template);
        } else if segments.is_empty() {
            name.push('/');
        } else {
            self.tree.append_template(&segments, name);
        }
    }

    fn intern(&mut self, name: &str) -> Arc<str> {
        if let Some(known) = self.names.get(name) {
            return Arc::clone(known);
        }
        if self.names.len() >= self.max {
            return Arc::clone(&self.other);
        }
        let name: Arc<str> = Arc::from(name);
        self.names.insert(Arc::clone(&name));
        name
    }
}

/// The path of a target, in origin form or absolute form: RFC 9112 section 3.2.
fn path(target: &[u8]) -> &[u8] {
    let target = target.get(..TARGET_BYTES).unwrap_or(target);
    let end = target.iter().position(|byte| matches!(byte, b'?' | b'#')).unwrap_or(target.len());
    let target = target.get(..end).unwrap_or_default();
    if target.first() == Some(&b'/') {
        return target;
    }
    let Some(scheme) = target.windows(3).position(|window| window == b"://") else { return target };
    let authority = target.get(scheme.saturating_add(3)..).unwrap_or_default();
    let slash = authority.iter().position(|byte| *byte == b'/').unwrap_or(authority.len());
    authority.get(slash..).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoints() -> Endpoints {
        Endpoints::new(&[], 200)
    }

    fn find(endpoints: &mut Endpoints, target: &str) -> String {
        endpoints.find(b"GET", target.as_bytes()).to_string()
    }

    #[test]
    fn values_in_a_path_become_place_holders() {
        let mut endpoints = endpoints();
        for (target, expected) in [
            ("/", "GET /"),
            ("", "GET /"),
            ("/orders/17?limit=3", "GET /orders/{id}"),
            ("/orders/17/", "GET /orders/{id}"),
            ("//orders//17", "GET /orders/{id}"),
            ("/orders/17.json", "GET /orders/{id}.json"),
            ("http://shop.example/orders/17", "GET /orders/{id}"),
            ("/orders/a%20b/lines", "GET /orders/{}/lines"),
            ("*", "GET /*"),
        ] {
            assert_eq!(find(&mut endpoints, target), expected, "{target}");
        }
    }

    #[test]
    fn unknown_methods_are_one() {
        assert_eq!(&*endpoints().find(b"BREW", b"/pot"), "OTHER /pot");
        assert_eq!(&*endpoints().find(b"get", b"/pot"), "OTHER /pot");
    }

    #[test]
    fn words_that_never_repeat_become_values() {
        let mut endpoints = endpoints();
        find(&mut endpoints, "/users/me/cart");
        find(&mut endpoints, "/users/me/cart");
        find(&mut endpoints, "/users/me/cart");
        let early = endpoints.find(b"GET", b"/users/user-a/cart");
        for n in 0..100 {
            find(&mut endpoints, &format!("/users/x{n}-name/cart"));
        }
        let renamed = endpoints.take_renamed();
        assert!(renamed.iter().any(|(old, new)| *old == early && &**new == "GET /users/{}/cart"));
        assert_eq!(endpoints.take_renamed(), []);
        assert_eq!(find(&mut endpoints, "/users/zoe/cart"), "GET /users/{}/cart");
        assert_eq!(find(&mut endpoints, "/users/me/cart"), "GET /users/me/cart");
        assert_eq!(&*endpoints.again(&early), "GET /users/{}/cart");
        assert_eq!(&*endpoints.again(&Arc::from("GET /users/{id}/cart")), "GET /users/{id}/cart");
    }

    #[test]
    fn forty_real_endpoints_stay_apart() {
        let mut endpoints = endpoints();
        for round in 0..50_u32 {
            for n in 0..40_u32 {
                // Not in order, so that some come late.
                let word = n.wrapping_mul(round + 7) % 40;
                find(&mut endpoints, &format!("/section-{word}x/list"));
            }
        }
        assert_eq!(find(&mut endpoints, "/section-3x/list"), "GET /section-3x/list");
    }

    #[test]
    fn endpoints_beyond_the_bound_are_one() {
        let mut endpoints = Endpoints::new(&[], 3);
        let names: Vec<_> = ["/a", "/b", "/c", "/d", "/a"].map(|path| find(&mut endpoints, path)).into();
        assert_eq!(names, ["GET /a", "GET /b", "GET /c", "other", "GET /a"]);
    }

    #[test]
    fn configured_templates_come_first() {
        let mut endpoints = Endpoints::new(&["/orders/{number}".to_owned(), "/static/*".to_owned()], 10);
        assert_eq!(find(&mut endpoints, "/orders/latest"), "GET /orders/{number}");
        assert_eq!(find(&mut endpoints, "/static/a/b/c.css"), "GET /static/*");
        let name = endpoints.find(b"GET", b"/orders/5");
        assert_eq!(endpoints.again(&name), name);
    }

    #[test]
    fn hostile_paths_stay_within_bounds() {
        let mut endpoints = endpoints();
        let mut random = 1_u64;
        for n in 0..20_000_usize {
            let mut path = Vec::new();
            for _ in 0..n % 40 {
                random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                path.push(b'/');
                path.extend((0..random >> 60).map(|shift| (random >> (shift * 2)) as u8));
            }
            let name = endpoints.find(b"GET", &path);
            assert!(name.len() < 1024, "{name}");
        }
        assert!(endpoints.names.len() <= 200);
        assert!(endpoints.tree.nodes() <= tree::MAX_NODES);
        let long = endpoints.find(b"GET", &b"/a".repeat(100_000));
        assert!(long.len() < 100, "{long}");
        endpoints.find(b"GET", &vec![b'x'; 1_000_000]);
    }
}
