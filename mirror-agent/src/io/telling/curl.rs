//! Enters: a request as it is kept. Leaves: the same as a command for a shell, which whoever pastes it can trust.
//!
//! The request is somebody else's text. In the command it is inert: to the terminal it is pasted into (no control
//! character, nothing that is not ASCII), to the shell (each value is one quoted word) and to curl, which takes no value
//! for an option, a file or a pattern.

use std::fmt::Write as _;

use serde_json::Value;

use super::show::{list, text_of};

/// Header fields that curl makes itself, from the URL and the content.
const MADE_BY_CURL: [&str; 4] = ["host", "content-length", "transfer-encoding", "connection"];

/// The request as a command for bash or zsh; what was redacted is redacted in it, too.
pub(super) fn curl(request: &Value) -> String {
    let mut words = text_of(&request["line"]).split(' ');
    let (method, target) = (words.next().unwrap_or("GET"), words.next().unwrap_or("/"));
    let headers = || list(&request["headers"]).map(|header| (text_of(&header[0]), text_of(&header[1])));
    let host = headers().find(|(name, _)| name.eq_ignore_ascii_case("host")).map(|(_, value)| value);
    let place = host.filter(|host| is_host(host));
    let url = match target.starts_with("http://") || target.starts_with("https://") {
        true => target.to_owned(),
        false if target.starts_with('/') => format!("http://{}{target}", place.unwrap_or("HOST")),
        false => format!("http://{}/{target}", place.unwrap_or("HOST")),
    };
    // Brackets and braces of the URL are no pattern, and `..` in it is left.
    let mut command = String::from("curl --globoff --path-as-is ");
    // Of the answer to a HEAD curl would wait for the content.
    let method = if method == "HEAD" { "--head".to_owned() } else { format!("-X {}", quoted(method)) };
    // Writing to a string does not fail.
    let _written = write!(command, "{method} --url {}", quoted(&url));
    if let (Some(host), None) = (host, place) {
        let _written = write!(command, " \\\n  -H {}", quoted(&format!("Host: {host}")));
    }
    let is_left = |name: &str| MADE_BY_CURL.iter().any(|left| name.eq_ignore_ascii_case(left));
    for (name, value) in headers().filter(|(name, _)| !is_left(name) && is_token(name)) {
        // To curl `Name:` means that the field is not to be sent, `Name;` that it is empty.
        let field = if value.trim().is_empty() { format!("{name};") } else { format!("{name}: {value}") };
        let _written = write!(command, " \\\n  -H {}", quoted(&field));
    }
    if let Some(text) = request["content"]["text"].as_str() {
        // Unlike `--data`, it takes no `@` for a file.
        let _written = write!(command, " \\\n  --data-raw {}", quoted(text));
    }
    command
}

/// A word for a shell, in which nothing means anything: for any shell where it is all printable ASCII, else for those that
/// know `$'…'`.
pub(super) fn quoted(text: &str) -> String {
    if text.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
        return format!("'{}'", text.replace('\'', "'\\''"));
    }
    let mut word = String::from("$'");
    for byte in text.bytes() {
        match byte {
            // No argument of a program can hold it.
            0 => word.push_str("%00"),
            // The history of an interactive shell would take it for its own.
            b'!' | b'\'' | b'\\' => {
                let _written = write!(word, "\\x{byte:02x}");
            }
            b' '..=b'~' => word.push(char::from(byte)),
            _ => {
                // Three octal digits at most, so that no digit behind belongs to it.
                let _written = write!(word, "\\{byte:03o}");
            }
        }
    }
    word.push('\'');
    word
}

/// Whether this can only be a host, maybe with a port.
fn is_host(text: &str) -> bool {
    let is_fit =
        |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_' | b':' | b'[' | b']');
    !text.is_empty() && text.bytes().all(is_fit)
}

