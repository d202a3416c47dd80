//! Certificates, tokens and keys, made for a test, in a folder of its own.

use std::{
    path::PathBuf,
    process,
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, EncodingKey, Header, jwk::Jwk};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair, SanType,
};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use ssm_gateway::{
    access::{Allow, Method},
    config::Config,
    edge::{JwtConfig, SigningAlgorithm, TlsConfig, Token},
};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

/// A folder that is gone when this is.
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn new() -> Self {
        static FOLDERS: AtomicUsize = AtomicUsize::new(0);
        let number = FOLDERS.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("ssm-gateway-{}-{number}.d", process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Writes a file whole, as tools that renew certificates do: nobody sees half of it.
    pub(crate) fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let (path, new) = (self.path(name), self.path(&format!("{name}.new")));
        std::fs::write(&new, content).unwrap();
        std::fs::rename(new, &path).unwrap();
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _gone = std::fs::remove_dir_all(&self.0);
    }
}

/// A certificate and its key, in PEM.
pub(crate) struct Issued {
    pub(crate) cert: String,
    pub(crate) key: String,
}

/// Who issues certificates.
pub(crate) struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        // Another name than what it issues has, which would look signed by itself.
        params.distinguished_name.push(DnType::CommonName, "authority");
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    pub(crate) fn pem(&self) -> String {
        self.0.pem()
    }

    /// A certificate for these names, each a DNS name or a URI.
    pub(crate) fn issue(&self, names: &[&str]) -> Issued {
        self.issue_until(names, SystemTime::now() + Duration::from_hours(24))
    }

    pub(crate) fn issue_until(&self, names: &[&str], not_after: SystemTime) -> Issued {
        let mut params = CertificateParams::default();
        params.subject_alt_names = names
            .iter()
            .map(|&name| {
                let is_uri = name.contains("://");
                if is_uri { SanType::URI(name.try_into().unwrap()) } else { SanType::DnsName(name.try_into().unwrap()) }
            })
            .collect();
        params.not_after = not_after.into();
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate().unwrap();
        Issued { cert: params.signed_by(&key, &self.0).unwrap().pem(), key: key.serialize_pem() }
    }
}

/// A gateway that speaks TLS, and a folder with its files.
pub(crate) struct Secured {
    pub(crate) folder: Folder,
    pub(crate) authority: Authority,
}

impl Secured {
    pub(crate) fn new() -> Self {
        let (folder, authority) = (Folder::new(), Authority::new());
        folder.write("ca.pem", authority.pem());
        let secured = Self { folder, authority };
        secured.renew();
        secured
    }

    /// Gives the gateway another certificate.
    pub(crate) fn renew(&self) {
        let Issued { cert, key } = self.authority.issue(&["localhost"]);
        // The key first: while they do not belong together the old ones are used.
        self.folder.write("key.pem", key);
        self.folder.write("cert.pem", cert);
    }

    /// Has the gateway speak TLS, and ask callers for a certificate.
    pub(crate) fn configure(&self, config: &mut Config) {
        config.edge.tls = Some(TlsConfig {
            cert: self.folder.path("cert.pem"),
            key: self.folder.path("key.pem"),
            client_ca: Some(self.folder.path("ca.pem")),
            require_client_cert: false,
        });
        config.edge.reload_interval = Duration::from_millis(5);
    }

    /// How to connect, with a certificate for this name if there is one.
    pub(crate) fn endpoint(&self, port: u16, name: Option<&str>) -> Endpoint {
        let identity = name.map(|name| self.authority.issue(&[name]));
        self.endpoint_as(port, identity.as_ref())
    }

    pub(crate) fn endpoint_as(&self, port: u16, identity: Option<&Issued>) -> Endpoint {
        let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(self.authority.pem()));
        let tls = match identity {
            Some(Issued { cert, key }) => tls.identity(Identity::from_pem(cert, key)),
            None => tls,
        };
        let endpoint = Channel::from_shared(format!("https://localhost:{port}")).unwrap();
        endpoint.tls_config(tls).unwrap()
    }
}

/// What `auth.tokens` says of the token `NAME-secret`.
pub(crate) fn token(name: &str) -> Token {
    Token { name: name.to_owned(), sha256: sha256(&format!("{name}-secret")).try_into().unwrap() }
}

/// As `sha256sum` prints it.
pub(crate) fn sha256(token: &str) -> String {
    Sha256::digest(token).iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().concat()
}

/// A rule for a principal; no methods and no targets are all.
pub(crate) fn allow(principal: &str, methods: &[Method], targets: &[&str]) -> Allow {
    Allow {
        principal: principal.to_owned(),
        methods: Some(methods.to_vec()).filter(|methods| !methods.is_empty()),
        targets: Some(targets.iter().map(|&target| target.to_owned()).collect())
            .filter(|targets: &Vec<_>| !targets.is_empty()),
        min_max_age: Duration::ZERO,
    }
}

