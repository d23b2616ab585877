//! A server's certificate, replaceable while it serves.

use std::path::PathBuf;
use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::{self, PemObject as _};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{self, ServerConfig};

/// A certificate chain and its key, read from PEM files.
#[derive(Debug)]
pub struct Tls {
    chain: PathBuf,
    key: PathBuf,
    current: ArcSwap<ServerConfig>,
}

/// Why a certificate cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file is missing, unreadable, or holds no such PEM section.
    #[error("{path}: {source}")]
    File {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        source: pem::Error,
    },
    /// The chain and the key do not make a usable certificate.
    #[error("certificate: {0}")]
    Certificate(#[from] rustls::Error),
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

fn read(chain: &PathBuf, key: &PathBuf) -> Result<ServerConfig, TlsError> {
    let at = |path: &PathBuf| {
        let path = path.clone();
        move |source| TlsError::File { path, source }
    };
    let certificates = CertificateDer::pem_file_iter(chain)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(at(chain))?;
    let private = PrivateKeyDer::from_pem_file(key).map_err(at(key))?;
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(certificates, private)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}
