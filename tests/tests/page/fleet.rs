//! Enters: three agents of which one stops answering, and something that pretends to be a fourth. Leaves: the page of one of
//! them, which shows all that answer as one, says who does not, and takes nothing that others tell for more than text.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use mirror_tests::{
    agent::Agent,
    browser::{Browser, Key},
    client::RawClient,
    netns::Host,
    require_agent, require_browser,
    scenario::{PATIENCE, PORT},
    server::Server,
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::{Value, json};

use crate::{
    hostile::{EVIL, harmless, policy_held, requests, serve, watch_policy},
    scene::{FLEET, FLEET_TOKEN, Scene},
    tour::{WIDE, click_link, pictures, tab_to},
};

/// Where something pretends to be an agent.
const PRETENDER: u16 = 9481;

/// How often each request is made.
const ROUNDS: usize = 3;

/// What an agent tells others of itself.
fn told(asker: &Host, agent: SocketAddr) -> Result<Value> {
    let request = format!(
        "GET /v1/fleet/self HTTP/1.1\r\nHost: {agent}\r\nAuthorization: Bearer {FLEET_TOKEN}\r\nConnection: close\r\n\r\n"
    );
    let answer = RawClient::connect(asker, agent)?.ask(request.as_bytes())?;
    ensure!(answer.code() == "200", "{}", answer.code());
    Ok(serde_json::from_slice(&answer.body)?)
}

/// The same as somebody tells it who would like to own the page: all that is not checked is hostile.
fn hostile(mut told: Value) -> Result<Value> {
    let text = || EVIL.concat();
    told["agent"]["instance"] = json!("f".repeat(16));
    told["agent"]["node"] = json!("pretender");
    told["state"]["uptimeSeconds"] = json!(1e300);
    told["state"]["capture"]["interfaces"] = json!(u64::MAX);
    let mut made_up = told["state"]["experiments"][0].clone();
    made_up["name"] = json!("made-up");
    made_up["owner"] = json!(text());
    made_up["targets"][0]["url"] = json!(text());
    let experiments = told["state"]["experiments"].as_array_mut().context("no experiments")?;
    experiments.push(made_up);
    let scopes =
        told["compared"][0]["targets"][0]["portion"]["scopes"].as_object_mut().context("no endpoints")?;
    let mut scope = scopes.values().next().context("no endpoint")?.clone();
    (scope["places"], scope["clusters"]) = (json!({}), json!({}));
    for evil in EVIL {
        scopes.insert(format!("GET /{evil}"), scope.clone());
    }
    Ok(told)
}

/// Sends hostile requests to the live service at an address of `host`, and waits until all of them are compared.
fn shop(agent: &Agent, client: &Host, live: SocketAddr) -> Result<usize> {
    let requests = requests();
    for request in requests.iter().cycle().take(ROUNDS * requests.len()) {
        RawClient::connect(client, live)?.ask(request)?;
    }
    let sent = ROUNDS * requests.len();
    let deadline = Instant::now() + PATIENCE;
    while agent.metrics()?.sum("mirror_comparisons_total") < sent as f64 {
        ensure!(Instant::now() < deadline, "not all of {sent} are compared: {}", agent.ledger()?);
        thread::sleep(Duration::from_millis(50));
    }
    Ok(sent)
}

/// Waits until the row of an agent, found by a text in it, has another one, too.
fn wait_for_row(browser: &Browser<'_>, agent: &str, text: &str) -> Result<()> {
    browser.wait_for(&format!(
        "[...document.querySelectorAll('section[aria-labelledby=agents] tbody tr')].some((row) => \
         row.innerText.includes({}) && row.innerText.includes({}))",
        json!(agent),
        json!(text)
    ))
}

