//! An AWS made of a function: for answers that the simulator does not give, and for who signed.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
    task::JoinSet,
};
use tokio_rustls::TlsAcceptor;

/// What an AWS that runs was asked; dropping it stops it.
pub(crate) struct Aws {
    pub(crate) addr: SocketAddr,
    calls: Arc<Mutex<Vec<Call>>>,
    _tasks: JoinSet<()>,
}

/// A request.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: String,
}

pub(crate) type Answer = Response<Full<Bytes>>;
type Answering = dyn Fn(&Call) -> Answer + Send + Sync;

impl Call {
    /// The ID of the key that signed it, and the region that it is signed for.
    pub(crate) fn signed(&self) -> (String, String) {
        let authorization = self.headers[header::AUTHORIZATION].to_str().unwrap();
        let scope = authorization.split("Credential=").nth(1).unwrap();
        let mut parts = scope.split('/');
        (parts.next().unwrap().to_owned(), parts.nth(1).unwrap().to_owned())
    }

    /// Whether it is one of STS's.
    pub(crate) fn is_sts(&self) -> bool {
        self.body.starts_with("Action=")
    }
}

impl Aws {
    pub(crate) async fn answering(answer: impl Fn(&Call) -> Answer + Send + Sync + 'static) -> Self {
        Self::start(None, Arc::new(answer)).await
    }

    /// The same, in TLS.
    pub(crate) async fn in_tls(tls: TlsAcceptor, answer: impl Fn(&Call) -> Answer + Send + Sync + 'static) -> Self {
        Self::start(Some(tls), Arc::new(answer)).await
    }

    async fn start(tls: Option<TlsAcceptor>, answer: Arc<Answering>) -> Self {
        let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (addr, calls) = (socket.local_addr().unwrap(), Arc::<Mutex<Vec<Call>>>::default());
        let (mut tasks, seen) = (JoinSet::new(), Arc::clone(&calls));
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = socket.accept().await {
                let (tls, answer, seen) = (tls.clone(), Arc::clone(&answer), Arc::clone(&seen));
                connections.spawn(async move {
                    match tls {
                        None => serve(stream, answer, seen).await,
                        Some(tls) => {
                            if let Ok(stream) = tls.accept(stream).await {
                                serve(stream, answer, seen).await;
                            }
                        }
                    }
                });
            }
        });
        Self { addr, calls, _tasks: tasks }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// All that was asked so far.
    pub(crate) fn calls(&self) -> Vec<Call> {
        self.calls.lock().unwrap().clone()
    }
}

async fn serve(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    answer: Arc<Answering>,
    seen: Arc<Mutex<Vec<Call>>>,
) {
    let service = service_fn(async |request: Request<Incoming>| {
        let (parts, body) = request.into_parts();
        let body = body.collect().await?.to_bytes();
        let body = String::from_utf8_lossy(&body).into_owned();
        let call = Call { path: parts.uri.to_string(), headers: parts.headers, body };
        seen.lock().unwrap().push(call.clone());
        Ok::<_, hyper::Error>(answer(&call))
    });
    // A connection that ends badly ends as its peer chose.
    let _end = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

/// An answer with this status and body.
pub(crate) fn answer(status: u16, body: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(Full::new(body.into()));
    *answer.status_mut() = StatusCode::from_u16(status).unwrap();
    answer
}

/// An error of AWS's.
pub(crate) fn error(status: u16, code: &str) -> Answer {
    answer(status, json!({ "__type": code, "message": "no" }).to_string())
}

/// A page of these nodes, with a token to the next if there is one.
pub(crate) fn page(ids: &[&str], next: Option<&str>) -> Answer {
    let nodes: Vec<_> = ids.iter().map(|id| json!({ "InstanceId": id })).collect();
    answer(200, json!({ "InstanceInformationList": nodes, "NextToken": next }).to_string())
}

/// STS's answer with a session of this key.
pub(crate) fn session(action: &str, key: &str) -> Answer {
    let xml = format!(
        "<{action}Response xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><{action}Result><Credentials>\
         <AccessKeyId>{key}</AccessKeyId><SecretAccessKey>secret</SecretAccessKey><SessionToken>token</SessionToken>\
         <Expiration>2099-01-01T00:00:00Z</Expiration></Credentials></{action}Result></{action}Response>"
    );
    answer(200, xml)
}

/// STS's error.
pub(crate) fn sts_error(status: u16, code: &str) -> Answer {
    answer(
        status,
        format!(
            "<ErrorResponse><Error><Type>Sender</Type><Code>{code}</Code><Message>no</Message></Error></ErrorResponse>"
        ),
    )
}
