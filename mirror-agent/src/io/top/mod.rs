//! Enters: what a running agent says, again and again. Leaves: the essential part of it on a terminal.
//!
//! A reading (`reading`) is asked for like `ctl` does; two of them make a frame of text (`frame`, `fleet`); the terminal
//! (`screen`) is drawn on and given back however the program ends; `live` waits for keys (`keys`), signals and readings.

mod fleet;
mod frame;
mod keys;
mod live;
mod reading;
mod screen;
#[cfg(test)]
mod tests;

use std::{
    io::{self, IsTerminal, Write},
    thread::sleep,
    time::{Duration, Instant},
};

use clap::Args;
use thiserror::Error;

pub use self::screen::ScreenError;
use self::{
    frame::{Line, Page, Size},
    reading::{Readings, read},
};
use crate::io::{
    control::ctl::{CtlError, PlaceArgs},
    units::parse_duration,
};

/// Options of `top`.
#[derive(Args, Clone, Debug)]
pub struct TopArgs {
    /// A line for each agent, and what all of them know together.
    #[arg(long)]
    pub fleet: bool,

    /// How often the agent is asked; 100ms at least, with --fleet 2s.
    #[arg(long, default_value = "2s", value_name = "TIME", value_parser = parse_duration)]
    pub interval: Duration,

    /// Print one page as plain text and end. It takes the time of --interval, since rates need two readings. Done so also
    /// where there is no terminal.
    #[arg(long)]
    pub once: bool,

    /// Where the agent is asked.
    #[command(flatten)]
    pub place: PlaceArgs,
}

impl TopArgs {
    /// The time between two readings: other agents are asked once a second at most.
    fn between(&self) -> Duration {
        self.interval.max(if self.fleet { Duration::from_secs(2) } else { Duration::from_millis(100) })
    }
}

/// Why nothing can be shown.
#[derive(Debug, Error)]
pub enum TopError {
    /// The agent does not answer.
    #[error(transparent)]
    Ctl(#[from] CtlError),
    /// The terminal cannot be drawn on.
    #[error(transparent)]
    Screen(#[from] ScreenError),
    /// Output cannot be written, or signals not be caught.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Shows how things are until somebody has seen enough.
///
/// # Errors
///
/// All variants of [`TopError`].
pub fn run(args: &TopArgs) -> Result<(), TopError> {
    if args.once || !io::stdin().is_terminal() || !io::stdout().is_terminal() {
        return once(args, &mut io::stdout());
    }
    live::run(args)
}

/// Prints one page.
fn once(args: &TopArgs, out: &mut impl Write) -> Result<(), TopError> {
    let mut readings = Readings::default();
    readings.push(read(&args.place, args.fleet)?, Instant::now());
    sleep(args.between());
    readings.push(read(&args.place, args.fleet)?, Instant::now());
    for Line { text, .. } in Page::default().lines(&readings, Size::UNBOUNDED) {
        writeln!(out, "{}", text.trim_end())?;
    }
    Ok(())
}
