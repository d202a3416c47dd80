//! Keys, tokens and credentials in every place where they do not belong, and none of them in anything that comes out. A way to
//! misplace one is a row: of `files` where a file is not what it should be, at the start or under a gateway that serves; of `starts`
//! where a setting or a variable is to be refused by `check` and `serve`; of `commands` where a client is to refuse its flags and
//! variables; and of `headers` where a caller sends it.

use std::process::{Command, Output, Stdio};

use clap::{CommandFactory as _, Parser as _};
use ssm_gateway::{cli::Cli, proto::DescribeInstanceInformationRequest};
use tonic::metadata::MetadataValue;

use crate::{
    http::{get, get_with},
    program::{AWS_SECRET, Program, SSM_GATEWAY},
    proofs::{Authority, Folder, Issued, Issuer, sha256},
    support::{Client, simulator_of, within},
    traces::Receiver,
};

/// How much of a secret is a leak.
const TELLING: usize = 12;
const TOKEN: &str = "tok3n-that-n0body-may-read-7f3a9c";
/// A secret without marks, as AWS's are.
const KEY: &str = "wJalrXUtnFEMIK7MDENGbPxRfiCYn0b0dyReads";
const PASSWORD: &str = "passw0rd-that-n0body-may-read";

/// Fails if a piece of a secret is in what was emitted: as it is, or its bytes in decimal or in hexadecimal.
fn assert_free_of(emitted: &str, secrets: &[String], name: &str) {
    // What begins a key in base64 says its kind, and is the same in all of them.
    const COMMON: usize = 40;
    let flat = emitted.replace("\\n", "").replace(['\n', '\r'], "");
    for secret in secrets {
        let body: String = secret.lines().filter(|line| !line.starts_with("-----")).collect();
        let body = if secret.starts_with("-----") { body.get(COMMON..).unwrap_or_default() } else { &body };
        for piece in body.as_bytes().windows(TELLING) {
            let joined =
                |between: &str, write: fn(&u8) -> String| piece.iter().map(write).collect::<Vec<_>>().join(between);
            let written = [
                String::from_utf8_lossy(piece).into_owned(),
                joined(", ", u8::to_string),
                joined("", |byte| format!("{byte:02x}")),
            ];
            for piece in written {
                assert!(!flat.contains(&piece), "{name}: {piece:?} is told in\n{emitted}");
            }
        }
    }
}

#[test]
fn the_check_sees_a_secret_however_it_is_written() {
    let key = Authority::new().issue(&["a"]).key;
    let middle = &key[90..130];
    let bytes = middle.as_bytes();
    let hex = bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().concat();
    for emitted in [key.clone(), key.replace('\n', "\\n"), middle.to_owned(), format!("{bytes:?}"), hex] {
        let check = std::panic::AssertUnwindSafe(|| assert_free_of(&emitted, std::slice::from_ref(&key), "seen"));
        assert!(std::panic::catch_unwind(check).is_err(), "{emitted}");
    }
    assert_free_of(&Authority::new().issue(&["a"]).key, &[key], "another key's");
}

