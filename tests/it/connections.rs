//! Connections: how they come, how long they stay, and who is shown out.

use std::{
    fs,
    net::SocketAddr,
    process::Command,
    time::{Duration, Instant},
};

use ssm_gateway::{
    edge::Address,
    proto::DescribeInstanceInformationRequest,
    simulator::{self, FailureKind},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpStream, UnixListener, UnixStream},
    time,
};
use tonic::transport::Endpoint;

use crate::{
    program::{Program, SSM_GATEWAY},
    proofs::{Folder, Secured},
    raw::{
        CONTINUATION, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PREFACE, RST_STREAM, Raw, SETTINGS, STREAM, call,
        field, frame, headers,
    },
    support::{Client, Gateway, config, failing, simulated, simulated_with, simulator_of, until, within},
};

async fn describe(gateway: &Gateway) {
    gateway.describe(DescribeInstanceInformationRequest::default()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_unix_socket_serves_like_a_port_and_what_was_left_behind_is_replaced() {
    let simulator = simulator_of(7).await;
    let folder = Folder::new();
    let path = folder.path("gateway.sock");
    drop(UnixListener::bind(&path).unwrap());
    let mut config = config(&simulator.url());
    config.edge.listen = Address::Unix(path.clone());
    let url = format!("unix:{}", path.display());
    let connect = async |_| Endpoint::from_shared(url.clone()).unwrap().connect().await;
    let gateway = Gateway::serving(config.clone(), connect).await;
    let answer = gateway.describe(DescribeInstanceInformationRequest::default()).await.unwrap();
    assert_eq!(answer.instance_information_list.len(), 7);
    let output = Command::new(SSM_GATEWAY).args(["list", "--server", &url, "--output", "csv"]).output().unwrap();
    assert_eq!(String::from_utf8(output.stdout).unwrap().lines().count(), 8);
    let taken = ssm_gateway::app::App::build(config).await.unwrap_err().to_string();
    assert_eq!(taken, format!("could not listen on unix:{}", path.display()), "somebody listens there");
    assert!(UnixStream::connect(&path).await.is_ok());
    gateway.stop();
    gateway.stopped().await;
    assert!(!path.exists());
}

#[tokio::test]
async fn there_are_no_more_connections_than_may_be_and_the_next_one_is_told_at_once() {
    let (gateway, _simulator) = simulated_with(1, |config| config.edge.max_connections = 3).await;
    let mut first = Raw::greeting(gateway.addr, &[]).await;
    let mut second = Raw::greeting(gateway.addr, &[]).await;
    assert!(first.next_of(SETTINGS).await.is_some() && second.next_of(SETTINGS).await.is_some());
    let mut third = Raw::greeting(gateway.addr, &[]).await;
    assert!(third.next().await.is_none(), "with the client's there are three");
    drop(first);
    within(async { while Raw::greeting(gateway.addr, &[]).await.next().await.is_none() {} }).await;
    describe(&gateway).await;
}

#[tokio::test]
async fn who_does_not_greet_in_time_is_shown_out() {
    let quick = |config: &mut ssm_gateway::config::Config| config.edge.request_timeout = Duration::from_millis(300);
    let (gateway, _simulator) = simulated_with(1, quick).await;
    let mut silent = Raw::silent(gateway.addr).await;
    let mut greeting = Raw::silent(gateway.addr).await;
    greeting.send(PREFACE).await.unwrap();
    let mut dripping = Raw::silent(gateway.addr).await;
    let drip = async {
        for byte in PREFACE.chunks(1).cycle() {
            if dripping.send(byte).await.is_err() {
                return;
            }
            time::sleep(Duration::from_millis(50)).await;
        }
    };
    let started = Instant::now();
    tokio::join!(silent.closed(), greeting.closed(), within(drip));
    assert!((300..2000).contains(&started.elapsed().as_millis()), "{:?}", started.elapsed());
    describe(&gateway).await;
}

#[tokio::test]
async fn a_tls_handshake_that_is_not_finished_is_given_up() {
    let (simulator, secured) = (simulator::Config::default().start().await.unwrap(), Secured::new());
    let mut config = config(&simulator.url());
    secured.configure(&mut config);
    config.edge.handshake_timeout = Duration::from_millis(300);
    config.allow = vec![crate::proofs::allow("*", &[], &[])];
    let gateway = Gateway::serving(config, async |addr| secured.endpoint(addr.port(), Some("a")).connect().await).await;
    let mut half = Raw::silent(gateway.addr).await;
    half.send(&[22, 3, 1, 2, 0, 1]).await.unwrap();
    let closed = half.closed().await;
    assert!((250..2000).contains(&closed.as_millis()), "{closed:?}");
    let mut plain = Raw::greeting(gateway.addr, &[]).await;
    assert!(plain.closed().await < Duration::from_secs(2), "HTTP/2 without TLS is no handshake");
    describe(&gateway).await;
}

#[tokio::test]
async fn a_connection_that_is_old_is_told_to_go_and_its_calls_may_finish_for_a_while() {
    let (gateway, simulator) = simulated_with(1, |config| {
        config.edge.max_connection_age = Duration::from_millis(200);
        config.edge.max_connection_age_grace = Duration::from_millis(400);
    })
    .await;
    simulator.set_faults(failing(FailureKind::Hang));
    let mut stuck = Raw::greeting(gateway.addr, &[]).await;
    let started = Instant::now();
    stuck.send(&call(1, STREAM)).await.unwrap();
    assert!(stuck.next_of(GOAWAY).await.is_some());
    let told = started.elapsed();
    while stuck.next_of(GOAWAY).await.is_some() {}
    let (told, closed) = (told.as_millis(), started.elapsed().as_millis());
    assert!(
        (100..2000).contains(&told) && (500..5000).contains(&closed),
        "told after {told} ms, closed after {closed}"
    );
}

#[tokio::test]
async fn a_peer_that_is_gone_is_noticed() {
    let (gateway, _simulator) = simulated_with(1, |config| {
        config.edge.keepalive_interval = Duration::from_millis(100);
        config.edge.keepalive_timeout = Duration::from_secs(1);
    })
    .await;
    let mut gone = Raw::greeting(gateway.addr, &[]).await;
    // It answers nothing, not even pings.
    assert!(gone.closed().await < Duration::from_secs(5));
    let mut there = Raw::greeting(gateway.addr, &[]).await;
    let answering = time::timeout(Duration::from_millis(1500), there.next_of(GOAWAY)).await;
    assert!(answering.is_err(), "who answers them stays");
}

/// The settings that the gateway sent.
async fn settings(gateway: &Gateway) -> Vec<(u16, u32)> {
    let payload = Raw::greeting(gateway.addr, &[]).await.next_of(SETTINGS).await.unwrap().payload;
    let setting = |chunk: &[u8]| {
        (u16::from_be_bytes(chunk[..2].try_into().unwrap()), u32::from_be_bytes(chunk[2..].try_into().unwrap()))
    };
    payload.chunks(6).map(setting).collect()
}

#[tokio::test]
async fn a_connection_has_as_many_calls_and_headers_as_may_be() {
    let (gateway, simulator) = simulated_with(1, |config| {
        config.edge.max_concurrent_streams = 2;
        config.edge.max_header_list_size = 2048;
    })
    .await;
    let told = settings(&gateway).await;
    assert!(told.contains(&(3, 2)) && told.contains(&(6, 2048)), "{told:?}");
    simulator.set_faults(failing(FailureKind::Hang));
    let mut raw = Raw::greeting(gateway.addr, &[]).await;
    for stream in [1, 3, 5] {
        raw.send(&call(stream, STREAM)).await.unwrap();
    }
    let refused = raw.next_of(RST_STREAM).await.unwrap();
    assert_eq!(refused.payload, 7u32.to_be_bytes(), "REFUSED_STREAM: it was not begun, and may be tried again");
    let mut large = Raw::greeting(gateway.addr, &[]).await;
    let headers =
        [headers(STREAM), (0..40).flat_map(|index| field(&format!("x-{index}"), &"v".repeat(100))).collect()].concat();
    large.send(&frame(HEADERS, END_HEADERS | 1, 1, &headers)).await.unwrap();
    let answered = within(async {
        loop {
            match large.next().await {
                Some(frame) if [HEADERS, RST_STREAM, GOAWAY].contains(&frame.kind) => return frame.kind,
                Some(_) => {}
                None => return 0,
            }
        }
    });
    assert_ne!(answered.await, 0, "it was told");
    assert_eq!(gateway.limits.calls(), 2, "no handler saw it");
}

/// A peer that writes what it is told, the number of the write given, and a pause after each.
struct Attacker {
    name: &'static str,
    has_greeted: bool,
    has_one_call: bool,
    writes: fn(u32) -> (Vec<u8>, Duration),
}

const DRIP: Duration = Duration::from_millis(100);

fn id(number: u32) -> u32 {
    2 * number + 1
}

fn reset(stream: u32) -> Vec<u8> {
    frame(RST_STREAM, 0, stream, &8u32.to_be_bytes())
}

fn attacker(name: &'static str, writes: fn(u32) -> (Vec<u8>, Duration)) -> Attacker {
    Attacker { name, has_greeted: true, has_one_call: false, writes }
}

fn attackers() -> [Attacker; 7] {
    [
        attacker("rapid reset", |number| {
            let begun = frame(HEADERS, END_HEADERS, id(number), &headers(STREAM));
            ([begun, reset(id(number))].concat(), Duration::ZERO)
        }),
        attacker("resets of calls that were begun", |number| {
            let calls = 100 * (number / 2)..100 * (number / 2 + 1);
            let bytes = calls.map(|call_| match number % 2 {
                0 => call(id(call_), STREAM),
                _ => reset(id(call_)),
            });
            (bytes.flatten().collect(), Duration::from_millis(1))
        }),
        attacker("headers without end", |number| match number {
            0 => (frame(HEADERS, 0, 1, &headers(STREAM)), Duration::ZERO),
            _ => (frame(CONTINUATION, 0, 1, &field("x", &"v".repeat(100))), Duration::ZERO),
        }),
        attacker("headers with nothing in them", |number| match number {
            0 => (frame(HEADERS, 0, 1, &[0x83]), Duration::ZERO),
            _ => (frame(CONTINUATION, 0, 1, &[]), Duration::ZERO),
        }),
        attacker("a call byte by byte", |number| {
            (call(1, STREAM).into_iter().skip(number as usize).take(1).collect(), DRIP)
        }),
        Attacker {
            name: "a call frame by frame",
            has_greeted: true,
            has_one_call: true,
            writes: |number| match number {
                0 => ([frame(HEADERS, END_HEADERS, 1, &headers(STREAM)), frame(DATA, 0, 1, &[0; 4])].concat(), DRIP),
                _ => (frame(DATA, 0, 1, &[]), DRIP),
            },
        },
        Attacker {
            name: "a greeting byte by byte",
            has_greeted: false,
            has_one_call: false,
            writes: |number| (PREFACE.iter().skip(number as usize).take(1).copied().collect(), DRIP),
        },
    ]
}

impl Attacker {
    /// Attacks until it is shown out, and tells how long that took.
    async fn attack(&self, addr: SocketAddr) -> Duration {
        let raw = if self.has_greeted { Raw::greeting(addr, &[]).await } else { Raw::silent(addr).await };
        let (started, (mut reading, mut writing)) = (Instant::now(), raw.0.into_split());
        let attacking = async {
            for number in 0.. {
                let (bytes, pause) = (self.writes)(number);
                if writing.write_all(&bytes).await.is_err() {
                    return;
                }
                if !pause.is_zero() {
                    time::sleep(pause).await;
                }
            }
        };
        // Its connection is closed, or its call is ended.
        let shown_out = async {
            let mut header = [0; 9];
            while reading.read_exact(&mut header).await.is_ok() {
                let [a, b, c, kind, flags, ..] = header;
                let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
                let is_read = reading.read_exact(&mut payload).await.is_ok();
                if !is_read || (kind == HEADERS && flags & END_STREAM != 0 && self.has_one_call) {
                    return;
                }
            }
        };
        within(async {
            tokio::select! {
                () = attacking => {}
                () = shown_out => {}
            }
        })
        .await;
        started.elapsed()
    }
}

/// Each attacker comes back as often as it likes, for so long, while others call.
async fn attacked(lasts: Duration) {
    // All as it is by default.
    let (gateway, _simulator) = simulated(60).await;
    describe(&gateway).await;
    for attacker in attackers() {
        let attacks = async {
            let (started, mut longest, mut times) = (Instant::now(), Duration::ZERO, 0);
            while started.elapsed() < lasts {
                longest = longest.max(attacker.attack(gateway.addr).await);
                times += 1;
            }
            (longest, times)
        };
        let (mut attacks, mut slowest, mut calls) = (std::pin::pin!(attacks), Duration::ZERO, 0);
        let (longest, times) = loop {
            let call = async {
                let started = Instant::now();
                describe(&gateway).await;
                started.elapsed()
            };
            tokio::select! {
                attacks = &mut attacks => break attacks,
                took = call => slowest = slowest.max(took),
            }
            calls += 1;
        };
        let name = attacker.name;
        println!(
            "{name}: shown out {times} times, after {longest:?} at most; the slowest of {calls} calls took {slowest:?}"
        );
        assert!(longest < Duration::from_secs(2), "{name} was shown out after {longest:?}");
        assert!(slowest < Duration::from_millis(500) && calls > 0, "with {name} a call took {slowest:?}");
        until(|| gateway.limits.calls() == 0).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn attackers_are_shown_out_while_others_are_served() {
    attacked(Duration::from_millis(500)).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: a minute"]
async fn long_attackers_are_shown_out_while_others_are_served() {
    attacked(Duration::from_secs(10)).await;
}

/// How much CPU a process has used, in ticks of ten milliseconds.
fn ticks(process: u32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn without_file_descriptors_the_gateway_waits_for_some_and_does_not_spin() {
    let (simulator, folder) = (simulator::Config::default().start().await.unwrap(), Folder::new());
    let mut program = Program::in_front_of(&simulator, &folder, "", "127.0.0.1:0", "ulimit -n 40;");
    let mut held = Vec::new();
    for _ in 0..60 {
        held.push(TcpStream::connect(program.addr).await.unwrap());
    }
    program.until("connections cannot be accepted");
    let before = ticks(program.id());
    time::sleep(Duration::from_millis(500)).await;
    let used = ticks(program.id()) - before;
    assert!(used < 20, "it used {used} of 50 ticks");
    drop(held);
    let mut client = within(Client::connect(format!("http://{}", program.addr))).await.unwrap();
    within(client.describe_instance_information(DescribeInstanceInformationRequest::default())).await.unwrap();
    program.stop();
}

#[tokio::test]
async fn a_peer_that_speaks_something_else_is_closed() {
    let (gateway, _simulator) = simulated(1).await;
    let mut other = Raw::silent(gateway.addr).await;
    other.send(b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
    assert!(other.closed().await < Duration::from_secs(2));
}
