//! Checks within TLS, with certificates made for the test.

use std::{fs, path::PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, IsCa, KeyPair,
    date_time_ymd,
};
use rustls::{
    ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer},
};
use tempfile::TempDir;
use tokio_rustls::TlsAcceptor;

use super::*;
use crate::model::{check::Tls, probe::CertificateFlaw};

/// An authority, its certificate in a file.
struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    directory: TempDir,
}

impl Authority {
    fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("ca.pem"), issuer.pem()).unwrap();
        Self { issuer, directory }
    }

    fn file(&self) -> PathBuf {
        self.directory.path().join("ca.pem")
    }

    /// A server with a certificate for these names, valid over these years.
    fn server(&self, names: &[&str], years: (i32, i32)) -> TlsAcceptor {
        let key = KeyPair::generate().unwrap();
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.not_before = date_time_ymd(years.0, 1, 31);
        params.not_after = date_time_ymd(years.1, 1, 31);
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                vec![CertificateDer::from(certificate.der().to_vec())],
                PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
            )
            .unwrap();
        TlsAcceptor::from(Arc::new(config))
    }
}

fn https_spec(target: SocketAddr, tls: Tls) -> ProbeSpec {
    let http = CheckKind::Http { path: "/".into(), host: None, expect: 200, tls: Some(tls) };
    ProbeSpec { timeout: Duration::from_secs(5), ..spec(target, http) }
}

/// Checks a server once; gives also the name it was asked for.
async fn checked(server: &TlsAcceptor, tls: Tls) -> (Result<String, ProbeFailure>, Option<String>) {
    let (listener, target) = listener().await;
    let serve = async {
        let (stream, _) = listener.accept().await.unwrap();
        // A client that does not like the certificate ends it.
        let Ok(mut stream) = server.accept(stream).await else { return None };
        let name = stream.get_ref().1.server_name().map(str::to_owned);
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let Ok(byte) = stream.read_u8().await else { return name };
            head.push(byte);
        }
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await.unwrap();
        stream.shutdown().await.ok();
        name
    };
    let spec = https_spec(target, tls);
    tokio::join!(once(&spec), serve)
}

#[test]
fn a_good_certificate_is_taken() {
    within(|| async {
        let authority = Authority::new("one");
        let ca = Some(authority.file().display().to_string());
        let server = authority.server(&["a.example", "127.0.0.1"], (2020, 2120));
        let named = Tls { server_name: Some("a.example".into()), verify: true, ca: ca.clone() };
        assert_eq!(checked(&server, named).await, (Ok("200".into()), Some("a.example".into())));
        let by_address = Tls { server_name: None, verify: true, ca };
        assert_eq!(checked(&server, by_address).await, (Ok("200".into()), None));
    });
}

#[test]
fn what_is_wrong_with_a_certificate_is_named_and_may_be_ignored() {
    within(|| async {
        let authority = Authority::new("one");
        let other = Authority::new("another");
        let (ours, theirs) = (authority.file(), other.file());
        let tls = |ca: &PathBuf, verify| Tls {
            server_name: Some("a.example".into()),
            verify,
            ca: Some(ca.display().to_string()),
        };
        // 2021-01-31 and 2119-01-31.
        let cases = [
            (&ours, authority.server(&["a.example"], (2020, 2021)), CertificateFlaw::Expired(1_612_051_200)),
            (
                &ours,
                authority.server(&["a.example"], (2119, 2120)),
                CertificateFlaw::NotYetValid(4_704_566_400),
            ),
            (
                &ours,
                authority.server(&["b.example", "10.0.0.1"], (2020, 2120)),
                CertificateFlaw::OtherName {
                    asked: "a.example".into(),
                    names: vec!["b.example".into(), "10.0.0.1".into()],
                },
            ),
            (
                &theirs,
                authority.server(&["a.example"], (2020, 2120)),
                CertificateFlaw::UnknownIssuer { trusted: theirs.display().to_string() },
            ),
        ];
        for (ca, server, flaw) in cases {
            let (result, _) = checked(&server, tls(ca, true)).await;
            assert_eq!(result, Err(ProbeFailure::Certificate(flaw)));
            let (result, name) = checked(&server, tls(ca, false)).await;
            assert_eq!((result, name), (Ok("200".into()), Some("a.example".into())));
        }
    });
}

#[test]
fn a_server_without_tls_and_a_file_without_certificates_are_told_apart() {
    within(|| async {
        let authority = Authority::new("one");
        let tls = |ca: &str| Tls { server_name: None, verify: true, ca: Some(ca.to_owned()) };
        let (listener, target) = listener().await;
        let plain = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
            stream.read_u8().await.unwrap();
        };
        let spec = https_spec(target, tls(&authority.file().display().to_string()));
        let (result, ()) = tokio::join!(once(&spec), plain);
        assert!(matches!(result, Err(ProbeFailure::Tls { .. })), "{result:?}");

        let empty = authority.directory.path().join("empty.pem");
        fs::write(&empty, "").unwrap();
        for (file, words) in
            [("/no/such/file", "No such file"), (&*empty.display().to_string(), "no certificate")]
        {
            let spec = https_spec(target, tls(file));
            let (result, ()) = tokio::join!(once(&spec), async {
                drop(listener.accept().await.unwrap());
            });
            let Err(ProbeFailure::Local { error, .. }) = &result else { panic!("{result:?}") };
            assert!(error.contains(file) && error.contains(words), "{error}");
        }
    });
}
