//! Enters: the files of certificates and keys of a target, looked at again and again. Leaves: sessions that are opened with what is
//! in them.
//!
//! Certificates are replaced while whoever uses them runs: in place, by another file of the name, or by turning a link, as the
//! mount of a Secret does.

use std::{error::Error, fs, future::pending, os::unix::fs::MetadataExt as _, time::Duration};

use tokio::{task::spawn_blocking, time::sleep};
use tracing::{info, warn};

use super::tls::Tls;
use crate::io::{config::TlsConfig, ledger::CopyBooks};

/// By which each of the files is known to be the one that was looked at before; `None` for one that is not there.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Stamps(Vec<Option<Stamp>>);

/// Device, number, length in bytes, and time of the last change in seconds and nanoseconds.
type Stamp = (u64, u64, u64, i64, i64);

impl Stamps {
    /// Looks at the files, and where they are links at those behind them.
    pub(super) fn of(keys: &TlsConfig) -> Self {
        let TlsConfig { ca_file, client_certificate, client_key, .. } = keys;
        let files = [ca_file, client_certificate, client_key].into_iter().flatten();
        Self(files.map(|file| fs::metadata(file).ok().map(|meta| stamp(&meta))).collect())
    }

    /// Whether there are no files.
    pub(super) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

fn stamp(meta: &fs::Metadata) -> Stamp {
    (meta.dev(), meta.ino(), meta.len(), meta.ctime(), meta.ctime_nsec())
}

/// Looks at the files of `tls` each `interval`, for as long as it is polled.
pub(super) async fn keep_certificates(tls: Option<&Tls>, interval: Duration, books: &CopyBooks) {
    let Some(tls) = tls.filter(|tls| tls.has_files()) else { return pending().await };
    let (experiment, target) = (books.experiment(), books.target());
    loop {
        sleep(interval).await;
        let tls = tls.clone();
        // On another thread: a file may be on a network. It neither panics nor is it cut off.
        match spawn_blocking(move || tls.look_again()).await {
            Ok(Ok(true)) => info!(experiment, target, "The shadow's certificates were read again."),
            Ok(Err(error)) => warn!(
                experiment,
                target,
                error = &error as &dyn Error,
                "Certificates that were replaced cannot be used; those before them stay."
            ),
            Ok(Ok(false)) | Err(_) => {}
        }
    }
}
