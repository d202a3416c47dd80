//! Random faults under many callers: whatever happens, an answer is right or a mapped error, and nothing is left behind.
//! The long form runs in release, by `cargo test --release -- --ignored`.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use ssm_gateway::{
    config::Target,
    proto::{DescribeInstanceInformationRequest, InstanceInformation, ReadOptions, StreamInstanceInformationRequest},
    read::Outcome,
    simulator::{Failure, FailureKind, Faults, Rate, Scope, Simulator},
};
use tokio::runtime::Handle;
use tonic::Status;
use tonic_types::StatusExt as _;

use crate::support::{Client, Gateway, fetches, simulator_of, until, within};

const HOME: &str = "123456789012";
const REGIONS: [&str; 4] = ["eu-west-1", "eu-west-2", "us-east-1", "us-west-2"];
/// All that may go wrong here, as callers are told it.
const REASONS: [&str; 11] = [
    "THROTTLING",
    "INTERNAL_SERVER_ERROR",
    "TARGET_UNAVAILABLE",
    "UPSTREAM_PROTOCOL",
    "AWS_ACCESS_DENIED",
    "AWS_CREDENTIALS",
    "LISTING_EXPIRED",
    "OVERLOADED",
    "INVALID_NEXT_TOKEN",
    "DEADLINE_EXCEEDED",
    "SERVICE_UNAVAILABLE",
];

/// What is known of the world that callers ask.
struct World {
    fleets: BTreeMap<String, Vec<String>>,
    /// Calls that reached a first page or an error in its place.
    calls: AtomicU64,
}

fn ids(nodes: &[InstanceInformation]) -> Vec<String> {
    nodes.iter().map(|node| node.instance_id().to_owned()).collect()
}

fn faults(random: &mut fastrand::Rng) -> Faults {
    let kinds = [
        FailureKind::Throttling,
        FailureKind::InternalError,
        FailureKind::Html,
        FailureKind::HtmlOk,
        FailureKind::MalformedJson,
        FailureKind::Reset,
        FailureKind::Cut,
        FailureKind::Hang,
        FailureKind::AccessDenied,
        FailureKind::ExpiredCredentials,
    ];
    let failure = Failure { probability: random.f64() / 2.0, ..Failure::always(random.choice(kinds).unwrap()) };
    Faults {
        latency: Duration::from_millis(random.u64(..20)),
        failures: if random.bool() { vec![failure] } else { Vec::new() },
        empty_every: random.u32(..4),
        expire_tokens: random.u8(..10) == 0,
        rate: (random.u8(..5) == 0).then_some(Rate { per_second: 50.0, burst: 20.0 }),
        ..Faults::default()
    }
}

/// Whether an error is one that a caller can make something of.
fn is_mapped(status: &Status) {
    let reason = status.get_details_error_info().expect("an ErrorInfo").reason;
    assert!(REASONS.contains(&&*reason), "{reason}: {status:?}");
    assert!(!status.message().is_empty());
}

async fn call(world: &World, client: &mut Client, random: &mut fastrand::Rng) {
    let target = (*random.choice(REGIONS).as_ref().unwrap()).to_owned();
    let age = |random: &mut fastrand::Rng| {
        random.bool().then(|| Duration::from_millis(random.u64(..500)).try_into().unwrap())
    };
    let read_options = Some(ReadOptions { max_age: age(random), max_stale: age(random) });
    world.calls.fetch_add(1, Relaxed);
    if random.bool() {
        let max_results = Some(random.i32(5..=50));
        let request = DescribeInstanceInformationRequest {
            target: target.clone(),
            max_results,
            read_options,
            ..Default::default()
        };
        match within(client.describe_instance_information(request)).await {
            Ok(answer) => {
                let ids = ids(&answer.into_inner().instance_information_list);
                assert_eq!(ids, world.fleets[&target][..ids.len()]);
            }
            Err(status) => is_mapped(&status),
        }
        return;
    }
    let request = StreamInstanceInformationRequest {
        targets: vec![target.clone()],
        page_size: Some(random.i32(1..=100)),
        read_options,
        ..Default::default()
    };
    let mut pages = match within(client.stream_instance_information(request)).await {
        Ok(pages) => pages.into_inner(),
        Err(status) => return is_mapped(&status),
    };
    let mut seen = Vec::new();
    // Some leave before the end.
    for _ in 0..random.u8(1..) {
        match within(pages.message()).await {
            Ok(Some(page)) => seen.extend(ids(&page.instance_information_list)),
            Ok(None) => {
                assert_eq!(seen.len(), world.fleets[&target].len());
                break;
            }
            Err(status) => {
                is_mapped(&status);
                break;
            }
        }
    }
    assert_eq!(seen, world.fleets[&target][..seen.len()]);
}

