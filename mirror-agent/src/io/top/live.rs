//! Enters: keys, signals, readings. Leaves: a screen that follows them, until somebody has seen enough.
//!
//! The agent is asked beside the loop: one that does not answer holds up no key.

use std::{
    io::{self, Read},
    thread,
    time::{Duration, Instant},
};

use serde::Serialize;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::mpsc,
    task::{JoinHandle, spawn_blocking},
    time::{MissedTickBehavior, interval},
};

use super::{
    TopArgs, TopError,
    frame::{Chosen, Page},
    keys::{Key, keys},
    reading::{Reading, Readings, read},
    screen::Screen,
};
use crate::io::control::ctl::{CtlError, PlaceArgs, ask};

/// How often the page is drawn anew where nothing happens: it says how old the latest answer is.
const REDRAW: Duration = Duration::from_secs(1);

/// Chunks of keys that may wait.
const KEYS: usize = 64;

/// Shows pages until told to end.
pub(super) fn run(args: &TopArgs) -> Result<(), TopError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let ended = runtime.block_on(show(args));
    // A question that is under way is not waited for.
    runtime.shutdown_background();
    ended
}

async fn show(args: &TopArgs) -> Result<(), TopError> {
    // Caught before the terminal is taken: from then on no signal may end the program by itself.
    let mut stops =
        [SignalKind::terminate(), SignalKind::interrupt(), SignalKind::hangup(), SignalKind::quit()]
            .into_iter()
            .map(signal)
            .collect::<io::Result<Vec<_>>>()?;
    let mut resized = signal(SignalKind::window_change())?;
    let mut screen = Screen::take(io::stdout())?;
    let mut keys_rx = read_keys()?;
    let mut due = interval(args.between());
    due.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut redraw = interval(REDRAW);
    let mut watch =
        Watch { args, readings: Readings::default(), page: Page::default(), asked: None, ordered: None };
    loop {
        let size = screen.size();
        screen.draw(&watch.page.lines(&watch.readings, size), size)?;
        tokio::select! {
            () = any(&mut stops) => return Ok(()),
            _ = resized.recv() => {}
            _ = redraw.tick() => {}
            _ = due.tick(), if watch.asked.is_none() => watch.ask(),
            answer = wait(&mut watch.asked) => watch.hear(answer),
            answer = wait(&mut watch.ordered) => watch.obeyed(answer),
            pressed = keys_rx.recv() => match pressed {
                // The terminal has gone.
                None => return Ok(()),
                Some(pressed) => {
                    for key in pressed {
                        if watch.press(key).is_end() {
                            return Ok(());
                        }
                    }
                }
            },
        }
    }
}

/// Keys, read by a thread of their own since reading a terminal blocks. `None` after its end.
fn read_keys() -> io::Result<mpsc::Receiver<Vec<Key>>> {
    let (keys_tx, keys_rx) = mpsc::channel(KEYS);
    thread::Builder::new().name("keys".to_owned()).spawn(move || {
        let mut bytes = [0; 256];
        while let Ok(read @ 1..) = io::stdin().read(&mut bytes) {
            if keys_tx.blocking_send(keys(bytes.get(..read).unwrap_or_default())).is_err() {
                break;
            }
        }
    })?;
    Ok(keys_rx)
}

async fn any(signals: &mut [tokio::signal::unix::Signal]) {
    std::future::poll_fn(|cx| {
        let is_there = signals.iter_mut().any(|signal| signal.poll_recv(cx).is_ready());
        if is_there { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
}

/// Waits for what is under way; for ever where nothing is.
async fn wait<T>(task: &mut Option<JoinHandle<T>>) -> Option<T> {
    let Some(running) = task.as_mut() else { return std::future::pending().await };
    let done = running.await.ok();
    *task = None;
    done
}

/// Whether to go on.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Next {
    Stay,
    End,
}

impl Next {
    const fn is_end(self) -> bool {
        matches!(self, Self::End)
    }
}

struct Watch<'a> {
    args: &'a TopArgs,
    readings: Readings,
    page: Page,
    asked: Option<JoinHandle<Result<Reading, CtlError>>>,
    ordered: Option<JoinHandle<Result<(), CtlError>>>,
}

impl Watch<'_> {
    fn ask(&mut self) {
        let (place, fleet) = (self.args.place.clone(), self.args.fleet);
        self.asked = Some(spawn_blocking(move || read(&place, fleet)));
    }

    fn hear(&mut self, answer: Option<Result<Reading, CtlError>>) {
        match answer {
            Some(Ok(reading)) => {
                self.page.trouble = None;
                self.readings.push(reading, Instant::now());
            }
            Some(Err(error)) => self.page.trouble = Some(error.to_string()),
            None => self.page.trouble = Some("the question was lost".to_owned()),
        }
    }

    fn obeyed(&mut self, answer: Option<Result<(), CtlError>>) {
        self.page.said = match answer {
            Some(Ok(())) => None,
            Some(Err(error)) => Some(error.to_string()),
            None => Some("the order was lost".to_owned()),
        };
        // What came of it is shown at once.
        if self.asked.is_none() {
            self.ask();
        }
    }

    fn press(&mut self, key: Key) -> Next {
        if key == Key::Interrupt {
            return Next::End;
        }
        if let Some(order) = self.page.asking.take() {
            if matches!(key, Key::Char('y' | 'Y') | Key::Enter) {
                self.order(order);
            }
            return Next::Stay;
        }
        if self.page.is_help {
            self.page.is_help = false;
            return if key == Key::Char('q') { Next::End } else { Next::Stay };
        }
        self.page.said = None;
        match key {
            Key::Char('q') => return Next::End,
            Key::Char('?' | 'h') => self.page.is_help = true,
            Key::Up | Key::Char('k') => self.page.select(&self.readings, -1),
            Key::Down | Key::Char('j') => self.page.select(&self.readings, 1),
            Key::Char('p') => match self.page.chosen(&self.readings) {
                Some(chosen) => self.page.asking = Some(chosen),
                None => self.page.said = Some("only what one agent mirrors can be paused here".to_owned()),
            },
            Key::Escape | Key::Enter | Key::Interrupt | Key::Char(_) => {}
        }
        Next::Stay
    }

    fn order(&mut self, chosen: Chosen) {
        if self.ordered.is_none() {
            let place = self.args.place.clone();
            self.ordered = Some(spawn_blocking(move || give(&place, &chosen)));
        }
    }
}

/// Pauses or resumes an experiment.
fn give(place: &PlaceArgs, chosen: &Chosen) -> Result<(), CtlError> {
    #[derive(Serialize)]
    struct Body<'b> {
        experiment: &'b str,
    }
    let path = if chosen.is_paused { "/v1/resume" } else { "/v1/pause" };
    ask(place, "POST", path, Some(&Body { experiment: &chosen.experiment })).map(drop)
}
