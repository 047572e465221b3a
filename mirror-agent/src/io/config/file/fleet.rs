//! Enters: nothing. Leaves: the shape of what a file says of the other agents.

use std::{borrow::Cow, path::PathBuf};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{
    Deserialize,
    de::{self, Deserializer, IntoDeserializer, SeqAccess, Visitor},
};

use super::values::{Listen, Peer};
use crate::io::config::{FleetConfig, PeerConfig};

/// The agents that are asked together.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct FleetFile {
    /// Address and port where this agent answers the others; it only asks where nothing is said.
    listen: Option<Listen>,
    /// Who is asked: HOST:PORT, or dns:HOST:PORT for all addresses of a name; a list where there are several.
    #[serde(default)]
    peers: PeersFile,
    /// The file that holds the token which all of them share; not that of `control.tokenFile`.
    token_file: PathBuf,
}

impl From<FleetFile> for FleetConfig {
    fn from(file: FleetFile) -> Self {
        let FleetFile { listen, peers: PeersFile(peers), token_file } = file;
        let peers = peers.into_iter().map(|peer| peer.0).collect();
        Self { listen: listen.map(|listen| listen.0), peers, token_file }
    }
}

/// A peer, or a list of them.
#[derive(Debug, Default)]
struct PeersFile(Vec<Peer>);

impl JsonSchema for PeersFile {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Peers".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let peer = generator.subschema_for::<Peer>();
        json_schema!({ "anyOf": [peer, { "type": "array", "items": peer }] })
    }
}

impl<'de> Deserialize<'de> for PeersFile {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct PeersVisitor;

        impl<'de> Visitor<'de> for PeersVisitor {
            type Value = PeersFile;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("HOST:PORT, dns:HOST:PORT, or a list of these")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<PeersFile, E> {
                Ok(PeersFile(vec![Peer::deserialize(text.into_deserializer())?]))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, items: A) -> Result<PeersFile, A::Error> {
                Vec::deserialize(de::value::SeqAccessDeserializer::new(items)).map(PeersFile)
            }
        }

        deserializer.deserialize_any(PeersVisitor)
    }
}

/// Understands a peer as it is written.
pub(super) fn peer(text: &str) -> Result<PeerConfig, String> {
    let (host, make): (_, fn(String) -> PeerConfig) =
        text.strip_prefix("dns:").map_or((text, PeerConfig::One), |host| (host, PeerConfig::All));
    super::words::broker(host)
        .map(make)
        .map_err(|_error| format!("{text:?} is no peer; expected HOST:PORT or dns:HOST:PORT"))
}

#[cfg(test)]
mod tests {
    use super::{super::tests::minimal, *};
    use crate::io::config::parse;

    fn fleet(text: &str) -> Result<FleetConfig, String> {
        let yaml = format!("{}control: {{ fleet: {text} }}\n", minimal());
        let config = parse(&yaml, "f", None).map_err(|faults| faults.to_string())?;
        config.control.fleet.ok_or_else(|| "nothing is said".to_owned())
    }

    #[test]
    fn peers_are_one_or_several() {
        let one =
            fleet("{ listen: '10.0.0.1:9479', peers: 'dns:agents.mirror.svc:9479', tokenFile: /t }").unwrap();
        assert_eq!(one.listen, Some("10.0.0.1:9479".parse().unwrap()));
        assert_eq!(one.peers, [PeerConfig::All("agents.mirror.svc:9479".to_owned())]);
        let several = fleet("{ peers: ['10.0.0.1:1', '[fd00::1]:2', 'dns:a:3'], tokenFile: /t }").unwrap();
        assert_eq!(several.peers.len(), 3);
        assert_eq!(
            (several.peers[0].clone(), several.listen),
            (PeerConfig::One("10.0.0.1:1".to_owned()), None)
        );
        assert_eq!(fleet("{ tokenFile: /t }").unwrap().peers, []);
    }

    #[test]
    fn what_is_no_peer_is_said() {
        for wrong in ["'dns:agents'", "agents", "'http://a:1'", "['a:1', 'a b:1']", "'dns:'", "7"] {
            let error = fleet(&format!("{{ peers: {wrong}, tokenFile: /t }}")).unwrap_err();
            assert!(error.contains("HOST:PORT"), "{wrong}: {error}");
        }
        let error = fleet("{ peers: 'a:1' }").unwrap_err();
        assert!(error.contains("tokenFile"), "{error}");
    }
}
