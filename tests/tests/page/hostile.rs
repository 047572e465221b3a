//! Enters: traffic of somebody who would like to own the page of whoever looks at it. Leaves: a page that shows it as text.

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    thread,
    time::Duration,
};

use anyhow::{Result, ensure};
use mirror_tests::{
    browser::Browser, client::RawClient, http, netns::Host, require_agent, require_browser, scenario::PORT,
};
use serde_json::{Value, json};

use crate::scene::Scene;

/// Texts that would run a script, break out of an element or an attribute, or turn what stands beside them around.
pub(super) const EVIL: [&str; 8] = [
    "<script>window.owned=1</script>",
    "\"><img src=x onerror=window.owned=1>",
    "'><svg onload=window.owned=1>",
    "javascript:window.owned=1",
    "</pre></td></table><iframe srcdoc='<script>parent.owned=1</script>'>",
    "\u{202e}\u{2066}gnp.exe\u{200f}\u{feff}",
    "${window.owned=1}{{constructor.constructor('window.owned=1')()}}",
    "</title><style>*{display:none!important}</style><base href=//evil.example/>",
];

/// How often each request is made, so that a cluster of it is ranked.
const ROUNDS: usize = 12;

/// A string that no page should draw whole.
const LONG: usize = 1_000_000;

/// The answer to a request: all that is hostile in it differs between the versions.
fn answer(raw: &[u8], version: &str) -> Vec<u8> {
    if http::is_probe(raw) {
        return b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n".to_vec();
    }
    let target = String::from_utf8_lossy(http::second_word(raw)).into_owned();
    let evil = EVIL.map(|evil| format!("{evil}{version}"));
    let mut fields = String::new();
    let (kind, content) = match target.split('/').nth(1).unwrap_or_default() {
        "keys" => {
            let members =
                evil.iter().map(|evil| (format!("k{}", evil.trim_end_matches(version)), json!(evil)));
            ("application/json", Value::Object(members.collect()).to_string())
        }
        "text" => ("text/plain", evil.join("\n") + "\u{1b}[2J\u{8}\u{0}\u{7f}\r\n"),
        "html" => ("text/html", format!("<html><body>{}</body></html>", evil.concat())),
        "form" => ("application/x-www-form-urlencoded", format!("{}={version}", EVIL[0])),
        "long" => (
            "application/json",
            json!({ "long": EVIL[0].repeat(LONG / EVIL[0].len()), "v": version }).to_string(),
        ),
        "fields" => {
            for (number, evil) in evil.iter().enumerate() {
                fields += &format!("X-Evil-{number}: {evil}\r\n");
            }
            ("application/json", "{}".to_owned())
        }
        _ => {
            ("application/json", json!({ "evil": evil, "deep": { "<b>": { "\"'>": version } } }).to_string())
        }
    };
    let mut bytes = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n{fields}\r\n",
        content.len()
    )
    .into_bytes();
    bytes.extend_from_slice(content.as_bytes());
    bytes
}

/// A server that answers so, until its host is gone.
pub(super) fn serve(host: &Host, version: &'static str) -> Result<()> {
    let listener = host.within(|| Ok(TcpListener::bind(("0.0.0.0", PORT))?))?;
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || drop(converse(stream, version)));
        }
    });
    Ok(())
}

fn converse(mut stream: TcpStream, version: &str) -> Result<()> {
    let (mut input, mut scratch) = (Vec::new(), [0; 64 * 1024]);
    loop {
        while let Some(head) = http::head_len(&input) {
            let mut scan = http::BodyScan::new(http::request_framing(&input[..head]));
            let body = scan.advance(&input[head..]);
            if !scan.is_done() {
                break;
            }
            stream.write_all(&answer(&input[..head + body], version))?;
            input.drain(..head + body);
        }
        let read = stream.read(&mut scratch)?;
        if read == 0 {
            return Ok(());
        }
        input.extend_from_slice(&scratch[..read]);
    }
}

