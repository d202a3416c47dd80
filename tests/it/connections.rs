//! Connections: how they come, how long they stay, and who is shown out.

use std::{
    cell::Cell,
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
    io::{self, AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpStream, UnixListener, UnixStream},
    time,
};

use crate::{
    http::metrics,
    program::{Program, SSM_GATEWAY},
    proofs::{Folder, Secured},
    raw::{
        CONTINUATION, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PING, PREFACE, RST_STREAM, Raw, SETTINGS, STREAM,
        call, call_with, field, frame, headers, reset,
    },
    support::{Client, Gateway, config, failing, simulated, simulated_with, simulator_of, until, within},
};

const HEALTH: &str = "/grpc.health.v1.Health/Check";

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
    let gateway = Gateway::on_unix_socket(config.clone(), &path).await;
    let answer = gateway.describe(DescribeInstanceInformationRequest::default()).await.unwrap();
    assert_eq!(answer.instance_information_list.len(), 7);
    let url = format!("unix:{}", path.display());
    let output = Command::new(SSM_GATEWAY).args(["list", "--server", &url, "--output", "csv"]).output().unwrap();
    assert_eq!(String::from_utf8(output.stdout).unwrap().lines().count(), 8);
    let taken = ssm_gateway::app::App::build(config).await.unwrap_err().to_string();
    assert_eq!(taken, format!("could not listen on unix:{}", path.display()), "somebody listens there");
    assert!(UnixStream::connect(&path).await.is_ok());
    gateway.stop();
    gateway.stopped().await;
    assert!(!path.exists());
}

/// What clients send as the authority over a Unix socket: C-core's the path percent-encoded, grpc-java the path, others nothing.
#[tokio::test]
async fn over_a_unix_socket_any_authority_is_served() {
    let (simulator, folder) = (simulator_of(7).await, Folder::new());
    let path = folder.path("gateway.sock");
    let _gateway = Gateway::on_unix_socket(config(&simulator.url()), &path).await;
    let bare = path.to_str().unwrap();
    let encoded = bare.replace('/', "%2F");
    let mut raw = Raw(within(UnixStream::connect(&path)).await.unwrap());
    raw.send(&[PREFACE, &frame(SETTINGS, 0, 0, &[])].concat()).await.unwrap();
    for (stream, authority) in [(1, bare), (3, &encoded), (5, ""), (7, "localhost"), (9, bare)] {
        // `:authority` by its number in the static table, to be added to the dynamic one.
        let value = [&[u8::try_from(authority.len()).unwrap()][..], authority.as_bytes()].concat();
        let pseudo = [vec![0x83, 0x86, 0x41], value, field(":path", HEALTH), field("te", "trailers")].concat();
        let headers = [pseudo, field("content-type", "application/grpc")].concat();
        raw.send(&frame(HEADERS, END_HEADERS, stream, &headers)).await.unwrap();
        raw.send(&frame(DATA, END_STREAM, stream, &[0; 5])).await.unwrap();
        let kinds = [raw.next_of_stream(stream).await.kind, raw.next_of_stream(stream).await.kind];
        assert_eq!(kinds, [HEADERS, DATA], "{authority:?}");
    }
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
    let quick = |config: &mut ssm_gateway::config::Config| config.edge.request_timeout = Duration::from_secs(1);
    let (gateway, _simulator) = simulated_with(1, quick).await;
    let started = Instant::now();
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
    tokio::join!(silent.closed(), greeting.closed(), within(drip));
    assert!(started.elapsed() >= Duration::from_secs(1), "{:?}", started.elapsed());
    describe(&gateway).await;
}