/// Who issues JWTs.
pub(crate) struct Issuer {
    algorithm: Algorithm,
    key: EncodingKey,
    jwk: Jwk,
}

impl Issuer {
    pub(crate) fn new(key_id: &str) -> Self {
        let key = EncodingKey::from_ec_der(&KeyPair::generate().unwrap().serialize_der());
        Self::with(key_id, Algorithm::ES256, key)
    }

    pub(crate) fn by_rsa(key_id: &str) -> Self {
        let pair = KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, rcgen::RsaKeySize::_2048).unwrap();
        let pkcs8 = pair.serialize_der();
        // The key itself, which PKCS #8 wraps into 26 bytes more, those of its length included.
        Self::with(key_id, Algorithm::RS256, EncodingKey::from_rsa_der(&pkcs8[26..]))
    }

    pub(crate) fn by_ed(key_id: &str) -> Self {
        let pair = KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
        // The second version of PKCS #8, with the public key behind the private one; as the first has it, without.
        let second = pair.serialize_der();
        let first = [&[0x30, 0x2e, 2, 1, 0], &second[5..48]].concat();
        Self::with(key_id, Algorithm::EdDSA, EncodingKey::from_ed_der(&first))
    }

    fn with(key_id: &str, algorithm: Algorithm, key: EncodingKey) -> Self {
        let mut jwk = Jwk::from_encoding_key(&key, algorithm).unwrap();
        jwk.common.key_id = Some(key_id.to_owned());
        Self { algorithm, key, jwk }
    }

    pub(crate) fn jwks(&self) -> String {
        self.jwks_with(&[])
    }

    /// Its keys and those of others, and one of a kind that is not known. RFC 7517 makes `alg` optional.
    pub(crate) fn jwks_with(&self, others: &[&Self]) -> String {
        let keys = others.iter().chain([&self]).map(|issuer| {
            let mut jwk = serde_json::to_value(&issuer.jwk).unwrap();
            jwk.as_object_mut().unwrap().remove("alg");
            jwk
        });
        let keys: Vec<Value> = keys.chain([json!({ "kty": "unheard-of", "kid": "new" })]).collect();
        json!({ "keys": keys }).to_string()
    }

    /// A token of this subject for two minutes, with what `change` makes of it.
    pub(crate) fn token(&self, subject: &str, change: impl FnOnce(&mut Header, &mut Value)) -> String {
        let mut header = Header::new(self.algorithm);
        header.kid.clone_from(&self.jwk.common.key_id);
        let mut claims =
            json!({ "iss": "https://issuer", "aud": ["ssm-gateway", "other"], "sub": subject, "exp": in_seconds(120) });
        change(&mut header, &mut claims);
        jsonwebtoken::encode(&header, &claims, &self.key).unwrap()
    }

    /// A token with this header but for its `kid`, and with the claims of [`Issuer::token`] but for these.
    pub(crate) fn token_with(&self, header: &Value, claims: &Value) -> String {
        let mut all = json!({ "iss": "https://issuer", "aud": "ssm-gateway", "sub": "alice", "exp": in_seconds(120) });
        let mut head = json!({ "kid": self.jwk.common.key_id });
        for (into, from) in [(&mut head, header), (&mut all, claims)] {
            into.as_object_mut().unwrap().extend(from.as_object().unwrap().clone());
        }
        let [head, all] = [head, all].map(|part| URL_SAFE_NO_PAD.encode(part.to_string()));
        let message = format!("{head}.{all}");
        let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &self.key, self.algorithm).unwrap();
        format!("{message}.{signature}")
    }

    /// Its public key, with what `change` makes of it.
    pub(crate) fn key(&self, change: impl FnOnce(&mut serde_json::Map<String, Value>)) -> Value {
        let mut jwk = serde_json::to_value(&self.jwk).unwrap();
        change(jwk.as_object_mut().unwrap());
        jwk
    }

    /// Has the gateway trust this issuer, by a file.
    pub(crate) fn configure(&self, config: &mut Config, folder: &Folder) {
        config.auth.jwt = Some(JwtConfig {
            jwks: folder.write("jwks.json", self.jwks()),
            issuer: "https://issuer".to_owned(),
            audiences: vec!["ssm-gateway".to_owned()],
            algorithms: vec![SigningAlgorithm::RS256, SigningAlgorithm::ES256, SigningAlgorithm::EdDSA],
            clock_skew: Duration::ZERO,
        });
    }
}

/// Seconds since 1970, so many from now.
pub(crate) fn in_seconds(seconds: i64) -> i64 {
    i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()).unwrap() + seconds
}

/// A call with a bearer token.
pub(crate) fn with_token<T>(message: T, token: &str) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
    request
}
