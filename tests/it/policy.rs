//! Who may ask what, through TLS, for every way in which an answer can come.

use std::{collections::HashMap, time::Duration};

use ssm_gateway::{
    access::{Allow, Method},
    config::{Config, Target},
    proto::{
        DescribeInstanceInformationRequest, InstanceInformationStringFilter, ListTargetsRequest, ReadOptions,
        StreamInstanceInformationRequest, target_service_client::TargetServiceClient,
    },
    simulator::Simulator,
};
use tonic::{Code, Request, Status, transport::Channel};
use tonic_types::StatusExt as _;

use crate::{
    proofs::{Issuer, Secured, allow, token, with_token},
    support::{Client, Gateway, config, filter, simulator_of, within},
};

const DESCRIBE: Method = Method::DescribeInstanceInformation;
const STREAM: Method = Method::StreamInstanceInformation;

/// A gateway with every kind of principal and rule, and a client as each of them.
struct World {
    gateway: Gateway,
    secured: Secured,
    issuer: Issuer,
    simulator: Simulator,
}

fn rules() -> Vec<Allow> {
    vec![
        allow("spiffe://acme/orders", &[DESCRIBE], &["prod-*"]),
        allow("dns:*.internal", &[STREAM], &[]),
        Allow { min_max_age: Duration::from_secs(10), ..allow("token:ci", &[DESCRIBE, STREAM], &["test"]) },
        allow("jwt:alice", &[], &["prod-eu"]),
        allow("token:root", &[], &[]),
        allow("anonymous", &[Method::ListTargets], &["test"]),
    ]
}

async fn world() -> World {
    let simulator = simulator_of(60).await;
    let (secured, issuer) = (Secured::new(), Issuer::new("one"));
    let mut config = config(&simulator.url());
    secured.configure(&mut config);
    issuer.configure(&mut config, &secured.folder);
    config.auth.allow_anonymous = true;
    config.auth.tokens = vec![token("ci"), token("root")];
    config.allow = rules();
    for (name, region) in [("prod-eu", "eu-west-1"), ("prod-us", "us-east-1"), ("test", "eu-west-2")] {
        config.targets.insert(name.into(), Target { region: Some(region.to_owned()), ..Target::default() });
    }
    config.default_target = Some("test".into());
    checked(&config);
    let gateway = Gateway::serving(config, async |addr| secured.endpoint(addr.port(), None).connect().await).await;
    World { gateway, secured, issuer, simulator }
}

/// It is one that a file could say.
fn checked(config: &Config) {
    let config = config.clone();
    Config::load(None, move |loaded| *loaded = config).unwrap();
}

/// A call as a principal makes it.
struct As {
    channel: Channel,
    token: Option<String>,
}

impl World {
    async fn client(&self, principal: &str) -> As {
        let (name, token) = match principal.split_once(':') {
            Some(("spiffe", _)) => (Some(principal), None),
            Some(("dns", name)) => (Some(name), None),
            Some(("jwt", subject)) => (None, Some(self.issuer.token(subject, |_, _| {}))),
            Some((_, name)) => (None, Some(format!("{name}-secret"))),
            None => (None, None),
        };
        let channel = within(self.secured.endpoint(self.gateway.addr.port(), name).connect()).await.unwrap();
        As { channel, token }
    }
}

impl As {
    fn request<T>(&self, message: T) -> Request<T> {
        match &self.token {
            Some(token) => with_token(message, token),
            None => Request::new(message),
        }
    }

    /// One page, and the cursor behind it.
    async fn describe(&self, query: &Asked, cursor: Option<&str>) -> Result<String, Status> {
        let request = DescribeInstanceInformationRequest {
            filters: query.filters.clone(),
            target: query.target.clone(),
            next_token: cursor.map(str::to_owned),
            read_options: Some(query.read_options()),
            max_results: Some(50),
            ..Default::default()
        };
        let answer =
            within(Client::new(self.channel.clone()).describe_instance_information(self.request(request))).await?;
        Ok(answer.into_inner().next_token.unwrap_or_default())
    }

