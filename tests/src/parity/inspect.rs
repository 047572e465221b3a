//! Enters: a capture file. Leaves: the messages that `mirror-agent inspect` finds in it.

use std::{
    net::SocketAddr,
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use super::message::{Body, Message, Paired, StartLine};

/// What `inspect` says of a file.
#[derive(Debug, Default)]
pub struct Inspected {
    /// The messages, in the order of their exchanges.
    pub messages: Vec<Message>,
    /// What it warns of, a line each.
    pub warnings: Vec<String>,
    /// It found the file unreadable, for this reason, be it from some place on.
    pub error: Option<String>,
}

/// Runs `agent inspect` on `file`.
///
/// # Errors
///
/// The agent cannot be started, or its lines are not as documented.
pub fn messages(agent: &Path, file: &Path) -> Result<Inspected> {
    let output = Command::new(agent)
        .arg("inspect")
        .arg(file)
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("start {}", agent.display()))?;
    let text = String::from_utf8(output.stdout).context("read what inspect printed as UTF-8")?;
    let said = String::from_utf8_lossy(&output.stderr);
    let (warnings, errors): (Vec<&str>, Vec<&str>) =
        said.lines().partition(|line| line.starts_with("warning: "));
    let mut inspected = Inspected {
        messages: Vec::new(),
        warnings: warnings.into_iter().map(str::to_owned).collect(),
        error: (!output.status.success()).then(|| errors.join(" ")),
    };
    for line in text.lines() {
        let exchange: Value = serde_json::from_str(line).with_context(|| format!("read the line {line}"))?;
        take_exchange(&exchange, &mut inspected.messages)
            .with_context(|| format!("understand the line {line}"))?;
    }
    Ok(inspected)
}

fn take_exchange(exchange: &Value, messages: &mut Vec<Message>) -> Result<()> {
    let end = |name: &str| -> Result<SocketAddr> { Ok(text(&exchange["flow"][name])?.parse()?) };
    let (client, server) = (end("client")?, end("server")?);
    let tags: Vec<String> = ["vlan", "vni"]
        .iter()
        .filter(|name| !exchange["flow"][**name].is_null())
        .map(|name| format!("{name} {}", exchange["flow"][*name]))
        .collect();
    let place = tags.join(", ");
    let responses = exchange["interim"].as_array().into_iter().flatten().chain([&exchange["response"]]);
    let status = exchange["response"]["status"].as_u64().and_then(|status| status.try_into().ok());
    let of_request = status.map_or(Paired::Nothing, Paired::Status);
    let of_response = match exchange["request"].get("method") {
        Some(method) => Paired::Method(bytes(method)?),
        None => Paired::Nothing,
    };
    let sent = [(&exchange["request"], (client, server), of_request)];
    let answered = responses.map(|response| (response, (server, client), of_response.clone()));
    for (message, way, paired) in sent.into_iter().chain(answered) {
        if !message.is_null() {
            messages.push(Message { paired, ..to_message(message, way, place.clone())? });
        }
    }
    Ok(())
}

fn to_message(value: &Value, (sender, receiver): (SocketAddr, SocketAddr), place: String) -> Result<Message> {
    let start_line = match value["status"].as_u64() {
        Some(status) => StartLine::Response { status: status.try_into()? },
        None => StartLine::Request { method: bytes(&value["method"])?, target: bytes(&value["target"])? },
    };
    let headers = value["headers"].as_array().context("headers")?.iter();
    let len = number(&value["body_bytes"])?;
    let body = match value["body_sha256"].as_str() {
        Some(sha256) => Body::Whole { len, sha256: sha256.to_owned() },
        None => Body::Damaged { len },
    };
    Ok(Message {
        sender,
        receiver,
        seq: number(&value["seq"])?.try_into()?,
        offset: number(&value["offset"])?,
        place,
        start_line,
        headers: headers.map(|pair| Ok((bytes(&pair[0])?, bytes(&pair[1])?))).collect::<Result<_>>()?,
        body,
        complete: value["complete"].as_bool().context("complete")?,
        paired: Paired::Nothing,
        is_marred: false,
        has_whole_head: true,
        is_short: false,
    })
}

fn text(value: &Value) -> Result<&str> {
    value.as_str().context("expected a text")
}

fn number(value: &Value) -> Result<u64> {
    value.as_u64().context("expected a number")
}

/// Each character of a text stands for the byte of the same number.
fn bytes(value: &Value) -> Result<Vec<u8>> {
    let byte = |c| u8::try_from(u32::from(c));
    match text(value)?.chars().map(byte).collect() {
        Ok(bytes) => Ok(bytes),
        Err(_) => bail!("a character that is no byte in {value}"),
    }
}
