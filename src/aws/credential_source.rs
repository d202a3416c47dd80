//! Where a target's credentials come from, decided once, when the target is built: `check` prints what will be asked.

use std::{collections::HashSet, fmt};

use aws_config::profile::Profile;

use super::{build_error::BuildError, environment::Environment};

/// The one place that credentials are taken from, before any role is assumed with them.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum CredentialSource {
    /// Made up, as the simulator takes them.
    Simulated,
    /// `AWS_ACCESS_KEY_ID` and `AWS_SECRET_ACCESS_KEY`.
    Environment,
    /// The keys of a profile.
    Keys(String),
    /// A profile that the SDK alone can ask: SSO, a login session.
    Sdk(String),
    /// The `credential_process` of a profile.
    Process(Process),
    /// A role, by a token in a file.
    WebIdentity(WebIdentity),
    /// The container's endpoint (ECS, EKS Pod Identity), by `AWS_CONTAINER_CREDENTIALS_*`.
    Container,
    /// The instance's metadata.
    Instance,
    /// Nothing is configured, and the instance's metadata must not be asked.
    Unconfigured,
}

/// A command that prints credentials.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Process {
    /// The profile that names it.
    pub(super) profile: String,
    pub(super) command: String,
}

/// A role that is assumed by a web identity.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct WebIdentity {
    pub(super) token_file: String,
    pub(super) role: Role,
}

/// A role to assume.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Role {
    pub(super) arn: String,
    pub(super) session_name: Option<String>,
    pub(super) external_id: Option<String>,
}

/// Names the place and no secret.
impl fmt::Display for CredentialSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Simulated => f.write_str("the simulator"),
            Self::Environment => f.write_str("the environment (AWS_ACCESS_KEY_ID)"),
            Self::Keys(name) | Self::Sdk(name) => write!(f, "profile {name:?}"),
            Self::Process(process) => {
                write!(f, "profile {:?}, credential_process {}", process.profile, process.program())
            }
            Self::WebIdentity(WebIdentity { role, .. }) => write!(f, "web identity ({})", role.arn),
            Self::Container => f.write_str("the container (AWS_CONTAINER_CREDENTIALS_*)"),
            Self::Instance => f.write_str("the instance's metadata"),
            Self::Unconfigured => f.write_str("nowhere: none are configured"),
        }
    }
}

impl Process {
    /// The program, where the command begins with a plain path: arguments and assignments may be secrets.
    pub(super) fn program(&self) -> &str {
        let is_plain = |word: &&str| word.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_./+-".contains(&byte));
        self.command.split_whitespace().next().filter(is_plain).unwrap_or("(a command)")
    }
}

impl Role {
    fn of_profile(profile: &Profile, arn: &str) -> Self {
        let owned = |key| profile.get(key).map(str::to_owned);
        Self { arn: arn.to_owned(), session_name: owned("role_session_name"), external_id: owned("external_id") }
    }
}

/// A source, and the roles to assume one after the other with what it gives.
pub(super) type Chain = (CredentialSource, Vec<Role>);

