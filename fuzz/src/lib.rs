//! Strangers' bytes, each sent in by the door that they would come by. Whatever they are, nothing may panic or hang, and what comes
//! of them must be what callers are promised. The fuzzer calls these, and so does the replay of the seeds in `tests/it/seeds.rs`.

use std::{
    env, fs,
    future::Future,
    str,
    sync::{Arc, LazyLock, Mutex},
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use prost::Message as _;
use ssm_gateway::{
    access::{Method, Policy},
    aws::{self, CredentialsCache, Ssm},
    config::Config,
    edge::{AuthConfig, AuthenticateLayer, JwtConfig, RouteLayer, SigningAlgorithm, testing},
    model::{Filters, Freshness, Query, RecordsBuilder, Scope, TargetName},
    pem::{self, InvalidPem},
    proto::{InstanceInformation, StreamInstanceInformationResponse},
    read::{self, Listings, Target, belongs_to},
    service::{self, Service, Serving},
    source::{FetchError, Identity, Origin, Priority, Request as PageRequest, Sent, Source, UpstreamPage},
};
use tokio::{net::TcpListener, runtime::Runtime, time};
use tonic::{Code, Status};
use tonic_types::StatusExt as _;
use tower::{Layer as _, ServiceExt as _, service_fn};

/// Far longer than anything takes.
const PATIENCE: Duration = Duration::from_secs(10);
/// What every connection of HTTP/2 begins with.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// The most of its trailers that a caller is sent.
const MAX_TRAILERS: usize = 8 << 10;

static RUNTIME: LazyLock<Runtime> =
    LazyLock::new(|| tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap());

fn within<T>(what: impl Future<Output = T>) -> T {
    RUNTIME.block_on(async { time::timeout(PATIENCE, what).await.expect("it hangs") })
}

/// Three pages of two nodes, and no AWS behind them.
#[derive(Debug)]
struct Pages;

impl Source for Pages {
    fn page<'a>(&'a self, request: PageRequest<'a>) -> BoxFuture<'a, Result<UpstreamPage, FetchError>> {
        Box::pin(async move {
            let page = request.token.and_then(|token| token.parse().ok()).unwrap_or(0u8);
            let mut records = RecordsBuilder::default();
            for node in 0..2 {
                let instance_id = Some(format!("i-{page}{node}"));
                records.push(&InstanceInformation { instance_id, ..Default::default() }.encode_to_vec());
            }
            let next_token = (page < 2).then(|| (page + 1).to_string());
            let (sent, origin) = (Sent::now(wall), Origin::default());
            Ok(UpstreamPage { records: records.build(), next_token, sent, origin })
        })
    }
}

/// The moment at which all of this happens, so that the seeds do not expire.
fn wall() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_hours(500_000)
}

static LISTINGS: LazyLock<Listings> = LazyLock::new(|| {
    let identity = Identity { region: "nowhere".to_owned(), scope: Scope::of([]), signed_by: String::new() };
    let (name, ttl) = (TargetName::default_target(), Duration::from_hours(1));
    let target = Target::new(name, identity, Arc::new(Pages), ttl, Duration::ZERO);
    read::Config::default().build([target], &service::Renderer, wall)
});

fn everything() -> Query {
    Query::new(TargetName::default_target(), Filters::Current(Vec::new()))
}

/// A cursor that callers could hold, behind so many nodes.
pub fn given_cursor(nodes: usize) -> String {
    within(async {
        let mut reader = LISTINGS.open(&everything(), Freshness::default(), None).unwrap();
        let page = reader.read(nodes).await.unwrap();
        String::from_utf8(page.cursor.to_vec()).unwrap()
    })
}

/// A NextToken or a resume token.
pub fn cursor(bytes: &[u8]) {
    let Ok(text) = str::from_utf8(bytes) else { return };
    let _fingerprint = belongs_to(text);
    within(async {
        let Ok(mut reader) = LISTINGS.open(&everything(), Freshness::default(), Some(text)) else { return };
        // What is taken leads somewhere, and ends.
        for _ in 0..10 {
            if reader.is_at_end() || reader.read(1).await.is_err() {
                return;
            }
        }
        assert!(reader.is_at_end(), "a walk of six nodes does not end");
    });
}

