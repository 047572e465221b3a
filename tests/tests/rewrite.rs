//! Enters: a configuration with an edit of copies of each kind. Leaves: proof that a real shadow gets each of them, to
//! the byte, over IPv4 and IPv6.

use std::fmt::Write as _;

use anyhow::{Context, Result, ensure};
use mirror_tests::{
    agent::{Agent, Arguments},
    http::without_markers,
    require_agent,
    scenario::{PATIENCE, PORT, Scenario, Stage, Weight},
    server::Record,
};

/// What live receives. Content, chunks and trailer look like what is edited in the head.
const REQUESTS: [&str; 3] = [
    "GET /api/orders?debug=1&page=2 HTTP/1.1\r\nhOST: live:8080\r\nAuthorization: secret\r\nX-Env:live\r\n\
     traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\nx-request-id: 7\r\nx-env: twice\r\n\r\n",
    "POST /api HTTP/1.1\r\nHost: live:8080\r\nAuthorization:  a,\r\nTransfer-Encoding: chunked\r\n\r\n\
     1b;debug=1\r\nPOST /api HTTP/1.1\r\nHost: a\r\n0\r\nX-Env: live\r\n\r\n",
    "OPTIONS * HTTP/1.1\r\nX-Shadow: false\r\nHost: live:8080\r\nB3: 1\r\n\r\n",
];

/// An experiment with one edit.
struct Case {
    name: &'static str,
    /// Keys of its target, as in a file.
    keys: String,
    /// What stands in the requests, and in their copies in its place. What does not stand there is no fault.
    edits: Vec<(&'static str, String)>,
}

impl Case {
    fn new(name: &'static str, keys: impl Into<String>, edits: &[(&'static str, &str)]) -> Self {
        let edits = edits.iter().map(|(from, to)| (*from, (*to).to_owned())).collect();
        Self { name, keys: keys.into(), edits }
    }

    /// What the shadow is to get, in the order of the requests.
    fn copies(&self) -> Vec<String> {
        let copy = |request: &&str| {
            let mut copy = request.replace("X-Shadow: false\r\n", "");
            for (from, to) in &self.edits {
                copy = copy.replacen(from, to, 1);
            }
            if !self.keys.contains("traceSampled: true") {
                copy = copy.replace("3331-01\r\n", "3331-00\r\n").replace("B3: 1", "B3: 0");
            }
            copy
        };
        REQUESTS.iter().map(copy).collect()
    }
}

/// One experiment for each key; `target_v4` and `target_v6` are where the shadow is.
fn cases(target_v4: &str, target_v6: &str) -> Vec<Case> {
    let added = "X-Env: more\r\nx-mark: a b\r\n\r\n";
    vec![
        Case::new("plain", "", &[]),
        Case::new("trace", "traceSampled: true", &[]),
        Case::new("preserve", "host: preserve", &[]),
        Case::new("target-v4", "host: target", &[("live:8080", target_v4)]),
        Case::new("target-v6", "host: target", &[("live:8080", target_v6)]),
        Case::new("literal", "host: orders.example.com", &[("live:8080", "orders.example.com")]),
        Case::new(
            "prefix",
            "rewrite: { replacePrefix: { /: /all, /api: /v2/api, /api/orders: /o } }",
            &[("GET /api/orders?", "GET /o?"), ("POST /api ", "POST /v2/api ")],
        ),
        Case::new(
            "headers-remove",
            "headers: { remove: [AUTHORIZATION] }",
            &[("Authorization: secret\r\n", ""), ("Authorization:  a,\r\n", "")],
        ),
        Case::new(
            "headers-set",
            "headers: { set: { x-env: shadow } }",
            &[
                ("X-Env:live\r\n", "x-env: shadow\r\n"),
                ("x-env: twice\r\n", ""),
                ("chunked\r\n\r\n", "chunked\r\nx-env: shadow\r\n\r\n"),
                ("B3: 1\r\n", "B3: 1\r\nx-env: shadow\r\n"),
            ],
        ),
        Case::new(
            "headers-add",
            "headers: { add: { X-Env: more, x-mark: a b } }",
            &[
                ("twice\r\n\r\n", &format!("twice\r\n{added}")),
                ("chunked\r\n\r\n", &format!("chunked\r\n{added}")),
                ("B3: 1\r\n\r\n", &format!("B3: 1\r\n{added}")),
            ],
        ),
        Case::new("query-remove", "query: { remove: [debug] }", &[("?debug=1&page=2", "?page=2")]),
        Case::new(
            "query-set",
            "query: { set: { page: \"1 & 2\", v: \"3\" } }",
            &[("page=2", "page=1%20%26%202&v=3"), ("POST /api ", "POST /api?page=1%20%26%202&v=3 ")],
        ),
    ]
}

