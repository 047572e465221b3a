//! Enters: a file that holds a token, or nothing. Leaves: the token.

use std::{
    fmt, fs,
    io::{self, Read, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use rustix::rand::{GetRandomFlags, getrandom};
use thiserror::Error;

/// Least length of a token: 128 bits as hexadecimal digits.
const MIN_TOKEN_CHARS: usize = 32;

/// More than this is not a token but the wrong file.
const MAX_TOKEN_BYTES: u64 = 4096;

/// What whoever steers the agent over TCP has to know.
#[derive(Clone, Eq, PartialEq)]
pub struct Token(String);

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token")
    }
}

/// Why a file is not taken for a token.
#[derive(Debug, Error)]
pub enum TokenError {
    /// It cannot be read or written.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// Any user of the machine can read it.
    #[error("every user can read it (mode {mode:03o}); take that away with chmod o-rwx")]
    Readable {
        /// Its permissions.
        mode: u32,
    },
    /// It can be guessed.
    #[error("it has {chars} characters; a token has at least {MIN_TOKEN_CHARS}")]
    Short {
        /// How many it has.
        chars: usize,
    },
    /// It cannot stand in a header field.
    #[error("it has characters other than visible ASCII")]
    Characters,
    /// It is no token at all.
    #[error("it is no file with a single line of at most {MAX_TOKEN_BYTES} bytes")]
    NotOneLine,
}

impl Token {
    /// A token of 256 random bits.
    ///
    /// # Errors
    ///
    /// The kernel gives no random bytes.
    pub(super) fn random() -> io::Result<Self> {
        let mut bytes = [0; 32];
        let filled = getrandom(&mut bytes, GetRandomFlags::empty())?;
        if filled != bytes.len() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(Self(bytes.iter().map(|byte| format!("{byte:02x}")).collect()))
    }

    /// Reads a token from a file that not everybody may read.
    ///
    /// # Errors
    ///
    /// All variants of [`TokenError`].
    pub fn read(path: &Path) -> Result<Self, TokenError> {
        let file = fs::File::open(path)?;
        let meta = file.metadata()?;
        if !meta.is_file() || meta.len() > MAX_TOKEN_BYTES {
            return Err(TokenError::NotOneLine);
        }
        if meta.mode() & 0o007 != 0 {
            return Err(TokenError::Readable { mode: meta.mode() & 0o777 });
        }
        let mut text = String::new();
        file.take(MAX_TOKEN_BYTES).read_to_string(&mut text)?;
        let token = text.trim();
        if token.lines().count() > 1 {
            return Err(TokenError::NotOneLine);
        }
        if !token.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(TokenError::Characters);
        }
        if token.len() < MIN_TOKEN_CHARS {
            return Err(TokenError::Short { chars: token.len() });
        }
        Ok(Self(token.to_owned()))
    }

    /// Writes the token to a file for its owner alone, in place of what was there. The file goes with the returned
    /// value.
    ///
    /// # Errors
    ///
    /// The file cannot be written.
    pub(super) fn write(&self, path: &Path) -> io::Result<TokenFile> {
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        file.write_all(self.0.as_bytes())?;
        file.write_all(b"\n")?;
        Ok(TokenFile(path.to_owned()))
    }

    /// The token itself.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A file with a token that is good for this run only.
#[derive(Debug)]
pub(super) struct TokenFile(PathBuf);

impl Drop for TokenFile {
    fn drop(&mut self) {
        // A token that is left behind opens nothing.
        drop(fs::remove_file(&self.0));
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn token_file_has_to_be_long_and_private() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        let good = "0123456789abcdef0123456789abcdef";
        for (content, mode, is_good) in [
            (format!("{good}\n"), 0o600, true),
            (good.to_owned(), 0o440, true),
            (good.to_owned(), 0o644, false),
            (good.to_owned(), 0o602, false),
            (good[1..].to_owned(), 0o600, false),
            (format!("{good}\n{good}\n"), 0o600, false),
            (format!("{good} x"), 0o600, false),
            (format!("{good}é"), 0o600, false),
            ("x".repeat(5000), 0o600, false),
            (String::new(), 0o600, false),
        ] {
            fs::write(&path, &content).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(Token::read(&path).is_ok(), is_good, "{content:?} {mode:o}");
        }
        assert!(matches!(Token::read(folder.path()), Err(TokenError::NotOneLine)));
    }

    #[test]
    fn token_of_a_run_is_private_and_goes_with_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("control.token");
        fs::write(&path, "old").unwrap();
        let token = Token::random().unwrap();
        assert_ne!(token, Token::random().unwrap());
        let file = token.write(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert_eq!(Token::read(&path).unwrap(), token);
        drop(file);
        assert!(!path.exists());
    }
}