#[test]
fn page_shows_all_agents_and_says_which_do_not_answer() -> Result<()> {
    require_agent!();
    require_browser!();
    let (scene, ()) = Scene::set_among(
        "<script>window.owned=1</script>\u{202e}\"><b>",
        |net| {
            vec![
                net.live.at_v4(FLEET),
                net.client.at_v4(FLEET),
                net.other.at_v4(FLEET),
                net.shadow.at_v4(PRETENDER),
            ]
        },
        |net| {
            serve(&net.live, "one")?;
            serve(&net.client, "one")?;
            serve(&net.shadow, "two")?;
            serve(&net.other, "one")
        },
    )?;
    let net = &scene.net;
    let second = scene.join(&net.client, PORT, "\"><img src=x onerror=window.owned=1>")?;
    let third = scene.join(&net.other, PORT + 1, "team-orders")?;
    let mut exchanges = shop(&scene.agent, &net.client, net.live.at_v4(PORT))?;
    let loopback = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), PORT);
    exchanges += shop(&second, &net.client, loopback)?;

    let browser = Browser::open(&net.live)?;
    browser.look(WIDE, false)?;
    browser.go(&scene.invitation()?)?;
    browser.wait_for_text("What is mirrored, and what is not")?;
    watch_policy(&browser)?;
    tab_to(&browser, "Fleet")?;
    browser.press(Key::Enter)?;
    browser.wait_for("document.querySelector('h1')?.textContent === 'Fleet'")?;
    browser.wait_for_text("3 of 4")?;
    wait_for_row(&browser, &net.shadow.at_v4(PRETENDER).to_string(), "unreachable")?;
    for agent in [&net.live, &net.client, &net.other] {
        wait_for_row(&browser, &agent.at_v4(FLEET).to_string(), "0.1.0")?;
    }
    // All of them together have seen what each has.
    let seen = scene.agent.ledger()?.seen + second.ledger()?.seen + third.ledger()?.seen;
    browser.click(".alternative summary")?;
    let table = browser.text(".alternative table")?.replace(',', "");
    ensure!(table.contains(&format!("seen by the agent\t{seen}")), "{seen} is not in {table}");
    browser.wait_for_text(&format!("{exchanges} exchanges compared"))?;
    harmless(&browser, "fleet")?;

    // One that pretends tells what it likes; of that nothing is more than text.
    let body = hostile(told(&net.live, net.client.at_v4(FLEET))?)?.to_string();
    let answer =
        format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len());
    let _pretender = Server::fixed(&net.shadow, PRETENDER, answer.into_bytes())?;
    browser.wait_for_text("4 of 4")?;
    wait_for_row(&browser, "pretender", "0.1.0")?;
    browser.wait_for_text("<script>window.owned=1</script>")?;
    browser.wait_for_text("made-up")?;
    harmless(&browser, "fleet with a pretender")?;
    let shown = browser.text("main")?;
    ensure!(!shown.contains(['\u{202e}', '\u{2066}', '\u{200f}', '\u{1b}']), "{shown}");
    pictures(&browser, "fleet")?;

    // One of the three answers no longer, and then again.
    let pid = Pid::from_raw(i32::try_from(third.pid())?);
    kill(pid, Signal::SIGSTOP)?;
    let told = (|| {
        wait_for_row(&browser, &net.other.at_v4(FLEET).to_string(), "timeout")?;
        browser.wait_for_text("1 of 4 agents did not answer")?;
        browser.wait_for_text("no answer within 2 s")?;
        // The view waits for it, the page does not.
        click_link(&browser, "Overview")?;
        browser.wait_for_text("What is mirrored, and what is not")?;
        click_link(&browser, "Fleet")?;
        pictures(&browser, "fleet-missing")
    })();
    kill(pid, Signal::SIGCONT)?;
    told?;
    browser.wait_for_text("4 of 4")?;

    // An experiment that only another agent has is shown, and not judged.
    browser.run("location.hash = '#/fleet/made-up'", &json!([]))?;
    browser.wait_for_text("Nothing that is compared adds up here")?;
    harmless(&browser, "fleet, made-up experiment")?;
    policy_held(&browser)?;
    let complaints = browser.complaints()?;
    ensure!(complaints.is_empty(), "{complaints:?}");
    Ok(())
}
