//! `ssm-gateway top`, as a person runs it and as a program does.

use std::process::{Command, Output};

use ssm_gateway::{access::TokenHash, proto::DescribeInstanceInformationRequest};

use crate::{
    program::SSM_GATEWAY,
    proofs::Folder,
    support::{Gateway, simulated, simulated_with},
};

fn top(gateway: &Gateway, flags: &[&str]) -> Output {
    let admin = format!("http://127.0.0.1:{}", gateway.admin.port());
    Command::new(SSM_GATEWAY).args(["top", "--interval", "10ms", "--admin", &admin]).args(flags).output().unwrap()
}

fn text(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn where_there_is_no_terminal_it_is_told_once_as_text() {
    let (gateway, _simulator) = simulated(120).await;
    for _ in 0..4 {
        gateway.describe(DescribeInstanceInformationRequest::default()).await.unwrap();
    }
    let told = text(&top(&gateway, &[]));
    assert!(!told.contains('\u{1b}'), "{told}");
    for part in ["serving", "ready", "0 of 4 failed", "hit ratio 75%", "default*", "LISTING OF", "complete", "none"] {
        assert!(told.contains(part) || part == "complete" && told.contains("open"), "{part} is not in {told}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn in_a_terminal_it_is_drawn_until_it_is_stopped() {
    let (gateway, _simulator) = simulated(1).await;
    // `script` gives it a terminal, and `timeout` its Ctrl-C.
    let command = format!("timeout -s INT 3 {SSM_GATEWAY} top --interval 50ms --admin http://{}", gateway.admin);
    let output = Command::new("script").args(["-qec", &command, "/dev/null"]).env("TERM", "xterm").output().unwrap();
    let drawn = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(drawn.starts_with("\u{1b}[?1049h") && drawn.trim_end().ends_with("\u{1b}[?1049l"), "{drawn:?}");
    assert!(drawn.matches("ssm-gateway").count() > 3, "it is drawn again and again: {drawn:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn it_needs_the_token_where_there_is_one_and_says_what_is_wrong() {
    let (gateway, _simulator) =
        simulated_with(1, |config| config.admin.token_sha256 = Some(TokenHash::of("admin-secret"))).await;
    let refused = top(&gateway, &[]);
    let why = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && why.contains("401") && why.contains("token of [admin]"), "{why}");
    let folder = Folder::new();
    let file = folder.write("token", "admin-secret\n");
    assert!(text(&top(&gateway, &["--admin-token-file", file.to_str().unwrap()])).contains("serving"));
    let nobody = Command::new(SSM_GATEWAY).args(["top", "--admin", "http://127.0.0.1:1"]).output().unwrap();
    let why = String::from_utf8_lossy(&nobody.stderr).into_owned();
    assert!(why.contains("127.0.0.1:1") && why.contains("refused"), "{why}");
}

#[test]
fn what_it_cannot_do_is_wrong_usage() {
    for flags in [
        ["--admin", "https://127.0.0.1:9464"],
        ["--admin", "http://user:secret@127.0.0.1:9464"],
        ["--admin", "http://127.0.0.1:9464/status"],
        ["--interval", "0s"],
    ] {
        let output = Command::new(SSM_GATEWAY).arg("top").args(flags).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{flags:?}");
    }
}
