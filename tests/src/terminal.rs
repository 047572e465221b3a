//! Enters: a program. Leaves: what it draws on a terminal, and what becomes of the terminal.

use std::{
    fs::File,
    io::{Read, Write},
    os::fd::{AsFd, OwnedFd},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use nix::{
    pty::{Winsize, openpty},
    sys::{
        signal::{Signal, kill},
        termios::{LocalFlags, tcgetattr},
    },
    unistd::Pid,
};

/// How long something may take to appear.
const PATIENCE: Duration = Duration::from_secs(20);

/// Where a program begins to draw anew.
const HOME: &str = "\x1b[H";

/// What leaves the other screen of a terminal.
const LEAVE: &str = "\x1b[?1049l";

/// A program on a terminal of its own; killed when dropped.
#[derive(Debug)]
pub struct Terminal {
    child: Child,
    keys: File,
    slave: OwnedFd,
    shown: Arc<Mutex<Vec<u8>>>,
}

impl Terminal {
    /// Starts a program on a terminal of this size.
    ///
    /// # Errors
    ///
    /// There is no terminal, or the program cannot be started.
    pub fn start(mut command: Command, columns: u16, rows: u16) -> Result<Self> {
        let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        let pty = openpty(Some(&size), None).context("open a terminal")?;
        let end = || -> Result<Stdio> { Ok(Stdio::from(pty.slave.try_clone()?)) };
        let child =
            command.stdin(end()?).stdout(end()?).stderr(end()?).spawn().context("start the program")?;
        let (keys, mut drawn) = (File::from(pty.master.try_clone()?), File::from(pty.master));
        let shown = Arc::<Mutex<Vec<u8>>>::default();
        let seen = Arc::clone(&shown);
        // Ends with the terminal.
        thread::spawn(move || {
            let mut bytes = [0; 65536];
            while let Ok(read @ 1..) = drawn.read(&mut bytes) {
                seen.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(&bytes[..read]);
            }
        });
        Ok(Self { child, keys, slave: pty.slave, shown })
    }

    /// Presses keys.
    ///
    /// # Errors
    ///
    /// The terminal has gone.
    pub fn press(&mut self, keys: &str) -> Result<()> {
        Ok(self.keys.write_all(keys.as_bytes())?)
    }

    /// Makes the terminal another size and says so, as terminals do.
    ///
    /// # Errors
    ///
    /// `stty` cannot be run, or the program has ended.
    pub fn resize(&self, columns: u16, rows: u16) -> Result<()> {
        let status = Command::new("stty")
            .args(["cols", &columns.to_string(), "rows", &rows.to_string()])
            .stdin(Stdio::from(self.slave.try_clone()?))
            .status()
            .context("run stty")?;
        ensure!(status.success(), "stty: {status}");
        self.signal(Signal::SIGWINCH)
    }

    /// Sends a signal.
    ///
    /// # Errors
    ///
    /// The program has ended.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        Ok(kill(Pid::from_raw(i32::try_from(self.child.id())?), signal)?)
    }

    /// All that was drawn so far.
    #[must_use]
    pub fn shown(&self) -> String {
        let shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&shown).into_owned()
    }

    /// The lines of the latest page that was drawn whole, without colours.
    #[must_use]
    pub fn page(&self) -> Vec<String> {
        let shown = self.shown();
        let pages: Vec<_> = shown.split(HOME).collect();
        let whole = pages.iter().rev().find(|page| page.contains("\x1b[J")).copied().unwrap_or_default();
        whole.split("\r\n").map(plain).collect()
    }

    /// Waits for a page that fulfils a condition, and returns it.
    ///
    /// # Errors
    ///
    /// None does in time; the latest one is in the error.
    pub fn wait_for(&mut self, what: &str, is_it: impl Fn(&[String]) -> bool) -> Result<Vec<String>> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let page = self.page();
            if is_it(&page) {
                return Ok(page);
            }
            if let Some(status) = self.child.try_wait()? {
                bail!("no {what}: it ended with {status}:\n{}", self.shown());
            }
            if Instant::now() > deadline {
                bail!("no {what} on\n{}", page.join("\n"));
            }
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits for a page with this text.
    ///
    /// # Errors
    ///
    /// None has it in time.
    pub fn wait_for_text(&mut self, text: &str) -> Result<Vec<String>> {
        self.wait_for(text, |page| page.iter().any(|line| line.contains(text)))
    }

    /// Waits for the end of the program; asserts that the terminal is as it was before.
    ///
    /// # Errors
    ///
    /// It does not end, or leaves the terminal in another state.
    pub fn end(mut self) -> Result<ExitStatus> {
        let deadline = Instant::now() + PATIENCE;
        let status = loop {
            match self.child.try_wait()? {
                Some(status) => break status,
                None if Instant::now() > deadline => bail!("it does not end"),
                None => thread::sleep(Duration::from_millis(5)),
            }
        };
        let modes = tcgetattr(self.slave.as_fd())?.local_flags;
        ensure!(modes.contains(LocalFlags::ECHO | LocalFlags::ICANON | LocalFlags::ISIG), "{modes:?}");
        thread::sleep(Duration::from_millis(100));
        let shown = self.shown();
        ensure!(
            shown.ends_with(LEAVE) && shown.contains("\x1b[?25h"),
            "{:?}",
            &shown[shown.len().min(200)..]
        );
        Ok(status)
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// A line without what changes colours and erases.
fn plain(line: &str) -> String {
    let mut text = String::new();
    let mut rest = line;
    while let Some((before, sequence)) = rest.split_once("\x1b[") {
        text.push_str(before);
        let end =
            sequence.find(|symbol: char| symbol.is_ascii_alphabetic()).map_or(sequence.len(), |end| end + 1);
        rest = &sequence[end..];
    }
    text + rest
}
