//! Certificates and keys in PEM files.

use std::path::{Path, PathBuf};

use tokio_rustls::rustls;
use tokio_rustls::rustls::pki_types::pem::{self, PemObject as _};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

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
    /// What the files hold does not make a usable certificate.
    #[error("certificate: {0}")]
    Certificate(#[from] rustls::Error),
}

/// The certificates in a file, at least one.
///
/// # Errors
/// `File`.
pub fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let certificates = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(at(path))?;
    match certificates.is_empty() {
        true => Err(at(path)(pem::Error::NoItemsFound)),
        false => Ok(certificates),
    }
}

/// The private key in a file.
///
/// # Errors
/// `File`.
pub fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    PrivateKeyDer::from_pem_file(path).map_err(at(path))
}

/// The text of a file, for a library that wants to read PEM itself.
pub(super) fn text(path: &Path) -> Result<String, TlsError> {
    std::fs::read_to_string(path)
        .map_err(pem::Error::Io)
        .map_err(at(path))
}

fn at(path: &Path) -> impl Fn(pem::Error) -> TlsError {
    let path = path.to_owned();
    move |source| TlsError::File {
        path: path.clone(),
        source,
    }
}
