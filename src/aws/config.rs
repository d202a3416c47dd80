//! The settings by which a target's SSM is reached, and the check of each.

use std::{path::PathBuf, time::Duration};

use http::Uri;
use serde::{Deserialize, Serialize};

use super::build_error::BuildError;
use crate::setting::{InvalidSetting, bounded, positive, positive_bounded};

/// The settings by which a target's SSM is reached: the `[upstream]` table of the configuration file, for all targets.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The AWS region; absent, what AWS's own variables and files or the instance's metadata say.
    pub region: Option<String>,
    /// Another endpoint than the region's own; absent, what AWS's own variables and files say.
    pub endpoint_url: Option<String>,
    /// Another endpoint of STS than the region's own, for roles to be assumed at.
    pub sts_endpoint_url: Option<String>,
    /// The profile in AWS's shared files whose credentials are used, whatever the environment has; absent, AWS's
    /// default chain.
    pub profile: Option<String>,
    /// The role to assume, by its ARN; absent, the credentials that are found are used as they are.
    pub role_arn: Option<String>,
    /// The external ID that the role's trust policy demands.
    pub external_id: Option<String>,
    /// What the sessions of the role are called, in `CloudTrail` too.
    pub session_name: Option<String>,
    /// The authorities, in PEM, to trust for SSM and STS in place of the system's; absent, `AWS_CA_BUNDLE` and the
    /// like.
    pub ca_bundle: Option<PathBuf>,
    /// The longest wait for a connection.
    #[serde(with = "humantime_serde")]
    pub connect_timeout: Duration,
    /// The longest wait for one attempt, connection included, and for one attempt to get credentials.
    #[serde(with = "humantime_serde")]
    pub attempt_timeout: Duration,
    /// The longest wait for a page, all its attempts and its credentials included.
    #[serde(with = "humantime_serde")]
    pub fetch_timeout: Duration,
    /// How often AWS is asked at most, a second; throttling slows it down further.
    pub requests_per_second: f64,
    /// How many fetches may wait to be admitted.
    pub longest_line: usize,
    /// How often a transient failure is tried again.
    pub retries: u32,
    /// The longest pause before the first of these; it doubles from one to the next.
    #[serde(with = "humantime_serde")]
    pub retry_backoff: Duration,
    /// The most bytes of one answer.
    pub max_answer_size: usize,
    /// Whether to sign with made-up credentials, as the simulator takes them.
    #[serde(skip)]
    pub simulated_credentials: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            region: None,
            endpoint_url: None,
            sts_endpoint_url: None,
            profile: None,
            role_arn: None,
            external_id: None,
            session_name: None,
            ca_bundle: None,
            connect_timeout: Duration::from_secs(3),
            attempt_timeout: Duration::from_secs(10),
            fetch_timeout: Duration::from_secs(30),
            requests_per_second: 10.0,
            longest_line: 100,
            retries: 2,
            retry_backoff: Duration::from_millis(200),
            max_answer_size: 16 << 20,
            simulated_credentials: false,
        }
    }
}

impl Config {
    /// Checks every setting, as far as that is possible without asking AWS.
    ///
    /// # Errors
    /// The first setting that no page could be fetched by.
    pub fn check(&self) -> Result<(), InvalidSetting> {
        let &Self {
            region: _,
            endpoint_url: _,
            sts_endpoint_url: _,
            profile: _,
            role_arn: _,
            external_id: _,
            session_name: _,
            ca_bundle: _,
            requests_per_second: _,
            connect_timeout,
            attempt_timeout,
            fetch_timeout,
            longest_line,
            retries: _,
            retry_backoff,
            max_answer_size,
            simulated_credentials: _,
        } = self;
        positive("longest_line", longest_line)?;
        positive("max_answer_size", max_answer_size)?;
        self.check_requests().map_err(|error| InvalidSetting::new(error.key(), format!("is wrong: {error}")))?;
        positive_bounded("connect_timeout", connect_timeout)?;
        positive_bounded("attempt_timeout", attempt_timeout)?;
        positive_bounded("fetch_timeout", fetch_timeout)?;
        bounded("retry_backoff", retry_backoff)
    }

