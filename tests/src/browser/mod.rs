//! Enters: a host. Leaves: a browser on it, which reads pages as people do: it sees, clicks and types.
//!
//! Chromium, driven by WebDriver (W3C Recommendation of 2018). The client is written here: those that are published bring a
//! hundred crates, and one under a licence that nothing else here has.

mod driver;

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};
use tempfile::TempDir;

use self::driver::Driver;
use crate::netns::Host;

/// Where the driver listens; the host is the browser's alone.
const PORT: u16 = 9515;

/// How long a browser may take to start, on a busy machine.
const START_PATIENCE: Duration = Duration::from_secs(90);

/// How long the page may take to show what is waited for.
const PATIENCE: Duration = Duration::from_secs(30);

/// What keeps the browser to itself: as root it has no sandbox, and nothing here may ask anybody but the agent.
const FLAGS: [&str; 13] = [
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--no-default-browser-check",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-extensions",
    "--force-color-profile=srgb",
    "--lang=en-US",
];

/// Returns from the test, saying why, where there is no browser.
#[macro_export]
macro_rules! require_browser {
    () => {
        if let Some(reason) = $crate::browser::obstacle() {
            println!("SKIPPED: {reason}");
            return Ok(());
        }
    };
}

/// Says why there is no browser here; `None` where there is one.
#[must_use]
pub fn obstacle() -> Option<String> {
    let starts =
        |name: &str| Command::new(name).arg("--version").output().is_ok_and(|output| output.status.success());
    let missing = ["chromium", "chromedriver"].into_iter().find(|name| !starts(name))?;
    Some(format!("needs `{missing}` (packages chromium and chromium-driver)"))
}

/// A key that is no character, as WebDriver writes it (section 17.4.2).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Key {
    /// Tab.
    Tab,
    /// Enter.
    Enter,
    /// The space bar.
    Space,
}

impl Key {
    const fn code(self) -> &'static str {
        match self {
            Self::Tab => "\u{e004}",
            Self::Enter => "\u{e007}",
            Self::Space => " ",
        }
    }
}

/// A running browser; it ends when dropped.
#[derive(Debug)]
pub struct Browser<'h> {
    driver: Driver<'h>,
    process: Child,
    session: String,
    folder: TempDir,
}

impl<'h> Browser<'h> {
    /// Starts a browser on a host.
    ///
    /// # Errors
    ///
    /// It does not start.
    pub fn open(host: &'h Host) -> Result<Self> {
        let deadline = Instant::now() + START_PATIENCE;
        // An address that is there for good only now is a change of the network, at which Chromium breaks off what it loads.
        while !host
            .command(Path::new("ip"))
            .args(["-6", "address", "show", "tentative"])
            .output()?
            .stdout
            .is_empty()
        {
            ensure!(Instant::now() < deadline, "an address stays tentative");
            thread::sleep(Duration::from_millis(50));
        }
        let folder = tempfile::Builder::new().prefix("mirror-browser-").tempdir()?;
        let log = File::create(folder.path().join("driver.log"))?;
        let process = host
            .command(Path::new("chromedriver"))
            .arg(format!("--port={PORT}"))
            .env("HOME", folder.path())
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("start chromedriver")?;
        let driver = Driver::new(host, PORT);
        // From here on dropping ends it.
        let mut browser = Self { driver, process, session: String::new(), folder };
        let deadline = Instant::now() + START_PATIENCE;
        while !browser.driver.send("GET", "/status", None).is_ok_and(|status| status["ready"] == true) {
            ensure!(Instant::now() < deadline, "chromedriver does not answer");
            thread::sleep(Duration::from_millis(50));
        }
        let data = format!("--user-data-dir={}", browser.folder.path().join("profile").display());
        let flags: Vec<_> = FLAGS.into_iter().chain([data.as_str()]).collect();
        let wanted = json!({ "capabilities": { "alwaysMatch": {
            "browserName": "chrome",
            "goog:chromeOptions": { "args": flags },
            "goog:loggingPrefs": { "browser": "ALL" },
        } } });
        let session = browser.driver.send("POST", "/session", Some(&wanted)).context("start chromium")?;
        browser.session = session["sessionId"].as_str().context("no session")?.to_owned();
        Ok(browser)
    }

    fn order(&self, method: &str, what: &str, body: Option<&Value>) -> Result<Value> {
        self.driver.send(method, &format!("/session/{}{what}", self.session), body)
    }

    /// Something that only Chromium's own protocol has.
    fn devtools(&self, command: &str, parameters: &Value) -> Result<Value> {
        self.order("POST", "/goog/cdp/execute", Some(&json!({ "cmd": command, "params": parameters })))
    }

    /// Opens an address.
    ///
    /// # Errors
    ///
    /// Nobody answers there.
    pub fn go(&self, url: &str) -> Result<()> {
        self.order("POST", "/url", Some(&json!({ "url": url }))).map(drop)
    }

    /// Runs a script in the page, the body of a function, and gives what it returns.
    ///
    /// # Errors
    ///
    /// It throws.
    pub fn run(&self, script: &str, arguments: &Value) -> Result<Value> {
        self.order("POST", "/execute/sync", Some(&json!({ "script": script, "args": arguments })))
    }

