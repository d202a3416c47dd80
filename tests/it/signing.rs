//! Whose credentials sign what reaches AWS, and what becomes of calls while there are none.

use std::{
    collections::BTreeSet,
    fmt::Write as _,
    process::{Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Instant,
};

use ssm_gateway::proto::{
    DescribeInstanceInformationRequest, DescribeInstanceInformationResponse, StreamInstanceInformationRequest,
};
use tokio::net::TcpListener;
use tokio_rustls::{TlsAcceptor, rustls::ServerConfig};
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::{
    aws::{Answer, Aws, Call, answer, page, session, sts_error},
    program::{Program, SSM_GATEWAY},
    proofs::{Authority, Folder, Issued},
    support::{Client, messages, within},
};

/// The environment's own keys, which must not sign where another source is meant.
const KEYS: [(&str, &str); 2] = [("AWS_ACCESS_KEY_ID", "AKIAENVIRONMENT"), ("AWS_SECRET_ACCESS_KEY", "env-secret")];

const PROFILES: &str = "
[profile a]
aws_access_key_id = AKIAA
aws_secret_access_key = a-secret
[profile b]
aws_access_key_id = AKIAB
aws_secret_access_key = b-secret
";

/// A folder with a configuration of the gateway's and one of AWS's.
fn folder(config: &str, aws_config: &str) -> Folder {
    let folder = Folder::new();
    folder.write("gateway.toml", config);
    folder.write("aws", aws_config);
    folder
}

/// A command of the program in an environment of its own.
fn command(name: &str, folder: &Folder, variables: &[(&str, &str)]) -> Command {
    let mut command = Command::new(SSM_GATEWAY);
    command.args([name, "--listen", "127.0.0.1:0", "--config"]).arg(folder.path("gateway.toml"));
    command.env_clear().env("AWS_CONFIG_FILE", folder.path("aws")).env("AWS_EC2_METADATA_DISABLED", "true");
    command.env("PATH", std::env::var_os("PATH").unwrap()).envs(variables.iter().copied()).stderr(Stdio::piped());
    command
}

fn serve(folder: &Folder, variables: &[(&str, &str)]) -> Program {
    Program::start(command("serve", folder, variables))
}

async fn describe(program: &Program, target: &str) -> Result<DescribeInstanceInformationResponse, Status> {
    let mut client = within(Client::connect(format!("http://{}", program.addr))).await.unwrap();
    let request = DescribeInstanceInformationRequest { target: target.to_owned(), ..Default::default() };
    within(client.describe_instance_information(request)).await.map(tonic::Response::into_inner)
}

/// STS gives each role a session of its own name; SSM has a node.
fn sts_and_ssm(call: &Call) -> Answer {
    match call.body.split("RoleArn=").nth(1) {
        _ if !call.is_sts() => page(&["i-1"], None),
        Some(role) => {
            let role: String = role.split('&').next().unwrap().rsplit("%2F").next().unwrap().to_owned();
            let action = call.body.split(['=', '&']).nth(1).unwrap();
            session(action, &format!("ASIA{}", role.to_ascii_uppercase()))
        }
        None => sts_error(400, "ValidationError"),
    }
}

fn keys(calls: &[Call], is_sts: bool) -> BTreeSet<String> {
    calls.iter().filter(|call| call.is_sts() == is_sts).map(|call| call.signed().0).collect()
}

#[tokio::test]
async fn a_profile_that_is_said_signs_whatever_the_environment_has() {
    let aws = Aws::answering(sts_and_ssm).await;
    let url = aws.url();
    let config = format!(
        "[upstream]\nregion = 'eu-west-1'\nendpoint_url = '{url}'\nsts_endpoint_url = '{url}'\n\
         [targets.a]\nprofile = 'a'\n[targets.b]\nprofile = 'b'\n[targets.env]\n\
         [targets.role]\nprofile = 'b'\nrole_arn = 'arn:aws:iam::111122223333:role/Reader'\n"
    );
    let folder = folder(&config, PROFILES);
    let checked = command("check", &folder, &KEYS).output().unwrap();
    let program = serve(&folder, &KEYS);
    let mut before = 0;
    for (target, key) in [("a", "AKIAA"), ("b", "AKIAB"), ("env", "AKIAENVIRONMENT"), ("role", "ASIAREADER")] {
        describe(&program, target).await.unwrap();
        let calls = aws.calls().split_off(before);
        before += calls.len();
        assert_eq!(keys(&calls, false), BTreeSet::from([key.to_owned()]), "{target}");
        let assumed = if target == "role" { BTreeSet::from(["AKIAB".to_owned()]) } else { BTreeSet::new() };
        assert_eq!(keys(&calls, true), assumed, "{target}");
    }
    let said = String::from_utf8(checked.stdout).unwrap();
    for line in [
        "a in eu-west-1, credentials: profile \"a\"",
        "env in eu-west-1, credentials: the environment (AWS_ACCESS_KEY_ID)",
        "role in eu-west-1, credentials: role arn:aws:iam::111122223333:role/Reader by profile \"b\"",
    ] {
        assert!(said.contains(line), "{said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_variable_of_aws_that_is_empty_is_unset() {
    let aws = Aws::answering(sts_and_ssm).await;
    let empty = [
        "AWS_ENDPOINT_URL_SSM",
        "AWS_ENDPOINT_URL",
        "AWS_ENDPOINT_URL_STS",
        "AWS_REGION",
        "AWS_PROFILE",
        "AWS_CA_BUNDLE",
        "AWS_SESSION_TOKEN",
        "AWS_ROLE_ARN",
        "AWS_WEB_IDENTITY_TOKEN_FILE",
        "AWS_CONTAINER_CREDENTIALS_FULL_URI",
        "AWS_USE_FIPS_ENDPOINT",
        "AWS_MAX_ATTEMPTS",
        "AWS_RETRY_MODE",
        "AWS_DEFAULTS_MODE",
        "HTTPS_PROXY",
        "HTTP_PROXY",
        "NO_PROXY",
    ];
    let variables: Vec<_> = empty.map(|name| (name, "")).into_iter().chain(KEYS).collect();
    let config = format!("[upstream]\nregion = 'eu-west-1'\nendpoint_url = '{}'\n", aws.url());
    let folder = folder(&config, "");
    let program = serve(&folder, &variables);
    assert_eq!(describe(&program, "").await.unwrap().instance_information_list.len(), 1);
    assert_eq!(aws.calls()[0].signed(), ("AKIAENVIRONMENT".to_owned(), "eu-west-1".to_owned()));
    let log = program.stop();
    assert!(!log.contains("panicked"), "{log}");
}

#[test]
fn what_aws_variables_and_files_say_wrong_is_refused_by_its_place() {
    let region = "[upstream]\nregion = 'eu-west-1'\n";
    for (variables, config, aws_config, expected) in [
        (&[("AWS_ENDPOINT_URL", "localhost")][..], region, "", "AWS_ENDPOINT_URL is not an endpoint URL"),
        (&[], region, "[default]\nendpoint_url = x y", "endpoint_url of profile \"default\" is not an endpoint URL"),
        (&[("AWS_REGION", "us-east-1a")], "", "", "AWS_REGION, AWS_DEFAULT_REGION or the profile's region is not"),
        (&[("AWS_ACCESS_KEY_ID", "AKIA")], region, "", "AWS_ACCESS_KEY_ID is set without AWS_SECRET_ACCESS_KEY"),
        (&[("AWS_PROFILE", "c")], region, PROFILES, "have no profile \"c\""),
        (&[], "[upstream]\nregion = 'eu-west-1'\nprofile = 'c'\n", PROFILES, "have no profile \"c\""),
        (&[("AWS_CA_BUNDLE", "/nowhere.pem")], region, "", "cannot read the CA bundle /nowhere.pem"),
        (&[], region, "[default\naws_secret_access_key = hunter2", "cannot be parsed"),
        (&[], "[upstream]\nregion = 'EU-WEST-1'\n", "", "\"EU-WEST-1\" is not an AWS region"),
        (&[], "[upstream]\nregion = 'eu-west-1 '\n", "", "\"eu-west-1 \" is not an AWS region"),
        (&[], "[upstream]\nregion = 'eu-west-1'\nca_bundle = ''\n", "", "upstream.ca_bundle"),
        (&[], "[upstream]\nregion = 'x.evil.example/'\n", "", "is not an AWS region"),
        (&[], "[targets.a]\nregion = 'eu-west-1'\nsession_name = 'a b'\n", "", "targets.a.session_name"),
        (&[], "[targets.a]\nregion = 'eu-west-1'\nexternal_id = 'x'\n", "", "targets.a.external_id"),
        (&[], "[targets.a]\nregion = 'eu-west-1'\nprofile = ''\n", "", "targets.a.profile"),
    ] {
        let folder = folder(config, aws_config);
        let output = command("check", &folder, variables).output().unwrap();
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{expected}");
        assert!(error.contains(expected) && !error.contains("hunter2"), "{error}");
    }
}

#[tokio::test]
async fn base_credentials_are_got_once_for_all_targets_and_a_throttled_sts_gives_every_role_its_session() {
    const ROLES: usize = 12;
    let (tokens, last) = (Mutex::new(3.0), Mutex::new(Instant::now()));
    let throttled = Arc::new(AtomicUsize::new(0));
    let refused = Arc::clone(&throttled);
    let aws = Aws::answering(move |call| {
        if call.body.starts_with("Action=AssumeRole&") {
            let (mut tokens, mut last) = (tokens.lock().unwrap(), last.lock().unwrap());
            *tokens = f64::min(3.0, *tokens + 5.0 * last.elapsed().as_secs_f64());
            *last = Instant::now();
            if *tokens < 1.0 {
                refused.fetch_add(1, Relaxed);
                return sts_error(400, "Throttling");
            }
            *tokens -= 1.0;
        }
        sts_and_ssm(call)
    })
    .await;
    let url = aws.url();
    let mut config = format!(
        "[upstream]\nregion = 'eu-west-1'\nendpoint_url = '{url}'\nsts_endpoint_url = '{url}'\nrequests_per_second = 1000\n"
    );
    for role in 0..ROLES {
        writeln!(config, "[targets.t{role}]\nrole_arn = 'arn:aws:iam::111122223333:role/R{role}'").unwrap();
    }
    let folder = folder(&config, "");
    let token = folder.write("token", "jwt\n");
    let web = [("AWS_WEB_IDENTITY_TOKEN_FILE", token.to_str().unwrap()), ("AWS_ROLE_ARN", "arn:aws:iam::1:role/Base")];
    let program = serve(&folder, &web);
    let mut client = within(Client::connect(format!("http://{}", program.addr))).await.unwrap();
    let request = StreamInstanceInformationRequest { targets: vec!["*".to_owned()], ..Default::default() };
    let answers =
        messages(within(client.stream_instance_information(request)).await.unwrap().into_inner()).await.unwrap();
    assert!(answers.iter().all(|message| message.unreachable.is_none()), "{answers:?}");
    assert_eq!(answers.len(), ROLES);
    let calls = aws.calls();
    let count = |action: &str| calls.iter().filter(|call| call.body.starts_with(action)).count();
    assert_eq!(count("Action=AssumeRoleWithWebIdentity&"), 1);
    assert_eq!(count("Action=AssumeRole&"), ROLES + throttled.load(Relaxed));
    assert!(throttled.load(Relaxed) <= ROLES, "throttled {throttled:?} times");
}

/// Fails the first call that this holds for, and answers all others.
async fn failing_once(is_meant: fn(&Call) -> bool, failure: fn() -> Answer, then: fn(&Call) -> Answer) -> Aws {
    let has_failed = AtomicUsize::new(0);
    Aws::answering(move |call| {
        let is_first = is_meant(call) && has_failed.fetch_add(1, Relaxed) == 0;
        if is_first { failure() } else { then(call) }
    })
    .await
}

#[tokio::test]
async fn what_fails_once_on_the_way_to_credentials_is_tried_again() {
    let container = |call: &Call| match call.path.as_str() {
        "/creds" => answer(
            200,
            r#"{"AccessKeyId":"ASIACONTAINER","SecretAccessKey":"s","Token":"t","Expiration":"2099-01-01T00:00:00Z"}"#,
        ),
        _ => page(&["i-1"], None),
    };
    let instance = |call: &Call| match call.path.as_str() {
        "/latest/api/token" => {
            let mut token = answer(200, "token");
            token.headers_mut().insert("x-aws-ec2-metadata-token-ttl-seconds", 21_600.into());
            token
        }
        "/latest/meta-data/iam/security-credentials/" => answer(200, "role"),
        "/latest/meta-data/iam/security-credentials/role" => answer(
            200,
            r#"{"Code":"Success","AccessKeyId":"ASIAINSTANCE","SecretAccessKey":"s","Token":"t","Expiration":"2099-01-01T00:00:00Z"}"#,
        ),
        _ => page(&["i-1"], None),
    };
    let is_container = |call: &Call| call.path == "/creds";
    let is_metadata = |call: &Call| call.path == "/latest/meta-data/iam/security-credentials/role";
    for (kind, aws) in [
        ("instance", failing_once(is_metadata, || answer(429, "slow down"), instance).await),
        ("instance", failing_once(is_metadata, || answer(503, "later"), instance).await),
        ("web", failing_once(Call::is_sts, || sts_error(503, "ServiceUnavailable"), sts_and_ssm).await),
        ("web", failing_once(Call::is_sts, || sts_error(400, "Throttling"), sts_and_ssm).await),
        ("web", failing_once(Call::is_sts, || answer(500, "<html>"), sts_and_ssm).await),
        ("container", failing_once(is_container, || answer(429, "slow down"), container).await),
        ("container", failing_once(is_container, || answer(503, "later"), container).await),
    ] {
        let config = format!(
            "[upstream]\nregion = 'eu-west-1'\nendpoint_url = '{0}'\nsts_endpoint_url = '{0}'\nretry_backoff = '1ms'\n",
            aws.url()
        );
        let folder = folder(&config, "");
        let (token, uri) = (folder.write("token", "jwt"), format!("{}/creds", aws.url()));
        let url = aws.url();
        let variables = match kind {
            "container" => vec![("AWS_CONTAINER_CREDENTIALS_FULL_URI", &*uri)],
            "instance" => vec![("AWS_EC2_METADATA_SERVICE_ENDPOINT", &*url), ("AWS_EC2_METADATA_DISABLED", "")],
            _ => vec![
                ("AWS_WEB_IDENTITY_TOKEN_FILE", token.to_str().unwrap()),
                ("AWS_ROLE_ARN", "arn:aws:iam::111122223333:role/Base"),
            ],
        };
        let program = serve(&folder, &variables);
        describe(&program, "").await.unwrap();
    }
}

#[tokio::test]
async fn why_there_are_no_credentials_is_told_from_that_nobody_can_be_asked() {
    for (failure, code, reason) in [
        (sts_error(403, "AccessDenied"), Code::PermissionDenied, "AWS_ACCESS_DENIED"),
        (sts_error(400, "ExpiredTokenException"), Code::Unavailable, "AWS_CREDENTIALS"),
        (sts_error(503, "ServiceUnavailable"), Code::Unavailable, "SERVICE_UNAVAILABLE"),
        (sts_error(400, "Throttling"), Code::ResourceExhausted, "THROTTLING"),
    ] {
        let aws = Aws::answering(move |_| failure.clone()).await;
        let config =
            format!("[upstream]\nregion = 'eu-west-1'\nsts_endpoint_url = '{}'\nretry_backoff = '1ms'\n", aws.url());
        let folder = folder(&config, "");
        let token = folder.write("token", "jwt");
        let web =
            [("AWS_WEB_IDENTITY_TOKEN_FILE", token.to_str().unwrap()), ("AWS_ROLE_ARN", "arn:aws:iam::1:role/Base")];
        let program = serve(&folder, &web);
        let status = describe(&program, "").await.unwrap_err();
        assert_eq!((status.code(), &*status.get_details_error_info().unwrap().reason), (code, reason), "{status:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_credential_process_that_fails_is_named_and_what_it_printed_is_nowhere() {
    let config = "[upstream]\nregion = 'eu-west-1'\nprofile = 'p'\n[log]\nfilter = 'trace'\n";
    let folder = folder(config, "");
    let script = folder.write("creds", "echo hunter2; echo hunter2 >&2; exit 7");
    folder.write("aws", format!("[profile p]\ncredential_process = /bin/sh {} --key hunter2\n", script.display()));
    let program = serve(&folder, &KEYS);
    let status = describe(&program, "").await.unwrap_err();
    assert_eq!(status.get_details_error_info().unwrap().reason, "AWS_CREDENTIALS");
    let log = program.stop();
    assert!(log.contains("the credential_process /bin/sh failed (exit status: 7)"), "{log}");
    assert!(!log.contains("hunter2") && !format!("{status:?}").contains("hunter2"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn proxies_stand_before_aws_and_before_nothing_that_is_near() {
    let proxy = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = proxy.local_addr().unwrap().port();
    let url = format!("http://user:hunter2@127.0.0.1:{port}");
    let proxies = [("HTTP_PROXY", &*url), ("HTTPS_PROXY", &*url), ("ALL_PROXY", &*url)];
    let aws = Aws::answering(|call| match call.path.as_str() {
        "/creds" => answer(
            200,
            r#"{"AccessKeyId":"ASIACONTAINER","SecretAccessKey":"s","Token":"t","Expiration":"2099-01-01T00:00:00Z"}"#,
        ),
        _ => page(&["i-1"], None),
    })
    .await;
    let config = format!("[upstream]\nregion = 'eu-west-1'\nendpoint_url = '{}'\n[targets.near]\n", aws.url());
    let config = config + "[targets.far]\nendpoint_url = 'https://ssm.eu-west-1.amazonaws.com'\n\n";
    let config = config.replacen("[upstream]", "[upstream]\nretries = 0", 1);
    let folder = folder(&config, "");
    let uri = format!("{}/creds", aws.url());
    let variables: Vec<_> = proxies.into_iter().chain([("AWS_CONTAINER_CREDENTIALS_FULL_URI", &*uri)]).collect();
    let program = serve(&folder, &variables);
    describe(&program, "near").await.unwrap();
    assert_eq!(aws.calls().len(), 2, "credentials and a page");
    let hang_up = async { drop(within(proxy.accept()).await) };
    let (failed, ()) = tokio::join!(describe(&program, "far"), hang_up);
    let failed = failed.unwrap_err();
    assert_eq!(failed.code(), Code::Unavailable);
    let log = program.stop();
    assert!(log.contains(&format!("through the proxy 127.0.0.1:{port}")) && !log.contains("hunter2"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn authorities_are_those_of_the_bundle_and_others_are_refused_at_once() {
    let authority = Authority::new();
    let Issued { cert, key } = authority.issue(&["localhost"]);
    let tls = {
        use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
        let certs = CertificateDer::pem_slice_iter(cert.as_bytes()).map(Result::unwrap).collect();
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
        let provider = Arc::new(tokio_rustls::rustls::crypto::aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        TlsAcceptor::from(Arc::new(config.with_no_client_auth().with_single_cert(certs, key).unwrap()))
    };
    let aws = Aws::in_tls(tls, sts_and_ssm).await;
    let endpoint = format!("https://localhost:{}", aws.addr.port());
    let config = format!("[upstream]\nregion = 'eu-west-1'\nendpoint_url = '{endpoint}'\n");
    let folder = folder(&config, "");
    let bundle = folder.write("ca.pem", authority.pem());
    let with_bundle: Vec<_> = KEYS.into_iter().chain([("AWS_CA_BUNDLE", bundle.to_str().unwrap())]).collect();
    describe(&serve(&folder, &with_bundle), "").await.unwrap();
    folder.write("gateway.toml", format!("{config}ca_bundle = '{}'\n", bundle.display()));
    describe(&serve(&folder, &KEYS), "").await.unwrap();
    folder.write("gateway.toml", config);
    let program = serve(&folder, &KEYS);
    let status = describe(&program, "").await.unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition);
    assert_eq!(status.get_details_error_info().unwrap().reason, "TARGET_MISCONFIGURED");
    assert!(status.get_details_retry_info().is_none(), "it would be so again");
    let log = program.stop();
    assert!(log.contains("set upstream.ca_bundle or AWS_CA_BUNDLE") && !log.contains("will ask AWS again"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_that_were_rotated_below_a_role_are_read_again() {
    let aws = Aws::answering(|call| {
        if call.is_sts() && call.signed().0 == "AKIAOLD" {
            return sts_error(403, "InvalidClientTokenId");
        }
        sts_and_ssm(call)
    })
    .await;
    let config = format!(
        "[upstream]\nregion = 'eu-west-1'\nprofile = 'a'\nendpoint_url = '{0}'\nsts_endpoint_url = '{0}'\n\
         [targets.one]\nrole_arn = 'arn:aws:iam::111122223333:role/One'\n\
         [targets.two]\nrole_arn = 'arn:aws:iam::111122223333:role/Two'\n[listing]\nhold_off = '0s'\n",
        aws.url()
    );
    let keys = |id: &str| format!("[profile a]\naws_access_key_id = {id}\naws_secret_access_key = secret\n");
    let folder = folder(&config, &keys("AKIAOLD"));
    let program = serve(&folder, &[]);
    let status = describe(&program, "one").await.unwrap_err();
    assert_eq!(status.get_details_error_info().unwrap().reason, "AWS_CREDENTIALS");
    folder.write("aws", keys("AKIANEW"));
    describe(&program, "one").await.unwrap();
    describe(&program, "two").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn profiles_with_roles_are_assumed_at_the_configured_endpoint_whatever_the_environment_has() {
    let aws = Aws::answering(sts_and_ssm).await;
    let config = format!(
        "[upstream]\nregion = 'eu-west-1'\nprofile = 'outer'\nendpoint_url = '{0}'\nsts_endpoint_url = '{0}'\n",
        aws.url()
    );
    let profiles = "[profile outer]\nrole_arn = arn:aws:iam::111122223333:role/Outer\nsource_profile = inner\n\
        [profile inner]\nrole_arn = arn:aws:iam::111122223333:role/Inner\nsource_profile = a\n";
    let folder = folder(&config, &format!("{profiles}{PROFILES}"));
    let empty =
        [("AWS_ENDPOINT_URL", ""), ("AWS_ENDPOINT_URL_STS", ""), ("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "")];
    let program = serve(&folder, &[&KEYS[..], &empty].concat());
    describe(&program, "").await.unwrap();
    let signed: Vec<_> = aws.calls().iter().map(|call| call.signed().0).collect();
    assert_eq!(signed, ["AKIAA", "ASIAINNER", "ASIAOUTER"]);
    let log = program.stop();
    assert!(!log.contains("panicked"), "{log}");
}

#[test]
fn a_secret_that_stands_in_the_wrong_place_of_aws_is_not_repeated() {
    const SECRET: &str = "wJalrXUtnFEMI7K7MDENG9bPxRfiCYzEXAMPLEKEY";
    let variables = [
        "AWS_ACCESS_KEY_ID",
        "AWS_REGION",
        "AWS_PROFILE",
        "AWS_ENDPOINT_URL",
        "AWS_CA_BUNDLE",
        "AWS_CONFIG_FILE",
        "AWS_SHARED_CREDENTIALS_FILE",
        "AWS_ROLE_ARN",
        "AWS_WEB_IDENTITY_TOKEN_FILE",
    ];
    let folder_ = folder("[upstream]\nregion = 'eu-west-1'\n[log]\nfilter = 'trace'\n", "");
    for variable in variables {
        let output = command("check", &folder_, &[(variable, SECRET)]).output().unwrap();
        let printed = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        assert!(!printed.contains(SECRET), "{variable}: {printed}");
    }
    for key in ["region", "endpoint_url", "sts_endpoint_url", "profile", "role_arn", "external_id", "session_name"] {
        let folder = folder(&format!("[upstream]\nregion = 'eu-west-1'\n[targets.a]\n{key} = '{SECRET}'\n"), "");
        let output = command("check", &folder, &[]).output().unwrap();
        let printed = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        assert!(!printed.contains(SECRET), "{key}: {printed}");
    }
    for aws_config in [
        format!("{SECRET}\n"),
        format!("[default]\n{SECRET}\n"),
        format!("[default]\naws_secret_access_key = {SECRET}\n"),
        format!("[default]\ncredential_process = KEY={SECRET} /opt/creds\n"),
        format!("[default]\nregion = {SECRET}\n"),
        format!("[default]\nendpoint_url = {SECRET}\n"),
        format!("[default]\nsource_profile = {SECRET}\nrole_arn = arn:aws:iam::111122223333:role/Reader\n"),
    ] {
        let folder = folder("[upstream]\nregion = 'eu-west-1'\n", &aws_config);
        let output = command("check", &folder, &[]).output().unwrap();
        let printed = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        assert!(!printed.contains(SECRET), "{aws_config}: {printed}");
    }
}
