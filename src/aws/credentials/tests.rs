use super::*;
use crate::aws::{Config, credential_source::Process, environment::tests::environment};

const PATIENCE: Duration = Duration::from_mins(1);

async fn by(command: &str) -> Arc<Credentials> {
    let config = Config { region: Some("eu-west-1".to_owned()), retries: 0, ..Config::default() };
    let settings = Settings::new(&config, &environment(&[], "", None).await).await.unwrap();
    let process = Process { profile: "a".to_owned(), command: command.to_owned() };
    CredentialsCache::default().for_source(&CredentialSource::Process(process), &settings)
}

fn printing(id: &str) -> String {
    format!(r#"echo '{{"Version":1,"AccessKeyId":"{id}","SecretAccessKey":"s"}}'"#)
}

fn known(id: &str, is_good: bool) -> Current {
    let now = SystemTime::now();
    let expires = if is_good { now + Duration::from_hours(1) } else { now - Duration::from_secs(1) };
    let credentials = AwsCredentials::new(id, "s", None, Some(expires), "test");
    Current { credentials, renew_at: Some(now - Duration::from_secs(2)) }
}

async fn id(credentials: &Arc<Credentials>) -> String {
    time::timeout(PATIENCE, credentials.get()).await.unwrap().unwrap().access_key_id().to_owned()
}

#[tokio::test]
async fn those_who_wait_share_what_is_obtained_once_whoever_leaves() {
    let file = std::env::temp_dir().join(format!("ssm-gateway-once-{}-{:x}", std::process::id(), fastrand::u64(..)));
    let credentials = by(&format!("echo x >> {}; {}", file.display(), printing("AKIA"))).await;
    drop(credentials.get());
    let all = future::join_all((0..50).map(|_| credentials.get()));
    assert!(time::timeout(PATIENCE, all).await.unwrap().iter().all(Result::is_ok));
    assert_eq!(id(&credentials).await, "AKIA");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "x\n");
    std::fs::remove_file(file).unwrap();
}

#[tokio::test]
async fn what_is_good_is_used_while_it_is_renewed_and_when_that_fails() {
    for (command, then) in [("exit 1".to_owned(), "AKIAOLD"), (printing("AKIANEW"), "AKIANEW")] {
        let credentials = by(&command).await;
        credentials.state().current = Some(known("AKIAOLD", true));
        assert_eq!(id(&credentials).await, "AKIAOLD", "nobody waits for the renewal");
        let obtaining = credentials.state().obtaining.clone();
        if let Some(obtaining) = obtaining {
            let _outcome = time::timeout(PATIENCE, obtaining).await.unwrap();
        }
        assert_eq!(id(&credentials).await, then);
    }
    let credentials = by("exit 1").await;
    credentials.state().current = Some(known("AKIAOLD", false));
    assert!(matches!(credentials.get().await, Err(UpstreamError::Credentials(..))), "what has expired is not used");
}

#[tokio::test]
async fn only_the_credentials_that_were_refused_are_forgotten() {
    let credentials = by(&printing("AKIANEW")).await;
    credentials.state().current = Some(Current { renew_at: None, ..known("AKIAOLD", true) });
    credentials.forget(&AwsCredentials::new("AKIAELSE", "s", None, None, "test"));
    assert_eq!(id(&credentials).await, "AKIAOLD");
    credentials.forget(&AwsCredentials::new("AKIAOLD", "s", None, None, "test"));
    assert_eq!(id(&credentials).await, "AKIANEW");
}
