//! Enters: the path of a request at the TCP listener. Leaves: the file of the page that is there, if one is.
//!
//! The files are part of the program and hold nothing of what was captured, so they are given to whoever asks: the page
//! has to be there before somebody can say who they are. Everything else it gets through [`super::api`].

use http_body_util::Full;
use hyper::{
    Method, Response,
    body::Bytes,
    header::{
        CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderName, HeaderValue, REFERRER_POLICY,
        X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
    },
};

/// What the page may do: run and show what comes with it, ask this agent, and nothing else.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// A file of the page.
#[derive(Clone, Copy, Debug)]
pub(super) struct File {
    path: &'static str,
    kind: &'static str,
    content: &'static str,
}

const HTML: &str = "text/html; charset=utf-8";
const STYLE: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const IMAGE: &str = "image/svg+xml";

/// A file of `mirror-agent/ui`, at the path of its name.
macro_rules! file {
    ($name:literal, $kind:expr) => {
        File {
            path: concat!("/", $name),
            kind: $kind,
            content: include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/ui/", $name)),
        }
    };
}

/// All files of the page.
const FILES: [File; 20] = [
    File { path: "/", ..file!("index.html", HTML) },
    file!("icon.svg", IMAGE),
    file!("page.css", STYLE),
    file!("parts.css", STYLE),
    file!("app.js", SCRIPT),
    file!("agent.js", SCRIPT),
    file!("dom.js", SCRIPT),
    file!("text.js", SCRIPT),
    file!("overview.js", SCRIPT),
    file!("flow.js", SCRIPT),
    file!("latency.js", SCRIPT),
    file!("fields.js", SCRIPT),
    file!("differences.js", SCRIPT),
    file!("samples.js", SCRIPT),
    file!("json.js", SCRIPT),
    file!("rules.js", SCRIPT),
    file!("experiments.js", SCRIPT),
    file!("verdict.js", SCRIPT),
    file!("fleet.js", SCRIPT),
    file!("session.js", SCRIPT),
];

/// The file that is asked for.
pub(super) fn find(method: &Method, path: &str) -> Option<File> {
    let is_reading = matches!(*method, Method::GET | Method::HEAD);
    FILES.iter().find(|file| is_reading && file.path == path).copied()
}

impl File {
    /// The file as an answer; for HEAD without its content.
    pub(super) fn response(self, is_head: bool) -> Response<Full<Bytes>> {
        let content = if is_head { "" } else { self.content };
        let mut response = Response::new(Full::new(Bytes::from_static(content.as_bytes())));
        let headers = response.headers_mut();
        let fixed = [
            (CONTENT_TYPE, self.kind),
            (CONTENT_SECURITY_POLICY, POLICY),
            // An agent that is upgraded has other files at the same paths.
            (CACHE_CONTROL, "no-cache"),
            (X_CONTENT_TYPE_OPTIONS, "nosniff"),
            (X_FRAME_OPTIONS, "DENY"),
            (REFERRER_POLICY, "no-referrer"),
            (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
            (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
        ];
        headers.extend(fixed.map(|(name, value)| (name, HeaderValue::from_static(value))));
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn page_asks_for_nothing_that_is_not_there() {
        let page = find(&Method::GET, "/").unwrap().content;
        let named = page.split('"').filter(|text| text.starts_with('/'));
        let named: Vec<_> = named.collect();
        assert!(named.len() >= 4, "{named:?}");
        for path in named {
            assert!(find(&Method::GET, path).is_some(), "{path}");
        }
        for script in FILES.iter().filter(|file| file.kind == SCRIPT) {
            for name in script.content.split(" from \"./").skip(1).filter_map(|rest| rest.split('"').next()) {
                assert!(find(&Method::GET, &format!("/{name}")).is_some(), "{}: {name}", script.path);
            }
        }
    }

    #[test]
    fn nothing_in_the_files_needs_what_the_policy_forbids() {
        for file in FILES {
            for forbidden in [
                "innerHTML",
                "outerHTML",
                "insertAdjacentHTML",
                "document.write",
                "eval(",
                "new Function",
                "style=\"",
                "https://",
                "onclick=",
                "javascript:",
            ] {
                assert!(!file.content.contains(forbidden), "{} has {forbidden}", file.path);
            }
            let elsewhere = file.content.replace("http://www.w3.org/", "");
            assert!(!elsewhere.contains("http://"), "{} names another place", file.path);
        }
    }

    #[test]
    fn answer_says_what_the_page_may_do() {
        let response = find(&Method::GET, "/").unwrap().response(false);
        assert_eq!(response.headers()[CONTENT_SECURITY_POLICY], POLICY);
        assert_eq!(response.headers()[X_CONTENT_TYPE_OPTIONS], "nosniff");
        assert_eq!(response.headers()[REFERRER_POLICY], "no-referrer");
        assert!(find(&Method::POST, "/").is_none() && find(&Method::GET, "/../Cargo.toml").is_none());
    }
}
