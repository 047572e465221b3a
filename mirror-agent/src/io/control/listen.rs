//! Enters: where to listen. Leaves: the listeners, which run until the returned value is let go.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context as _, Result, bail};
use tokio::{net::TcpListener, task::JoinHandle};
use tracing::{info, warn};

use super::{
    Control,
    door::Door,
    server::{Listening, serve_peers, serve_socket, serve_tcp},
    socket::ControlSocket,
    token::{Token, TokenFile},
};
use crate::io::{
    config::{ControlConfig, FleetConfig},
    fleet::{Fleet, FleetGauges},
};

/// Where `mirror-agent ctl` looks, and the agent listens if nothing is said.
pub const DEFAULT_SOCKET: &str = "/run/mirror-agent/control.sock";

/// The listeners of one run. Socket and token go with this value.
#[derive(Debug)]
pub struct Listeners {
    /// The address of the TCP listener, with the port that the kernel chose where 0 was asked for.
    pub tcp: Option<SocketAddr>,
    /// The same of the listener for other agents.
    pub fleet: Option<SocketAddr>,
    /// How the fleet was when it was last asked.
    pub fleet_gauges: Arc<FleetGauges>,
    tasks: Vec<JoinHandle<()>>,
    _token: Option<TokenFile>,
}

impl Listeners {
    /// Listens. Needs a tokio runtime.
    ///
    /// Where no socket is named, and the usual one cannot be had (another agent has it, the folder cannot be written),
    /// the agent runs without one.
    ///
    /// # Errors
    ///
    /// A socket or an address that was named cannot be had, or the token cannot.
    pub async fn start(config: &ControlConfig, control: &Control) -> Result<Self> {
        let socket_path = config.socket.as_deref().unwrap_or(Path::new(DEFAULT_SOCKET));
        let socket = match (ControlSocket::bind(socket_path), &config.socket) {
            (Ok(socket), _) => Some(socket),
            (Err(error), Some(_)) => {
                return Err(error).with_context(|| format!("control socket {}", socket_path.display()));
            }
            (Err(error), None) => {
                info!(%error, path = %socket_path.display(), "No control socket; name one with --control-socket.");
                None
            }
        };
        let mut listeners =
            Self { tcp: None, fleet: None, fleet_gauges: Arc::default(), tasks: Vec::new(), _token: None };
        let mut listening = None;
        let control = &match &config.fleet {
            Some(fleet) => listeners.join_fleet(fleet, control).await?,
            None => control.clone(),
        };
        if let Some(address) = config.listen {
            let token_path = socket.is_some().then(|| socket_path.with_extension("token"));
            let token_file = config.token_file.as_deref();
            listening = Some(listeners.listen(address, token_file, token_path, control).await?);
        }
        if let Some(socket) = socket {
            listeners.tasks.push(tokio::spawn(serve_socket(socket, listening, control.clone())));
        }
        Ok(listeners)
    }

    /// Answers other agents, and makes this one know of them.
    async fn join_fleet(&mut self, config: &FleetConfig, control: &Control) -> Result<Control> {
        let FleetConfig { listen, peers, token_file } = config;
        let token =
            Token::read(token_file).with_context(|| format!("fleet token in {}", token_file.display()))?;
        let door_token = token.clone();
        let fleet = Fleet::new(peers.clone(), token, Arc::clone(&self.fleet_gauges));
        let control = control.clone().among(Arc::new(fleet));
        if let Some(address) = *listen {
            let listener =
                TcpListener::bind(address).await.with_context(|| format!("fleet listener at {address}"))?;
            let bound = listener.local_addr().context("read the address of the fleet listener")?;
            let door = Arc::new(Door::new(&door_token, bound.port()));
            self.tasks.push(tokio::spawn(serve_peers(listener, door, control.clone())));
            info!(address = %bound, peers = peers.len(), "Other agents are answered.");
            self.fleet = Some(bound);
        }
        Ok(control)
    }

    async fn listen(
        &mut self,
        address: SocketAddr,
        token_file: Option<&Path>,
        token_path: Option<PathBuf>,
        control: &Control,
    ) -> Result<Listening> {
        let token = match (token_file, token_path) {
            (Some(path), _) => {
                Token::read(path).with_context(|| format!("control token in {}", path.display()))?
            }
            (None, _) if !address.ip().is_loopback() => {
                bail!("control listener at {address}: beyond loopback it needs a token file");
            }
            (None, None) => {
                bail!("control listener at {address}: without a control socket it needs a token file")
            }
            (None, Some(path)) => {
                let token = Token::random().context("make a control token")?;
                let written = token.write(&path);
                self._token =
                    Some(written.with_context(|| format!("write a control token to {}", path.display()))?);
                info!(path = %path.display(), "The token for the control listener is in this file.");
                token
            }
        };
        if !address.ip().is_loopback() {
            warn!(%address, "The control listener is open to the network, and its token goes unencrypted.");
        }
        let listener =
            TcpListener::bind(address).await.with_context(|| format!("control listener at {address}"))?;
        let bound = listener.local_addr().context("read the address of the control listener")?;
        let door = Arc::new(Door::new(&token, bound.port()));
        self.tasks.push(tokio::spawn(serve_tcp(listener, Arc::clone(&door), control.clone())));
        self.tcp = Some(bound);
        Ok(Listening { address: bound, door })
    }

    /// Listens no longer.
    pub async fn stop(mut self) {
        for task in std::mem::take(&mut self.tasks) {
            task.abort();
            // Its end is what was asked for; the socket's file goes with it.
            drop(task.await);
        }
    }
}

impl Drop for Listeners {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}
