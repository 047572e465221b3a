//! Enters: users who log in at a live service, and a shadow with sessions of its own. Leaves: proof that the shadow knows
//! the users of the copies.

use std::{
    collections::HashSet,
    fs,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    sync::{Arc, Mutex, PoisonError},
    thread,
};

use anyhow::{Result, ensure};
use mirror_tests::{
    agent::{Agent, Arguments},
    client::RawClient,
    netns::Host,
    require_agent,
    scenario::{PATIENCE, Stage, Weight},
    server::Record,
};
use tempfile::TempDir;

const SHOP_PORT: u16 = 8090;
const USERS: u64 = 8;
const VISITS: u64 = 25;

#[test]
fn users_who_log_in_at_live_are_known_to_a_shadow_with_sessions_of_its_own() -> Result<()> {
    require_agent!();
    let stage = Stage::set(Weight::Light, Record::Count)?;
    let _live = Shop::open(&stage.net.live, "live")?;
    let shadow = Shop::open(&stage.net.shadow, "shadow")?;
    let dir = TempDir::new()?;
    let path = dir.path().join("config.yaml");
    let url = format!("http://{}", stage.net.shadow.at_v4(SHOP_PORT));
    fs::write(
        &path,
        format!(
            "capture: {{ interfaces: [eth0] }}
experiments:
  - name: orders
    expires: never
    ports: [{SHOP_PORT}]
    targets:
      - name: v2
        url: {url}
        sessions:
          - {{ from: {{ cookie: sid }}, into: [{{ cookie: sid }}] }}
          - {{ from: {{ path: $.user.token }}, into: [{{ header: Authorization }}, {{ query: token }}] }}
"
        ),
    )?;
    let agent = Agent::start(&stage.net.live, &Arguments::from_file(&path))?;
    for address in [stage.net.live.at_v4(SHOP_PORT), stage.net.live.at_v6(SHOP_PORT)] {
        for user in 0..USERS {
            let mut client = RawClient::connect(&stage.net.client, address)?;
            let answer = client.ask(format!("GET /login/{user} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes())?;
            let text = String::from_utf8_lossy(&[answer.head, answer.body].concat()).into_owned();
            let sid = between(&text, "sid=", ";");
            let token = between(&text, "\"token\":\"", "\"");
            for visit in 0..VISITS {
                let answer = client.ask(
                    format!(
                        "GET /orders/{visit}?token={token} HTTP/1.1\r\nCookie: theme=dark; sid={sid}\r\n\
                         Authorization: Bearer {token}\r\n\r\n"
                    )
                    .as_bytes(),
                )?;
                ensure!(answer.code() == "200", "live knows its own");
            }
        }
    }
    let all = 2 * USERS * (VISITS + 1);
    let replaced = 2 * USERS * VISITS * 3;
    agent.wait_for(PATIENCE, |books| books.mirrored == all)?;
    let start = std::time::Instant::now();
    let answered = loop {
        let metrics = agent.metrics()?;
        let answered = metrics.value("mirror_replays_total", "outcome", "answered");
        if answered >= all as f64 || start.elapsed() > PATIENCE {
            ensure!(metrics.sum("mirror_session_values") == (2 * USERS * 2) as f64, "values are known");
            ensure!(metrics.sum("mirror_session_substitutions_total") == replaced as f64, "all are replaced");
            ensure!(metrics.sum("mirror_session_unknown_total") == 0.0, "none is sent as it was");
            break answered;
        }
    };
    ensure!(answered == all as f64, "{answered} of {all}");
    agent.stop()?;
    let (welcome, refused) = shadow.counts();
    ensure!((welcome, refused) == (2 * USERS * VISITS, 0), "{welcome} welcome, {refused} refused");
    Ok(())
}

fn between<'a>(text: &'a str, start: &str, end: &str) -> &'a str {
    let rest = text.split_once(start).map_or("", |(_, rest)| rest);
    rest.split_once(end).map_or(rest, |(value, _)| value)
}

/// A shop that hands out a session and a token of its own at each login, and knows who bears both.
#[derive(Default)]
struct Shop {
    name: &'static str,
    logins: Mutex<u64>,
    known: Mutex<HashSet<String>>,
    welcome: Mutex<u64>,
    refused: Mutex<u64>,
}

impl Shop {
    fn open(host: &Host, name: &'static str) -> Result<Arc<Self>> {
        let shop = Arc::new(Self { name, ..Self::default() });
        let listener = host.within(|| Ok(TcpListener::bind(("::", SHOP_PORT))?))?;
        let open = Arc::clone(&shop);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let shop = Arc::clone(&open);
                thread::spawn(move || shop.serve(stream));
            }
        });
        Ok(shop)
    }

    fn counts(&self) -> (u64, u64) {
        (*lock(&self.welcome), *lock(&self.refused))
    }

    /// Answers request after request; all of them fit into one read.
    fn serve(&self, mut stream: TcpStream) {
        let mut input = [0; 4096];
        while let Ok(len @ 1..) = stream.read(&mut input) {
            let request = String::from_utf8_lossy(&input[..len]).into_owned();
            if stream.write_all(self.answer(&request).as_bytes()).is_err() {
                return;
            }
        }
    }

    fn answer(&self, request: &str) -> String {
        if request.starts_with("GET /login/") {
            let number = {
                let mut logins = lock(&self.logins);
                *logins += 1;
                *logins
            };
            let (sid, token) = (format!("{}-s-{number}", self.name), format!("{}-token-{number}", self.name));
            lock(&self.known).extend([sid.clone(), token.clone()]);
            let content = format!("{{\"user\":{{\"token\":\"{token}\"}}}}");
            let len = content.len();
            return format!(
                "HTTP/1.1 200 OK\r\nSet-Cookie: sid={sid}; HttpOnly\r\nContent-Length: {len}\r\n\r\n{content}"
            );
        }
        let bears = [
            between(request, "sid=", "\r\n"),
            between(request, "Bearer ", "\r\n"),
            between(request, "token=", " "),
        ];
        let is_known = bears.iter().all(|value| lock(&self.known).contains(*value));
        // The probe by which the agent finds out where the shadow leads is nobody's visit.
        let is_visit = u64::from(request.starts_with("GET "));
        *lock(if is_known { &self.welcome } else { &self.refused }) += is_visit;
        let status = if is_known { "200 OK" } else { "401 Unauthorized" };
        format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n")
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