/// A variable or a header, and what it holds.
type Named = (&'static str, String);
/// What it is that is misplaced, the configuration file, and a variable in place of it.
type Start = (&'static str, String, Option<Named>);
/// What it is that is misplaced, the flags, and variables.
type Call = (&'static str, &'static str, Vec<Named>);

/// Everything that is secret in a test, or is put where a secret belongs.
struct Secrets {
    folder: Folder,
    authority: Authority,
    ours: Issued,
    issuer: Issuer,
    /// A JWKS with the private keys in it, as an issuer keeps it.
    private_jwks: String,
    all: Vec<String>,
}

impl Secrets {
    fn new() -> Self {
        let (folder, authority, issuer) = (Folder::new(), Authority::new(), Issuer::new("one"));
        let ours = authority.issue(&["localhost"]);
        let exponent = "cHJpdmF0ZS1leHBvbmVudC10aGF0LW5vYm9keS1tYXktcmVhZA";
        let private = issuer.key(|jwk| drop(jwk.insert("d".to_owned(), exponent.into())));
        let private_jwks = serde_json::json!({ "keys": [private] }).to_string();
        let jwt = issuer.token("alice", |_, _| {});
        let all =
            [TOKEN, KEY, PASSWORD, &ours.key, exponent, jwt.rsplit('.').next().unwrap()].map(str::to_owned).into();
        let secrets = Self { folder, authority, ours, issuer, private_jwks, all };
        secrets.restore();
        secrets
    }

    /// Puts every file right, with another certificate of the same key.
    fn restore(&self) {
        self.folder.write("ca.pem", self.authority.pem());
        self.folder.write("key.pem", &self.ours.key);
        self.folder.write("cert.pem", &self.ours.cert);
        self.folder.write("jwks.json", self.issuer.jwks());
        self.folder.write("token", TOKEN);
    }

    /// The configuration with TLS and JWTs.
    fn config(&self) -> String {
        let path = |name: &str| self.folder.path(name).display().to_string();
        format!(
            "[edge]\nreload_interval = '5ms'\n[edge.tls]\ncert = '{}'\nkey = '{}'\nclient_ca = '{}'\n[auth]\n\
             tokens = [{{ name = 'ci', sha256 = '{}' }}]\n[auth.jwt]\njwks = '{}'\nissuer = 'https://issuer'\n\
             audiences = ['ssm-gateway']\n[[allow]]\nprincipal = '*'\n",
            path("cert.pem"),
            path("key.pem"),
            path("ca.pem"),
            sha256(TOKEN),
            path("jwks.json"),
        )
    }

    /// The ways to spoil a file that holds a key, or is to hold something else. Each is refused.
    fn files(&self) -> Vec<(&'static str, &'static str, String)> {
        let (key, cert, ca) = (&*self.ours.key, &*self.ours.cert, &*self.authority.pem());
        let (literal, half) = (|text: &str| text.replace('\n', "\\n"), key.len() / 2);
        vec![
            ("the key as certificate", "cert.pem", key.to_owned()),
            ("the key as authority", "ca.pem", key.to_owned()),
            ("the certificate as key", "key.pem", cert.to_owned()),
            ("key and certificate glued", "cert.pem", [cert.trim_end(), key].concat()),
            ("key and certificate, line ends literal", "cert.pem", literal(&[key, cert].concat())),
            ("certificate, then key with literal line ends", "cert.pem", [cert, &literal(key)].concat()),
            ("authority, then key with literal line ends", "ca.pem", [ca, &literal(key)].concat()),
            ("the key with literal line ends", "key.pem", literal(key)),
            ("the key with literal line ends as authority", "ca.pem", literal(key)),
            ("the key quoted", "key.pem", format!("\"{}\"", literal(key))),
            ("the key cut short", "key.pem", key[..half].to_owned()),
            ("the key without its head", "key.pem", key[half..].to_owned()),
            ("the key without its first line", "key.pem", key.split_once('\n').unwrap().1.to_owned()),
            ("the key in the BEGIN line", "key.pem", key.replacen("-----\n", "", 1)),
            ("the key as the label", "key.pem", format!("-----BEGIN {}-----\n", key.replace('\n', ""))),
            ("the key with a letter too many", "key.pem", key.replacen("\nM", "\n!M", 1)),
            ("the key twice", "key.pem", key.repeat(2)),
            ("the key as a template", "key.pem", format!("{{{{ .Values.key }}}}{}", key.replace('\n', " "))),
            ("the key in base64 once more", "key.pem", key.lines().filter(|line| !line.starts_with('-')).collect()),
            ("the key as JWKS", "jwks.json", key.to_owned()),
            ("a token as JWKS", "jwks.json", TOKEN.to_owned()),
            ("a token in JSON as JWKS", "jwks.json", format!("\"{TOKEN}\"")),
            ("private keys, cut short", "jwks.json", self.private_jwks[..self.private_jwks.len() - 10].to_owned()),
            ("a private key with a wrong type", "jwks.json", self.private_jwks.replace("\"ES256\"", "5")),
            (
                "a private key of another kind",
                "jwks.json",
                self.private_jwks.replace("\"EC\"", &format!("\"{TOKEN}\"")),
            ),
            ("private keys in a list", "jwks.json", format!("[{}]", self.private_jwks)),
        ]
    }

    /// What is refused at the start: the configuration file, and a variable.
    fn starts(&self) -> Vec<Start> {
        let plain = |config: String| (config, None);
        let (key, config) = (&self.ours.key, self.config());
        let path = |name: &str| self.folder.path(name).display().to_string();
        let named =
            |name: &str, content: &str| config.replace(&format!("'{}'", path(name)), &format!("'''{content}'''"));
        let jwt = self.issuer.token("alice", |_, _| {});
        [
            ("a token for its hash", plain(format!("[[auth.tokens]]\nname = 'ci'\nsha256 = '{TOKEN}'\n"))),
            ("a token beside its hash", plain(format!("[[auth.tokens]]\nname = 'ci'\ntoken = '{TOKEN}'\n"))),
            ("a token in place of a table", plain(format!("[auth]\ntokens = '{TOKEN}'\n"))),
            ("a token in a list", plain(format!("[auth]\ntokens = ['{TOKEN}']\n"))),
            ("a token for a number", plain(format!("[edge]\nmax_connections = '{TOKEN}'\n"))),
            ("a token for a duration", plain(format!("[listing]\nttl = '5{TOKEN}'\n"))),
            ("a token for an address", plain(format!("[edge]\nlisten = '{TOKEN}'\n"))),
            ("a token for the admin address", plain(format!("[admin]\nlisten = '{TOKEN}'\n"))),
            ("a token for the admin hash", plain(format!("[admin]\ntoken_sha256 = '{TOKEN}'\n"))),
            (
                "a token for an algorithm",
                plain(config.replace("[[allow]]", &format!("algorithms = ['{TOKEN}']\n[[allow]]"))),
            ),
            ("a token for a format", plain(format!("[log]\nformat = '{TOKEN}'\n"))),
            ("a token without quotes", plain(format!("[upstream]\nexternal_id = {TOKEN}\n"))),
            ("a token with a quote that is not closed", plain(format!("[upstream]\nexternal_id = \"{TOKEN}\n"))),
            ("a token with a wrong escape", plain(format!("[upstream]\nexternal_id = \"{TOKEN}\\q\"\n"))),
            ("a token behind what is right", plain(format!("[upstream]\nexternal_id = 'x' {TOKEN}\n"))),
            ("a token alone", plain(format!("{TOKEN}\n"))),
            ("a password in a URL", plain(format!("[upstream]\nendpoint_url = 'http://me:{PASSWORD}@127.0.0.1:1'\n"))),
            (
                "a password in a receiver's URL",
                plain(format!("[trace]\nendpoint = 'http://me:{PASSWORD}@127.0.0.1:1'\n")),
            ),
            ("the key as the file", plain(key.clone())),
            ("private keys as the file", plain(self.private_jwks.clone())),
            ("the key for its file's name", plain(named("key.pem", key))),
            ("the key for the certificate's file's name", plain(named("cert.pem", key))),
            ("the key for the authorities' file's name", plain(named("ca.pem", &key.replace('\n', "\\n")))),
            ("private keys for their file's name", plain(named("jwks.json", &self.private_jwks))),
            ("a token for the JWKS's file's name", plain(named("jwks.json", &jwt))),
            ("the key in the variable for the file", (String::new(), Some(("SSM_GATEWAY_CONFIG", key.clone())))),
        ]
        .map(|(name, (config, variable))| (name, config, variable))
        .into_iter()
        .chain(plain_starts())
        .collect()
    }

    /// What a client refuses: its flags, and its variables.
    fn commands(&self) -> Vec<Call> {
        let key = &self.ours.key;
        self.folder.write("literal.pem", key.replace('\n', "\\n"));
        self.folder.write("two-lines", format!("{TOKEN}\n{TOKEN}\n"));
        self.folder.write("json", format!("{{ \"token\": \"{TOKEN}\" }}"));
        vec![
            ("the key as authority", "--tls-ca key.pem", vec![]),
            ("the key with literal line ends as authority", "--tls-ca literal.pem", vec![]),
            ("a token as authority", "--tls-ca token", vec![]),
            ("key and certificate swapped", "--tls-ca ca.pem --cert key.pem --key cert.pem", vec![]),
            ("the key for both", "--tls-ca ca.pem --cert key.pem --key key.pem", vec![]),
            ("the key with literal line ends", "--tls-ca ca.pem --cert cert.pem --key literal.pem", vec![]),
            ("the key as token", "--tls-ca ca.pem --token-file key.pem", vec![]),
            ("two tokens", "--tls-ca ca.pem --token-file two-lines", vec![]),
            ("a token in JSON", "--tls-ca ca.pem --token-file json", vec![]),
            (
                "the key in a variable for its file",
                "--tls-ca ca.pem --cert cert.pem",
                vec![("SSM_GATEWAY_KEY", key.clone())],
            ),
            ("the key for the authorities' file", "", vec![("SSM_GATEWAY_TLS_CA", key.clone())]),
            (
                "a JWT for its file",
                "--tls-ca ca.pem",
                vec![("SSM_GATEWAY_TOKEN_FILE", self.issuer.token("alice", |_, _| {}))],
            ),
            ("a token in the variable for its file", "", vec![("SSM_GATEWAY_TOKEN_FILE", TOKEN.to_owned())]),
        ]
    }

    /// What callers send: the headers of a call each.
    fn headers(&self, [jwt, foreign, expired]: [&String; 3]) -> Vec<Vec<Named>> {
        vec![
            vec![("authorization", bearer(TOKEN))],
            vec![("authorization", bearer(jwt))],
            vec![("authorization", bearer(foreign))],
            vec![("authorization", bearer(expired))],
            vec![("authorization", bearer(&format!("wrong-{PASSWORD}")))],
            vec![("authorization", bearer(&self.private_jwks))],
            vec![("authorization", bearer(&self.ours.key.replace('\n', "\\n")))],
            vec![("authorization", TOKEN.to_owned())],
            vec![("authorization", format!("Basic {PASSWORD}"))],
            vec![("authorization", format!("Bearer: {TOKEN}"))],
            vec![("authorization", bearer(TOKEN)), ("authorization", bearer(jwt))],
            vec![("proxy-authorization", bearer(TOKEN))],
            vec![("cookie", format!("session={TOKEN}"))],
            vec![("x-api-key", TOKEN.to_owned())],
            vec![("x-amz-security-token", PASSWORD.to_owned())],
            vec![("user-agent", TOKEN.to_owned())],
            vec![("grpc-timeout", TOKEN.to_owned())],
            vec![("traceparent", TOKEN.to_owned())],
            vec![("baggage", format!("token={TOKEN}"))],
        ]
    }
}

/// What is refused at the start though its grammar is right, and shown in the message only if it cannot be a secret.
fn plain_starts() -> Vec<Start> {
    let url = format!("https://me:{PASSWORD}@host");
    let keys = [
        ("a secret for a principal", format!("[[allow]]\nprincipal = '{KEY}'\n")),
        ("a URL for a principal", format!("[[allow]]\nprincipal = '{url}'\n")),
        ("a secret for the default target", format!("default_target = '{KEY}'\n")),
        ("a secret for a key", format!("{KEY} = 1\n")),
    ];
    let variables =
        [("SSM_GATEWAY_LOG_FILTER", KEY), ("SSM_GATEWAY_CONFIG", KEY), ("SSM_GATEWAY_TRACE_ENDPOINT", &url)];
    let variables =
        variables.map(|(name, value)| ("a secret in a variable", String::new(), Some((name, value.to_owned()))));
    keys.map(|(name, config)| (name, config, None)).into_iter().chain(variables).collect()
}

/// An `authorization` header.
fn bearer(token: &str) -> String {
    format!("Bearer {token}")
}

/// Runs a command that is to fail, and gives all that it printed.
fn failing(command: &mut Command, name: &str) -> String {
    failing_with(1, command, name)
}

fn failing_with(code: i32, command: &mut Command, name: &str) -> String {
    let Output { status, stdout, stderr } = command.stdin(Stdio::null()).output().unwrap();
    let printed = [stdout, stderr].map(|printed| String::from_utf8_lossy(&printed).into_owned()).concat();
    assert_eq!(status.code(), Some(code), "{name}: {printed}");
    assert!(printed.contains("error: "), "{name}: {printed}");
    printed
}

/// The program, which is ended if it does not end.
fn bounded() -> Command {
    let mut command = Command::new("timeout");
    command.args(["30", SSM_GATEWAY]);
    command
}

#[test]
fn what_is_refused_at_the_start_is_not_printed() {
    let secrets = Secrets::new();
    for (name, config, variable) in secrets.starts() {
        let file = secrets.folder.write("gateway.toml", config);
        for command in ["check", "serve"] {
            let mut program = bounded();
            program.arg(command).env("SSM_GATEWAY_LOG_FILTER", "trace").env("AWS_REGION", "us-east-1");
            match &variable {
                Some((variable, value)) => program.env(variable, value),
                None => program.arg("--config").arg(&file),
            };
            assert_free_of(&failing(&mut program, name), &secrets.all, name);
        }
    }
    let file = secrets.folder.write("gateway.toml", secrets.config());
    for (name, spoiled, content) in secrets.files() {
        secrets.folder.write(spoiled, content);
        for command in ["check", "serve"] {
            let mut program = bounded();
            program.args([command, "--config"]).arg(&file);
            program.env("SSM_GATEWAY_LOG_FILTER", "trace").env("AWS_REGION", "us-east-1");
            let printed = failing(&mut program, name);
            assert!(printed.contains(spoiled), "{name}: it names the file: {printed}");
            assert_free_of(&printed, &secrets.all, name);
        }
        secrets.restore();
    }
}

#[test]
fn what_a_client_refuses_is_not_printed() {
    let secrets = Secrets::new();
    for (name, flags, variables) in secrets.commands() {
        let mut program = bounded();
        program.args(["targets", "--server", "https://localhost:1"]).args(flags.split_whitespace());
        program.envs(variables).current_dir(secrets.folder.path(""));
        assert_free_of(&failing(&mut program, name), &secrets.all, name);
    }
}

#[test]
fn what_is_wrong_usage_is_not_printed() {
    let secrets = Secrets::new();
    for command in Cli::command().get_subcommands() {
        for arg in command.get_arguments().filter(|arg| arg.get_env().is_some()) {
            let (flag, variable) = (format!("--{}", arg.get_long().unwrap()), arg.get_env().unwrap().to_str().unwrap());
            for secret in [KEY.to_owned(), format!("https://me:{PASSWORD}@host"), secrets.ours.key.clone()] {
                // What is taken is refused by what it is used for, which is another test's.
                if Cli::try_parse_from(["ssm-gateway", command.get_name(), &format!("{flag}={secret}")]).is_ok()
                    || (variable == "SSM_GATEWAY_CERT" || variable == "SSM_GATEWAY_KEY")
                {
                    continue;
                }
                let name = format!("{} {flag} {secret}", command.get_name());
                let mut program = bounded();
                program.arg(command.get_name()).env(variable, &secret);
                let printed = failing_with(2, &mut program, &name);
                assert!(printed.contains(&format!("the value of {variable} ({flag}")), "{printed}");
                assert_free_of(&printed, &secrets.all, &name);
                let printed = failing_with(2, bounded().args([command.get_name(), &format!("{flag}={secret}")]), &name);
                assert!(printed.contains(&format!("the value of {flag}")), "{printed}");
                assert_free_of(&printed, &secrets.all, &name);
            }
        }
    }
    for words in [&[KEY][..], &["list", KEY], &["check", &format!("me:{PASSWORD}@host")]] {
        let printed = failing_with(2, bounded().args(words), "a word");
        assert_free_of(&printed, &secrets.all, "a word");
    }
    // A variable is not shown though it is short and plain.
    let mut program = bounded();
    program.arg("serve").env("SSM_GATEWAY_ALLOW_ANONYMOUS", TOKEN);
    assert_free_of(&failing_with(2, &mut program, "a boolean"), &secrets.all, "a boolean");
    let printed = failing_with(2, bounded().args(["list", "--max-age", &format!("5{KEY}")]), "a duration");
    assert_free_of(&printed, &secrets.all, "a duration");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_becomes_of_a_file_while_it_is_served_with_is_not_logged() {
    let (secrets, simulator) = (Secrets::new(), simulator_of(3).await);
    let config = format!("{}[log]\nfilter = 'trace'\n", secrets.config());
    let mut program = Program::in_front_of(&simulator, &secrets.folder, &config, "127.0.0.1:0", "");
    for (_, spoiled, content) in secrets.files() {
        secrets.folder.write(spoiled, content);
        program.until("the old ones stay in use");
        // Something else that is right, so that the next failure is another one.
        if spoiled == "jwks.json" {
            secrets.folder.write("jwks.json", secrets.issuer.jwks() + " ");
        } else {
            secrets.restore();
            secrets.folder.write("ca.pem", secrets.authority.pem() + "\n");
        }
        program.until("are used from now on");
        secrets.restore();
        program.until("are used from now on");
    }
    let mut emitted = String::new();
    for path in ["/metrics", "/status", "/config"] {
        emitted += &get(program.admin, path).await.1;
    }
    emitted += &program.stop();
    assert_free_of(&emitted, &secrets.all, "files that changed");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_callers_and_administrators_send_is_emitted_nowhere() {
    let (secrets, simulator, receiver) = (Secrets::new(), simulator_of(3).await, Receiver::start());
    let config = format!(
        "[[auth.tokens]]\nname = 'ci'\nsha256 = '{}'\n[auth.jwt]\njwks = '{}'\nissuer = 'https://issuer'\n\
         audiences = ['ssm-gateway']\n[[allow]]\nprincipal = '*'\n[upstream]\nexternal_id = '{PASSWORD}'\n[log]\nformat = 'json'\nfilter = 'trace'\n\
         [admin]\ntoken_sha256 = '{}'\n[trace]\nendpoint = '{}'\nratio = 1.0\n",
        sha256(TOKEN),
        secrets.folder.path("jwks.json").display(),
        sha256(PASSWORD),
        receiver.url
    );
    let program = Program::in_front_of(&simulator, &secrets.folder, &config, "127.0.0.1:0", "");
    let mut client = within(Client::connect(format!("http://{}", program.addr))).await.unwrap();
    let tokens = [
        secrets.issuer.token("alice", |_, _| {}),
        Issuer::new("one").token("alice", |_, _| {}),
        secrets.issuer.token("alice", |_, claims| claims["exp"] = 1.into()),
    ];
    let mut codes = std::collections::BTreeSet::new();
    for headers in secrets.headers(tokens.each_ref()) {
        let mut request = tonic::Request::new(DescribeInstanceInformationRequest::default());
        for (name, value) in headers {
            request.metadata_mut().append(name, value.parse::<MetadataValue<_>>().unwrap());
        }
        let answered = within(client.describe_instance_information(request)).await;
        codes.insert(answered.map_or_else(|status| format!("{:?}", status.code()), |_| "OK".to_owned()));
    }
    assert!(["OK", "Unauthenticated"].iter().all(|code| codes.contains(*code)), "{codes:?}");
    let mut emitted = String::new();
    let host = ("host", "127.0.0.1");
    for (path, authorization) in [
        ("/status", bearer(PASSWORD)),
        ("/config", bearer(PASSWORD)),
        ("/", bearer(PASSWORD)),
        ("/metrics", bearer(PASSWORD)),
        ("/status", bearer(&format!("wrong-{PASSWORD}"))),
        ("/status", format!("Basic {PASSWORD}")),
        (&*format!("/status?token={PASSWORD}"), String::new()),
        (&*format!("/{PASSWORD}"), String::new()),
    ] {
        let headers = [host, ("authorization", &*authorization), ("accept", "text/html")];
        let (head, (_, body)) = get_with(program.admin, path, &headers).await;
        emitted += &(head + &body);
    }
    drop(client);
    emitted += &program.stop();
    for span in receiver.spans() {
        emitted += &span.to_string();
    }
    let tokens = tokens.map(|token| token.rsplit('.').next().unwrap().to_owned());
    let secrets: Vec<String> = secrets.all.iter().cloned().chain(tokens).chain([AWS_SECRET.to_owned()]).collect();
    assert_free_of(&emitted, &secrets, "headers");
}
