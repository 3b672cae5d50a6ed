//! Identities: the key of TLS is the Ed25519 key of the process, raw (RFC 7250). No X.509, hence no dates.

use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use polder_types::{PublicKey, SigningKey};
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, GetRandomFailed, SecureRandom, WebPkiSupportedAlgorithms, ring};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName, SubjectPublicKeyInfoDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::sign::CertifiedKey;
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};

use crate::random::Random;
use crate::{SetupError, Wiring};

/// The name of the protocol in TLS.
const PROTOCOL: &[u8] = b"polder";
/// What precedes the 32 secret bytes of an Ed25519 key in PKCS#8 (RFC 8410).
const PKCS8_PREFIX: [u8; 16] = [0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];
/// What precedes the 32 bytes of an Ed25519 public key (RFC 8410).
const SPKI_PREFIX: [u8; 12] = [0x30, 0x2a, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 3, 0x21, 0];

/// The Ed25519 key in the only form in which a peer may show it.
pub(crate) fn public_key(shown: &[u8]) -> Option<PublicKey> {
    Some(PublicKey(shown.strip_prefix(&SPKI_PREFIX)?.try_into().ok()?))
}

/// What all handshakes of an endpoint share.
#[derive(Clone)]
pub(crate) struct Tls {
    provider: Arc<CryptoProvider>,
    key: Arc<CertifiedKey>,
    clock: Arc<WallClock>,
}

impl Tls {
    pub(crate) fn new(identity: &SigningKey, wiring: &Wiring, random: &Arc<Random>) -> Result<Self, SetupError> {
        let mut provider = ring::default_provider();
        // One suite and one group: otherwise the processor's features would pick.
        provider.cipher_suites = vec![ring::cipher_suite::TLS13_AES_128_GCM_SHA256];
        provider.kx_groups = vec![wiring.key_exchange.unwrap_or(ring::kx_group::X25519)];
        if wiring.seed.is_some() {
            // TLS asks for a reference that lives for ever; it is a few words an endpoint, in simulations only.
            provider.secure_random = Box::leak(Box::new(Seeded(Arc::clone(random))));
        }
        let mut pkcs8 = PKCS8_PREFIX.to_vec();
        pkcs8.extend_from_slice(&identity.seed());
        let key = ring::sign::any_eddsa_type(&PrivatePkcs8KeyDer::from(pkcs8)).map_err(tls_error)?;
        let mut shown = SPKI_PREFIX.to_vec();
        shown.extend_from_slice(&identity.public().0);
        Ok(Self {
            provider: Arc::new(provider),
            key: Arc::new(CertifiedKey::new(vec![CertificateDer::from(shown)], key)),
            clock: Arc::new(WallClock(Arc::clone(&wiring.wall_clock))),
        })
    }

    /// Accepts whoever proves to hold any Ed25519 key. Whether that key is let in is decided after the handshake, so
    /// that the answer can be in words.
    pub(crate) fn server(&self) -> Result<QuicServerConfig, SetupError> {
        let resolver = rustls::server::AlwaysResolvesServerRawPublicKeys::new(Arc::clone(&self.key));
        let mut config = rustls::ServerConfig::builder_with_details(Arc::clone(&self.provider), self.clock.clone())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(tls_error)?
            .with_client_cert_verifier(Arc::new(AnyKey(self.provider.signature_verification_algorithms)))
            .with_cert_resolver(Arc::new(resolver));
        config.alpn_protocols = vec![PROTOCOL.to_vec()];
        // No resumption, no early data: every connection proves both identities.
        config.send_tls13_tickets = 0;
        config.max_early_data_size = 0;
        config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
        QuicServerConfig::try_from(config).map_err(|error| SetupError::Tls(error.to_string()))
    }

