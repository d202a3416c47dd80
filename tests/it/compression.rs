//! Answers that are compressed: as they are configured, for callers who take it, where they are large enough.

use std::io::Read as _;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use prost::Message as _;
use ssm_gateway::{
    proto::{
        DescribeInstanceInformationRequest, DescribeInstanceInformationResponse, StreamInstanceInformationRequest,
        StreamInstanceInformationResponse,
    },
    service::Encoding,
};
use tonic::{body::Body, codec::CompressionEncoding};
use tower::ServiceExt as _;

use crate::support::{Gateway, simulated_with, within};

const DESCRIBE: &str = "/ssm_gateway.v1.InstanceInformationService/DescribeInstanceInformation";
const STREAM: &str = "/ssm_gateway.v1.InstanceInformationService/StreamInstanceInformation";

/// What comes over the wire: the encoding that is told, and each message with its flag.
async fn answers(
    gateway: &Gateway,
    path: &str,
    request: &impl prost::Message,
    accepted: Option<&str>,
) -> (Option<String>, Vec<(bool, Bytes)>) {
    let mut message = vec![0; 5];
    request.encode(&mut message).unwrap();
    let len = u32::try_from(message.len() - 5).unwrap();
    message[1..5].copy_from_slice(&len.to_be_bytes());
    let mut call = http::Request::post(format!("http://{}{path}", gateway.addr)).header("te", "trailers");
    call = call.header("content-type", "application/grpc");
    if let Some(accepted) = accepted {
        call = call.header("grpc-accept-encoding", accepted);
    }
    let call = call.body(Body::new(Full::from(message))).unwrap();
    let answer = within(gateway.channel().await.oneshot(call)).await.unwrap();
    let encoding = answer.headers().get("grpc-encoding").map(|name| name.to_str().unwrap().to_owned());
    let mut bytes = within(answer.into_body().collect()).await.unwrap().to_bytes();
    let mut messages = Vec::new();
    while !bytes.is_empty() {
        let prefix = bytes.split_to(5);
        let len = u32::from_be_bytes(prefix[1..].try_into().unwrap());
        messages.push((prefix[0] == 1, bytes.split_to(usize::try_from(len).unwrap())));
    }
    (encoding, messages)
}

fn decompressed(encoding: &str, message: &[u8]) -> Vec<u8> {
    let mut plain = Vec::new();
    match encoding {
        "gzip" => flate2::read::GzDecoder::new(message).read_to_end(&mut plain).unwrap(),
        _ => zstd::Decoder::new(message).unwrap().read_to_end(&mut plain).unwrap(),
    };
    plain
}

fn page(max_results: i32) -> DescribeInstanceInformationRequest {
    DescribeInstanceInformationRequest { max_results: Some(max_results), ..Default::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_compressed_unless_it_is_configured() {
    let (gateway, _simulator) = simulated_with(120, |_| {}).await;
    let (encoding, messages) = answers(&gateway, DESCRIBE, &page(50), Some("gzip,zstd")).await;
    assert_eq!((encoding, messages.len(), messages[0].0), (None, 1, false));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_answer_is_compressed_by_the_best_that_its_caller_takes() {
    let (gateway, _simulator) = simulated_with(120, |config| {
        config.service.compression = vec![Encoding::Zstd, Encoding::Gzip];
    })
    .await;
    let (_, plain) = answers(&gateway, DESCRIBE, &page(50), None).await;
    let (is_compressed, plain) = &plain[0];
    assert!(!is_compressed && plain.len() > 4096);
    for (accepted, encoding) in [("gzip, zstd", "zstd"), ("identity,gzip", "gzip"), ("zstd", "zstd")] {
        let (told, messages) = answers(&gateway, DESCRIBE, &page(50), Some(accepted)).await;
        let (is_compressed, message) = &messages[0];
        assert!(*is_compressed && message.len() * 2 < plain.len(), "{} of {}", message.len(), plain.len());
        assert_eq!(told.as_deref(), Some(encoding));
        let (got, wanted) = (decompressed(encoding, message), &plain[..]);
        let decode =
            |bytes: &[u8]| DescribeInstanceInformationResponse::decode(bytes).unwrap().instance_information_list;
        assert_eq!(decode(&got), decode(wanted));
    }
    let (told, messages) = answers(&gateway, DESCRIBE, &page(50), Some("br,identity")).await;
    assert_eq!((told, messages[0].0), (None, false));
    // Five nodes are less than it takes.
    let (told, messages) = answers(&gateway, DESCRIBE, &page(5), Some("gzip")).await;
    assert_eq!((told.as_deref(), messages[0].0), (Some("gzip"), false));
}

#[tokio::test(flavor = "multi_thread")]
async fn each_message_of_a_stream_is_compressed_if_it_is_large() {
    let (gateway, _simulator) = simulated_with(105, |config| config.service.compression = vec![Encoding::Gzip]).await;
    let (_, messages) = answers(&gateway, STREAM, &StreamInstanceInformationRequest::default(), Some("gzip")).await;
    assert_eq!(messages.iter().map(|(is_compressed, _)| *is_compressed).collect::<Vec<_>>(), [true, true, false]);
    let nodes: usize = messages
        .iter()
        .map(|(is_compressed, message)| {
            let plain = if *is_compressed { decompressed("gzip", message) } else { message.to_vec() };
            StreamInstanceInformationResponse::decode(&plain[..]).unwrap().instance_information_list.len()
        })
        .sum();
    assert_eq!(nodes, 105);
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_others_wrote_read_what_is_compressed() {
    let (gateway, _simulator) = simulated_with(120, |config| {
        config.service.compression = vec![Encoding::Zstd, Encoding::Gzip];
    })
    .await;
    for encoding in [CompressionEncoding::Gzip, CompressionEncoding::Zstd] {
        let mut client = gateway.client.clone().accept_compressed(encoding);
        let answer = within(client.describe_instance_information(page(50))).await.unwrap().into_inner();
        assert_eq!(answer.instance_information_list.len(), 50);
    }
}
