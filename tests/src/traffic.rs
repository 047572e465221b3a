//! Enters: a number. Leaves: the request with that number, and its digest for the comparison at the end.

use std::sync::{Arc, Mutex, PoisonError};

use crate::{
    digest::{Digest, digest},
    load::Source,
};

/// The same request over and over: the cheapest source there is.
#[derive(Clone, Debug)]
pub struct Same(pub Vec<u8>);

impl Same {
    /// A small GET such as a service sees.
    #[must_use]
    pub fn get() -> Self {
        Self(b"GET /api/items/4711 HTTP/1.1\r\nHost: live.example\r\nUser-Agent: load/1\r\nAccept: */*\r\n\r\n".to_vec())
    }

    /// A POST with a body of so many bytes.
    #[must_use]
    pub fn post(body_bytes: usize) -> Self {
        let mut request = format!(
            "POST /api/items HTTP/1.1\r\nHost: live.example\r\nUser-Agent: load/1\r\n\
             Content-Type: application/octet-stream\r\nContent-Length: {body_bytes}\r\n\r\n"
        )
        .into_bytes();
        request.extend((0..body_bytes).map(|index| b'a' + (index % 26) as u8));
        Self(request)
    }
}

impl Source for Same {
    fn write(&mut self, _number: u64, out: &mut Vec<u8>) -> bool {
        out.extend_from_slice(&self.0);
        self.0.starts_with(b"HEAD ")
    }
}

/// Which requests a mix consists of.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Mix {
    /// GET, HEAD and OPTIONS in turn.
    Safe,
    /// GET alone, asking for the connection's end.
    GetAndClose,
    /// POST with a body of changing length, now and then chunked.
    Post,
    /// POST with a body of some 300 KB.
    Large,
}

/// Digests of requests that were sent.
#[derive(Clone, Debug, Default)]
pub struct Sent(Arc<Mutex<Vec<Digest>>>);

impl Sent {
    /// The digests so far.
    #[must_use]
    pub fn digests(&self) -> Vec<Digest> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn push(&self, digest: Digest) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(digest);
    }
}

/// Requests of which no two are alike.
#[derive(Debug)]
pub struct Distinct {
    name: String,
    mix: Mix,
    sent: Option<Sent>,
}

impl Distinct {
    /// A mix whose targets carry `name`; every request's digest goes to `sent`.
    #[must_use]
    pub fn new(name: &str, mix: Mix, sent: Option<&Sent>) -> Self {
        Self { name: name.to_owned(), mix, sent: sent.cloned() }
    }
}

impl Source for Distinct {
    fn write(&mut self, number: u64, out: &mut Vec<u8>) -> bool {
        let start = out.len();
        let method = match (self.mix, number % 8) {
            (Mix::Post | Mix::Large, _) => "POST",
            (Mix::Safe, 3) => "HEAD",
            (Mix::Safe, 5) => "OPTIONS",
            (Mix::Safe | Mix::GetAndClose, _) => "GET",
        };
        out.extend_from_slice(
            format!(
                "{method} /{}/{number}?page={} HTTP/1.1\r\nHost: live.example\r\nUser-Agent: demo/1\r\n\
                 ACCEPT:  application/json\r\nx-Request-Id: {}-{number}\r\n",
                self.name,
                number % 17,
                self.name
            )
            .as_bytes(),
        );
        match self.mix {
            Mix::Safe => out.extend_from_slice(b"\r\n"),
            Mix::GetAndClose => out.extend_from_slice(b"Connection: close\r\n\r\n"),
            Mix::Post if number % 4 == 3 => {
                out.extend_from_slice(b"Transfer-Encoding: chunked\r\n\r\n");
                out.extend_from_slice(
                    format!("6;n={number}\r\n012345\r\n3\r\n678\r\n0\r\nX-Sum: {number}\r\n\r\n").as_bytes(),
                );
            }
            Mix::Post | Mix::Large => {
                let length = (number * 37 % 3000) as usize + if self.mix == Mix::Large { 300_000 } else { 0 };
                out.extend_from_slice(format!("Content-Length: {length}\r\n\r\n").as_bytes());
                out.resize(out.len() + length, b'a' + (number % 26) as u8);
            }
        }
        if let (Some(sent), Some(request)) = (&self.sent, out.get(start..)) {
            sent.push(digest(request));
        }
        method == "HEAD"
    }
}