    /// Accepts only the server that holds `expected`; the key that it held is left in `found`.
    pub(crate) fn client(
        &self,
        expected: PublicKey,
        found: Arc<OnceLock<PublicKey>>,
    ) -> Result<QuicClientConfig, SetupError> {
        let algorithms = self.provider.signature_verification_algorithms;
        let resolver = rustls::client::AlwaysResolvesClientRawPublicKeys::new(Arc::clone(&self.key));
        let mut config = rustls::ClientConfig::builder_with_details(Arc::clone(&self.provider), self.clock.clone())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(tls_error)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(ThisKey { expected, found, algorithms }))
            .with_client_cert_resolver(Arc::new(resolver));
        config.alpn_protocols = vec![PROTOCOL.to_vec()];
        config.resumption = rustls::client::Resumption::disabled();
        config.enable_early_data = false;
        QuicClientConfig::try_from(config).map_err(|error| SetupError::Tls(error.to_string()))
    }

    /// The wall clock, for the age of address tokens.
    pub(crate) fn clock(&self) -> Arc<dyn quinn::TimeSource> {
        self.clock.clone()
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tls")
    }
}

fn tls_error(error: Error) -> SetupError {
    SetupError::Tls(error.to_string())
}

fn bad_key() -> Error {
    Error::InvalidCertificate(CertificateError::BadEncoding)
}

fn no_tls12() -> Error {
    Error::General("only TLS 1.3 is spoken here".to_owned())
}

/// The signature over the handshake by the raw key that the peer showed.
fn verify(
    message: &[u8],
    shown: &CertificateDer<'_>,
    signed: &DigitallySignedStruct,
    algorithms: &WebPkiSupportedAlgorithms,
) -> Result<HandshakeSignatureValid, Error> {
    let key = SubjectPublicKeyInfoDer::from(shown.as_ref());
    rustls::crypto::verify_tls13_signature_with_raw_key(message, &key, signed, algorithms)
}

/// The client's side: this very key.
#[derive(Debug)]
struct ThisKey {
    expected: PublicKey,
    found: Arc<OnceLock<PublicKey>>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ServerCertVerifier for ThisKey {
    fn verify_server_cert(
        &self,
        shown: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let key = public_key(shown).ok_or_else(bad_key)?;
        let first = *self.found.get_or_init(|| key);
        if key == self.expected && first == key {
            Ok(ServerCertVerified::assertion())
        } else {
            Err(Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure))
        }
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(no_tls12())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        shown: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify(message, shown, signed, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

/// The server's side: any Ed25519 key whose secret the client holds.
#[derive(Debug)]
struct AnyKey(WebPkiSupportedAlgorithms);

impl ClientCertVerifier for AnyKey {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        shown: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        public_key(shown).ok_or_else(bad_key)?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(no_tls12())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        shown: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify(message, shown, signed, &self.0)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

/// The wiring's wall clock, as rustls and quinn want it.
struct WallClock(Arc<dyn Fn() -> SystemTime + Send + Sync>);

impl rustls::time_provider::TimeProvider for WallClock {
    fn current_time(&self) -> Option<UnixTime> {
        let since_epoch: Option<Duration> = (self.0)().duration_since(SystemTime::UNIX_EPOCH).ok();
        since_epoch.map(UnixTime::since_unix_epoch)
    }
}

impl quinn::TimeSource for WallClock {
    fn now(&self) -> SystemTime {
        (self.0)()
    }
}

impl fmt::Debug for WallClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WallClock")
    }
}

/// The endpoint's randomness, as rustls wants it.
#[derive(Debug)]
struct Seeded(Arc<Random>);

impl SecureRandom for Seeded {
    fn fill(&self, bytes: &mut [u8]) -> Result<(), GetRandomFailed> {
        self.0.fill(bytes);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_read_only_from_its_one_form() {
        let mut shown = SPKI_PREFIX.to_vec();
        shown.extend_from_slice(&[7; 32]);
        assert_eq!(public_key(&shown), Some(PublicKey([7; 32])));
        assert_eq!(public_key(&shown[..43]), None);
        shown.push(0);
        assert_eq!(public_key(&shown), None);
        shown.pop();
        shown[1] ^= 1;
        assert_eq!(public_key(&shown), None);
    }
}
