//! Where a target's credentials come from. Decided once, when the target is built: who looks at `check` sees what will be asked.

use std::{collections::HashSet, fmt};

use aws_config::profile::Profile;

use super::{config::BuildError, environment::Environment};

/// The one place that a target's credentials are taken from, before any role is assumed with them.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Source {
    /// Made up, as the simulator takes them.
    Simulated,
    /// `AWS_ACCESS_KEY_ID` and `AWS_SECRET_ACCESS_KEY`.
    Environment,
    /// A profile of AWS's shared files.
    Profile(String),
    /// The `credential_process` of a profile, and the roles that the profile assumes with what it prints.
    Process(Process),
    /// The role of `AWS_ROLE_ARN`, by the token in `AWS_WEB_IDENTITY_TOKEN_FILE`.
    WebIdentity(WebIdentity),
    /// The container's endpoint (ECS, EKS Pod Identity), by `AWS_CONTAINER_CREDENTIALS_*`.
    Container,
    /// The instance's metadata.
    Instance,
    /// Nothing is configured, and the instance's metadata must not be asked.
    Nowhere,
}

/// A command that prints credentials.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Process {
    /// The profile that names it.
    pub(super) profile: String,
    pub(super) command: String,
    /// The roles to assume, one with the credentials of the other.
    pub(super) roles: Vec<Role>,
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

/// Names the place and no secret: a command's arguments may be secrets.
impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Simulated => f.write_str("the simulator"),
            Self::Environment => f.write_str("the environment (AWS_ACCESS_KEY_ID)"),
            Self::Profile(name) => write!(f, "profile {name:?}"),
            Self::Process(process) => {
                write!(f, "profile {:?}, credential_process {}", process.profile, process.program())
            }
            Self::WebIdentity(WebIdentity { role, .. }) => write!(f, "web identity (AWS_ROLE_ARN {})", role.arn),
            Self::Container => f.write_str("the container (AWS_CONTAINER_CREDENTIALS_*)"),
            Self::Instance => f.write_str("the instance's metadata"),
            Self::Nowhere => f.write_str("nowhere: none are configured"),
        }
    }
}

impl Process {
    /// The program, without its arguments.
    pub(super) fn program(&self) -> &str {
        self.command.split_whitespace().next().unwrap_or_default()
    }
}