    /// The first message of every target, by its name, with its resume token.
    async fn stream(&self, query: &Asked, resume: Option<&str>) -> Result<HashMap<String, String>, Status> {
        let request = StreamInstanceInformationRequest {
            filters: query.filters.clone(),
            targets: vec![query.target.clone()],
            resume_tokens: resume.map(str::to_owned).into_iter().collect(),
            read_options: Some(query.read_options()),
            ..Default::default()
        };
        let answer =
            within(Client::new(self.channel.clone()).stream_instance_information(self.request(request))).await?;
        let (mut pages, mut tokens) = (answer.into_inner(), HashMap::new());
        while let Some(page) = within(pages.message()).await? {
            tokens.entry(page.target).or_insert(page.resume_token);
        }
        Ok(tokens)
    }
}

/// What is asked, by a query that nobody else asks.
struct Asked {
    filters: Vec<InstanceInformationStringFilter>,
    target: String,
    max_age: Option<Duration>,
}

impl Asked {
    fn new(number: usize, target: &str, max_age: Option<u64>) -> Self {
        let filters = vec![filter("PlatformTypes", &["Linux", "Windows", "MacOS", &format!("Odd{number}")])];
        Self { filters, target: target.to_owned(), max_age: max_age.map(Duration::from_millis) }
    }

    fn read_options(&self) -> ReadOptions {
        let max_age = self.max_age.map(|max_age| max_age.try_into().unwrap());
        ReadOptions { max_age, ..Default::default() }
    }
}

/// What is missing, if it is not allowed.
fn missing<T>(outcome: &Result<T, Status>) -> Option<String> {
    let status = outcome.as_ref().err()?;
    assert_eq!(status.code(), Code::PermissionDenied, "{status:?}");
    let info = status.get_details_error_info().unwrap();
    assert_eq!((&*info.domain, &*info.reason), ("ssm-gateway", "CALLER_NOT_ALLOWED"));
    Some(info.metadata["cause"].clone())
}

/// Principal, target, `max_age` in ms, what is missing for one page, and for a stream.
type Case = (&'static str, &'static str, Option<u64>, Option<&'static str>, Option<&'static str>);

/// Each rule, by what it allows and what it does not.
const CASES: &[Case] = &[
    ("spiffe://acme/orders", "prod-eu", None, None, Some("method")),
    ("spiffe://acme/orders", "prod-eu", Some(0), None, Some("method")),
    ("spiffe://acme/orders", "test", None, Some("target"), Some("method")),
    ("spiffe://acme/billing", "prod-eu", None, Some("principal"), Some("principal")),
    ("dns:orders.internal", "prod-us", None, Some("method"), None),
    ("dns:orders.internal", "test", Some(0), Some("method"), None),
    ("dns:orders.external", "prod-us", None, Some("principal"), Some("principal")),
    ("token:ci", "test", None, None, None),
    ("token:ci", "test", Some(10_000), None, None),
    ("token:ci", "test", Some(9_999), Some("max_age"), Some("max_age")),
    ("token:ci", "test", Some(1), Some("max_age"), Some("max_age")),
    ("token:ci", "test", Some(0), Some("max_age"), Some("max_age")),
    ("token:ci", "prod-eu", None, Some("target"), Some("target")),
    ("jwt:alice", "prod-eu", Some(0), None, None),
    ("jwt:alice", "prod-us", None, Some("target"), Some("target")),
    ("jwt:bob", "prod-eu", None, Some("principal"), Some("principal")),
    ("anonymous", "test", None, Some("method"), Some("method")),
];

