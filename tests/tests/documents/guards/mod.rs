//! Enters: the guards of `docs/side-effects.md`. Leaves: whether each keeps a shadow from writing, and live from copies.
//!
//! Each stands before the same small shop, written in its language, which counts what would leave it.

mod axum;

use std::{
    fs,
    net::{SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use ::axum::{
    Router,
    extract::State,
    http::StatusCode,
    middleware::from_fn_with_state,
    routing::{get, post},
};
use anyhow::{Context, Result, bail, ensure};
use mirror_tests::{
    agent::{Agent, Arguments},
    client::{RawClient, Response},
    require_agent,
    scenario::{PATIENCE, PORT, Stage, Weight},
    server::Record,
};
use tempfile::TempDir;

use crate::page::{self, Page};

/// The languages in which there is one.
pub(crate) const LANGUAGES: [&str; 5] = ["go", "java", "js", "python", "rust"];

/// Where the guards are.
const PAGE: &str = "docs/side-effects.md";

/// How long a program may take to be compiled and to listen, on a busy machine.
const START: Duration = Duration::from_secs(60);

/// How a shop is made of a guard.
struct Recipe {
    /// The language, as behind the fence.
    language: &'static str,
    /// What has to be there.
    tools: &'static [&'static str],
    /// The files of the guard, as many as the page has blocks of the language.
    guard: &'static [&'static str],
    /// The shop's file and what is in it.
    shop: (&'static str, &'static str),
    /// What is done once.
    prepare: &'static [&'static str],
    /// What is run, with the port behind it.
    run: &'static [&'static str],
}

/// Returns from the test, saying why, where a guard cannot be tried.
macro_rules! require_language {
    ($recipe:expr) => {
        if let Some(what) = missing(&$recipe) {
            println!("SKIPPED: needs {what}");
            return Ok(());
        }
    };
}

const PYTHON: Recipe = Recipe {
    language: "python",
    tools: &["python3"],
    guard: &["shadow_guard.py", "shadow_guard_django.py"],
    shop: ("harness.py", include_str!("harness.py")),
    prepare: &[],
    run: &["python3", "harness.py"],
};

const DJANGO: Recipe = Recipe {
    shop: ("harness_django.py", include_str!("harness_django.py")),
    run: &["python3", "harness_django.py"],
    ..PYTHON
};

const NODE: Recipe = Recipe {
    language: "js",
    tools: &["node"],
    guard: &["shadow-guard.js"],
    shop: ("harness.js", include_str!("harness.js")),
    prepare: &[],
    run: &["node", "harness.js"],
};

const JAVA: Recipe = Recipe {
    language: "java",
    tools: &["javac", "java"],
    guard: &["shop/ShadowGuard.java"],
    shop: ("shop/Harness.java", include_str!("Harness.java")),
    prepare: &["javac", "-d", "classes", "-sourcepath", ".", "shop/Harness.java"],
    run: &["java", "-cp", "classes", "shop.Harness"],
};

const GO: Recipe = Recipe {
    language: "go",
    tools: &["go"],
    guard: &["shadowguard/guard.go"],
    shop: ("main.go", include_str!("harness.go")),
    prepare: &["go", "build", "-o", "shop", "."],
    run: &["./shop"],
};

#[test]
fn guard_in_python_for_asgi_keeps_a_shadow_from_writing() -> Result<()> {
    require_language!(PYTHON);
    examine(&PYTHON)
}

#[test]
fn guard_in_python_for_django_keeps_a_shadow_from_writing() -> Result<()> {
    require_language!(DJANGO);
    examine(&DJANGO)
}

#[test]
fn guard_in_node_keeps_a_shadow_from_writing() -> Result<()> {
    require_language!(NODE);
    examine(&NODE)
}

#[test]
fn guard_in_java_keeps_a_shadow_from_writing() -> Result<()> {
    require_language!(JAVA);
    examine(&JAVA)
}

#[test]
fn guard_in_go_keeps_a_shadow_from_writing() -> Result<()> {
    require_language!(GO);
    examine(&GO)
}

fn examine(recipe: &Recipe) -> Result<()> {
    let folder = laid_out(recipe)?;
    for mode in [Mode::Shadow, Mode::Live] {
        let shop = Shop::open(recipe, folder.path(), mode)?;
        expect_guarded(mode, shop.address).with_context(|| format!("{} as {mode:?}", recipe.language))?;
    }
    Ok(())
}

