//! A certificate authority for one test.

use std::path::{Path, PathBuf};

use etcd_api::tls::{ClientTls, Identity};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose,
};

/// An authority and the directory where its files are.
pub struct Pki {
    dir: PathBuf,
    ca: CertifiedIssuer<'static, KeyPair>,
}

impl Pki {
    pub fn new(dir: &Path) -> Self {
        std::fs::create_dir_all(dir).unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.distinguished_name.push(DnType::CommonName, "test");
        let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        std::fs::write(dir.join("ca.crt"), ca.pem()).unwrap();
        Self { dir: dir.to_owned(), ca }
    }

    /// Issues `<name>.crt` and `<name>.key` for both ends of a connection.
    pub fn issue(&self, name: &str, host: &str) -> Identity {
        let mut params = CertificateParams::new(vec![host.to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate().unwrap();
        let cert = params.signed_by(&key, &self.ca).unwrap();
        let (cert_path, key_path) = (self.path(name, "crt"), self.path(name, "key"));
        std::fs::write(&cert_path, cert.pem()).unwrap();
        std::fs::write(&key_path, key.serialize_pem()).unwrap();
        Identity::from_files(&cert_path, &key_path).unwrap()
    }

    pub fn path(&self, name: &str, extension: &str) -> PathBuf {
        self.dir.join(format!("{name}.{extension}"))
    }

    /// What a client with a certificate of this authority uses.
    pub fn client(&self) -> ClientTls {
        ClientTls {
            ca_pem: self.ca.pem().into_bytes(),
            identity: Some(self.issue("client", "client")),
        }
    }

    /// What a client without a certificate uses.
    pub fn anonymous(&self) -> ClientTls {
        ClientTls { ca_pem: self.ca.pem().into_bytes(), identity: None }
    }
}
