//! Certificates for tests: an authority of its own, in files that are gone with it.

#![allow(clippy::unwrap_used, reason = "for tests, which fail by panicking")]

use std::path::PathBuf;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, date_time_ymd};

use super::{Trust, TrustFiles};

/// What is believed where no private root is configured.
pub(crate) fn public_trust() -> Arc<Trust> {
    Arc::new(Trust::load(TrustFiles::default()).unwrap())
}

/// An authority, and the folder with what it signed.
pub(crate) struct Authority {
    folder: PathBuf,
    issuer: Issuer<'static, KeyPair>,
}

/// A chain and its key.
pub(crate) struct Issued {
    pub(crate) chain: PathBuf,
    pub(crate) key: PathBuf,
}

impl Authority {
    /// Makes one; its own certificate is in `root`.
    pub(crate) fn new() -> Self {
        let folder = std::env::temp_dir().join(format!("cutover-ca-{}", uuid::Uuid::new_v4()));
        std::fs::create_dir_all(&folder).unwrap();
        let mut params = CertificateParams::default();
        // Two authorities of one name would be taken for one.
        let name = folder.display().to_string();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let root = params.self_signed(&key).unwrap();
        std::fs::write(folder.join("root.pem"), root.pem()).unwrap();
        let issuer = Issuer::new(params, key);
        Self { folder, issuer }
    }

    /// What is believed where this authority is configured.
    pub(crate) fn trust(&self) -> Arc<Trust> {
        let files = TrustFiles {
            ca: Some(self.root()),
            identity: None,
        };
        Arc::new(Trust::load(files).unwrap())
    }

    /// Where its own certificate is.
    pub(crate) fn root(&self) -> PathBuf {
        self.folder.join("root.pem")
    }

    /// Signs for a server of that name.
    pub(crate) fn issue(&self, name: &str) -> Issued {
        self.sign(name, CertificateParams::new([name.to_owned()]).unwrap())
    }

    /// The same, for a time that is over.
    pub(crate) fn issue_expired(&self, name: &str) -> Issued {
        let mut params = CertificateParams::new([name.to_owned()]).unwrap();
        params.not_before = date_time_ymd(2001, 1, 1);
        params.not_after = date_time_ymd(2002, 1, 1);
        self.sign(&format!("expired-{name}"), params)
    }

    fn sign(&self, file: &str, params: CertificateParams) -> Issued {
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let issued = Issued {
            chain: self.folder.join(format!("{file}.pem")),
            key: self.folder.join(format!("{file}-key.pem")),
        };
        std::fs::write(&issued.chain, certificate.pem()).unwrap();
        std::fs::write(&issued.key, key.serialize_pem()).unwrap();
        issued
    }
}

impl Drop for Authority {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.folder).ok();
    }
}