#[tokio::test(flavor = "multi_thread")]
async fn every_rule_allows_what_it_says_and_nothing_else_fresh_or_cached_from_the_start_or_a_token() {
    let world = world().await;
    let root = world.client("token:root").await;
    let calls = || world.simulator.stats().calls;
    let cases = CASES.iter().flat_map(|&(principal, target, max_age, page, stream)| {
        [(principal, DESCRIBE, target, max_age, page), (principal, STREAM, target, max_age, stream)]
    });
    for (number, (principal, method, target, max_age, expected)) in cases.enumerate() {
        let (caller, query) = (world.client(principal).await, Asked::new(number, target, max_age));
        let told = format!("{principal} {method} {target} {max_age:?}");
        let ask = async |cursor: Option<&str>| match method {
            DESCRIBE => missing(&caller.describe(&query, cursor).await),
            _ => missing(&caller.stream(&query, cursor).await),
        };
        let before = calls();
        assert_eq!(ask(None).await.as_deref(), expected, "{told}, fresh");
        assert_eq!(calls() > before, expected.is_none(), "{told}: AWS is not asked for what is refused");
        let warm = Asked::new(number, target, None);
        let (cursor, resume) = (root.describe(&warm, None).await.unwrap(), root.stream(&warm, None).await.unwrap());
        assert_eq!(ask(None).await.as_deref(), expected, "{told}, cached");
        let token = if method == DESCRIBE { &cursor } else { &resume[target] };
        assert_eq!(ask(Some(token)).await.as_deref(), expected, "{told}, by somebody else's token");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_caller_may_not_ask_is_not_told_to_exist() {
    let world = world().await;
    let orders = world.client("spiffe://acme/orders").await;
    let root = world.client("token:root").await;
    let refused =
        async |caller: &As, target: &str| caller.describe(&Asked::new(0, target, None), None).await.unwrap_err();
    let (real, made_up) = (refused(&orders, "test").await, refused(&orders, "nothing").await);
    assert_eq!(real.message().replace("test", "nothing"), made_up.message());
    assert_eq!((real.code(), made_up.code()), (Code::PermissionDenied, Code::PermissionDenied));
    assert_eq!(refused(&orders, "prod-nothing").await.code(), Code::NotFound, "it may ask about that");
    assert_eq!(refused(&root, "nothing").await.code(), Code::NotFound);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_glob_means_what_is_allowed_and_nothing_left_is_refused() {
    let world = world().await;
    let names = async |principal: &str, glob: &str| {
        let tokens = world.client(principal).await.stream(&Asked::new(0, glob, None), None).await?;
        let mut names: Vec<String> = tokens.into_keys().collect();
        names.sort();
        Ok::<_, Status>(names)
    };
    assert_eq!(names("jwt:alice", "*").await.unwrap(), ["prod-eu"]);
    assert_eq!(names("dns:orders.internal", "*").await.unwrap(), ["prod-eu", "prod-us", "test"]);
    assert_eq!(missing(&names("token:ci", "prod-*").await).as_deref(), Some("target"));
    assert_eq!(missing(&names("token:ci", "nothing-*").await).as_deref(), Some("target"), "as if there were any");
    assert_eq!(names("token:root", "nothing-*").await.unwrap_err().code(), Code::NotFound);
    assert_eq!(missing(&names("token:ci", "").await), None, "the default target is test");
    assert_eq!(missing(&names("jwt:alice", "").await).as_deref(), Some("target"));
}

#[tokio::test(flavor = "multi_thread")]
async fn targets_are_listed_for_whom_they_concern() {
    let world = world().await;
    let listed = async |principal: &str| {
        let caller = world.client(principal).await;
        let mut client = TargetServiceClient::new(caller.channel.clone());
        let answer = within(client.list_targets(caller.request(ListTargetsRequest {}))).await?;
        Ok::<_, Status>(answer.into_inner().targets.into_iter().map(|target| target.name).collect::<Vec<_>>())
    };
    assert_eq!(listed("token:root").await.unwrap(), ["prod-eu", "prod-us", "test"]);
    assert_eq!(listed("jwt:alice").await.unwrap(), ["prod-eu"]);
    assert_eq!(listed("anonymous").await.unwrap(), ["test"]);
    assert_eq!(missing(&listed("spiffe://acme/orders").await).as_deref(), Some("method"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_names_what_is_missing() {
    let world = world().await;
    let told = async |principal: &str, target: &str, max_age| {
        let status = world.client(principal).await.describe(&Asked::new(0, target, max_age), None).await.unwrap_err();
        (status.message().to_owned(), status)
    };
    let (message, _) = told("spiffe://acme/billing", "prod-eu", None).await;
    assert_eq!(message, "no rule of the gateway allows spiffe://acme/billing anything");
    let (message, _) = told("dns:orders.internal", "prod-eu", None).await;
    assert_eq!(message, "no rule of the gateway allows dns:orders.internal to call DescribeInstanceInformation");
    let (message, _) = told("token:ci", "prod-eu", None).await;
    assert_eq!(
        message,
        "no rule of the gateway allows token:ci to call DescribeInstanceInformation for target \"prod-eu\""
    );
    let (message, _) = told("jwt:alice", "", None).await;
    let for_it = "for the default target";
    assert_eq!(
        message,
        format!("no rule of the gateway allows jwt:alice to call DescribeInstanceInformation {for_it}")
    );
    let (message, status) = told("token:ci", "test", Some(1)).await;
    assert_eq!(message, "token:ci may not ask for a max_age below 10s of target \"test\"");
    assert_eq!(status.get_details_bad_request().unwrap().field_violations[0].field, "read_options.max_age");
}