    /// Waits until an expression is true in the page.
    ///
    /// # Errors
    ///
    /// It is not within half a minute; what the page shows is in the error.
    pub fn wait_for(&self, expression: &str) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while self.run(&format!("return Boolean({expression})"), &json!([]))? != true {
            if Instant::now() > deadline {
                let complaints = self.complaints()?.join("\n");
                let shown = self.text("body")?;
                bail!(
                    "`{expression}` does not become true; the browser says:\n{complaints}\nand shows:\n{shown}"
                );
            }
            thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    /// Waits until the page shows a text.
    ///
    /// # Errors
    ///
    /// It does not.
    pub fn wait_for_text(&self, text: &str) -> Result<()> {
        self.wait_for(&format!("document.body.innerText.includes({})", json!(text)))
    }

    /// What people read in the first element that a selector finds; nothing where there is none.
    ///
    /// # Errors
    ///
    /// The page cannot be asked.
    pub fn text(&self, selector: &str) -> Result<String> {
        let found =
            self.run("return document.querySelector(arguments[0])?.innerText ?? ''", &json!([selector]))?;
        Ok(found.as_str().unwrap_or_default().to_owned())
    }

    /// How many elements a selector finds.
    ///
    /// # Errors
    ///
    /// The page cannot be asked.
    pub fn count(&self, selector: &str) -> Result<u64> {
        let found = self.run("return document.querySelectorAll(arguments[0]).length", &json!([selector]))?;
        found.as_u64().context("no number")
    }

    /// Clicks on what a selector finds first, as somebody with a mouse: what is covered cannot be clicked.
    ///
    /// # Errors
    ///
    /// There is nothing, or it cannot be clicked.
    pub fn click(&self, selector: &str) -> Result<()> {
        let element = self.element(selector)?;
        self.order("POST", &format!("/element/{element}/click"), Some(&json!({})))
            .map(drop)
            .with_context(|| format!("click on {selector}"))
    }

    /// Clears an input and types into it.
    ///
    /// # Errors
    ///
    /// There is none.
    pub fn fill(&self, selector: &str, text: &str) -> Result<()> {
        let element = self.element(selector)?;
        self.order("POST", &format!("/element/{element}/clear"), Some(&json!({})))?;
        self.order("POST", &format!("/element/{element}/value"), Some(&json!({ "text": text }))).map(drop)
    }

    fn element(&self, selector: &str) -> Result<String> {
        let wanted = json!({ "using": "css selector", "value": selector });
        let found =
            self.order("POST", "/element", Some(&wanted)).with_context(|| format!("find {selector}"))?;
        // WebDriver, section 12: the key under which an element is known.
        let id = found["element-6066-11e4-a52e-4f735466cecf"].as_str();
        id.map(str::to_owned).with_context(|| format!("no element {selector}"))
    }

    /// Presses a key, wherever the focus is.
    ///
    /// # Errors
    ///
    /// The browser refuses.
    pub fn press(&self, key: Key) -> Result<()> {
        self.type_text(key.code())
    }

    /// Types text, wherever the focus is.
    ///
    /// # Errors
    ///
    /// The browser refuses.
    pub fn type_text(&self, text: &str) -> Result<()> {
        let keys = text
            .chars()
            .flat_map(|key| ["keyDown", "keyUp"].map(|act| json!({ "type": act, "value": key.to_string() })));
        let actions =
            json!({ "actions": [{ "type": "key", "id": "keys", "actions": keys.collect::<Vec<_>>() }] });
        self.order("POST", "/actions", Some(&actions)).map(drop)
    }

    /// Has pages look as at a screen of this size, in the light or in the dark.
    ///
    /// # Errors
    ///
    /// The browser refuses.
    pub fn look(&self, (width, height): (u32, u32), is_dark: bool) -> Result<()> {
        let size = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": false });
        self.devtools("Emulation.setDeviceMetricsOverride", &size)?;
        let scheme = if is_dark { "dark" } else { "light" };
        let features = json!({ "features": [
            { "name": "prefers-color-scheme", "value": scheme },
            { "name": "prefers-reduced-motion", "value": "reduce" },
        ] });
        self.devtools("Emulation.setEmulatedMedia", &features).map(drop)
    }

    /// Takes a picture of the whole page and writes it under the target folder; gives where.
    ///
    /// # Errors
    ///
    /// It cannot be taken or written.
    pub fn picture(&self, name: &str) -> Result<PathBuf> {
        let wanted = json!({ "format": "png", "captureBeyondViewport": true });
        let taken = self.devtools("Page.captureScreenshot", &wanted)?;
        let png = STANDARD.decode(taken["data"].as_str().context("no picture")?)?;
        let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("no workspace")?;
        let target =
            std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| workspace.join("target"), PathBuf::from);
        let folder = target.join("page-pictures");
        fs::create_dir_all(&folder)?;
        let path = folder.join(format!("{name}.png"));
        fs::write(&path, png)?;
        Ok(path)
    }

    /// What the browser complained of since it was last asked: failed requests, exceptions, breaches of the policy.
    ///
    /// # Errors
    ///
    /// The browser refuses.
    pub fn complaints(&self) -> Result<Vec<String>> {
        let log = self.order("POST", "/se/log", Some(&json!({ "type": "browser" })))?;
        let lines = log.as_array().into_iter().flatten();
        let bad = lines.filter(|line| line["level"] == "SEVERE" || line["level"] == "WARNING");
        Ok(bad.map(|line| line["message"].as_str().unwrap_or_default().to_owned()).collect())
    }
}

impl Drop for Browser<'_> {
    fn drop(&mut self) {
        if !self.session.is_empty() {
            drop(self.order("DELETE", "", None));
        }
        drop(self.process.kill());
        drop(self.process.wait());
    }
}
