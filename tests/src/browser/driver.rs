//! Enters: orders for a browser. Leaves: the same as requests to its driver, and the driver's answers.

use std::{
    net::{Ipv4Addr, SocketAddr, TcpStream},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::{client::RawClient, netns::Host};

/// How long an order may take; starting a browser takes longest.
const PATIENCE: Duration = Duration::from_secs(90);

/// The way to a driver on a host.
#[derive(Debug)]
pub(super) struct Driver<'h> {
    host: &'h Host,
    at: SocketAddr,
}

impl<'h> Driver<'h> {
    pub(super) fn new(host: &'h Host, port: u16) -> Self {
        Self { host, at: SocketAddr::from((Ipv4Addr::LOCALHOST, port)) }
    }

    /// Sends an order and gives its value (WebDriver, section 6.3).
    pub(super) fn send(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Value> {
        let connect = || Ok(TcpStream::connect_timeout(&self.at, Duration::from_secs(2))?);
        let mut client = RawClient::over(self.host.within(connect)?, PATIENCE)?;
        let body = body.map(Value::to_string).unwrap_or_default();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n\r\n",
            self.at,
            body.len()
        );
        // It says that the connection ends with the answer, and leaves it open.
        let answer = client.ask(&[head.as_bytes(), body.as_bytes()].concat())?;
        let is_good = answer.code() == "200";
        let mut answer: Value = serde_json::from_slice(&answer.body).context("an answer that is no JSON")?;
        let value = answer["value"].take();
        if !is_good {
            bail!(
                "{}: {}",
                value["error"].as_str().unwrap_or("refused"),
                value["message"].as_str().unwrap_or("")
            );
        }
        Ok(value)
    }
}
