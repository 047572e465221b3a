//! Enters: what is installed. Leaves: the mirrors of other programs that can be measured without being asked for.

use std::{env, fs, path::Path};

use anyhow::{Context, Result};
use mirror_tests::nginx::Nginx;

use super::{Peer, running::ENTRY_PORT};
use crate::trial::{CONNECTIONS, PORT, Stage};

/// The peers whose program is here, and for each other one why it is left out. Their files lie in `folder`.
pub(super) fn peers(stage: &Stage, folder: &Path) -> Result<(Vec<Peer>, Vec<String>)> {
    let (mut peers, mut missing) = (Vec::new(), Vec::new());
    let place = folder.display();
    match Nginx::program() {
        Some(program) => {
            write(folder, "nginx.conf", &nginx(stage, folder))?;
            let program = program.display();
            let start = format!("exec {program} -p {place} -c {place}/nginx.conf -e {place}/error.log");
            peers.push(Peer { name: "nginx mirror".to_owned(), start, stop: None });
        }
        None => missing.push("nginx mirror: not installed.".to_owned()),
    }
    if on_path("envoy") {
        write(folder, "envoy.yaml", &envoy(stage))?;
        let start =
            format!("exec envoy -c {place}/envoy.yaml --concurrency 1 --log-level off --disable-hot-restart");
        peers.push(Peer { name: "Envoy".to_owned(), start, stop: None });
    } else {
        missing.push("Envoy: no `envoy` on the PATH.".to_owned());
    }
    Ok((peers, missing))
}

fn write(folder: &Path, name: &str, text: &str) -> Result<()> {
    let path = folder.join(name);
    fs::write(&path, text).with_context(|| format!("write {}", path.display()))
}

fn on_path(program: &str) -> bool {
    env::var_os("PATH")
        .is_some_and(|path| env::split_paths(&path).any(|folder| folder.join(program).is_file()))
}

/// One worker, as live has; connections to both sides are kept.
fn nginx(stage: &Stage, folder: &Path) -> String {
    let (live, shadow) = (stage.net.live.at_v4(PORT), stage.net.shadow.at_v4(PORT));
    let place = folder.display();
    let temporaries = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];
    let temporaries = temporaries.map(|kind| format!("  {kind}_temp_path {place}/{kind};\n")).concat();
    format!(
        "daemon off;\nuser root;\nworker_processes 1;\npid {place}/pid;\nevents {{ worker_connections 8192; }}\nhttp {{\n  \
         access_log off;\n  keepalive_requests 100000000;\n  keepalive_timeout 300s;\n  client_max_body_size 64m;\n  \
         client_body_buffer_size 2m;\n{temporaries}  \
         upstream live {{ server {live}; keepalive {CONNECTIONS}; keepalive_requests 100000000; }}\n  \
         upstream shadow {{ server {shadow}; keepalive {CONNECTIONS}; keepalive_requests 100000000; }}\n  \
         proxy_http_version 1.1;\n  proxy_set_header Connection \"\";\n  proxy_set_header Host $http_host;\n  \
         server {{\n    listen 0.0.0.0:{ENTRY_PORT} backlog=4096;\n    \
         location / {{ mirror /mirror; mirror_request_body on; proxy_pass http://live; }}\n    \
         location = /mirror {{ internal; proxy_pass http://shadow$request_uri; }}\n  }}\n}}\n"
    )
}

/// One worker, and no limits that would keep copies back.
fn envoy(stage: &Stage) -> String {
    let cluster = |name: &str, host: std::net::Ipv4Addr| {
        format!(
            "  - name: {name}
    type: STATIC
    connect_timeout: 1s
    circuit_breakers:
      thresholds: [{{ max_connections: 100000, max_pending_requests: 100000, max_requests: 100000 }}]
    load_assignment:
      cluster_name: {name}
      endpoints:
      - lb_endpoints:
        - endpoint: {{ address: {{ socket_address: {{ address: {host}, port_value: {PORT} }} }} }}
"
        )
    };
    format!(
        "static_resources:
  listeners:
  - address: {{ socket_address: {{ address: 0.0.0.0, port_value: {ENTRY_PORT} }} }}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          \"@type\": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: entry
          route_config:
            virtual_hosts:
            - name: all
              domains: [\"*\"]
              routes:
              - match: {{ prefix: / }}
                route:
                  cluster: live
                  request_mirror_policies: [{{ cluster: shadow }}]
          http_filters:
          - name: envoy.filters.http.router
            typed_config:
              \"@type\": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router
  clusters:
{}{}",
        cluster("live", stage.net.live.v4),
        cluster("shadow", stage.net.shadow.v4)
    )
}