/// RFC 9110 section 5.6.2.
fn is_token(name: &str) -> bool {
    let is_fit = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !name.is_empty() && name.bytes().all(is_fit)
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt, process::Command};

    use serde_json::json;

    use super::*;

    #[test]
    fn request_is_a_command_for_a_shell() {
        let request = json!({
            "line": "POST /a?b=c HTTP/1.1",
            "headers": [["Host", "live:80"], ["X-A", "it's"], ["X-Empty", ""], ["Content-Length", "3"]],
            "content": { "kind": "text", "text": "{\"a\":1}" },
        });
        assert_eq!(
            curl(&request),
            "curl --globoff --path-as-is -X 'POST' --url 'http://live:80/a?b=c' \\\n  -H 'X-A: it'\\''s' \\\n  \
             -H 'X-Empty;' \\\n  --data-raw '{\"a\":1}'"
        );
    }

    /// Texts by which whoever wrote them would have something run, read or hidden.
    const HOSTILE: [&str; 14] = [
        "'; touch owned; '",
        "$(touch owned)",
        "`touch owned`",
        "\"; touch owned; \"",
        "\\'; touch owned #",
        "a\n touch owned\n",
        "a\r\ntouch owned\r\n",
        "\u{1b}[201~touch owned\u{d}",
        "!!:s/a/touch/ !touch",
        "@/etc/passwd",
        "-o owned",
        "{a,b}[1-9]*?~",
        "\u{202e}denwo hcuot\u{2066}é\u{7f}\u{9b}",
        "&& touch owned | touch owned > owned < owned",
    ];

    /// Runs a command in a shell whose `curl` writes down its arguments; gives them.
    fn run(shell: &str, command: &str) -> Vec<String> {
        let folder = tempfile::tempdir().unwrap();
        let stub = folder.path().join("curl");
        fs::write(&stub, "#!/bin/sh\nprintf '%s\\0' \"$@\" > arguments\n").unwrap();
        fs::set_permissions(&stub, fs::Permissions::from_mode(0o755)).unwrap();
        let path = format!("{}:/usr/bin:/bin", folder.path().display());
        let output = Command::new(shell)
            .args(["-c", command])
            .current_dir(&folder)
            .env("PATH", path)
            .output()
            .unwrap();
        assert!(output.status.success() && output.stderr.is_empty(), "{output:?}\n{command}");
        let mut files: Vec<_> =
            fs::read_dir(folder.path()).unwrap().map(|file| file.unwrap().file_name()).collect();
        files.sort();
        assert_eq!(files, ["arguments", "curl"], "{command}");
        let arguments = fs::read_to_string(folder.path().join("arguments")).unwrap();
        arguments.split_terminator('\0').map(str::to_owned).collect()
    }

    #[test]
    fn hostile_values_reach_curl_as_they_are_and_nothing_else_runs() {
        if Command::new("bash").arg("-c").arg(":").output().is_err() {
            println!("SKIPPED: needs bash");
            return;
        }
        for evil in HOSTILE {
            let word = evil.replace(' ', "+");
            let request = json!({
                "line": format!("{word} /{word} HTTP/1.1"),
                "headers": [["Host", evil], ["X-Evil", evil], [evil, "x"]],
                "content": { "kind": "text", "text": evil },
            });
            let command = curl(&request);
            let is_inert = |byte: u8| matches!(byte, b' '..=b'~') || byte == b'\n';
            assert!(command.bytes().all(is_inert), "{command:?}");
            let arguments = run("bash", &command);
            let expected = [
                "--globoff",
                "--path-as-is",
                "-X",
                &word,
                "--url",
                &format!("http://HOST/{word}"),
                "-H",
                &format!("Host: {evil}"),
                "-H",
                &format!("X-Evil: {evil}"),
                "--data-raw",
                evil,
            ];
            assert_eq!(arguments, expected, "{command}");
        }
    }

    #[test]
    fn plain_values_do_in_any_shell() {
        let text = "it's $HOME `a` \"b\" \\ !x";
        let command = format!("curl {}", quoted(text));
        assert_eq!(run("sh", &command), [text]);
    }
}
