use std::{error::Error, io, path::Path, str::FromStr};

use bytes::Bytes;
use http::{
    Request, StatusCode, Uri, header,
    uri::{Authority, Scheme},
};
use http_body_util::{BodyExt as _, Empty};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, task::JoinSet};

use super::{client, error::CliError, terminal::harmless};

/// A gateway's admin address, `http://HOST:PORT`; the admin endpoint speaks plain HTTP only.
#[derive(Debug, Clone)]
pub(super) struct Admin(Authority);

impl FromStr for Admin {
    type Err = &'static str;

    fn from_str(url: &str) -> Result<Self, Self::Err> {
        let parts = url.parse::<Uri>().map(Uri::into_parts).unwrap_or_default();
        let has_path = parts.path_and_query.is_some_and(|path| path != "/");
        let authority = parts.authority.filter(|host| !host.as_str().contains('@') && !has_path);
        let authority = authority.filter(|_| parts.scheme.is_none_or(|scheme| scheme == Scheme::HTTP));
        authority.map(Self).ok_or("not an admin address such as http://127.0.0.1:9464")
    }
}

impl Admin {
    /// Gets a path of the admin endpoint, with the token in the file.
    pub(super) async fn get(&self, path: &str, token_file: Option<&Path>) -> Result<Bytes, CliError> {
        let host = self.0.as_str();
        let port = self.0.port_u16().map_or(":80", |_| "");
        let stream = TcpStream::connect(format!("{host}{port}")).await.map_err(|error| match error.kind() {
            io::ErrorKind::ConnectionRefused => self.failed(
                "nothing listens there (connection refused): is the gateway running, and is the address right?",
            ),
            _ => self.failed(error),
        })?;
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|error| self.failed(error))?;
        // An error of the connection also fails the request.
        let _connection = JoinSet::from_iter([connection]);
        let mut request = Request::get(path).header(header::HOST, host);
        if let Some(file) = token_file {
            if !client::is_local(self.0.host()) {
                return Err(CliError::PlaintextAdminToken(self.0.clone()));
            }
            request = request
                .header(header::AUTHORIZATION, client::authorization("--admin-token-file", file)?.as_encoded_bytes());
        }
        let request = request.body(Empty::<Bytes>::new()).map_err(|error| self.failed(error))?;
        let answer = sender.send_request(request).await.map_err(|_no_answer| {
            self.failed("the server does not answer in HTTP/1.1: is this the address of [admin]?")
        })?;
        let status = answer.status();
        if status == StatusCode::HTTP_VERSION_NOT_SUPPORTED {
            return Err(self.failed("the server speaks gRPC: is this the address of [admin]?"));
        }
        let body = answer.into_body().collect().await.map_err(|error| self.failed(error))?.to_bytes();
        if status.is_success() {
            return Ok(body);
        }
        Err(self.failed(format!("{status}: {}", harmless(String::from_utf8_lossy(&body).trim()))))
    }

    /// Returns the error of a failed request.
    pub(super) fn failed(&self, why: impl Into<Box<dyn Error + Send + Sync>>) -> CliError {
        CliError::Admin(self.0.clone(), why.into())
    }
}
