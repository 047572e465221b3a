//! Enters: a host. Leaves: nginx on it, as the live service, with its own count of requests.

use std::{
    fmt::Write as _,
    fs::File,
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    path::Path,
    process::{Child, Stdio},
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, bail};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tempfile::TempDir;

use crate::{netns::Host, server::JSON};

/// Where the counter is read; loopback only, so that nobody captures it.
const STATUS_PORT: u16 = 9478;

/// A running nginx; killed when dropped.
#[derive(Debug)]
pub struct Nginx {
    child: Child,
    /// How often the counter was read: each reading is a request too.
    readings: AtomicU64,
    _directory: TempDir,
}

impl Nginx {
    /// Where the program is, if it is there.
    #[must_use]
    pub fn program() -> Option<&'static Path> {
        ["/usr/sbin/nginx", "/usr/bin/nginx", "/usr/local/sbin/nginx"]
            .into_iter()
            .map(Path::new)
            .find(|path| path.exists())
    }

    /// Starts nginx on a port of all addresses of the host, answering everything with 1 KB of JSON.
    ///
    /// # Errors
    ///
    /// nginx is not installed, or does not answer within five seconds.
    pub fn start(host: &Host, port: u16, workers: u32) -> Result<Self> {
        let program = Self::program().context("nginx is not installed (package nginx-light)")?;
        let directory = tempfile::Builder::new().prefix("mirror-nginx-").tempdir()?;
        let path = directory.path();
        let file = path.join("nginx.conf");
        File::create(&file)?.write_all(configuration(path, port, workers)?.as_bytes())?;
        let child = host
            .command(program)
            .arg("-p")
            .arg(path)
            .arg("-c")
            .arg(&file)
            .arg("-e")
            .arg(path.join("error.log"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("start nginx")?;
        let nginx = Self { child, readings: AtomicU64::new(0), _directory: directory };
        let deadline = Instant::now() + Duration::from_secs(5);
        loop {
            match nginx.requests(host) {
                Ok(_) => return Ok(nginx),
                Err(error) if Instant::now() > deadline => return Err(error.context("nginx does not answer")),
                Err(_) => thread::sleep(Duration::from_millis(20)),
            }
        }
    }

    /// Requests that nginx has begun to read, without the readings of this counter.
    ///
    /// # Errors
    ///
    /// The counter cannot be read.
    pub fn requests(&self, host: &Host) -> Result<u64> {
        let mut stream = host.within(|| {
            let address = SocketAddr::from((Ipv4Addr::LOCALHOST, STATUS_PORT));
            Ok(TcpStream::connect_timeout(&address, Duration::from_secs(1))?)
        })?;
        stream.set_read_timeout(Some(Duration::from_secs(2)))?;
        stream.write_all(b"GET /status HTTP/1.0\r\n\r\n")?;
        let readings = self.readings.fetch_add(1, Ordering::Relaxed) + 1;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        // " accepts handled requests" is the label; the three figures stand in the next line.
        let mut lines = answer.lines().skip_while(|line| !line.contains("accepts handled requests"));
        let requests: u64 = lines
            .nth(1)
            .and_then(|line| line.split_ascii_whitespace().nth(2))
            .and_then(|figure| figure.parse().ok())
            .ok_or_else(|| anyhow!("no counter in {answer:?}"))?;
        match requests.checked_sub(readings) {
            Some(requests) => Ok(requests),
            None => bail!("{requests} requests after {readings} readings"),
        }
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // SIGTERM to the master, so that it takes its workers along.
        if let Ok(pid) = i32::try_from(self.child.id()) {
            kill(Pid::from_raw(pid), Signal::SIGTERM).ok();
        }
        let deadline = Instant::now() + Duration::from_secs(2);
        while Instant::now() < deadline {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            thread::sleep(Duration::from_millis(10));
        }
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// The configuration file.
fn configuration(directory: &Path, port: u16, workers: u32) -> Result<String> {
    let body = String::from_utf8_lossy(JSON);
    let directory = directory.display();
    let mut text = format!(
        "daemon off;\nuser root;\nworker_processes {workers};\npid {directory}/pid;\nworker_rlimit_nofile 16384;\n\
         events {{ worker_connections 16000; }}\nhttp {{\n  access_log off;\n  default_type application/json;\n  \
         keepalive_requests 100000000;\n  keepalive_timeout 300s;\n  client_max_body_size 64m;\n"
    );
    for temporary in ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"] {
        writeln!(text, "  {temporary}_temp_path {directory}/{temporary};")?;
    }
    writeln!(
        text,
        "  server {{\n    listen [::]:{port} ipv6only=off backlog=4096;\n    location / {{ return 200 '{body}'; }}\n  }}\n  \
         server {{\n    listen 127.0.0.1:{STATUS_PORT};\n    location / {{ stub_status; }}\n  }}\n}}"
    )?;
    Ok(text)
}