async fn world() -> (Gateway, Simulator, Arc<World>) {
    let simulator = simulator_of(330).await;
    let gateway = Gateway::at(&simulator.url(), |config| {
        config.upstream.requests_per_second = 500.0;
        config.upstream.attempt_timeout = Duration::from_millis(300);
        config.upstream.fetch_timeout = Duration::from_secs(1);
        config.listing.ttl = Duration::from_millis(200);
        config.listing.hold_off = Duration::from_millis(20);
        config.listing.max_hold_off = Duration::from_millis(200);
        config.listing.throttle_patience = Duration::from_secs(1);
        config.listing.max_bytes = 1 << 20;
        for region in REGIONS {
            config.targets.insert(region.into(), Target { region: Some(region.to_owned()), ..Target::default() });
        }
    })
    .await;
    let mut fleets = BTreeMap::new();
    for region in REGIONS {
        let request = DescribeInstanceInformationRequest { target: region.to_owned(), ..Default::default() };
        fleets.insert(region.to_owned(), ids(&gateway.walk(request).await));
    }
    (gateway, simulator, Arc::new(World { fleets, calls: AtomicU64::new(0) }))
}

async fn chaos(time: Duration, callers: u64) {
    let (gateway, simulator, world) = world().await;
    let counted = || Outcome::ALL.iter().map(|outcome| gateway.listings.readers().of(*outcome)).sum::<u64>();
    let (before, tasks) = (counted(), Handle::current().metrics().num_alive_tasks());
    let end = Instant::now() + time;
    let calling: Vec<_> = (0..callers)
        .map(|caller| {
            let (world, addr) = (Arc::clone(&world), gateway.addr);
            tokio::spawn(async move {
                let mut client = Client::connect(format!("http://{addr}")).await.unwrap();
                let mut random = fastrand::Rng::with_seed(caller);
                while Instant::now() < end {
                    call(&world, &mut client, &mut random).await;
                }
            })
        })
        .collect();
    let mut random = fastrand::Rng::with_seed(7);
    while Instant::now() < end {
        for region in REGIONS {
            simulator.set_faults_of(Scope::new(HOME, region), faults(&mut random));
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    // Before the callers' end: where every page is empty, a walk goes on for as long as that lasts.
    for region in REGIONS {
        simulator.set_faults_of(Scope::new(HOME, region), Faults::default());
    }
    for caller in calling {
        caller.await.unwrap();
    }
    assert_eq!(counted() - before, world.calls.load(Relaxed), "every call was counted once");
    println!("{} calls, {} upstream", world.calls.load(Relaxed), fetches(&gateway.listings));
    assert!(gateway.listings.bytes() <= 1 << 20);
    for region in REGIONS {
        let request = DescribeInstanceInformationRequest { target: region.to_owned(), ..Default::default() };
        within(async { while gateway.describe(request.clone()).await.is_err() {} }).await;
        assert_eq!(ids(&gateway.walk(request).await), world.fleets[region], "{region} is back");
    }
    until(|| gateway.listings.walks() == 0).await;
    // With the simulator go the connections that the SDK keeps to it.
    drop(simulator);
    until(|| Handle::current().metrics().num_alive_tasks() <= tasks).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_happens_answers_are_right_or_mapped_errors_and_nothing_is_left_behind() {
    chaos(Duration::from_secs(3), 40).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: a minute"]
async fn long_a_minute_of_chaos_under_two_hundred_callers() {
    chaos(Duration::from_mins(1), 200).await;
}