    /// Checks the settings that say what AWS is asked, as whom, and how often.
    pub(super) fn check_requests(&self) -> Result<(), BuildError> {
        for (key, text) in [
            ("region", &self.region),
            ("endpoint_url", &self.endpoint_url),
            ("sts_endpoint_url", &self.sts_endpoint_url),
            ("profile", &self.profile),
            ("role_arn", &self.role_arn),
            ("external_id", &self.external_id),
            ("session_name", &self.session_name),
        ] {
            if text.as_ref().is_some_and(String::is_empty) {
                return Err(BuildError::Empty(key));
            }
        }
        if self.ca_bundle.as_ref().is_some_and(|file| file.as_os_str().is_empty()) {
            return Err(BuildError::Empty("ca_bundle"));
        }
        if let Some(region) = self.region.as_ref().filter(|region| !is_region(region)) {
            return Err(BuildError::Region(region.clone()));
        }
        let urls = [("endpoint_url", &self.endpoint_url), ("sts_endpoint_url", &self.sts_endpoint_url)];
        for (key, url) in urls.into_iter().filter_map(|(key, url)| Some((key, url.as_ref()?))) {
            // What stands there could be a secret, and would be of no use.
            if has_secret(url) {
                return Err(BuildError::Secret(key));
            }
            if !is_endpoint(url) {
                return Err(BuildError::EndpointUrl(key, url.clone()));
            }
        }
        if let Some(arn) = self.role_arn.as_ref().filter(|arn| !is_role(arn)) {
            return Err(BuildError::RoleArn(arn.clone()));
        }
        if self.external_id.as_ref().is_some_and(|id| !is_plain(id, 1224, b"_+=,.@:/-")) {
            return Err(BuildError::ExternalId);
        }
        if let Some(name) = self.session_name.as_ref().filter(|name| !is_plain(name, 64, b"_+=,.@-")) {
            return Err(BuildError::SessionName(name.clone()));
        }
        if !self.requests_per_second.is_finite() || self.requests_per_second <= 0.0 {
            return Err(BuildError::Rate(self.requests_per_second));
        }
        Ok(())
    }
}

/// Returns whether this is an endpoint that can be asked.
pub(super) fn is_endpoint(url: &str) -> bool {
    let is_usable = |url: Uri| matches!(url.scheme_str(), Some("http" | "https")) && url.host().is_some();
    !has_secret(url) && url.parse().is_ok_and(is_usable)
}

fn has_secret(url: &str) -> bool {
    url.contains(['@', '?'])
}

/// Returns whether this is a region: `eu-west-1`, `us-gov-east-1`, `eusc-de-east-1`: words and a number, which also
/// keeps the name of a host from being made of it.
pub(super) fn is_region(region: &str) -> bool {
    let mut parts: Vec<&str> = region.split('-').collect();
    let number = parts.pop().unwrap_or_default();
    let is_word = |word: &&str| !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_lowercase());
    parts.len() >= 2
        && parts.iter().all(is_word)
        && !number.is_empty()
        && number.bytes().all(|byte| byte.is_ascii_digit())
        && region.len() <= 63
}

/// Returns whether this is `arn:PARTITION:iam::ACCOUNT:role/NAME`.
fn is_role(arn: &str) -> bool {
    matches!(
        arn.splitn(6, ':').collect::<Vec<_>>()[..],
        ["arn", _, "iam", "", account, role] if !account.is_empty() && role.len() > "role/".len() && role.starts_with("role/")
    )
}

fn is_plain(text: &str, most: usize, marks: &[u8]) -> bool {
    (2..=most).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || marks.contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_region_is_words_and_a_number() {
        for region in ["eu-west-1", "us-gov-west-1", "us-isob-east-1", "eusc-de-east-1", "ap-southeast-15"] {
            assert!(is_region(region), "{region}");
        }
        for wrong in [
            "us-east-1a",
            "eu-west-1 ",
            " eu-west-1",
            "EU-WEST-1",
            "x.evil.example/",
            "eu-west",
            "eu--1",
            "1",
            "",
            "a-1",
        ] {
            assert!(!is_region(wrong), "{wrong:?}");
        }
    }

    #[test]
    fn what_sts_refuses_is_refused_before() {
        let key = |config: Config| config.check_requests().err().map(|error| error.key());
        let with = |name: &str| Config { session_name: Some(name.to_owned()), ..Config::default() };
        assert_eq!(key(with("team@gateway")), None);
        for wrong in ["a", "two words", &"a".repeat(65), "ü-gateway", "a:b"] {
            assert_eq!(key(with(wrong)), Some("session_name"), "{wrong}");
        }
        let with = |id: &str| Config { external_id: Some(id.to_owned()), ..Config::default() };
        assert_eq!(key(with("team:a/b")), None);
        for wrong in ["a", "a b", &"a".repeat(1225)] {
            assert_eq!(key(with(wrong)), Some("external_id"), "{wrong}");
        }
    }

    #[test]
    fn an_empty_setting_is_none_that_anybody_meant() {
        let empty = || Some(String::new());
        for (key, config) in [
            ("region", Config { region: empty(), ..Config::default() }),
            ("endpoint_url", Config { endpoint_url: empty(), ..Config::default() }),
            ("sts_endpoint_url", Config { sts_endpoint_url: empty(), ..Config::default() }),
            ("profile", Config { profile: empty(), ..Config::default() }),
            ("role_arn", Config { role_arn: empty(), ..Config::default() }),
            ("external_id", Config { external_id: empty(), ..Config::default() }),
            ("session_name", Config { session_name: empty(), ..Config::default() }),
        ] {
            let error = config.check_requests().unwrap_err();
            assert_eq!((error.key(), matches!(error, BuildError::Empty(_))), (key, true));
        }
    }
}