#[tokio::test]
async fn a_tls_handshake_that_is_not_finished_is_given_up() {
    let (simulator, secured) = (simulator::Config::default().start().await.unwrap(), Secured::new());
    let mut config = config(&simulator.url());
    secured.configure(&mut config);
    config.edge.handshake_timeout = Duration::from_secs(2);
    config.allow = vec![crate::proofs::allow("*", &[], &[])];
    let gateway = Gateway::serving(config, async |addr| secured.endpoint(addr.port(), Some("a")).connect().await).await;
    let started = Instant::now();
    let mut half = Raw::silent(gateway.addr).await;
    half.send(&[22, 3, 1, 2, 0, 1]).await.unwrap();
    half.closed().await;
    assert!(started.elapsed() >= Duration::from_secs(2), "{:?}", started.elapsed());
    let mut plain = Raw::greeting(gateway.addr, &[]).await;
    // HTTP/2 without TLS is no handshake.
    plain.closed().await;
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
    let started = Instant::now();
    let mut stuck = Raw::greeting(gateway.addr, &[]).await;
    stuck.send(&call(1, STREAM)).await.unwrap();
    assert!(stuck.next_of(GOAWAY).await.is_some());
    let told = started.elapsed();
    while stuck.next_of(GOAWAY).await.is_some() {}
    let (told, closed) = (told.as_millis(), started.elapsed().as_millis());
    assert!(told >= 100 && closed >= 500, "told after {told} ms, closed after {closed}");
}

#[tokio::test]
async fn a_peer_that_is_gone_is_noticed() {
    let (gateway, _simulator) = simulated_with(1, |config| {
        config.edge.keepalive_interval = Duration::from_millis(100);
        config.edge.keepalive_timeout = Duration::from_secs(4);
    })
    .await;
    let mut there = Raw::greeting(gateway.addr, &[]).await;
    let mut gone = Raw::greeting(gateway.addr, &[]).await;
    let is_gone = Cell::new(false);
    let going = async {
        // It answers nothing, not even pings.
        gone.closed().await;
        is_gone.set(true);
    };
    let staying = async {
        while !is_gone.get() {
            assert!(there.next_of(PING).await.is_some(), "who answers them stays");
        }
        assert!(there.next_of(PING).await.is_some(), "longer than who does not");
    };
    tokio::join!(going, staying);
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
    assert!(told.contains(&(3, 2)) && told.contains(&(6, 8 * 2048)), "{told:?}");
    simulator.set_faults(failing(FailureKind::Hang));
    let mut raw = Raw::greeting(gateway.addr, &[]).await;
    for stream in [1, 3, 5] {
        raw.send(&call(stream, STREAM)).await.unwrap();
    }
    let refused = raw.next_of(RST_STREAM).await.unwrap();
    assert_eq!(refused.payload, 7u32.to_be_bytes(), "REFUSED_STREAM: it was not begun, and may be tried again");
    assert_eq!(gateway.limits.calls(), 2);
}

/// Headers of so many bytes as HTTP/2 counts them, or a few more, in as many frames as they take.
fn large_headers(stream: u32, bytes: usize) -> Vec<u8> {
    let more = (0..bytes / 200).flat_map(|index| field(&format!("x-{index}"), &"v".repeat(126)).into_iter());
    let mut more = more.chain(field("x", &"v".repeat(100))).collect::<Vec<u8>>();
    let mut block = headers(STREAM);
    block.append(&mut more);
    let chunks: Vec<&[u8]> = block.chunks(16_000).collect();
    let frames = chunks.iter().enumerate().map(|(index, chunk)| {
        let (kind, end) = (if index == 0 { HEADERS } else { CONTINUATION }, index + 1 == chunks.len());
        let flags = u8::from(index == 0) | if end { END_HEADERS } else { 0 };
        frame(kind, flags, stream, chunk)
    });
    frames.flatten().collect()
}

#[tokio::test]
async fn a_call_with_too_many_headers_fails_alone_and_says_so() {
    let (gateway, simulator) = simulated(1).await;
    simulator.set_faults(failing(FailureKind::Hang));
    let mut raw = Raw::greeting(gateway.addr, &[]).await;
    raw.send(&call(1, STREAM)).await.unwrap();
    until(|| gateway.limits.calls() == 1).await;
    for (stream, size) in [(3, 20_000), (5, 80_000), (7, 100_000)] {
        raw.send(&large_headers(stream, size)).await.unwrap();
        let answer = raw.next_of_stream(stream).await;
        let text = String::from_utf8_lossy(&answer.payload).into_owned();
        assert_eq!(answer.flags & END_STREAM, END_STREAM, "{size}: {answer:?}");
        assert!(answer.kind == HEADERS && !text.contains("431"), "{size}: {text}");
    }
    let counted = "ssm_gateway_refused_calls_total{cause=\"headers\",reason=\"REQUEST_TOO_LARGE\"}";
    until_counted(&gateway, counted, 3.0).await;
    assert_eq!(gateway.limits.calls(), 1, "its neighbour goes on, and no handler saw it");
}

