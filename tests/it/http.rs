//! HTTP/1.0 by hand, whose answers come in one piece: what the gateway tells administrators, and Prometheus everybody.

use std::{collections::BTreeMap, fmt::Write as _, net::SocketAddr};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::support::within;

/// The status code and the body of an answer.
pub(crate) type Answer = (u16, String);

/// Asks as somebody who addressed it by its IP address.
pub(crate) async fn get(addr: SocketAddr, path: &str) -> Answer {
    get_with(addr, path, &[("host", &addr.to_string())]).await.1
}

/// Asks with these headers; gives the answer's, too.
pub(crate) async fn get_with(addr: SocketAddr, path: &str, headers: &[(&str, &str)]) -> (String, Answer) {
    within(async {
        let mut stream = TcpStream::connect(addr).await.unwrap();
        let mut request = format!("GET {path} HTTP/1.0\r\n");
        for (name, value) in headers {
            write!(request, "{name}: {value}\r\n").unwrap();
        }
        request += "\r\n";
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let code = head.split(' ').nth(1).unwrap().parse().unwrap();
        (head.to_ascii_lowercase(), (code, body.to_owned()))
    })
    .await
}

/// Every sample of `/metrics`, by its name and labels as they are written.
pub(crate) async fn metrics(addr: SocketAddr) -> BTreeMap<String, f64> {
    let (code, text) = get(addr, "/metrics").await;
    assert_eq!(code, 200);
    let samples = text.lines().filter(|line| !line.starts_with('#'));
    samples
        .map(|line| line.rsplit_once(' ').unwrap())
        .map(|(name, value)| (name.to_owned(), value.parse().unwrap()))
        .collect()
}

/// `/status`, as programs read it.
pub(crate) async fn status(addr: SocketAddr) -> serde_json::Value {
    let (code, text) = get(addr, "/status").await;
    assert_eq!(code, 200, "{text}");
    serde_json::from_str(&text).unwrap()
}
