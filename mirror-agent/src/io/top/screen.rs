//! Enters: lines. Leaves: a terminal that shows them, and that is as it was before however the program ends.
//!
//! Only a program that is killed outright (SIGKILL) cannot give it back; `reset` does then.

use std::{
    fs::File,
    io::{self, Write},
    os::fd::AsFd,
    panic,
    sync::{Arc, Mutex, PoisonError},
};

use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};
use thiserror::Error;

use super::frame::{Line, Size, Style};

/// Another screen, no cursor, and lines that are cut off where they are too long.
const ENTER: &[u8] = b"\x1b[?1049h\x1b[?25l\x1b[?7l\x1b[2J";

/// All of that undone, and no more colours.
const LEAVE: &[u8] = b"\x1b[0m\x1b[?7h\x1b[?25h\x1b[?1049l";

/// Why there is nothing to draw on.
#[derive(Debug, Error)]
pub enum ScreenError {
    /// It is no terminal, or has gone.
    #[error("the terminal")]
    Terminal(#[from] io::Error),
}

impl From<rustix::io::Errno> for ScreenError {
    fn from(error: rustix::io::Errno) -> Self {
        Self::Terminal(error.into())
    }
}

/// A terminal in raw mode, given back when this is let go.
#[derive(Debug)]
pub(super) struct Screen {
    terminal: File,
    saved: Arc<Saved>,
    drawn: Vec<u8>,
}

/// How the terminal was; `None` once it has been given back.
#[derive(Debug)]
struct Saved(Mutex<Option<(File, Termios)>>);

impl Saved {
    fn restore(&self) {
        let Some((mut terminal, mode)) = self.0.lock().unwrap_or_else(PoisonError::into_inner).take() else {
            return;
        };
        // A terminal that has gone needs nothing back.
        drop(terminal.write_all(LEAVE));
        drop(tcsetattr(&terminal, OptionalActions::Now, &mode).map_err(io::Error::from));
    }
}

impl Screen {
    /// Takes the terminal over. A panic gives it back before it says what happened.
    pub(super) fn take(terminal: impl AsFd) -> Result<Self, ScreenError> {
        let duplicate = || terminal.as_fd().try_clone_to_owned().map(File::from);
        let mode = tcgetattr(&terminal)?;
        let saved = Arc::new(Saved(Mutex::new(Some((duplicate()?, mode.clone())))));
        let mut screen = Self { terminal: duplicate()?, saved, drawn: Vec::new() };
        let mut raw = mode;
        raw.make_raw();
        tcsetattr(&screen.terminal, OptionalActions::Now, &raw)?;
        screen.terminal.write_all(ENTER)?;
        let (saved, before) = (Arc::clone(&screen.saved), panic::take_hook());
        panic::set_hook(Box::new(move |info| {
            saved.restore();
            before(info);
        }));
        Ok(screen)
    }

    /// How large it is now; what a terminal has that does not say.
    pub(super) fn size(&self) -> Size {
        let said = tcgetwinsize(&self.terminal).ok().filter(|size| size.ws_col > 0 && size.ws_row > 0);
        said.map_or(Size { columns: 80, rows: 24 }, |size| Size {
            columns: usize::from(size.ws_col),
            rows: usize::from(size.ws_row),
        })
    }

    /// Shows these lines and nothing else, in one write.
    pub(super) fn draw(&mut self, lines: &[Line], size: Size) -> Result<(), ScreenError> {
        self.drawn.clear();
        self.drawn.extend_from_slice(b"\x1b[H");
        for (number, Line { text, style }) in lines.iter().take(size.rows).enumerate() {
            if number > 0 {
                self.drawn.extend_from_slice(b"\r\n");
            }
            self.drawn.extend_from_slice(sequence(*style));
            self.drawn.extend_from_slice(text.as_bytes());
            self.drawn.extend_from_slice(b"\x1b[0m\x1b[K");
        }
        self.drawn.extend_from_slice(b"\x1b[J");
        self.terminal.write_all(&self.drawn)?;
        Ok(())
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        self.saved.restore();
    }
}

const fn sequence(style: Style) -> &'static [u8] {
    match style {
        Style::Plain => b"",
        Style::Head => b"\x1b[1m",
        Style::Selected => b"\x1b[7m",
        Style::Alarm => b"\x1b[1;31m",
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use rustix::{
        pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
        termios::LocalModes,
    };

    use super::*;

    /// Both ends of a terminal of nobody's.
    fn terminal() -> (File, File) {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let name = ptsname(&master, Vec::new()).unwrap().into_string().unwrap();
        let slave = File::options().read(true).write(true).open(name).unwrap();
        (File::from(master), slave)
    }

    fn is_raw(terminal: &File) -> bool {
        !tcgetattr(terminal).unwrap().local_modes.contains(LocalModes::ECHO)
    }

    fn written(mut master: &File) -> String {
        let mut bytes = [0; 4096];
        let read = master.read(&mut bytes).unwrap();
        String::from_utf8_lossy(&bytes[..read]).into_owned()
    }

    #[test]
    fn terminal_is_given_back_after_a_panic_before_it_is_told() {
        let (master, slave) = terminal();
        let told = std::thread::spawn(move || {
            let mut screen = Screen::take(&slave).unwrap();
            assert!(is_raw(&slave));
            let line = Line { text: "all is well".to_owned(), style: Style::Head };
            screen.draw(&[line], Size { columns: 80, rows: 24 }).unwrap();
            let saved = Arc::clone(&screen.saved);
            let panicked = panic::catch_unwind(panic::AssertUnwindSafe(|| {
                let _screen = screen;
                panic!("this panic is a test");
            }));
            assert!(panicked.is_err());
            assert!(saved.0.lock().unwrap().is_none());
            assert!(!is_raw(&slave));
            slave
        });
        let slave = told.join().unwrap();
        let shown = written(&master);
        let leave = shown.find("\x1b[?1049l").unwrap();
        assert!(shown.find("all is well").unwrap() < leave && shown.contains("\x1b[?25h"), "{shown:?}");
        drop(slave);
        drop(panic::take_hook());
    }

    #[test]
    fn what_is_no_terminal_is_refused() {
        let file = tempfile::tempfile().unwrap();
        assert!(Screen::take(&file).is_err());
    }
}
