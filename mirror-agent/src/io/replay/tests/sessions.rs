//! Enters: live traffic of users who log in. Leaves: copies that a shadow with sessions of its own takes.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex},
};

use super::{
    super::Queue,
    harness::{Running, get_of},
    server::{Peer, Server},
};
use crate::{
    io::{
        compare::{OpenExchange, Sessions, Shared, tests::comparing},
        config::{CopyOrder, SessionConfig, SessionSource, SessionUse},
    },
    pipeline::{Answer, Answered, Request, reason::UntimedReason},
};

/// A shop that hands out a session of its own at each login, and knows whoever bears one.
#[derive(Default)]
struct Shop {
    secret: u64,
    logins: u64,
    sessions: HashSet<String>,
    tokens: HashSet<String>,
}

impl Shop {
    fn new(secret: u64) -> Self {
        Self { secret, ..Self::default() }
    }

    fn answer(&mut self, request: &str) -> String {
        let path = request.split(' ').nth(1).unwrap_or_default();
        if path.starts_with("/login") {
            self.logins += 1;
            let value = |kind: &str| format!("{kind}-{:016x}", self.secret.wrapping_mul(self.logins * 2 + 1));
            let (session, token) = (value("s"), value("t"));
            self.sessions.insert(session.clone());
            self.tokens.insert(token.clone());
            let content = format!("{{\"user\":{{\"token\":\"{token}\"}}}}");
            let len = content.len();
            return format!(
                "HTTP/1.1 200 OK\r\nset-cookie: sid={session}; HttpOnly\r\ncontent-length: {len}\r\n\r\n{content}"
            );
        }
        let line = |name: &str| {
            request.lines().find_map(|line| {
                line.to_lowercase().starts_with(name).then(|| line.split_at(name.len()).1.trim().to_owned())
            })
        };
        let has_session = line("cookie:").is_some_and(|cookies| {
            cookies
                .split("; ")
                .filter_map(|pair| pair.strip_prefix("sid="))
                .any(|sid| self.sessions.contains(sid))
        });
        let has_token = line("authorization:").is_some_and(|value| {
            value.strip_prefix("Bearer ").is_some_and(|token| self.tokens.contains(token))
        });
        let query = path.split_once("?token=").is_some_and(|(_, token)| self.tokens.contains(token));
        let status = if has_session && has_token && query { "200 OK" } else { "401 N" };
        format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n")
    }
}

fn whole(response: &str) -> Answered {
    let (head, content) = response.split_at(response.find("\r\n\r\n").unwrap() + 4);
    Answered::Whole(Answer {
        status: response[9..12].parse().unwrap(),
        head: head.as_bytes().to_vec().into(),
        content: content.as_bytes().to_vec().into(),
        timing: Err(UntimedReason::Unknown),
    })
}

/// A request of one user, as their browser sends it.
fn request(user: u16, number: usize, bears: Option<&(String, String)>) -> Request {
    let text = match bears {
        None => format!("GET /login/{user} HTTP/1.1\r\nhost: a\r\n\r\n"),
        Some((session, token)) => format!(
            "GET /{user}/{number}?token={token} HTTP/1.1\r\nCookie: theme=dark; sid={session}\r\n\
             Authorization: Bearer {token}\r\n\r\n"
        ),
    };
    Request { raw: text.clone().into_bytes().into(), head_len: text.len(), ..get_of(1000 + user, 1, "") }
}

fn configs() -> [SessionConfig; 2] {
    let config = |from, into| SessionConfig { from, into, ..crate::io::compare::tests::cookie("sid") };
    [
        config(SessionSource::Cookie("sid".to_owned()), vec![SessionUse::Cookie("sid".to_owned())]),
        config(
            SessionSource::Json("$.user.token".to_owned()),
            vec![SessionUse::Header("Authorization".to_owned()), SessionUse::Query("token".to_owned())],
        ),
    ]
}

#[tokio::test]
async fn users_who_log_in_at_live_are_known_to_a_shadow_with_sessions_of_its_own() {
    let shadow = Arc::new(Mutex::new(Shop::new(0x9e37_79b9_7f4a_7c15)));
    let statuses = Arc::<Mutex<HashMap<String, usize>>>::default();
    let (shop, counts) = (Arc::clone(&shadow), Arc::clone(&statuses));
    let server = Server::start(move |mut peer: Peer| {
        let (shop, counts) = (Arc::clone(&shop), Arc::clone(&counts));
        async move {
            while let Some(request) = peer.request().await {
                let response = shop.lock().unwrap().answer(&String::from_utf8_lossy(&request));
                *counts.lock().unwrap().entry(response[9..12].to_owned()).or_default() += 1;
                peer.send(response.as_bytes()).await;
            }
        }
    })
    .await;
    let configs = configs();
    let shared = Shared::default();
    let comparing = comparing(None, &[&configs], &shared);
    let sessions: Arc<Sessions> = comparing.targets[0].sessions.clone().unwrap();
    let known = Arc::clone(&sessions);
    let queue = Queue::default().with_order(CopyOrder::Connection);
    let mut running = Running::with_queue(server.addr, queue, |config| config.sessions = Some(known)).await;
    let mut live = Shop::new(0xc2b2_ae3d_27d4_eb4f);
    let mut bears: HashMap<u16, (String, String)> = HashMap::new();
    for number in 0..20 {
        for user in 0..10 {
            let request = request(user, number, bears.get(&user));
            let response = live.answer(&String::from_utf8_lossy(&request.raw));
            assert!(response.contains(" 200 "), "live knows its users: {response}");
            if let Some((_, rest)) = response.split_once("sid=") {
                let session = rest.split(';').next().unwrap().to_owned();
                let token = rest.split("\"token\":\"").nth(1).unwrap().split('"').next().unwrap().to_owned();
                bears.insert(user, (session, token));
            }
            let open = OpenExchange::open(&comparing, 0, &request).unwrap();
            // Live has answered before its client asks again, and so before the next copy is queued.
            open.live_answered(whole(&response));
            running.push_for(&open, request);
        }
    }
    running.ended(crate::io::ledger::ReplayOutcome::Answered, 200).await;
    assert_eq!(*statuses.lock().unwrap(), HashMap::from([("200".to_owned(), 200)]));
    let gauges = sessions.gauges(super::super::clock::now());
    assert_eq!((gauges.values, gauges.substitutions, gauges.unknown), (20, 190 * 3, 0));
    let live_values: Vec<&String> = bears.values().flat_map(|(session, token)| [session, token]).collect();
    for request in server.requests() {
        assert!(!live_values.iter().any(|value| request.contains(*value)), "{request}");
    }
    assert_eq!(running.stop().await.0, 200);
    assert!(shared.queue.is_empty());
    assert_eq!(shared.budget.used(), 0);
}

#[tokio::test]
async fn copy_whose_session_is_not_known_is_sent_as_it_is_and_counted() {
    let server = Server::answering(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
    let sessions = Sessions::new(&configs()).unwrap().unwrap();
    let known = Arc::clone(&sessions);
    let mut running = Running::start(server.addr, |config| config.sessions = Some(known)).await;
    let bears = ("from-before".to_owned(), "of-another-agent".to_owned());
    running.push([request(1, 1, Some(&bears))]);
    running.ended(crate::io::ledger::ReplayOutcome::Answered, 1).await;
    assert!(server.requests()[0].contains("sid=from-before"));
    assert_eq!(sessions.gauges(super::super::clock::now()).unknown, 3);
    assert_eq!(running.stop().await.0, 1);
}
