//! Enters: a shop whose new version has bugs. Leaves: the page as it shows them, with the mouse and with keys alone, and the
//! agent as it obeys.

use std::time::Duration;

use anyhow::{Result, ensure};
use mirror_tests::{
    browser::{Browser, Key},
    client::RawClient,
    load::{Pace, Plan, Running},
    netns::Topology,
    require_agent, require_browser,
    scenario::PORT,
    shop::{Bugs, Character, Shop, Shopper, Version},
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::{Value, json};

use crate::scene::Scene;

pub(super) const WIDE: (u32, u32) = (1280, 900);
const NARROW: (u32, u32) = (800, 1000);

/// Requests that are left out on purpose.
const SKIPPED: u64 = 150;

/// Seconds of shopping; the verdict is told by then.
const SHOPPING: Duration = Duration::from_secs(8);

fn open_shops(net: &Topology) -> Result<[Shop; 3]> {
    let open = |host, version, bugs, seed| Shop::open(host, PORT, Character { version, bugs, seed });
    Ok([
        open(&net.live, Version::One, Bugs::NONE, 1)?,
        open(&net.shadow, Version::Two, Bugs::all(), 2)?,
        open(&net.other, Version::One, Bugs::NONE, 3)?,
    ])
}

/// A scene in which people have shopped.
fn shopped() -> Result<(Scene, [Shop; 3])> {
    let (scene, shops) = Scene::set("team-orders", open_shops)?;
    let plan = Plan::new(scene.net.live.at_v4(PORT), Pace::PerSecond(250.0), SHOPPING, 32);
    let report = Running::start(&scene.net.client, plan, Shopper::new(7))?.finish()?;
    // Of methods that the experiment does not take.
    for _ in 0..SKIPPED {
        let mut client = RawClient::connect(&scene.net.client, scene.net.live.at_v4(PORT))?;
        client.ask(b"DELETE /orders/1234567 HTTP/1.1\r\nHost: shop.example\r\n\r\n")?;
    }
    scene.compared(report.answered * 9 / 10)?;
    Ok((scene, shops))
}

#[test]
fn page_shows_what_is_known_and_steers_the_agent() -> Result<()> {
    require_agent!();
    require_browser!();
    let (scene, _shops) = shopped()?;
    let browser = Browser::open(&scene.net.live)?;
    browser.look(WIDE, false)?;

    let address = scene.invitation()?;
    browser.go(&address)?;
    browser.wait_for_text("What is mirrored, and what is not")?;
    ensure!(
        browser.run("return location.hash", &json!([]))? == "#/overview",
        "the invitation stays in the address"
    );
    ensure!(browser.run("return document.cookie", &json!([]))? == "", "scripts see the cookie");
    let headings = ["Requests", "Exchanges", "mirrored", "Service times", "Numbers that are followed"];
    for said in headings.into_iter().chain(["p95", "GET /orders/{id}", "$.total"]) {
        browser.wait_for_text(said)?;
    }
    // The table says what the diagram shows, and what the books say.
    let seen = scene.agent.ledger()?.seen;
    let told = browser.run(
        "return document.querySelector('svg.flow text.number:nth-of-type(5)')?.textContent \
        ?? [...document.querySelectorAll('svg.flow .number')][1].textContent",
        &json!([]),
    )?;
    ensure!(
        told.as_str().is_some_and(|told| told.replace(',', "") == seen.to_string()),
        "{told} is not {seen}"
    );
    browser.click(".alternative summary")?;
    let why = browser.text(".alternative table")?;
    ensure!(why.contains("skipped method") && why.contains(&SKIPPED.to_string()), "{why}");
    pictures(&browser, "overview")?;

    click_link(&browser, "Differences")?;
    browser.wait_for("document.querySelector('main tbody tr th a')")?;
    let first = browser.text("main tbody tr th a")?;
    let report = scene.report()?;
    ensure!(first == report["targets"][0]["clusters"][0]["endpoint"].as_str().unwrap_or_default(), "{first}");
    browser.click("main tbody tr th a")?;
    browser.wait_for("document.querySelector('.sides .line.differs')")?;
    ensure!(browser.count(".side-panel")? == 3, "live, shadow and control");
    // The first difference is its own, the rest is noise that the exchange has, too.
    ensure!(browser.count(".sides .line.varies")? > 0, "noise is marked as a bug");
    let command =
        browser.run("return document.querySelector('[data-action=copy]').dataset.text", &json!([]))?;
    ensure!(command.as_str().is_some_and(|command| command.starts_with("curl --globoff")), "{command}");
    pictures(&browser, "differences")?;

    browser.click(".ignoring button")?;
    browser.wait_for_text("Ignored from now on")?;
    let rules = scene.ask(&["rules", "list", "--json"])?;
    ensure!(rules.contains("ignore $.") || rules.contains("ignore header:"), "{rules}");
    click_link(&browser, "Rules")?;
    browser.wait_for_text("To keep what you made")?;
    browser.wait_for_text("never matched")?;
    pictures(&browser, "rules")?;
    kept_lines_are_rules(&browser, &scene)?;
    browser.click("[data-action=remove]")?;
    browser.wait_for_text("Removed:")?;
    ensure!(!scene.ask(&["rules", "list", "--json"])?.contains("\"is_own\":true"), "the rule is still there");

    click_link(&browser, "Verdict")?;
    browser.wait_for_text("How it changed")?;
    browser.wait_for("document.querySelector('.history li.fail')")?;
    pictures(&browser, "verdict")?;

    click_link(&browser, "Experiments")?;
    browser.wait_for_text("team-orders")?;
    browser.fill("form[data-form=percent] input", "12.5")?;
    browser.click("form[data-form=percent] button")?;
    browser.wait_for_text("100 percent → 12.5 percent")?;
    browser.click("section.panel [data-action=pause]")?;
    browser.wait_for_text("running → paused")?;
    let state: Value = serde_json::from_str(&scene.ask(&["ctl", "--json", "state"])?)?;
    ensure!(
        state["experiments"][0]["percent"] == 12.5 && state["experiments"][0]["paused"] == true,
        "{state}"
    );
    // What was changed here is lost with the agent: the page has the lines that keep it.
    browser.wait_for_text("Changed by hand: paused, percent")?;
    browser.click(".keep summary")?;
    let lines = browser.text("#keep-0")?;
    ensure!(
        lines.contains("  - name: \"shop\"\n")
            && lines.contains("    sample: { percent: 12.5 }")
            && lines.contains("# paused"),
        "{lines}"
    );
    ensure!(!lines.contains("expires"), "nobody changed that: {lines}");
    pictures(&browser, "experiments")?;
    browser.click("section.panel [data-action=resume]")?;
    browser.wait_for_text("paused → running")?;
    browser.fill("form[data-form=expiry] input", "yesterday")?;
    browser.click("form[data-form=expiry] button")?;
    browser.wait_for_text("Not done:")?;
    browser.click("[data-action=extend]")?;
    browser.wait_for_text("in 23h 59m")?;

    click_link(&browser, "Fleet")?;
    browser.wait_for_text("This agent knows of no others")?;
    pictures(&browser, "fleet-none")?;

    let complaints = browser.complaints()?;
    // The order that was refused is one, and that there is no fleet.
    let is_expected = |line: &&String| line.contains("/expiry") || line.contains("/v1/fleet");
    let unexpected: Vec<_> = complaints.iter().filter(|line| !is_expected(line)).collect();
    ensure!(
        complaints.iter().filter(|line| line.contains("/v1/fleet")).count() == 1,
        "it is asked again and again"
    );
    ensure!(unexpected.is_empty(), "{unexpected:?}");
    Ok(())
}

#[test]
fn page_says_when_the_session_or_the_agent_is_gone() -> Result<()> {
    require_agent!();
    require_browser!();
    let (scene, _shops) = Scene::set("team-orders", open_shops)?;
    let browser = Browser::open(&scene.net.live)?;
    browser.look(WIDE, false)?;
    browser.go("http://127.0.0.1:9478/")?;
    browser.wait_for_text("mirror-agent ctl open")?;
    pictures(&browser, "sign-in")?;

    let address = scene.invitation()?;
    browser.go(&address)?;
    browser.wait_for_text("No request was seen yet")?;
    pictures(&browser, "empty")?;
    browser.click("[data-action=leave]")?;
    browser.wait_for_text("You have signed out")?;
    ensure!(!browser.text("main")?.contains("shop"), "what was known is still shown");
    browser.go("about:blank")?;
    browser.go(&address)?;
    browser.wait_for_text("was used before")?;

    browser.go(&scene.invitation()?)?;
    browser.wait_for_text("No request was seen yet")?;
    let agent = Pid::from_raw(i32::try_from(scene.agent.pid())?);
    kill(agent, Signal::SIGSTOP)?;
    browser.wait_for_text("no answer since")?;
    kill(agent, Signal::SIGCONT)?;
    browser.wait_for_text("as of")?;
    kill(agent, Signal::SIGKILL)?;
    browser.wait_for_text("no answer since")?;
    pictures(&browser, "gone")?;
    Ok(())
}

#[test]
fn everything_can_be_done_with_keys_alone() -> Result<()> {
    require_agent!();
    require_browser!();
    let (scene, _shops) = shopped()?;
    let browser = Browser::open(&scene.net.live)?;
    browser.look(WIDE, false)?;
    browser.go(&scene.invitation()?)?;
    browser.wait_for_text("What is mirrored, and what is not")?;

    // The first thing that one comes to leads past the navigation.
    browser.run("document.activeElement.blur(); window.getSelection().removeAllRanges()", &json!([]))?;
    browser.press(Key::Tab)?;
    ensure!(focused(&browser)?.contains("Skip to the content"), "{}", focused(&browser)?);
    browser.press(Key::Enter)?;
    ensure!(browser.run("return document.activeElement.id", &json!([]))? == "main");

    tab_to(&browser, "all ")?;
    browser.press(Key::Enter)?;
    browser.wait_for("document.querySelector('h1')?.textContent === 'Differences'")?;
    let endpoint = browser.text("main tbody tr th a")?;
    tab_to(&browser, &endpoint)?;
    browser.press(Key::Enter)?;
    browser.wait_for("document.querySelector('.sides')")?;
    ensure!(
        browser.run("return document.activeElement.id", &json!([]))? == "cluster",
        "reading goes on elsewhere"
    );
    tab_to(&browser, "Ignore this")?;
    ensure!(
        browser.run("return getComputedStyle(document.activeElement).outlineStyle", &json!([]))? != "none",
        "nobody sees where the focus is"
    );
    browser.press(Key::Space)?;
    browser.wait_for_text("Ignored from now on")?;

    tab_round(&browser)?;
    tab_to(&browser, "Experiments")?;
    browser.press(Key::Enter)?;
    browser.wait_for("document.querySelector('h1')?.textContent === 'Experiments'")?;
    tab_to(&browser, "Pause all")?;
    browser.press(Key::Enter)?;
    browser.wait_for_text("running → paused")?;
    tab_to(&browser, "Resume all")?;
    browser.press(Key::Enter)?;
    browser.wait_for_text("paused → running")?;
    // A refresh takes nothing away from whoever types.
    tab_to(&browser, "percent-0")?;
    browser.run("document.activeElement.select()", &json!([]))?;
    browser.type_text("7")?;
    std::thread::sleep(Duration::from_secs(5));
    browser.type_text("5")?;
    browser.press(Key::Enter)?;
    browser.wait_for_text("100 percent → 75 percent")?;
    ensure!(browser.complaints()?.is_empty(), "{:?}", browser.complaints()?);
    Ok(())
}

/// What has the focus, as text.
fn focused(browser: &Browser<'_>) -> Result<String> {
    let found = browser.run(
        "const at = document.activeElement; return `${at.id} ${at.getAttribute('aria-label') ?? ''} ${at.textContent}`",
        &json!([]),
    )?;
    Ok(found.as_str().unwrap_or_default().to_owned())
}

/// More stops than any view has.
const STOPS: usize = 400;

/// Presses Tab until what has the focus has this text.
pub(super) fn tab_to(browser: &Browser<'_>, text: &str) -> Result<()> {
    for _ in 0..STOPS {
        browser.press(Key::Tab)?;
        if focused(browser)?.contains(text) && focused_is_small(browser)? {
            return Ok(());
        }
    }
    anyhow::bail!("no key leads to {text:?}")
}

/// Whether what has the focus can be pressed or typed into; regions that scroll have the focus, too.
fn focused_is_small(browser: &Browser<'_>) -> Result<bool> {
    Ok(browser.run(
        "return document.activeElement.matches('a, button:enabled, input:enabled, select, summary')",
        &json!([]),
    )? == true)
}

/// Presses Tab until the page begins anew: nothing on the way keeps the focus.
fn tab_round(browser: &Browser<'_>) -> Result<()> {
    tab_to(browser, "Skip to the content")
}

/// Follows a link of the navigation.
pub(super) fn click_link(browser: &Browser<'_>, label: &str) -> Result<()> {
    let position = browser.run(
        "return [...document.querySelectorAll('#nav a')].findIndex((link) => link.textContent === arguments[0]) + 1",
        &json!([label]),
    )?;
    browser.click(&format!("#nav a:nth-child({position})"))?;
    browser
        .wait_for(&format!("document.querySelector('#nav [aria-current]')?.textContent === {}", json!(label)))
}

/// What the page says to put into the configuration says what is in force.
fn kept_lines_are_rules(browser: &Browser<'_>, scene: &Scene) -> Result<()> {
    let lines = browser.text("#keep-lines")?;
    let line = lines.lines().find_map(|line| line.trim().strip_prefix("- ")).unwrap_or_default();
    let report = scene.report()?;
    let own = report["rules"].as_array().into_iter().flatten().find(|rule| rule["is_own"] == true);
    let rule = own.map(|own| own["rule"].clone()).unwrap_or_default();
    for (key, value) in rule.as_object().into_iter().flatten() {
        ensure!(line.contains(&format!("{key}: {value}")), "{lines} lacks {key}: {value}");
    }
    ensure!(lines.starts_with("compare:\n  rules:\n") && rule.is_object(), "{lines}");
    Ok(())
}

/// Pictures of a view: in the light, in the dark, and narrow. Nowhere does the page scroll sideways.
pub(super) fn pictures(browser: &Browser<'_>, view: &str) -> Result<()> {
    for (kind, size, is_dark) in [("light", WIDE, false), ("dark", WIDE, true), ("narrow", NARROW, false)] {
        browser.look(size, is_dark)?;
        // What depends on the width is drawn anew.
        std::thread::sleep(Duration::from_millis(400));
        let over = "return document.documentElement.scrollWidth - document.documentElement.clientWidth";
        let over = browser.run(over, &json!([]))?;
        browser.picture(&format!("{view}-{kind}"))?;
        ensure!(over == 0, "{view} is {over} pixels too wide ({kind})");
    }
    browser.look(WIDE, false)
}