impl CredentialSource {
    /// Decides on a target's source. An explicit profile, which the gateway's own configuration names, wins over
    /// everything, as with AWS's CLI; else the SDK's order holds: the environment's keys, the selected profile, a web
    /// identity, the container, the instance.
    ///
    /// # Errors
    /// [`BuildError`], if a profile is named that AWS's files do not have or that has no credentials, or half a pair of
    /// keys is there: to pass over it could sign as somebody else.
    pub(super) fn find(environment: &Environment, explicit: Option<&str>) -> Result<Chain, BuildError> {
        let variable = |name| environment.variable(name);
        if let Some(name) = explicit {
            return of_profile(environment, name)?
                .ok_or_else(|| BuildError::ProfileWithoutCredentials(name.to_owned()));
        }
        match (variable("AWS_ACCESS_KEY_ID"), variable("AWS_SECRET_ACCESS_KEY")) {
            (Some(_), Some(_)) => return Ok((Self::Environment, Vec::new())),
            (Some(_), None) => {
                return Err(BuildError::HalfPair("AWS_ACCESS_KEY_ID is set without AWS_SECRET_ACCESS_KEY"));
            }
            (None, _) => {}
        }
        let name = environment.profiles().selected_profile();
        let is_named = variable("AWS_PROFILE").is_some() || environment.profile(name).is_some();
        if is_named && let Some(found) = of_profile(environment, name)? {
            return Ok(found);
        }
        if let (Some(token_file), Some(arn)) = (variable("AWS_WEB_IDENTITY_TOKEN_FILE"), variable("AWS_ROLE_ARN")) {
            let session_name = variable("AWS_ROLE_SESSION_NAME").map(str::to_owned);
            let role = Role { arn: arn.to_owned(), session_name, external_id: None };
            let identity = WebIdentity { token_file: token_file.to_owned(), role };
            return Ok((Self::WebIdentity(identity), Vec::new()));
        }
        let containers = ["AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "AWS_CONTAINER_CREDENTIALS_FULL_URI"];
        let source = match containers.into_iter().any(|name| variable(name).is_some()) {
            true => Self::Container,
            false if environment.disables_metadata() => Self::Unconfigured,
            false => Self::Instance,
        };
        Ok((source, Vec::new()))
    }

    /// A text that differs where the source does, and not from one replica to the next.
    pub(super) fn identity(&self) -> String {
        match self {
            Self::Simulated => "simulated".to_owned(),
            Self::Environment => "environment".to_owned(),
            Self::Keys(name) | Self::Sdk(name) => format!("profile:{name}"),
            Self::Process(process) => format!("profile:{}", process.profile),
            Self::WebIdentity(identity) => format!("web:{}", identity.role.arn),
            Self::Container => "container".to_owned(),
            Self::Instance => "instance".to_owned(),
            Self::Unconfigured => "none".to_owned(),
        }
    }
}

/// Returns what a profile says about credentials, if anything: the profiles that it names as its source are followed,
/// as the SDK does, so that all roles are assumed by the gateway itself, at its endpoint and pace.
fn of_profile(environment: &Environment, name: &str) -> Result<Option<Chain>, BuildError> {
    let find = |name: &str| environment.profile(name).ok_or_else(|| BuildError::UnknownProfile(name.to_owned()));
    let mut bottom = find(name)?;
    let mut roles = Vec::new();
    let mut seen = HashSet::new();
    loop {
        if !seen.insert(bottom.name()) {
            return Err(BuildError::ProfileLoop(name.to_owned()));
        }
        let has = |key| bottom.get(key).is_some();
        let is_role = !has("web_identity_token_file") && (seen.len() == 1 || !has("aws_access_key_id"));
        let Some(arn) = bottom.get("role_arn").filter(|_| is_role) else { break };
        roles.push(Role::of_profile(bottom, arn));
        match bottom.get("source_profile") {
            Some(next) if next != bottom.name() => bottom = find(next)?,
            _ => break,
        }
    }
    roles.reverse();
    match base(bottom)? {
        Some(source) => Ok(Some((source, roles))),
        None if roles.is_empty() => Ok(None),
        None => Err(BuildError::ProfileWithoutCredentials(bottom.name().to_owned())),
    }
}

/// Returns the source of a profile that assumes no role, by the SDK's order.
fn base(profile: &Profile) -> Result<Option<CredentialSource>, BuildError> {
    let get = |key| profile.get(key).filter(|value| !value.trim().is_empty());
    let name = profile.name().to_owned();
    if let Some(source) = get("credential_source") {
        return Ok(Some(match source {
            "Environment" => CredentialSource::Environment,
            "EcsContainer" => CredentialSource::Container,
            "Ec2InstanceMetadata" => CredentialSource::Instance,
            _ => return Err(BuildError::ProfileWithoutCredentials(name)),
        }));
    }
    if let (Some(token_file), Some(arn)) = (get("web_identity_token_file"), get("role_arn")) {
        let role = Role::of_profile(profile, arn);
        return Ok(Some(CredentialSource::WebIdentity(WebIdentity { token_file: token_file.to_owned(), role })));
    }
    if ["sso_session", "sso_account_id", "sso_start_url", "login_session"].into_iter().any(|key| get(key).is_some()) {
        return Ok(Some(CredentialSource::Sdk(name)));
    }
    if let Some(command) = get("credential_process") {
        return Ok(Some(CredentialSource::Process(Process { profile: name, command: command.to_owned() })));
    }
    match (get("aws_access_key_id"), get("aws_secret_access_key")) {
        (Some(_), Some(_)) => Ok(Some(CredentialSource::Keys(name))),
        (None, None) => Ok(None),
        _ => Err(BuildError::HalfPair(
            "a profile has one of aws_access_key_id and aws_secret_access_key without the other",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aws::environment::tests::environment;

    const FILE: &str = "
[default]
aws_access_key_id = AKIADEFAULT
aws_secret_access_key = secret
[profile a]
aws_access_key_id = AKIAA
aws_secret_access_key = secret
[profile half]
aws_access_key_id = AKIAHALF
[profile empty]
region = eu-west-1
[profile process]
credential_process = /opt/creds --secret hunter2
[profile assigned]
credential_process = TOKEN=hunter2 /opt/creds
[profile outer]
role_arn = arn:aws:iam::111122223333:role/Outer
source_profile = inner
[profile inner]
role_arn = arn:aws:iam::111122223333:role/Inner
role_session_name = team
source_profile = process
[profile self]
role_arn = arn:aws:iam::111122223333:role/Self
source_profile = self
aws_access_key_id = AKIASELF
aws_secret_access_key = secret
[profile contained]
role_arn = arn:aws:iam::111122223333:role/Contained
credential_source = EcsContainer
[profile web]
role_arn = arn:aws:iam::111122223333:role/Web
web_identity_token_file = /token
[profile loop]
role_arn = arn:aws:iam::111122223333:role/Loop
source_profile = loop2
[profile loop2]
role_arn = arn:aws:iam::111122223333:role/Loop
source_profile = loop
[profile baseless]
role_arn = arn:aws:iam::111122223333:role/Baseless
[profile sso]
sso_session = dev
credential_process = /opt/creds
";
    const KEYS: [(&str, &str); 2] = [("AWS_ACCESS_KEY_ID", "AKIAENV"), ("AWS_SECRET_ACCESS_KEY", "secret")];
    const WEB: [(&str, &str); 2] =
        [("AWS_WEB_IDENTITY_TOKEN_FILE", "/token"), ("AWS_ROLE_ARN", "arn:aws:iam::111122223333:role/Web")];
    const CONTAINER: (&str, &str) = ("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "/creds");
    const DISABLED: (&str, &str) = ("AWS_EC2_METADATA_DISABLED", "true");

    async fn found(variables: &[&[(&str, &str)]], file: &str, explicit: Option<&str>) -> Result<Chain, BuildError> {
        CredentialSource::find(&environment(&variables.concat(), file, explicit).await, explicit)
    }

    async fn source(variables: &[&[(&str, &str)]], file: &str, explicit: Option<&str>) -> CredentialSource {
        found(variables, file, explicit).await.unwrap().0
    }

    #[tokio::test]
    async fn each_source_wins_over_all_that_stand_behind_it() {
        let all: [&[(&str, &str)]; 4] = [&KEYS, &WEB, &[CONTAINER], &[DISABLED]];
        let keys = |name: &str| CredentialSource::Keys(name.to_owned());
        assert_eq!(source(&all, FILE, Some("a")).await, keys("a"));
        assert_eq!(source(&all, FILE, None).await, CredentialSource::Environment);
        let named = [("AWS_PROFILE", "a")];
        assert_eq!(source(&[&KEYS, &named], FILE, None).await, CredentialSource::Environment);
        assert_eq!(source(&[&named, &WEB], FILE, None).await, keys("a"));
        assert_eq!(source(&all[1..], FILE, None).await, keys("default"));
        assert!(matches!(source(&all[1..], "", None).await, CredentialSource::WebIdentity(_)));
        assert_eq!(source(&all[2..], "", None).await, CredentialSource::Container);
        assert_eq!(source(&[&[DISABLED]], "", None).await, CredentialSource::Unconfigured);
        assert_eq!(source(&[], "", None).await, CredentialSource::Instance);
    }

    #[tokio::test]
    async fn an_empty_variable_is_no_source_and_half_a_pair_is_refused() {
        let empty = [("AWS_ACCESS_KEY_ID", ""), ("AWS_SECRET_ACCESS_KEY", "")];
        assert_eq!(source(&[&empty, &[DISABLED]], "", None).await, CredentialSource::Unconfigured);
        let web = [("AWS_WEB_IDENTITY_TOKEN_FILE", "/token"), ("AWS_ROLE_ARN", "")];
        assert_eq!(source(&[&web, &[DISABLED]], "", None).await, CredentialSource::Unconfigured);
        let profile = [("AWS_PROFILE", "empty")];
        assert_eq!(source(&[&profile, &[CONTAINER]], FILE, None).await, CredentialSource::Container);
        let half = [("AWS_ACCESS_KEY_ID", "AKIAENV"), ("AWS_SECRET_ACCESS_KEY", "")];
        assert!(matches!(found(&[&half], FILE, None).await, Err(BuildError::HalfPair(_))));
        assert!(matches!(found(&[], FILE, Some("half")).await, Err(BuildError::HalfPair(_))));
    }

    #[tokio::test]
    async fn a_profile_that_is_named_must_be_there_and_one_that_is_explicit_have_credentials() {
        for (variables, explicit) in [(&KEYS[..], Some("b")), (&[("AWS_PROFILE", "b")], None)] {
            let refused = found(&[variables], FILE, explicit).await;
            assert!(matches!(refused, Err(BuildError::UnknownProfile(name)) if name == "b"));
        }
        for name in ["empty", "baseless"] {
            let refused = found(&[&KEYS], FILE, Some(name)).await;
            assert!(matches!(refused, Err(BuildError::ProfileWithoutCredentials(found)) if found == name));
        }
        assert!(matches!(found(&[], FILE, Some("loop")).await, Err(BuildError::ProfileLoop(_))));
    }

    #[tokio::test]
    async fn profiles_are_followed_to_their_source_and_the_roles_between_are_assumed_in_turn() {
        let chain = async |name: &str| {
            let (source, roles) = found(&[], FILE, Some(name)).await.unwrap();
            let roles: Vec<_> = roles.iter().map(|role| role.arn.rsplit('/').next().unwrap().to_owned()).collect();
            (source.to_string(), roles.join(" "))
        };
        for (name, source, roles) in [
            ("a", "profile \"a\"", ""),
            ("outer", "profile \"process\", credential_process /opt/creds", "Inner Outer"),
            ("self", "profile \"self\"", "Self"),
            ("contained", "the container (AWS_CONTAINER_CREDENTIALS_*)", "Contained"),
            ("web", "web identity (arn:aws:iam::111122223333:role/Web)", ""),
            ("assigned", "profile \"assigned\", credential_process (a command)", ""),
        ] {
            assert_eq!(chain(name).await, (source.to_owned(), roles.to_owned()), "{name}");
        }
        assert_eq!(source(&[], FILE, Some("sso")).await, CredentialSource::Sdk("sso".to_owned()));
    }
}