impl Source {
    /// Decides as AWS's CLI does: a profile that is said (`said`) wins over everything; else the environment's keys, the
    /// selected profile, a web identity, the container and the instance, in this order.
    ///
    /// # Errors
    /// [`BuildError::UnknownProfile`], if a profile is named that AWS's files do not have.
    pub(super) fn find(environment: &Environment, said: Option<&str>) -> Result<Self, BuildError> {
        let variable = |name| environment.variable(name);
        if let Some(name) = said {
            return Self::of_profile(environment, name)?.ok_or_else(|| BuildError::UnknownProfile(name.to_owned()));
        }
        if variable("AWS_ACCESS_KEY_ID").is_some() && variable("AWS_SECRET_ACCESS_KEY").is_some() {
            return Ok(Self::Environment);
        }
        let name = environment.profiles().selected_profile();
        let is_named = variable("AWS_PROFILE").is_some();
        match Self::of_profile(environment, name) {
            Ok(Some(source)) => return Ok(source),
            Err(error) if is_named => return Err(error),
            Ok(None) | Err(_) => {}
        }
        if let (Some(token_file), Some(arn)) = (variable("AWS_WEB_IDENTITY_TOKEN_FILE"), variable("AWS_ROLE_ARN")) {
            let session_name = variable("AWS_ROLE_SESSION_NAME").map(str::to_owned);
            let role = Role { arn: arn.to_owned(), session_name, external_id: None };
            return Ok(Self::WebIdentity(WebIdentity { token_file: token_file.to_owned(), role }));
        }
        let containers = ["AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "AWS_CONTAINER_CREDENTIALS_FULL_URI"];
        if containers.into_iter().any(|name| variable(name).is_some()) {
            return Ok(Self::Container);
        }
        Ok(if environment.disables_metadata() { Self::Nowhere } else { Self::Instance })
    }

    /// The profile, if it says anything about credentials.
    fn of_profile(environment: &Environment, name: &str) -> Result<Option<Self>, BuildError> {
        const KEYS: [&str; 8] = [
            "role_arn",
            "credential_source",
            "web_identity_token_file",
            "sso_session",
            "sso_account_id",
            "login_session",
            "credential_process",
            "aws_access_key_id",
        ];
        let profile = environment.profile(name).ok_or_else(|| BuildError::UnknownProfile(name.to_owned()))?;
        if let Some(process) = process(environment, profile) {
            return Ok(Some(Self::Process(process)));
        }
        Ok(KEYS.into_iter().any(|key| profile.get(key).is_some()).then(|| Self::Profile(name.to_owned())))
    }
}

/// The `credential_process` at the bottom of a profile and of those that it names as its source, by the SDK's order; all
/// else, loops included, is the SDK's to understand.
fn process(environment: &Environment, profile: &Profile) -> Option<Process> {
    let (mut roles, mut seen, mut bottom) = (Vec::new(), HashSet::new(), profile);
    loop {
        let has = |key| bottom.get(key).is_some();
        if !seen.insert(bottom.name()) || seen.len() > 1 && has("aws_access_key_id") {
            return None;
        }
        let Some(arn) = bottom.get("role_arn").filter(|_| !has("web_identity_token_file")) else { break };
        let owned = |key| bottom.get(key).map(str::to_owned);
        roles.push(Role {
            arn: arn.to_owned(),
            session_name: owned("role_session_name"),
            external_id: owned("external_id"),
        });
        match bottom.get("source_profile") {
            Some(next) if next != bottom.name() => bottom = environment.profile(next)?,
            _ => break,
        }
    }
    let others = [
        "credential_source",
        "web_identity_token_file",
        "sso_session",
        "sso_account_id",
        "sso_start_url",
        "login_session",
    ];
    if others.into_iter().any(|key| bottom.get(key).is_some()) {
        return None;
    }
    roles.reverse();
    let command = bottom.get("credential_process")?.to_owned();
    Some(Process { profile: profile.name().to_owned(), command, roles })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::environment::tests::environment;

    const FILE: &str = "
[default]
aws_access_key_id = AKIADEFAULT
aws_secret_access_key = secret
[profile a]
aws_access_key_id = AKIAA
aws_secret_access_key = secret
[profile empty]
region = eu-west-1
[profile process]
credential_process = /opt/creds --secret hunter2
[profile chained]
role_arn = arn:aws:iam::111122223333:role/Outer
source_profile = middle
[profile middle]
role_arn = arn:aws:iam::111122223333:role/Inner
role_session_name = team
source_profile = process
[profile loop]
role_arn = arn:aws:iam::111122223333:role/Loop
source_profile = loop2
[profile loop2]
role_arn = arn:aws:iam::111122223333:role/Loop
source_profile = loop
[profile sso]
sso_session = dev
credential_process = /opt/creds
";
    const KEYS: [(&str, &str); 2] = [("AWS_ACCESS_KEY_ID", "AKIAENV"), ("AWS_SECRET_ACCESS_KEY", "secret")];
    const WEB: [(&str, &str); 2] =
        [("AWS_WEB_IDENTITY_TOKEN_FILE", "/token"), ("AWS_ROLE_ARN", "arn:aws:iam::111122223333:role/Web")];
    const CONTAINER: (&str, &str) = ("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "/creds");
    const DISABLED: (&str, &str) = ("AWS_EC2_METADATA_DISABLED", "true");

    async fn found(variables: &[&[(&str, &str)]], file: &str, said: Option<&str>) -> Result<Source, BuildError> {
        Source::find(&environment(&variables.concat(), file, said).await, said)
    }

    #[tokio::test]
    async fn each_source_wins_over_all_that_stand_behind_it() {
        let all: [&[(&str, &str)]; 4] = [&KEYS, &WEB, &[CONTAINER], &[DISABLED]];
        assert_eq!(found(&all, FILE, Some("a")).await.unwrap(), Source::Profile("a".to_owned()));
        assert_eq!(found(&all, FILE, None).await.unwrap(), Source::Environment);
        let named = [("AWS_PROFILE", "a")];
        assert_eq!(found(&[&KEYS, &named], FILE, None).await.unwrap(), Source::Environment);
        assert_eq!(found(&[&named, &WEB], FILE, None).await.unwrap(), Source::Profile("a".to_owned()));
        assert_eq!(found(&all[1..], FILE, None).await.unwrap(), Source::Profile("default".to_owned()));
        assert!(matches!(found(&all[1..], "", None).await.unwrap(), Source::WebIdentity(_)));
        assert_eq!(found(&all[2..], "", None).await.unwrap(), Source::Container);
        assert_eq!(found(&[&[DISABLED]], "", None).await.unwrap(), Source::Nowhere);
        assert_eq!(found(&[], "", None).await.unwrap(), Source::Instance);
    }

    #[tokio::test]
    async fn half_a_pair_and_an_empty_variable_are_no_source() {
        let key = [("AWS_ACCESS_KEY_ID", "AKIAENV"), ("AWS_SECRET_ACCESS_KEY", "")];
        assert_eq!(found(&[&key, &[DISABLED]], "", None).await.unwrap(), Source::Nowhere);
        let web = [("AWS_WEB_IDENTITY_TOKEN_FILE", "/token"), ("AWS_ROLE_ARN", "")];
        assert_eq!(found(&[&web, &[DISABLED]], "", None).await.unwrap(), Source::Nowhere);
        let profile = [("AWS_PROFILE", "empty")];
        assert_eq!(found(&[&profile, &[CONTAINER]], FILE, None).await.unwrap(), Source::Container);
    }

    #[tokio::test]
    async fn a_profile_that_is_named_must_be_there_and_have_credentials_if_it_is_said() {
        let unknown = |outcome: Result<Source, BuildError>| matches!(outcome, Err(BuildError::UnknownProfile(name)) if !name.is_empty());
        assert!(unknown(found(&[&KEYS], FILE, Some("b")).await));
        assert!(unknown(found(&[&[("AWS_PROFILE", "b")]], FILE, None).await));
        assert!(unknown(found(&[&KEYS], FILE, Some("empty")).await));
    }

    #[tokio::test]
    async fn a_process_is_found_below_the_roles_that_profiles_assume_with_it_and_named_without_its_arguments() {
        let Source::Process(process) = found(&[], FILE, Some("chained")).await.unwrap() else { panic!("no process") };
        let roles: Vec<_> = process.roles.iter().map(|role| (&*role.arn, role.session_name.as_deref())).collect();
        let arn = |name| format!("arn:aws:iam::111122223333:role/{name}");
        assert_eq!(roles, [(&*arn("Inner"), Some("team")), (&*arn("Outer"), None)]);
        let shown = Source::Process(process).to_string();
        assert_eq!(shown, "profile \"chained\", credential_process /opt/creds");
        for name in ["loop", "sso", "a"] {
            assert_eq!(found(&[], FILE, Some(name)).await.unwrap(), Source::Profile(name.to_owned()));
        }
    }
}