/// Waits until a metric is as high as that.
async fn until_counted(gateway: &Gateway, name: &str, count: f64) {
    within(async {
        while metrics(gateway.admin).await.get(name).copied().unwrap_or_default() < count {
            time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

fn cut(reason: &str) -> String {
    format!("ssm_gateway_connections_cut_total{{reason=\"{reason}\"}}")
}

/// So many calls that are begun at once, with the headers of a caller that has this deadline.
fn calls(from: u32, count: u32, deadline: &str) -> Vec<u8> {
    (from..from + count).flat_map(|number| call_with(id(number), STREAM, &[("grpc-timeout", deadline)], &[])).collect()
}

fn resets(from: u32, count: u32) -> Vec<u8> {
    (from..from + count).flat_map(|number| reset(id(number))).collect()
}

#[tokio::test]
async fn a_client_whose_deadlines_pass_keeps_its_connection_and_the_long_stream_on_it() {
    let (gateway, simulator) = simulated(1).await;
    simulator.set_faults(failing(FailureKind::Hang));
    let mut raw = Raw::greeting(gateway.addr, &[]).await;
    raw.send(&call(1, STREAM)).await.unwrap();
    let mut from = 1;
    for _ in 0..3 {
        let begun = Instant::now();
        raw.send(&calls(from, 200, "1S")).await.unwrap();
        // Where the machine is slow the gateway may have ended the first before the last are begun.
        until(|| gateway.limits.calls() == 201 || begun.elapsed() > Duration::from_secs(1)).await;
        // A little earlier than the gateway's own clock says.
        time::sleep(Duration::from_millis(800)).await;
        raw.send(&resets(from, 200)).await.unwrap();
        until(|| gateway.limits.calls() == 1).await;
        from += 200;
    }
    // And all at once, as they come where the gateway did not run for a while.
    let unseen: Vec<u8> =
        (from..from + 400).flat_map(|number| [calls(number, 1, "400m"), resets(number, 1)].concat()).collect();
    raw.send(&unseen).await.unwrap();
    raw.send(&calls(from + 400, 1, "1H")).await.unwrap();
    until(|| gateway.limits.calls() == 2).await;
    assert!(metrics(gateway.admin).await[&cut("resets")] == 0.0);
}

#[tokio::test]
async fn who_gives_up_all_calls_too_soon_is_sent_away_and_counted() {
    let (gateway, simulator) = simulated(1).await;
    simulator.set_faults(failing(FailureKind::Hang));
    let (reading, mut writing) = Raw::greeting(gateway.addr, &[]).await.0.into_split();
    let mut raw = Raw(io::join(reading, io::sink()));
    // Five times, or more often where the machine is slow and calls come of age.
    let giving_up = async {
        for round in 0.. {
            let _cut = writing.write_all(&calls(100 * round, 100, "1H")).await;
            until(|| gateway.limits.calls() == 100).await;
            let _cut = writing.write_all(&resets(100 * round, 100)).await;
            until(|| gateway.limits.calls() == 0).await;
        }
    };
    let goaway = tokio::select! {
        goaway = raw.next_of(GOAWAY) => goaway.unwrap().payload,
        () = giving_up => panic!("it is served for ever"),
    };
    assert_eq!(goaway[4..8], 11u32.to_be_bytes(), "ENHANCE_YOUR_CALM");
    assert_eq!(String::from_utf8_lossy(&goaway[8..]), "too many calls were given up");
    raw.closed().await;
    until_counted(&gateway, &cut("resets"), 1.0).await;
}

/// A peer that writes what it is told, the number of the write given, and a pause after each.
struct Attacker {
    name: &'static str,
    has_greeted: bool,
    has_one_call: bool,
    writes: fn(u32) -> (Vec<u8>, Duration),
}

const DRIP: Duration = Duration::from_millis(100);
/// A message that asks for what is no older than this call: `read_options { max_age {} }`.
const NOW: [u8; 5] = [0x8a, 1, 2, 10, 0];

fn id(number: u32) -> u32 {
    2 * number + 1
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
                0 => call_with(id(call_), STREAM, &[], &NOW),
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
async fn attacked(lasts: Duration, is_measured: bool) {
    let (gateway, simulator) = simulated_with(60, |config| {
        config.listing.ttl = Duration::from_hours(1);
        // It holds for those who are served, too.
        config.edge.request_timeout = Duration::from_millis(if is_measured { 1500 } else { 5000 });
    })
    .await;
    describe(&gateway).await;
    // What must be asked of AWS waits.
    simulator.set_faults(failing(FailureKind::Hang));
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
        assert!(calls > 0, "with {name} nobody was served");
        // How fast that is says something where nothing else runs.
        assert!(!is_measured || longest < Duration::from_secs(2), "{name} was shown out after {longest:?}");
        assert!(!is_measured || slowest < Duration::from_millis(500), "with {name} a call took {slowest:?}");
        until(|| gateway.limits.calls() == 0).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn attackers_are_shown_out_while_others_are_served() {
    attacked(Duration::from_millis(500), false).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: a minute"]
async fn long_attackers_are_shown_out_while_others_are_served() {
    attacked(Duration::from_secs(10), true).await;
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
async fn a_peer_that_speaks_http1_is_told_what_is_spoken_here_and_any_other_is_closed() {
    let (gateway, _simulator) = simulated(1).await;
    for request in ["GET / HTTP/1.1\r\nhost: localhost\r\n\r\n", "PRI / HTTP/1.1\r\n\r\n"] {
        let mut other = TcpStream::connect(gateway.addr).await.unwrap();
        other.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        within(other.read_to_string(&mut answer)).await.unwrap();
        assert!(
            answer.starts_with("HTTP/1.1 505 HTTP Version Not Supported\r\n") && answer.contains("gRPC over HTTP/2"),
            "{answer}"
        );
    }
    let mut other = Raw::silent(gateway.addr).await;
    other.send(&[22, 3, 1, 2, 0, 1, 0, 1, 0]).await.unwrap();
    other.closed().await;
    until_counted(&gateway, &cut("not_http2"), 3.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_strangers_do_writes_few_lines_that_say_who_they_are() {
    let (simulator, folder) = (simulator::Config::default().start().await.unwrap(), Folder::new());
    let program = Program::in_front_of(&simulator, &folder, "", "127.0.0.1:0", "");
    let (started, mut addresses) = (Instant::now(), Vec::new());
    for _ in 0..60 {
        let mut raw = Raw::greeting(program.addr, &[]).await;
        addresses.push(raw.0.local_addr().unwrap().to_string());
        let unseen: Vec<u8> =
            (0..1100).flat_map(|number| [calls(number, 1, "1H"), resets(number, 1)].concat()).collect();
        let _cut = raw.send(&unseen).await;
        raw.closed().await;
    }
    for _ in 0..60 {
        let mut raw = Raw::greeting(program.addr, &[]).await;
        // A frame of data for no stream.
        let _cut = raw.send(&frame(DATA, 0, 0, &[])).await;
        raw.closed().await;
    }
    let log = program.stop();
    let lines: Vec<&str> = log.lines().filter(|line| line.contains("WARN")).collect();
    let intervals = usize::try_from(started.elapsed().as_secs() / 10).unwrap() + 1;
    assert!((1..=10 * intervals).contains(&lines.len()), "{log}");
    assert!(lines.iter().all(|line| line.contains("a connection was cut")), "{log}");
    assert!(addresses.iter().any(|address| lines.iter().any(|line| line.contains(address))), "{log}");
}
