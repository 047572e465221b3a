//! Enters: reports of an agent, made up. Leaves: what single views make of them, in a browser.

use anyhow::{Result, ensure};
use mirror_tests::{browser::Browser, require_agent, require_browser};
use serde_json::{Value, json};

use crate::scene::Scene;

/// What a script makes of `given` that has the functions of the page at hand.
fn made(browser: &Browser<'_>, script: &str, given: &Value) -> Result<Value> {
    let whole = format!(
        "const given = arguments[0]; return Promise.all(['samples', 'rules', 'differences', 'dom'].map((one) => import(`/${{one}}.js`)))\
         .then(([{{ samples }}, {{ rules }}, {{ differences }}, {{ show }}]) => {{ const box = document.createElement('div'); {script} }})"
    );
    browser.run(&whole, &json!([given]))
}

#[test]
fn views_show_what_reports_say() -> Result<()> {
    require_agent!();
    require_browser!();
    let (scene, ()) = Scene::set("team-orders", |_net| Ok(()))?;
    let browser = Browser::open(&scene.net.live)?;
    browser.go("http://127.0.0.1:9478/")?;
    browser.wait_for_text("mirror-agent ctl open")?;

    // A difference is marked on each side where it is there, under that side's index.
    let answer = |text: &str| {
        json!({
            "status": 200, "reason": null, "first_byte_seconds": 0.1, "last_byte_seconds": 0.1,
            "message": { "line": "HTTP/1.1 200 OK", "headers": [], "content": { "kind": "text", "text": text, "is_cut": false } },
        })
    };
    let kept = json!({ "samples": [{
        "time": "2026-11-21T12:00:00Z", "exchange": "1", "curl": "curl x", "has_more_divergences": false,
        "divergences": [
            { "kind": "value", "path": "$.items[].n", "place": "$.items[1].n", "shadow_place": "$.items[0].n", "live": "1", "shadow": "2" },
            { "kind": "extra", "path": "$.items[]", "place": "$.items[2]", "live": null, "shadow": "{id}" },
        ],
        "request": { "line": "GET / HTTP/1.1", "headers": [], "content": { "kind": "empty" } },
        "live": answer(r#"{"items":[{"id":1,"n":7},{"id":2,"n":1},{"id":8}]}"#),
        "shadow": answer(r#"{"items":[{"id":2,"n":2},{"id":1,"n":7},{"id":9}]}"#),
    }] });
    let marked = "show(box, samples(given, 0, null)); \
         const of = (side) => [...box.querySelectorAll(`[aria-label=\"${side}’s answer\"] .line.differs`)] \
         .map((line) => line.textContent.replace('differs:', '').trim()); \
         return { live: of('live'), shadow: of('shadow'), text: box.textContent }";
    let found = made(&browser, marked, &kept)?;
    ensure!(found["live"] == json!(["\"n\": 1"]), "{found}");
    ensure!(found["shadow"] == json!(["\"n\": 2", "{"]), "{found}");
    let text = found["text"].as_str().unwrap_or_default();
    ensure!(text.contains("in the shadow’s answer $.items[0].n"), "{text}");

    // Samples are shown in the experiment that they are of, though another has the same cluster.
    let reported = json!({ "report": { "targets": [{ "target": "v2", "exchanges": 2, "clusters": [{
        "key": "k", "endpoint": "GET /", "paths": ["$.n"], "kinds": ["value"], "statuses": [200, 200], "count": 2,
        "rate": { "point": 1, "low": 0.5, "high": 1 }, "certainty": "certain",
    }] }] }, "evidence": { "experiment": "shop", "key": "k", "value": { "targets": [{
        "target": "v2", "samples": kept["samples"], "first_seen": "2026-11-21T12:00:00Z", "last_seen": "2026-11-21T12:00:00Z",
    }] } } });
    let shown = "const of = (name) => { show(box, differences(given, { name }, 'v2', 'k', 0)); return box.textContent }; \
         return { shop: of('shop'), other: of('other') }";
    let found = made(&browser, shown, &reported)?;
    let text = |of: &str| found[of].as_str().unwrap_or_default().to_owned();
    ensure!(text("shop").contains("Sample 1 of 1"), "{found}");
    ensure!(!text("other").contains("Sample") && text("other").contains("Fetching samples"), "{found}");

    // What was accepted of arrays can be taken back and kept, as rules can; what the file says cannot.
    let report = json!({
        "name": "shop", "has_control": false, "targets": [], "rules": [],
        "arrays": [
            { "array": { "path": "$.file", "as": "set" }, "is_own": false },
            { "array": { "path": "$.own", "keyedBy": "id" }, "is_own": true },
        ],
    });
    let buttons = "show(box, rules({ report: given }, { name: 'shop' })); \
         return { remove: [...box.querySelectorAll('[data-action=remove]')].map((one) => one.dataset.name), \
         keep: box.querySelector('#keep-lines').textContent }";
    let found = made(&browser, buttons, &report)?;
    ensure!(found["remove"] == json!(["$.own"]), "{found}");
    ensure!(found["keep"] == "compare:\n  arrays:\n    - { keyedBy: \"id\", path: \"$.own\" }\n", "{found}");
    let complaints = browser.complaints()?;
    ensure!(complaints.iter().all(|line| line.contains("/v1/")), "{complaints:?}");
    Ok(())
}
