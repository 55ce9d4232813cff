//! TLS for the HTTPS check: what is trusted, and what a handshake that failed says about the certificate.

use std::{collections::HashMap, error::Error as _, net::IpAddr, path::Path, sync::Arc, time::Duration};

use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::{
        Resumption, WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, ring},
    pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject},
};
use tokio::{net::TcpStream, sync::Mutex, time::Instant};
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::model::{
    check::Tls,
    probe::{CertificateFlaw, ProbeFailure, ProbeSpec},
};

/// Files of trusted certificates are read again after this time: they are renewed.
const TRUST: Duration = Duration::from_secs(60);

/// Where distributions keep the certificates they trust.
const SYSTEM: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// What decides about certificates: shared by all backends of a pool.
type Trust = (bool, Option<String>);

/// How handshakes are done; or why not, which is a matter of files.
type Config = Result<Arc<ClientConfig>, String>;

/// How handshakes are done, by what is trusted; with the time when that was read.
#[derive(Debug, Default)]
pub(super) struct Configs(Mutex<HashMap<Trust, (Instant, Config)>>);

impl Configs {
    /// TLS over a connection; `host` is the `Host` header, if there is one.
    pub(super) async fn handshake(
        &self,
        spec: &ProbeSpec,
        stream: TcpStream,
        tls: &Tls,
        host: Option<&str>,
    ) -> Result<TlsStream<TcpStream>, ProbeFailure> {
        let target = spec.target;
        let local = |error| ProbeFailure::Local { target, error };
        let config = self.of(tls).await.map_err(local)?;
        let name = server_name(tls.server_name.as_deref().or(host), target.ip());
        match TlsConnector::from(config).connect(name.clone(), stream).await {
            Ok(stream) => Ok(stream),
            Err(error) => Err(match error.get_ref().and_then(|inner| inner.downcast_ref()) {
                Some(rustls::Error::InvalidCertificate(flaw)) => {
                    ProbeFailure::Certificate(words(flaw, tls, &name))
                }
                Some(other) => ProbeFailure::Tls { target, error: other.to_string() },
                None => ProbeFailure::Tls { target, error: cause(&error) },
            }),
        }
    }

    async fn of(&self, tls: &Tls) -> Config {
        let trust = (tls.verify, tls.ca.clone());
        let mut known = self.0.lock().await;
        if let Some((read, config)) = known.get(&trust)
            && read.elapsed() < TRUST
        {
            return config.clone();
        }
        let wanted = trust.clone();
        // Files are read aside: every other probe would wait for the disk.
        let made = tokio::task::spawn_blocking(move || config(&wanted)).await;
        let config = made.unwrap_or_else(|error| Err(format!("reading certificates: {error}")));
        known.retain(|_, (read, _)| read.elapsed() < TRUST);
        known.insert(trust, (Instant::now(), config.clone()));
        config
    }
}

fn config((verify, ca): &Trust) -> Config {
    let provider = Arc::new(ring::default_provider());
    let verifier: Arc<dyn ServerCertVerifier> = if *verify {
        let roots = Arc::new(roots(ca.as_deref())?);
        WebPkiServerVerifier::builder_with_provider(roots, Arc::clone(&provider))
            .build()
            .map_err(|error| error.to_string())?
    } else {
        Arc::new(Anybody(Arc::clone(&provider)))
    };
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    // A resumed session shows no certificate: one that expired would go unnoticed.
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}

/// The certificates of a file, or those the system trusts.
fn roots(ca: Option<&str>) -> Result<RootCertStore, String> {
    let system = || SYSTEM.into_iter().find(|path| Path::new(path).exists());
    let path = ca.or_else(system).ok_or_else(|| {
        format!("none of {} is there: install ca-certificates, or set ca = \"FILE\"", SYSTEM.join(", "))
    })?;
    let wrong = |error: &dyn std::fmt::Display| format!("reading trusted certificates from {path}: {error}");
    let mut roots = RootCertStore::empty();
    let mut refused = None;
    for certificate in CertificateDer::pem_file_iter(path).map_err(|error| wrong(&error))? {
        // A system's file may have some that are too old to be read.
        if let Err(error) = roots.add(certificate.map_err(|error| wrong(&error))?) {
            refused = Some(error);
        }
    }
    match refused {
        _ if !roots.is_empty() => Ok(roots),
        Some(error) => Err(wrong(&error)),
        None => Err(wrong(&"it has no certificate")),
    }
}

/// The name that is asked for: without one, or with one that is none, the address.
fn server_name(name: Option<&str>, address: IpAddr) -> ServerName<'static> {
    let without_port = |name: &str| match name.rsplit_once(':') {
        Some((host, _)) if !host.contains(':') || host.ends_with(']') => host.to_owned(),
        _ => name.to_owned(),
    };
    let bare = |name: &str| without_port(name).trim_matches(['[', ']']).to_owned();
    name.and_then(|name| ServerName::try_from(bare(name)).ok()).unwrap_or_else(|| address.into())
}

/// What is wrong with a certificate.
fn words(flaw: &CertificateError, tls: &Tls, name: &ServerName<'_>) -> CertificateFlaw {
    match flaw {
        CertificateError::ExpiredContext { not_after, .. } => CertificateFlaw::Expired(not_after.as_secs()),
        CertificateError::NotValidYetContext { not_before, .. } => {
            CertificateFlaw::NotYetValid(not_before.as_secs())
        }
        CertificateError::NotValidForNameContext { presented, .. } => CertificateFlaw::OtherName {
            asked: name.to_str().into_owned(),
            names: presented.iter().map(|name| plain(name)).collect(),
        },
        CertificateError::UnknownIssuer => CertificateFlaw::UnknownIssuer {
            trusted: tls.ca.clone().unwrap_or_else(|| "this system".to_owned()),
        },
        other => CertificateFlaw::Other(other.to_string()),
    }
}

/// `DnsName("a.example")`, as names are reported, without its wrapping.
fn plain(name: &str) -> String {
    let inner = name.split_once('(').and_then(|(_, rest)| rest.strip_suffix(')')).unwrap_or(name);
    inner.trim_matches('"').to_owned()
}

fn cause(error: &std::io::Error) -> String {
    error.source().map_or_else(|| error.to_string(), |cause| format!("{error}: {cause}"))
}

/// Takes every certificate; only that the server has its key is checked.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_that_is_asked_for() {
        let vip = "192.0.2.1".parse().unwrap();
        for (name, asked) in [
            (None, "192.0.2.1"),
            (Some("www.example"), "www.example"),
            (Some("www.example:8443"), "www.example"),
            (Some("[2001:db8::1]:443"), "2001:db8::1"),
            (Some("2001:db8::1"), "2001:db8::1"),
            (Some("10.0.0.1:443"), "10.0.0.1"),
            (Some("not a name"), "192.0.2.1"),
        ] {
            assert_eq!(server_name(name, vip).to_str(), asked, "{name:?}");
        }
        assert_eq!(plain("DnsName(\"a.example\")"), "a.example");
        assert_eq!(plain("IpAddress(10.0.0.1)"), "10.0.0.1");
    }
}