/// Requests with the same texts wherever HTTP has room for them.
pub(super) fn requests() -> Vec<Vec<u8>> {
    let mut requests = Vec::new();
    for evil in EVIL {
        let squeezed = evil.replace(' ', "%20");
        requests.push(format!(
            "GET /{squeezed}?q={squeezed} HTTP/1.1\r\nHost: {evil}\r\nReferer: {evil}\r\nX-Evil: {evil}\r\n\r\n"
        ));
    }
    for place in ["keys", "text", "html", "form", "long", "fields"] {
        let body = format!("{{\"{place}\":\"{}\"}}", EVIL[0]);
        requests.push(format!(
            "POST /{place} HTTP/1.1\r\nHost: shop\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        ));
        requests.push(format!("GET /{place}/x HTTP/1.1\r\nHost: shop\r\n\r\n"));
    }
    requests.into_iter().map(String::into_bytes).collect()
}

#[test]
fn nothing_that_was_captured_runs_or_breaks_out() -> Result<()> {
    require_agent!();
    require_browser!();
    let (scene, ()) = Scene::set("<script>window.owned=1</script>\u{202e}\"><b>", |net| {
        serve(&net.live, "one")?;
        serve(&net.shadow, "two")?;
        serve(&net.other, "one")
    })?;
    let requests = requests();
    for _ in 0..ROUNDS {
        for request in &requests {
            let mut client = RawClient::connect(&scene.net.client, scene.net.live.at_v4(PORT))?;
            client.ask(request)?;
        }
    }
    scene.compared(u64::try_from(ROUNDS * requests.len() / 2)?)?;
    let kept = scene.report()?.to_string();
    for evil in ["<script>", "<img", "javascript:", "<iframe", "\u{202e}"] {
        ensure!(kept.contains(evil), "the agent keeps nothing of {evil}, so this shows nothing");
    }

    let browser = Browser::open(&scene.net.live)?;
    browser.look((1280, 900), false)?;
    browser.go(&scene.invitation()?)?;
    browser.wait_for_text("What is mirrored, and what is not")?;
    watch_policy(&browser)?;
    harmless(&browser, "overview")?;
    let report = scene.report()?;
    let clusters = report["targets"][0]["clusters"].as_array().cloned().unwrap_or_default();
    ensure!(clusters.len() >= 10, "only {} clusters", clusters.len());
    for (number, cluster) in clusters.iter().take(40).enumerate() {
        let key = cluster["key"].as_str().unwrap_or_default();
        browser.run("location.hash = `#/differences/shop/v2/${arguments[0]}`", &json!([key]))?;
        browser.wait_for(&format!(
            "document.querySelector('.detail[data-key=\"{key}\"]') && !document.body.innerText.includes('Fetching samples')"
        ))?;
        harmless(&browser, &format!("cluster {number}"))?;
        // What invisible characters would hide or turn around is written out.
        let shown = browser.text("main")?;
        ensure!(!shown.contains(['\u{202e}', '\u{2066}', '\u{200f}', '\u{1b}']), "{shown}");
        if number % 8 == 0 {
            println!("{}", browser.picture(&format!("hostile-{number}"))?.display());
            if browser.count(".ignoring button")? > 0 {
                browser.click(".ignoring button")?;
                browser.wait_for("document.querySelector('#notice p')")?;
            }
        }
    }
    for view in ["rules", "verdict", "experiments", "overview", "differences"] {
        browser.run("location.hash = `#/${arguments[0]}/shop`", &json!([view]))?;
        thread::sleep(Duration::from_millis(700));
        harmless(&browser, view)?;
        println!("{}", browser.picture(&format!("hostile-{view}"))?.display());
    }
    // The address is somebody else's text, too.
    for evil in EVIL {
        browser.run(
            "location.hash = `#/differences/${arguments[0]}/${arguments[0]}/${arguments[0]}`",
            &json!([evil]),
        )?;
        thread::sleep(Duration::from_millis(300));
        harmless(&browser, evil)?;
    }
    policy_held(&browser)?;
    let complaints = browser.complaints()?;
    let unexpected: Vec<_> = complaints.iter().filter(|line| !line.contains("/clusters/")).collect();
    ensure!(unexpected.is_empty(), "{unexpected:?}");
    Ok(())
}

/// Notes from now on what the page's security policy has to keep from happening.
pub(super) fn watch_policy(browser: &Browser<'_>) -> Result<()> {
    browser.run(
        "window.breaches = []; \
         document.addEventListener('securitypolicyviolation', (event) => window.breaches.push(event.violatedDirective))",
        &json!([]),
    )?;
    Ok(())
}

/// Asserts that there was nothing of the kind since [`watch_policy`].
pub(super) fn policy_held(browser: &Browser<'_>) -> Result<()> {
    ensure!(browser.run("return window.breaches", &json!([]))? == json!([]), "the policy had to step in");
    Ok(())
}

/// Asserts that nothing ran, and that the page holds no element that only markup could have made.
pub(super) fn harmless(browser: &Browser<'_>, place: &str) -> Result<()> {
    let found = browser.run(
        "const made = 'iframe, object, embed, base, style, script:not([src=\"/app.js\"]), img:not([src=\"/icon.svg\"]), \
         main b:not(.theirs):not(label b), meta[http-equiv]'; \
         const odd = [...document.querySelectorAll(made)].map((one) => one.outerHTML); \
         for (const one of document.querySelectorAll('*')) { for (const { name, value } of one.attributes) { \
           if (name.startsWith('on') || name === 'style' || /^\\s*javascript:/i.test(value) && name === 'href') odd.push(one.outerHTML); } } \
         return { owned: window.owned ?? null, odd, chars: document.body.innerText.length }",
        &json!([]),
    )?;
    ensure!(found["owned"].is_null(), "a script ran at {place}");
    ensure!(found["odd"] == json!([]), "{place}: {}", found["odd"]);
    ensure!(
        found["chars"].as_u64().is_some_and(|chars| (100..400_000).contains(&chars)),
        "{place}: {}",
        found["chars"]
    );
    Ok(())
}