/// A call: by its first byte the method, by its second the compression, and then the body.
pub fn request(bytes: &[u8]) {
    static SERVICE: LazyLock<Service> = LazyLock::new(|| {
        let (listings, default_target) = (LISTINGS.clone(), Some(TargetName::default_target()));
        Service::new(Arc::new(Serving {
            listings,
            default_target,
            policy: Policy::Open,
            config: service::Config::default(),
        }))
    });
    let [method, compression, body @ ..] = bytes else { return };
    let method = match method % 3 {
        0 => Method::DescribeInstanceInformation,
        1 => Method::StreamInstanceInformation,
        _ => Method::ListTargets,
    };
    let mut call = Request::post("http://gateway/").header("content-type", "application/grpc");
    if let Some(encoding) = ["gzip", "zstd", "br"].get(usize::from(compression % 4)) {
        call = call.header("grpc-encoding", *encoding);
    }
    let call = call.body(Full::new(Bytes::copy_from_slice(body)).map_err(Into::into).boxed_unsync()).unwrap();
    within(async {
        let messages = match SERVICE.answer(method, call).await {
            Ok(answer) => answer.into_body().collect().await.map(|body| body.to_bytes().len()),
            Err(failure) => Err(failure),
        };
        match messages.map_err(Status::from) {
            Ok(len) => assert!(len >= 5),
            Err(status) => {
                let code = status.code();
                assert!(![Code::Internal, Code::Unknown, Code::DataLoss].contains(&code), "{status:?}");
                assert!(status.details().len() + status.message().len() < MAX_TRAILERS, "{status:?}");
                assert!(status.get_details_error_info().is_some(), "{status:?}");
            }
        }
    });
}

/// What a caller says that it is a JWT, or any other bearer token.
pub fn jwt(bytes: &[u8]) {
    static LAYER: LazyLock<AuthenticateLayer> = LazyLock::new(|| {
        // The public key of RFC 7517, appendix A.1, whose private key is published, but in no seed.
        let jwks = r#"{"keys":[{"kty":"EC","crv":"P-256","kid":"1","alg":"ES256","use":"sig",
            "x":"MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4","y":"4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM"}]}"#;
        let path = env::temp_dir().join(format!("ssm-gateway-fuzz-{}.json", std::process::id()));
        fs::write(&path, jwks).unwrap();
        let jwt = JwtConfig {
            jwks: path.clone(),
            issuer: "https://issuer".to_owned(),
            audiences: vec!["ssm-gateway".to_owned()],
            algorithms: vec![SigningAlgorithm::ES256],
            clock_skew: Duration::from_secs(30),
        };
        let config = AuthConfig { jwt: Some(jwt), ..AuthConfig::default() };
        let authenticator = within(config.build(false, Duration::from_hours(1))).unwrap();
        let _gone = fs::remove_file(path);
        AuthenticateLayer(Arc::new(authenticator))
    });
    const PATH: &str = "http://gateway/ssm_gateway.v1.TargetService/ListTargets";
    let token = [b"Bearer ", bytes].concat();
    let Ok(call) = Request::post(PATH).header("authorization", &token[..]).body(()) else { return };
    let reached = service_fn(async |_: Request<()>| Ok(Response::new(())));
    let failure = within(RouteLayer.layer(LAYER.layer(reached)).oneshot(call)).expect_err("nobody holds a key");
    let status = Status::from(failure);
    assert_eq!(status.code(), Code::Unauthenticated);
}

/// The frames that a peer sends: by the first byte the size of the pieces that they come in, and then the frames.
pub fn frames(bytes: &[u8]) {
    let [size, sent @ ..] = bytes else { return };
    let watched = within(testing::frames(sent, usize::from(*size).max(1)));
    let expected = [PREFACE, sent].concat();
    match watched.cut {
        Some(_) => assert!(expected.starts_with(&watched.read)),
        None => assert_eq!((watched.read, watched.is_waiting), (expected, is_unfinished(sent))),
    }
}

/// Returns whether the last frame breaks off, or another frame must follow it.
fn is_unfinished(mut sent: &[u8]) -> bool {
    let mut is_awaited = true;
    while let Some(([a, b, c, kind, flags, _stream @ ..], payload)) = sent.split_first_chunk::<9>() {
        is_awaited = matches!(kind, 1 | 9) && flags & 4 == 0;
        let len = u32::from_be_bytes([0, *a, *b, *c]);
        let Some(rest) = payload.get(len as usize..) else { return true };
        sent = rest;
    }
    is_awaited || !sent.is_empty()
}

