//! Enters: who is to be asked, by name. Leaves: where each of them is.

use std::{collections::BTreeSet, net::SocketAddr, time::Duration};

use tokio::{net::lookup_host, time::timeout};

use super::view::{Problem, Trouble};
use crate::io::{config::PeerConfig, join::join_all};

/// How long a name may take to be found.
const RESOLVE_TIME: Duration = Duration::from_secs(2);

/// Agents that are asked at most.
pub(super) const MAX_PEERS: usize = 1024;

/// Where agents are, and what could not be found.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// Each address once.
    pub(super) addresses: BTreeSet<SocketAddr>,
    /// What has none, and why.
    pub(super) missing: Vec<(String, Trouble)>,
}

/// Finds all of them at once.
pub(super) async fn find(peers: &[PeerConfig]) -> Found {
    let mut found = Found::default();
    let looked_up = join_all(peers.iter().map(addresses_of)).await;
    for (peer, addresses) in peers.iter().zip(looked_up) {
        let (PeerConfig::One(name) | PeerConfig::All(name)) = peer;
        match addresses {
            Ok(addresses) => found.addresses.extend(addresses),
            Err(trouble) => found.missing.push((name.clone(), trouble)),
        }
    }
    let beyond = found.addresses.len().saturating_sub(MAX_PEERS);
    if beyond > 0 {
        found.addresses = found.addresses.into_iter().take(MAX_PEERS).collect();
        let text = format!("more than {MAX_PEERS} addresses");
        found.missing.push((format!("{beyond} others"), Trouble::with(Problem::NotAsked, text)));
    }
    found
}

async fn addresses_of(peer: &PeerConfig) -> Result<Vec<SocketAddr>, Trouble> {
    let (name, most) = match peer {
        PeerConfig::One(name) => (name, 1),
        PeerConfig::All(name) => (name, usize::MAX),
    };
    let unresolved = |text: String| Trouble::with(Problem::Unresolved, text);
    let found = timeout(RESOLVE_TIME, lookup_host(name))
        .await
        .map_err(|_elapsed| unresolved(format!("not found within {} s", RESOLVE_TIME.as_secs())))?
        .map_err(|error| unresolved(error.to_string()))?;
    let addresses: Vec<_> = found.take(most).collect();
    if addresses.is_empty() { Err(unresolved("it has no address".to_owned())) } else { Ok(addresses) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn each_address_is_found_once_and_what_has_none_is_named() {
        let peers = [
            PeerConfig::One("127.0.0.1:9479".to_owned()),
            PeerConfig::All("127.0.0.1:9479".to_owned()),
            PeerConfig::One("[::1]:9479".to_owned()),
            PeerConfig::All("agents.invalid:9479".to_owned()),
        ];
        let found = find(&peers).await;
        assert_eq!(found.addresses.len(), 2);
        let [(name, trouble)] = &found.missing[..] else { panic!("{found:?}") };
        assert_eq!((name.as_str(), trouble.problem), ("agents.invalid:9479", Problem::Unresolved));
    }
}