/// Whether the process is one or the other.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Mode {
    Shadow,
    Live,
}

/// What the page promises of every guard.
fn expect_guarded(mode: Mode, shop: SocketAddr) -> Result<()> {
    let ask = |head: &str| -> Result<Response> {
        let mut client = RawClient::over(TcpStream::connect(shop)?, Duration::from_secs(5))?;
        client.ask(format!("{head}\r\nHost: shop\r\nContent-Length: 0\r\n\r\n").as_bytes())
    };
    let is_marked = |answer: &Response| {
        let head = String::from_utf8_lossy(&answer.head).to_ascii_lowercase();
        head.lines().filter(|line| *line == "x-shadow-mode: on").count() == 1
    };
    let expect = |head: &str, code: &str| -> Result<Response> {
        let answer = ask(head)?;
        ensure!(answer.code() == code, "{head} is answered by {}, not {code}", answer.code());
        ensure!(is_marked(&answer) == (mode == Mode::Shadow), "{head}: {answer:?}");
        Ok(answer)
    };
    let effects = || -> Result<String> {
        let answer = expect("GET /effects HTTP/1.1", "200")?;
        Ok(String::from_utf8_lossy(&answer.body).trim().to_owned())
    };
    expect("GET /healthz HTTP/1.1", "200")?;
    expect("POST /orders HTTP/1.1", "201")?;
    expect("POST /orders/7/items HTTP/1.1", "201")?;
    match mode {
        Mode::Shadow => {
            expect("POST /payments HTTP/1.1", "403")?;
            expect("POST /orders-of-others HTTP/1.1", "403")?;
            expect("GET /orders HTTP/1.1\r\nx-shadow: true", "200")?;
            ensure!(effects()? == "0", "something left the shadow");
        }
        Mode::Live => {
            expect("POST /payments HTTP/1.1", "201")?;
            expect("GET /orders HTTP/1.1\r\nx-shadow: true", "421")?;
            expect("POST /orders HTTP/1.1\r\nx-shadow: true", "421")?;
            ensure!(effects()? == "3", "live did {}", effects()?);
        }
    }
    Ok(())
}

/// What a guard cannot be tried without, and is not here.
fn missing(recipe: &Recipe) -> Option<&'static str> {
    if page::root().is_none() {
        return Some("the pages");
    }
    // `go` alone has no such option, and says so; that is an answer, too.
    recipe.tools.iter().copied().find(|tool| Command::new(tool).arg("--version").output().is_err())
}

/// The guard as the page has it, the shop beside it, and all of it compiled.
fn laid_out(recipe: &Recipe) -> Result<TempDir> {
    let root = page::root().context("the pages are not here")?;
    let page = Page::read(&root, PAGE.into())?;
    let guards = blocks(&page, recipe.language);
    ensure!(guards.len() == recipe.guard.len(), "{PAGE} has {} blocks in {}", guards.len(), recipe.language);
    let folder = tempfile::tempdir()?;
    let write = |name: &str, text: &str| -> Result<()> {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap_or(Path::new(".")))?;
        fs::write(&path, text).with_context(|| format!("write {name}"))
    };
    for (name, text) in recipe.guard.iter().zip(guards) {
        write(name, text)?;
    }
    write(recipe.shop.0, recipe.shop.1)?;
    write("go.mod", "module guarded\n\ngo 1.19\n")?;
    for file in include_str!("stubs.txt").split("// File ").skip(1) {
        let (name, text) = file.split_once('\n').context("a stub without a name")?;
        write(name, text)?;
    }
    if let Some((program, arguments)) = recipe.prepare.split_first() {
        let output = Command::new(program).args(arguments).current_dir(folder.path()).output()?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(folder)
}

fn blocks<'a>(page: &'a Page, language: &str) -> Vec<&'a str> {
    let tag = format!("{language} guard");
    page.blocks.iter().filter(|block| block.tag == tag).map(|block| block.text.as_str()).collect()
}

/// A running shop; killed when dropped.
#[derive(Debug)]
struct Shop {
    child: Child,
    address: SocketAddr,
}

