//! A server's certificate, replaceable while it serves.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;

use crate::tls::{TlsError, certificates, private_key};

/// A certificate chain and its key, read from PEM files.
#[derive(Debug)]
pub struct Tls {
    chain: PathBuf,
    key: PathBuf,
    current: ArcSwap<ServerConfig>,
}

impl Tls {
    /// Reads the chain (the server's own certificate first) and its key.
    ///
    /// # Errors
    /// See [`TlsError`].
    pub fn load(chain: impl Into<PathBuf>, key: impl Into<PathBuf>) -> Result<Self, TlsError> {
        let (chain, key) = (chain.into(), key.into());
        let current = ArcSwap::from_pointee(read(&chain, &key)?);
        Ok(Self {
            chain,
            key,
            current,
        })
    }

    /// Reads the files again; connections from now on get the new certificate.
    ///
    /// # Errors
    /// See [`TlsError`]; the old certificate stays in use.
    pub fn reload(&self) -> Result<(), TlsError> {
        self.current.store(Arc::new(read(&self.chain, &self.key)?));
        Ok(())
    }

    /// The configuration for a handshake that begins now.
    pub(super) fn config(&self) -> Arc<ServerConfig> {
        self.current.load_full()
    }
}

fn read(chain: &Path, key: &Path) -> Result<ServerConfig, TlsError> {
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(certificates(chain)?, private_key(key)?)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}
