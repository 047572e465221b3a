//! Enters: what an operator wants. Leaves: the order at the agent's socket, and its answer as a table or as JSON.

mod place;
mod table;

pub use self::place::PlaceArgs;
pub(in crate::io) use self::table::{clean, escaped};

use std::{
    io::{self, Read, Write},
    net::SocketAddr,
    path::PathBuf,
    time::SystemTime,
};

use clap::{Args, Subcommand};
use serde::{Serialize, de::DeserializeOwned};
use thiserror::Error;

use super::{
    State, TokenError,
    api::{Changes, ErrorBody, ExpiryBody, Invited, PercentBody, WhichBody, encode},
};

/// More than this is no answer of an agent, in bytes.
const ANSWER_BYTES: u64 = 16 * 1024 * 1024;

/// Options of `ctl`.
#[derive(Args, Clone, Debug)]
pub struct CtlArgs {
    /// Where the agent is asked.
    #[command(flatten)]
    pub place: PlaceArgs,

    /// Print the agent's answer as JSON.
    #[arg(long, global = true)]
    pub json: bool,

    /// What to do.
    #[command(subcommand)]
    pub command: CtlCommand,
}

/// What to do.
#[derive(Clone, Debug, Subcommand)]
pub enum CtlCommand {
    /// Say how things are.
    State,
    /// Print an address at which a browser opens the agent's page, once. The agent needs --control-listen.
    Open,
    /// Copy and send nothing more, of one experiment or of all.
    Pause {
        /// Its name; all where it is not said.
        experiment: Option<String>,
    },
    /// Go on after a pause.
    Resume {
        /// Its name; all where it is not said.
        experiment: Option<String>,
    },
    /// Take another share of the requests.
    Percent {
        /// The experiment.
        experiment: String,
        /// 0 to 100, fractions allowed.
        percent: f64,
    },
    /// Have an experiment end at another time.
    Extend {
        /// The experiment.
        experiment: String,
        /// RFC 3339, such as 2027-01-31T00:00:00Z; a duration from now on, such as 24h or 7d; or `never`.
        time: String,
    },
}