impl Drop for Shop {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

impl Shop {
    /// Starts one on a port of loopback that was free a moment ago.
    fn open(recipe: &Recipe, folder: &Path, mode: Mode) -> Result<Self> {
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let (program, arguments) = recipe.run.split_first().context("nothing to run")?;
        let mut command = Command::new(program);
        command.args(arguments).arg(address.port().to_string()).current_dir(folder).stdin(Stdio::null());
        let mode = if mode == Mode::Shadow { "on" } else { "" };
        let child = command.env("SHADOW_MODE", mode).spawn().with_context(|| format!("start {program}"))?;
        let mut shop = Self { child, address };
        let deadline = Instant::now() + START;
        while TcpStream::connect(address).is_err() {
            if let Some(status) = shop.child.try_wait()? {
                bail!("the shop ended with {status}");
            }
            ensure!(Instant::now() < deadline, "the shop does not listen");
            thread::sleep(Duration::from_millis(20));
        }
        Ok(shop)
    }
}

#[test]
fn guard_in_rust_is_the_one_of_the_page_and_keeps_a_shadow_from_writing() -> Result<()> {
    let Some(root) = page::root() else {
        println!("SKIPPED: the pages are not here");
        return Ok(());
    };
    let page = Page::read(&root, PAGE.into())?;
    let (_, compiled) = include_str!("axum.rs").split_once("\n\n").context("no first line")?;
    ensure!(blocks(&page, "rust") == [compiled], "{PAGE} has another guard than guards/axum.rs");
    for mode in [Mode::Shadow, Mode::Live] {
        let guard =
            axum::Guard { is_shadow: mode == Mode::Shadow, ..axum::Guard::from_environment(&["/orders"]) };
        let listener = TcpListener::bind("127.0.0.1:0")?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        runtime.spawn(async move {
            ::axum::serve(tokio::net::TcpListener::from_std(listener)?, rust_shop(&guard)).await
        });
        expect_guarded(mode, address).with_context(|| format!("{mode:?}"))?;
    }
    Ok(())
}

/// A shop that counts what leaves it.
fn rust_shop(guard: &axum::Guard) -> Router {
    use std::sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    };
    let effects = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&effects);
    let write = |State(guard): State<axum::Guard>| async move {
        guard.outward(|| effects.fetch_add(1, Relaxed), 0);
        StatusCode::CREATED
    };
    Router::new()
        .route("/effects", get(|| async move { counted.load(Relaxed).to_string() }))
        .route("/{*path}", post(write).get(|| async { "" }))
        .layer(from_fn_with_state(guard.clone(), axum::shadow_guard))
        .with_state(guard.clone())
}

#[test]
fn copies_of_writes_flow_while_the_guard_says_that_it_is_a_shadow() -> Result<()> {
    require_agent!();
    require_language!(NODE);
    let folder = laid_out(&NODE)?;
    let stage = Stage::set(Weight::Light, Record::Count)?;
    let opened = |mode: &str| -> Result<Child> {
        // The shop listens on loopback, which the agent reaches: both are on the live host.
        let mut command = stage.net.live.command(&PathBuf::from("env"));
        command.arg(format!("SHADOW_MODE={mode}")).args(NODE.run).arg("9090").current_dir(folder.path());
        Ok(command.stdin(Stdio::null()).spawn()?)
    };
    let mut shop = opened("on")?;
    let arguments = Arguments::to_url(PORT, "http://127.0.0.1:9090").with(&[
        "--methods",
        "all",
        "--interlock",
        "x-shadow-mode=on",
        "--interlock-path",
        "/healthz",
        "--interlock-every",
        "200ms",
    ]);
    let agent = Agent::start(&stage.net.live, &arguments)?;
    let proven = |expected: f64| -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while agent.metrics()?.sum("mirror_interlock_open") != expected {
            ensure!(Instant::now() < deadline, "the interlock is not {expected}");
            thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    };
    let mut client = RawClient::connect(&stage.net.client, stage.net.live.at_v4(PORT))?;
    let mut write = || client.ask(b"POST /orders HTTP/1.1\r\nHost: live\r\nContent-Length: 2\r\n\r\n{}");

    proven(1.0)?;
    write()?;
    agent.wait_for(PATIENCE, |books| books.mirrored == 1 && books.pending == 0)?;
    shop.kill()?;
    shop.wait()?;
    let mut shop = opened("")?;
    proven(0.0)?;
    write()?;
    let books = agent.wait_for(PATIENCE, |books| books.all_skipped() == 1 && books.pending == 0);
    shop.kill()?;
    shop.wait()?;
    ensure!(books?.mirrored == 1, "a write was copied to what is no shadow");
    Ok(())
}
