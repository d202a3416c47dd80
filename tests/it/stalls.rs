//! Callers who do not take their answers.

use std::time::{Duration, Instant};

use prost::Message as _;
use ssm_gateway::{config::Config, proto::StreamInstanceInformationRequest};
use tokio::time;

use crate::{
    http::metrics,
    raw::{DATA, END_STREAM, HEADERS, RST_STREAM, Raw, STREAM, call, call_with, window},
    support::{Gateway, simulated_with, until},
};

const DESCRIBE: &str = "/ssm_gateway.v1.InstanceInformationService/DescribeInstanceInformation";
/// No byte of any answer is taken.
const NO_WINDOW: [u8; 6] = [0, 4, 0, 0, 0, 0];

fn stalling(config: &mut Config) {
    config.listing.stall_timeout = Duration::from_millis(300);
}

/// Waits until these calls were reset, and their places are free. Where the machine is slow a call may end before its answer
/// begins, by a status that takes no window.
async fn until_reset(raw: &mut Raw, gateway: &Gateway, mut streams: Vec<u32>) {
    while !streams.is_empty() {
        let frame = raw.next().await.unwrap();
        let is_end = frame.kind == RST_STREAM || frame.kind == HEADERS && frame.flags & END_STREAM != 0;
        streams.retain(|stream| !is_end || *stream != frame.stream);
    }
    until(|| gateway.limits.calls() == 0).await;
}

#[tokio::test]
async fn a_caller_that_takes_nothing_is_reset_and_its_place_is_free() {
    let (gateway, _simulator) = simulated_with(120, stalling).await;
    let mut raw = Raw::greeting(gateway.addr, &NO_WINDOW).await;
    raw.send(&[call(1, STREAM), call(3, DESCRIBE)].concat()).await.unwrap();
    until_reset(&mut raw, &gateway, vec![1, 3]).await;
    let refused = "ssm_gateway_refused_calls_total{cause=\"stalled\",reason=\"OVERLOADED\"}";
    let metrics = metrics(gateway.admin).await;
    assert!(metrics[refused] >= 2.0, "they are told of as what they are");
    raw.send(&[call(5, DESCRIBE), window(5, 1 << 20)].concat()).await.unwrap();
    while raw.next().await.unwrap().flags & END_STREAM == 0 {}
}

#[tokio::test]
async fn a_caller_that_takes_a_byte_at_a_time_is_reset() {
    let (gateway, _simulator) = simulated_with(5_000, stalling).await;
    let mut raw = Raw::greeting(gateway.addr, &NO_WINDOW).await;
    raw.send(&call(1, STREAM)).await.unwrap();
    let (started, mut taken) = (Instant::now(), 0);
    loop {
        raw.send(&window(1, 1)).await.unwrap();
        let frame = raw.next().await.unwrap();
        match frame.kind {
            DATA => taken += frame.payload.len(),
            RST_STREAM => break,
            _ => {}
        }
        time::sleep(Duration::from_millis(5)).await;
    }
    assert!(taken < 16 << 10 && started.elapsed() >= Duration::from_millis(300), "{taken} {:?}", started.elapsed());
    until(|| gateway.limits.calls() == 0).await;
}

/// How long a caller may take nothing of a message, for one that takes it slowly.
const STALL_TIMEOUT: Duration = Duration::from_secs(2);

/// Takes a message of 250 kB at less than seventy kilobytes a second.
///
/// # Errors
/// The longest that the caller took nothing, if the call was reset.
async fn take_slowly(gateway: &Gateway) -> Result<(), Duration> {
    let request = StreamInstanceInformationRequest { page_size: Some(1_000), ..Default::default() };
    let mut raw = Raw::greeting(gateway.addr, &NO_WINDOW).await;
    raw.send(&call_with(1, STREAM, &[], &request.encode_to_vec())).await.unwrap();
    let (started, mut taken, mut longest, mut messages) = (Instant::now(), Instant::now(), Duration::ZERO, 0);
    loop {
        let frame = raw.next_of_stream(1).await;
        longest = longest.max(taken.elapsed());
        match frame.kind {
            HEADERS if frame.flags & END_STREAM != 0 => break,
            HEADERS => raw.send(&window(1, 20_000)).await.unwrap(),
            DATA => {
                let bytes = u32::try_from(frame.payload.len()).unwrap();
                messages += bytes;
                time::sleep(Duration::from_micros(15) * bytes).await;
                raw.send(&[window(1, bytes), window(0, bytes)].concat()).await.unwrap();
            }
            _ => return Err(longest),
        }
        longest = longest.max(taken.elapsed());
        taken = Instant::now();
    }
    assert!(messages > 250_000 && started.elapsed() > STALL_TIMEOUT, "{messages} {:?}", started.elapsed());
    Ok(())
}

#[tokio::test]
async fn a_caller_that_takes_little_all_the_time_has_its_whole_answer() {
    let (gateway, _simulator) = simulated_with(1_000, |config| config.listing.stall_timeout = STALL_TIMEOUT).await;
    // Where the machine stood still meanwhile, the caller did take nothing: it tries again.
    while let Err(longest) = take_slowly(&gateway).await {
        assert!(longest > STALL_TIMEOUT / 2, "it was reset, and took something every {longest:?}");
    }
}

#[tokio::test]
async fn a_callers_deadline_and_the_longest_time_of_a_call_hold_for_callers_that_take_nothing() {
    let (gateway, _simulator) = simulated_with(120, |_| {}).await;
    let mut raw = Raw::greeting(gateway.addr, &NO_WINDOW).await;
    let deadline = [("grpc-timeout", "200m")];
    let calls = [call_with(1, STREAM, &deadline, &[]), call_with(3, DESCRIBE, &deadline, &[])].concat();
    raw.send(&calls).await.unwrap();
    until_reset(&mut raw, &gateway, vec![1, 3]).await;
    let (gateway, _simulator) = simulated_with(120, |config| {
        config.limits.max_call_time = Duration::from_millis(200);
    })
    .await;
    let mut raw = Raw::greeting(gateway.addr, &NO_WINDOW).await;
    raw.send(&call(1, STREAM)).await.unwrap();
    until_reset(&mut raw, &gateway, vec![1]).await;
}

#[tokio::test]
async fn a_drain_does_not_wait_for_callers_that_take_nothing() {
    let drain = |config: &mut Config| config.edge.drain_timeout = Duration::from_secs(8);
    let (gateway, _simulator) = simulated_with(120, drain).await;
    let mut raw = Raw::greeting(gateway.addr, &NO_WINDOW).await;
    raw.send(&call(1, STREAM)).await.unwrap();
    until(|| gateway.limits.calls() == 1).await;
    let limits = gateway.limits.clone();
    gateway.stop();
    let (reset, ()) = tokio::join!(raw.next_of(RST_STREAM), gateway.stopped());
    assert!(reset.is_some(), "at the end of the drain connections are closed, and no stream is reset");
    until(|| limits.calls() == 0).await;
}
