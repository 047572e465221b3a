//! Enters: the address of an agent. Leaves: what it sends, within bounds of time and size.

use std::{net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::Semaphore,
    time::timeout,
};

use super::view::{Problem, Trouble};
use crate::io::control::ctl::AnswerHead;

/// Most bytes of an answer, its head included. That of an agent with dozens of endpoints has some hundred thousand.
pub(super) const ANSWER_BYTES: usize = 8 * 1024 * 1024;

/// Most bytes of the head of an answer.
const HEAD_BYTES: usize = 4096;

/// How long an agent may take until its answer begins, and then again to its end.
const PEER_TIME: Duration = Duration::from_secs(2);

/// What limits how much is done at once.
#[derive(Debug)]
pub(super) struct Pace {
    /// Agents that are asked at once: each may take its time until its answer begins.
    asking: Semaphore,
    /// Answers that are read at once: each may be large.
    reading: Semaphore,
}

impl Default for Pace {
    fn default() -> Self {
        Self { asking: Semaphore::new(64), reading: Semaphore::new(2) }
    }
}

/// Asks one agent and hands its answer to `take`, which may take long: no other answer is in memory meanwhile but one.
pub(super) async fn fetch<T, F: Future<Output = T>>(
    pace: &Pace,
    address: SocketAddr,
    request: &[u8],
    take: impl FnOnce(Vec<u8>) -> F,
) -> Result<T, Trouble> {
    // Nobody closes these.
    let Ok(_asking) = pace.asking.acquire().await else { return Err(timed_out()) };
    let mut answer = Vec::with_capacity(4096);
    let mut stream =
        timeout(PEER_TIME, begin(address, request, &mut answer)).await.map_err(|_elapsed| timed_out())??;
    let Ok(_reading) = pace.reading.acquire().await else { return Err(timed_out()) };
    let body = timeout(PEER_TIME, finish(&mut stream, answer)).await.map_err(|_elapsed| timed_out())??;
    drop(stream);
    Ok(take(body).await)
}

/// Connects, asks, and waits for the first bytes.
async fn begin(address: SocketAddr, request: &[u8], answer: &mut Vec<u8>) -> Result<TcpStream, Trouble> {
    let mut stream = TcpStream::connect(address).await.map_err(|error| broken(&error))?;
    stream.write_all(request).await.map_err(|error| broken(&error))?;
    if stream.read_buf(answer).await.map_err(|error| broken(&error))? == 0 {
        return Err(garbled());
    }
    Ok(stream)
}

/// Reads to the end of the answer; returns its body.
async fn finish(stream: &mut TcpStream, mut answer: Vec<u8>) -> Result<Vec<u8>, Trouble> {
    let head = loop {
        match AnswerHead::of(&answer) {
            Some(head) => break head,
            None if answer.len() >= HEAD_BYTES => return Err(garbled()),
            None => read_more(stream, &mut answer).await?,
        }
    };
    match head.status {
        200 => {}
        401 | 403 => return Err(Trouble::with(Problem::Refused, "its token is another".to_owned())),
        status => return Err(Trouble::with(Problem::Refused, format!("it answered {status}"))),
    }
    if head.length > ANSWER_BYTES {
        return Err(Trouble::with(Problem::TooLarge, format!("more than {ANSWER_BYTES} bytes")));
    }
    let mut body = answer.split_off(head.start);
    body.reserve_exact(head.length.saturating_sub(body.len()));
    while body.len() < head.length {
        read_more(stream, &mut body).await?;
    }
    // More than it said is not what it said.
    if body.len() == head.length { Ok(body) } else { Err(garbled()) }
}

async fn read_more(stream: &mut TcpStream, answer: &mut Vec<u8>) -> Result<(), Trouble> {
    match stream.read_buf(answer).await {
        Ok(0) => Err(garbled()),
        Ok(_) => Ok(()),
        Err(error) => Err(broken(&error)),
    }
}

fn broken(error: &std::io::Error) -> Trouble {
    Trouble::with(Problem::Unreachable, error.to_string())
}

fn garbled() -> Trouble {
    Trouble::with(Problem::Garbled, "its answer is no HTTP of an agent".to_owned())
}

fn timed_out() -> Trouble {
    Trouble::with(Problem::Timeout, format!("no answer within {} s", PEER_TIME.as_secs()))
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    /// What comes of asking a peer that sends this and closes, or goes on for ever.
    async fn asked(answer: &'static [u8], is_endless: bool) -> Result<Vec<u8>, Problem> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let peer = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0; 64];
            let _read = stream.read(&mut request).await;
            let _sent = stream.write_all(answer).await;
            let endless = [b'x'; 65536];
            while is_endless && stream.write_all(&endless).await.is_ok() {}
        });
        let body = fetch(&Pace::default(), address, b"GET / HTTP/1.1\r\n\r\n", |body| async { body }).await;
        peer.abort();
        body.map_err(|trouble| trouble.problem)
    }

    #[tokio::test]
    async fn answer_is_read_to_its_end() {
        let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}";
        assert_eq!(asked(answer, false).await, Ok(b"{}".to_vec()));
        let empty = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
        assert_eq!(asked(empty, false).await, Ok(Vec::new()));
    }

    #[tokio::test]
    async fn what_is_no_answer_says_what_it_is() {
        for (answer, is_endless, problem) in [
            (&b"HTTP/1.1 401 No\r\ncontent-length: 0\r\n\r\n"[..], false, Problem::Refused),
            (b"HTTP/1.1 500 No\r\ncontent-length: 0\r\n\r\n", false, Problem::Refused),
            (b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{}", false, Problem::Garbled),
            (b"HTTP/1.1 200 OK\r\n\r\n{}", false, Problem::Garbled),
            (b"\x00\xff", false, Problem::Garbled),
            (b"", false, Problem::Garbled),
            (b"HTTP/1.1 200 OK\r\ncontent-length: 99999999999\r\n\r\n", true, Problem::TooLarge),
            (b"", true, Problem::Garbled),
        ] {
            assert_eq!(
                asked(answer, is_endless).await,
                Err(problem),
                "{:?}",
                String::from_utf8_lossy(answer)
            );
        }
        let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let nobody = fetch(&Pace::default(), closed, b"", |body| async { body }).await.unwrap_err();
        assert_eq!(nobody.problem, Problem::Unreachable);
    }

    #[tokio::test]
    async fn who_hangs_is_left_after_a_while() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let start = tokio::time::Instant::now();
        let hung = fetch(&Pace::default(), address, b"", |body| async { body }).await.unwrap_err();
        assert_eq!(hung.problem, Problem::Timeout);
        assert!(start.elapsed() < 2 * PEER_TIME);
    }
}