/// The frames that a peer sends over a Unix socket, where their authority is rewritten: by the first byte the size of the pieces that
/// they come in, and then the frames.
pub fn authority(bytes: &[u8]) {
    const MAX_SIZE: u32 = 1 << 16;
    let [size, sent @ ..] = bytes else { return };
    let sent = [PREFACE, sent].concat();
    let rewritten = |sent: &[u8], size: usize| within(testing::any_authority(sent, size, MAX_SIZE));
    let once = rewritten(&sent, usize::from(*size).max(1));
    assert_eq!(once, rewritten(&sent, sent.len()));
    // Rewriting again changes nothing, unless `localhost` made a list too large.
    if let Ok(once) = once
        && once.len() < MAX_SIZE as usize / 2
    {
        assert_eq!(rewritten(&once, once.len()).as_ref(), Ok(&once));
    }
}

/// A file of certificates, or of a key.
pub fn pem(bytes: &[u8]) {
    let certificates = pem::certificates(bytes);
    let is_written_and_read =
        |read: &Vec<_>| pem::certificates(pem::write_certificates(read).as_bytes()).as_ref() == Ok(read);
    assert!(certificates.as_ref().is_ok_and(is_written_and_read) || certificates.is_err());
    // Authorities are certificates, and all of them.
    let authorities = pem::authorities(bytes);
    assert!(authorities.is_err() || authorities == certificates);
    let key = pem::private_key(bytes);
    assert!(key.is_err() || certificates.is_err(), "a file is of certificates or of a key");
    if let Ok(key) = &key {
        assert_eq!(pem::private_key(pem::write_key(key).as_bytes()).as_ref(), Ok(key));
    }
    let (by_both, lines) = (pem::pair(bytes, bytes).is_ok(), bytes.split(|&byte| byte == b'\n').count());
    assert!(!by_both || (certificates.is_err() && key.is_err()));
    for wrong in [certificates.err(), authorities.err(), key.err()].into_iter().flatten() {
        assert!(!matches!(wrong, InvalidPem::Line { line, .. } if line == 0 || line > lines), "{wrong}");
    }
}

/// The configuration file.
pub fn config(bytes: &[u8]) {
    let Ok(text) = str::from_utf8(bytes) else { return };
    let config = match Config::parse(text, None, |_| {}) {
        Ok(config) => config,
        Err(error) => {
            assert!(!error.to_string().is_empty());
            return;
        }
    };
    let told = config.redacted().expect("what was read can be written");
    assert!(!told.is_empty() && told.parse::<toml::Table>().is_ok(), "{told}");
    let _looked_at = (config.targets(), config.default_target(), config.policy(), config.unmatched());
}

/// What AWS answers: by its first byte the status, and then the body.
pub fn answer(bytes: &[u8]) {
    static ANSWER: Mutex<Bytes> = Mutex::new(Bytes::new());
    static SSM: LazyLock<Ssm> = LazyLock::new(|| {
        let url = within(async {
            let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let addr = socket.local_addr().unwrap();
            tokio::spawn(async move {
                while let Ok((stream, _)) = socket.accept().await {
                    let service = hyper::service::service_fn(async |_| {
                        let mut body = ANSWER.lock().unwrap().clone();
                        let status = match body.split_to(body.len().min(1)).first().map_or(0, |byte| byte % 4) {
                            0 => StatusCode::OK,
                            1 => StatusCode::BAD_REQUEST,
                            2 => StatusCode::INTERNAL_SERVER_ERROR,
                            _ => StatusCode::TOO_MANY_REQUESTS,
                        };
                        let answer = Response::builder().status(status).header("x-amzn-requestid", "fuzzed");
                        answer.body(Full::new(body))
                    });
                    let io = hyper_util::rt::TokioIo::new(stream);
                    tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(io, service));
                }
            });
            format!("http://{addr}")
        });
        let config = aws::Config {
            region: Some("us-east-1".to_owned()),
            endpoint_url: Some(url),
            simulated_credentials: true,
            requests_per_second: 1e9,
            retries: 0,
            ..aws::Config::default()
        };
        within(config.build(TargetName::default_target(), &CredentialsCache::default())).unwrap()
    });
    *ANSWER.lock().unwrap() = Bytes::copy_from_slice(bytes);
    let (filters, priority) = (Filters::Current(Vec::new()), Priority::Interactive);
    let request = PageRequest { filters: &filters, token: None, number: 0, priority, not_before: None };
    match within(SSM.page(request)) {
        Ok(page) => {
            let (records, token) = (page.records.len(), page.next_token);
            assert!(token.is_none_or(|token| !token.is_empty()));
            let list = page.records.slice(0..records);
            let message = StreamInstanceInformationResponse::decode(list).expect("records are a list of nodes");
            assert_eq!(message.instance_information_list.len(), records);
        }
        Err(error) => assert!(!error.to_string().is_empty() && !format!("{error:?}").is_empty()),
    }
}