fn configuration(cases: &[Case], url_v4: &str, url_v6: &str) -> Result<String> {
    let mut text = "capture:\n  interfaces: [eth0]\nexperiments:\n".to_owned();
    for Case { name, keys, .. } in cases {
        // Addresses of both families carry copies; those of IPv6 by `-v6`, and every other one.
        let url = if name.ends_with('6') || name.len() % 2 == 0 { url_v6 } else { url_v4 };
        let url = if name.ends_with('4') { url_v4 } else { url };
        let percent = if *name == "plain" { "99.9999" } else { "100" };
        write!(
            text,
            "  - name: {name}\n    expires: never\n    ports: [{PORT}]\n    \
             matches: [{{ methods: [GET, POST, OPTIONS] }}]\n    sample: {{ percent: {percent} }}\n    targets:\n      \
             - name: shadow\n        url: {url}\n        interlock: none\n"
        )?;
        if !keys.is_empty() {
            writeln!(text, "        {keys}")?;
        }
    }
    Ok(text)
}

#[test]
fn each_edit_of_a_file_reaches_the_shadow_to_the_byte() -> Result<()> {
    require_agent!();
    let stage = Stage::set(Weight::Light, Record::Raw)?;
    let (v4, v6) = (stage.net.shadow.at_v4(PORT).to_string(), stage.net.shadow.at_v6(PORT).to_string());
    let cases = cases(&v4, &v6);
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("mirror.yaml");
    std::fs::write(&file, configuration(&cases, &format!("http://{v4}"), &format!("http://{v6}"))?)?;
    let agent = Agent::start(&stage.net.live, &Arguments::from_file(&file))?;
    let scenario = stage.around(agent);
    for mut client in [scenario.client()?, scenario.client_v6()?] {
        for request in REQUESTS {
            ensure!(client.ask(request.as_bytes())?.code() == "200", "{request}");
        }
    }
    let requests = 2 * REQUESTS.len() as u64;
    scenario.agent.wait_for(PATIENCE, |ledger| ledger.seen >= requests && ledger.pending == 0)?;
    scenario.expect_at_shadow(requests * cases.len() as u64)?;
    let mut seen = 0;
    for case in &cases {
        let copies = copies_of(&scenario, case.name)?;
        let mut expected: Vec<String> = [case.copies(), case.copies()].concat();
        expected.sort();
        ensure!(copies == expected, "{}: {copies:#?}, expected are {expected:#?}", case.name);
        seen += copies.len();
    }
    ensure!(seen == scenario.shadow.arrived().len(), "copies of no experiment");
    Ok(())
}

/// The copies of an experiment without their markers, sorted.
fn copies_of(scenario: &Scenario, experiment: &str) -> Result<Vec<String>> {
    let mut copies = Vec::new();
    for copy in scenario.shadow.arrived() {
        let marked = without_markers(&copy.raw)
            .with_context(|| format!("not one of each marker: {}", copy.raw.escape_ascii()))?;
        if marked.experiment == experiment {
            let chosen = if experiment == "plain" { "sampled" } else { "targeted" };
            ensure!(marked.chosen == chosen, "{experiment}: {}", marked.chosen);
            copies.push(String::from_utf8(marked.original)?);
        }
    }
    copies.sort();
    Ok(copies)
}

#[test]
fn a_file_that_would_break_heads_is_refused_before_anything_starts() -> Result<()> {
    require_agent!();
    let stage = Stage::set(Weight::Light, Record::Count)?;
    let folder = tempfile::tempdir()?;
    for (keys, message) in [
        ("headers: { remove: [content-length] }", "frames the message"),
        ("headers: { set: { Host: a } }", "the key `host`"),
        ("headers: { add: { x-mirror-id: a } }", "reserved"),
        ("headers: { set: { a: \"1\\r\\nb: 2\" } }", "one line"),
        ("headers: { set: { \"a b\": c } }", "name"),
        ("host: \"a\\r\\nb: c\"", "not a host"),
        ("rewrite: { replacePrefix: { /a: \"/b c\" } }", "not a path"),
        ("rewrite: { replacePrefix: { /a: /caf\u{e9} } }", "percent-encoded"),
    ] {
        let case = Case::new("refused", keys, &[]);
        let file = folder.path().join("mirror.yaml");
        let url = format!("http://{}", stage.net.shadow.at_v4(PORT));
        std::fs::write(&file, configuration(&[case], &url, &url)?)?;
        let ended = Agent::refuse(&stage.net.live, &Arguments::from_file(&file))?;
        ensure!(!ended.status.success(), "{keys}");
        ensure!(ended.stderr.contains(message), "{keys}: {}", ended.stderr);
        ensure!(ended.stderr.contains("experiments[0].targets[0]"), "{keys}: {}", ended.stderr);
    }
    Ok(())
}