/// Why there is no answer.
#[derive(Debug, Error)]
pub enum CtlError {
    /// Nobody listens.
    #[error("no agent listens at {path}; --socket names another place")]
    NoAgent {
        /// The socket.
        path: PathBuf,
        /// Why it cannot be connected to.
        #[source]
        source: io::Error,
    },
    /// Only the agent's owner may.
    #[error("{path} is for its owner alone; be the user that runs the agent")]
    Forbidden {
        /// The socket.
        path: PathBuf,
    },
    /// Nobody listens there either.
    #[error("no agent listens at {address}")]
    NoListener {
        /// The address.
        address: SocketAddr,
        /// Why it cannot be connected to.
        #[source]
        source: io::Error,
    },
    /// Over TCP it wants the token.
    #[error("--address needs --token-file: the token of the agent's control listener")]
    NoToken,
    /// The file holds no token.
    #[error("the token in {path}")]
    Token {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: TokenError,
    },
    /// The connection broke, or took too long.
    #[error("the connection to the agent")]
    Io(#[from] io::Error),
    /// What came back is not understood.
    #[error("the agent's answer is not understood; is it of the same version?")]
    Answer,
    /// The agent refuses.
    #[error("{0}")]
    Refused(String),
}

/// Gives the order and prints what comes of it.
///
/// # Errors
///
/// All variants of [`CtlError`].
pub fn run(args: &CtlArgs, out: &mut impl Write) -> Result<(), CtlError> {
    let answer = match &args.command {
        CtlCommand::State => ask::<()>(&args.place, "GET", "/v1/state", None)?,
        CtlCommand::Open => ask::<()>(&args.place, "POST", "/v1/invitations", None)?,
        CtlCommand::Pause { experiment } => {
            let body = WhichBody { experiment: experiment.clone() };
            ask(&args.place, "POST", "/v1/pause", Some(&body))?
        }
        CtlCommand::Resume { experiment } => {
            let body = WhichBody { experiment: experiment.clone() };
            ask(&args.place, "POST", "/v1/resume", Some(&body))?
        }
        CtlCommand::Percent { experiment, percent } => {
            let path = path_of(experiment, "percent");
            ask(&args.place, "POST", &path, Some(&PercentBody { percent: *percent }))?
        }
        CtlCommand::Extend { experiment, time } => {
            let path = path_of(experiment, "expiry");
            ask(&args.place, "POST", &path, Some(&ExpiryBody { expires: time.clone() }))?
        }
    };
    if args.json {
        out.write_all(&answer)?;
        writeln!(out)?;
        return Ok(());
    }
    match args.command {
        CtlCommand::State => table::state(&parse::<State>(&answer)?, SystemTime::now(), out)?,
        CtlCommand::Open => {
            let Invited { url, seconds } = parse(&answer)?;
            writeln!(out, "{}\nopens once, within {} minutes", clean(&url), seconds / 60)?;
        }
        CtlCommand::Pause { .. }
        | CtlCommand::Resume { .. }
        | CtlCommand::Percent { .. }
        | CtlCommand::Extend { .. } => table::changes(&parse::<Changes>(&answer)?.changes, out)?,
    }
    Ok(())
}

/// The path of something of an experiment.
pub(in crate::io) fn path_of(experiment: &str, what: &str) -> String {
    format!("/v1/experiments/{}/{what}", encode(experiment))
}

/// Sends one request and returns the body of the answer.
pub(in crate::io) fn ask<T: Serialize>(
    place: &PlaceArgs,
    method: &str,
    path: &str,
    body: Option<&T>,
) -> Result<Vec<u8>, CtlError> {
    let (mut stream, lines) = place.connect()?;
    let body = body.map(serde_json::to_vec).transpose().map_err(io::Error::from)?.unwrap_or_default();
    let head = format!(
        "{method} {path} HTTP/1.1\r\n{lines}Connection: close\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(&[head.as_bytes(), &body].concat())?;
    let mut answer = Vec::new();
    stream.take(ANSWER_BYTES).read_to_end(&mut answer)?;
    let (status, body) = split(&answer).ok_or(CtlError::Answer)?;
    if status == 200 {
        return Ok(body.to_vec());
    }
    let ErrorBody { error } = parse(body)?;
    Err(CtlError::Refused(error.lines().map(clean).collect::<Vec<_>>().join("\n")))
}

/// Status and body of an answer that ends with the connection. The agent always says the length.
fn split(answer: &[u8]) -> Option<(u16, &[u8])> {
    let head = AnswerHead::of(answer)?;
    let body = answer.get(head.start..)?;
    (body.len() == head.length).then_some((head.status, body))
}

/// What the head of an agent's answer says.
#[derive(Clone, Copy, Debug)]
pub(in crate::io) struct AnswerHead {
    /// The status code.
    pub(in crate::io) status: u16,
    /// Where the body begins.
    pub(in crate::io) start: usize,
    /// Its bytes.
    pub(in crate::io) length: usize,
}

impl AnswerHead {
    /// The head with which an answer begins; `None` where it is not whole, or none of an agent.
    pub(in crate::io) fn of(answer: &[u8]) -> Option<Self> {
        let mut headers = [httparse::EMPTY_HEADER; 16];
        let mut response = httparse::Response::new(&mut headers);
        let httparse::Status::Complete(start) = response.parse(answer).ok()? else { return None };
        let length =
            response.headers.iter().find(|header| header.name.eq_ignore_ascii_case("content-length"))?;
        let length = str::from_utf8(length.value).ok()?.parse().ok()?;
        Some(Self { status: response.code?, start, length })
    }
}

pub(in crate::io) fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, CtlError> {
    serde_json::from_slice(body).map_err(|_error| CtlError::Answer)
}
