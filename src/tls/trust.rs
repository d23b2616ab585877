//! Whom outgoing connections believe, and what they show of themselves.
//!
//! Private roots are believed besides the public ones, not instead of them: one `ca_file` then serves storage,
//! the brokers and a webhook that is on the internet, and no public authority signs for a private name.
//! Public roots come with the program, so that a bare container image has them too.

use std::error::Error;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use hyper_rustls::HttpsConnectorBuilder;
use hyper_util::client::legacy::connect::HttpConnector;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use super::pem::{self, TlsError, certificates, private_key};

/// Connects over TCP, and with TLS where the address says `https`.
pub type HttpsConnector = hyper_rustls::HttpsConnector<HttpConnector>;

/// The files that trust is read from, all PEM.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct TrustFiles {
    /// Roots that are believed besides the public ones.
    pub ca: Option<PathBuf>,
    /// What is shown to a server that asks for a certificate: the chain, and its key.
    pub identity: Option<(PathBuf, PathBuf)>,
}

/// What is shown to a server that asks for a certificate. PEM.
#[derive(Clone, PartialEq, Eq)]
pub struct Identity {
    /// The certificate, then those that signed it.
    pub chain: String,
    /// Its private key.
    pub key: String,
}

/// Whom outgoing connections believe. Replaceable while it is in use.
#[derive(Debug)]
pub struct Trust {
    files: TrustFiles,
    current: ArcSwap<Current>,
}

/// One reading of the files.
#[derive(Debug)]
struct Current {
    config: ClientConfig,
    private_roots: Option<String>,
    identity: Option<Identity>,
}

impl Trust {
    /// Reads the files.
    ///
    /// # Errors
    /// See [`TlsError`].
    pub fn load(files: TrustFiles) -> Result<Self, TlsError> {
        let current = ArcSwap::from_pointee(read(&files)?);
        Ok(Self { files, current })
    }

    /// Reads the files again, for connections that are made from now on.
    ///
    /// # Errors
    /// See [`TlsError`]; what was believed before still is.
    pub fn reload(&self) -> Result<(), TlsError> {
        self.current.store(Arc::new(read(&self.files)?));
        Ok(())
    }

    /// A connector for an HTTP client. It keeps to what is believed now.
    #[must_use]
    pub fn connector(&self, connect_limit: Duration) -> HttpsConnector {
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(connect_limit));
        HttpsConnectorBuilder::new()
            .with_tls_config(self.current.load().config.clone())
            .https_or_http()
            .enable_http1()
            .wrap_connector(tcp)
    }

    /// The private roots as PEM, for a library that has the public ones and reads these itself.
    #[must_use]
    pub fn private_roots(&self) -> Option<String> {
        self.current.load().private_roots.clone()
    }

    /// What is shown to a server that asks for a certificate.
    #[must_use]
    pub fn identity(&self) -> Option<Identity> {
        self.current.load().identity.clone()
    }
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Identity(…)")
    }
}

/// Why a connection was not made: the innermost cause, such as the certificate's fault.
#[must_use]
pub fn reason(error: &(dyn Error + 'static)) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}

fn read(files: &TrustFiles) -> Result<Current, TlsError> {
    let mut roots = RootCertStore::empty();
    roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    let mut private_roots = None;
    if let Some(path) = &files.ca {
        for root in certificates(path)? {
            roots.add(root)?;
        }
        private_roots = Some(pem::text(path)?);
    }
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots);
    let Some((chain, key)) = &files.identity else {
        return Ok(Current {
            config: builder.with_no_client_auth(),
            private_roots,
            identity: None,
        });
    };
    Ok(Current {
        config: builder.with_client_auth_cert(certificates(chain)?, private_key(key)?)?,
        private_roots,
        identity: Some(Identity {
            chain: pem::text(chain)?,
            key: pem::text(key)?,
        }),
    })
}
