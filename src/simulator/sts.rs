//! STS's `AssumeRole` in its query protocol: a form in, XML out.

use std::{
    collections::HashMap,
    time::{Duration, SystemTime},
};

use super::identity::Session;

/// The permitted durations of a session, in seconds.
const LIFETIME: std::ops::RangeInclusive<u64> = 900..=43_200;

/// The operation's input.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct AssumeRole {
    /// The account of the role.
    pub(super) account: String,
    /// The role's name, without its path.
    pub(super) role: String,
    pub(super) session_name: String,
    pub(super) external_id: Option<String>,
    pub(super) lifetime: Duration,
}

/// An error with STS's code and message.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) code: &'static str,
    pub(super) message: String,
}

impl Refusal {
    /// Returns the error of a role whose trust policy does not admit the caller.
    pub(super) fn denied(role: &AssumeRole) -> Self {
        let AssumeRole { account, role, .. } = role;
        let message = format!(
            "User: arn:aws:iam::123456789012:user/gateway is not authorized to perform: sts:AssumeRole on resource: \
             arn:aws:iam::{account}:role/{role}"
        );
        Self { code: "AccessDenied", message }
    }

    fn invalid(message: impl Into<String>) -> Self {
        Self { code: "ValidationError", message: message.into() }
    }
}

impl AssumeRole {
    /// Parses a form.
    pub(super) fn read(form: &[u8]) -> Result<Self, Refusal> {
        let form: HashMap<_, _> = form_urlencoded::parse(form).collect();
        let given = |name: &str| form.get(name).map(ToString::to_string).filter(|value| !value.is_empty());
        if given("Action").as_deref() != Some("AssumeRole") {
            return Err(Refusal { code: "InvalidAction", message: "Could not find operation".to_owned() });
        }
        let arn = given("RoleArn").ok_or_else(|| Refusal::invalid("RoleArn must not be null"))?;
        let session_name =
            given("RoleSessionName").ok_or_else(|| Refusal::invalid("RoleSessionName must not be null"))?;
        let is_plain =
            |text: &str| text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_+=,.@-/".contains(&byte));
        let ["arn", _partition, "iam", "", account, resource] = arn.splitn(6, ':').collect::<Vec<_>>()[..] else {
            return Err(Refusal::invalid(format!("{arn} is invalid")));
        };
        let role = resource.strip_prefix("role/").filter(|role| is_plain(role) && is_plain(&session_name));
        let role = role.and_then(|role| role.rsplit('/').next()).filter(|role| !role.is_empty());
        let seconds = given("DurationSeconds").map_or(Ok(3600), |seconds| seconds.parse());
        match (role, seconds.ok().filter(|seconds| LIFETIME.contains(seconds))) {
            (Some(role), Some(seconds)) => Ok(Self {
                account: account.to_owned(),
                role: role.to_owned(),
                session_name,
                external_id: given("ExternalId"),
                lifetime: Duration::from_secs(seconds),
            }),
            (None, _) => Err(Refusal::invalid(format!("{arn} is invalid"))),
            (_, None) => Err(Refusal::invalid("DurationSeconds is out of range")),
        }
    }

    /// Returns the answer as XML.
    pub(super) fn answer(&self, session: &Session) -> String {
        let Self { account, role, session_name, .. } = self;
        let Session { access_key_id, secret_access_key, token, expires, .. } = session;
        let expires = humantime::format_rfc3339_seconds(whole_seconds(*expires));
        format!(
            "<AssumeRoleResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><AssumeRoleResult>\
             <AssumedRoleUser><AssumedRoleId>AROASIMULATED:{session_name}</AssumedRoleId>\
             <Arn>arn:aws:sts::{account}:assumed-role/{role}/{session_name}</Arn></AssumedRoleUser>\
             <Credentials><AccessKeyId>{access_key_id}</AccessKeyId>\
             <SecretAccessKey>{secret_access_key}</SecretAccessKey><SessionToken>{token}</SessionToken>\
             <Expiration>{expires}</Expiration></Credentials></AssumeRoleResult>\
             <ResponseMetadata><RequestId>00000000-0000-4000-8000-000000000000</RequestId></ResponseMetadata>\
             </AssumeRoleResponse>"
        )
    }
}

/// Returns an error as XML.
pub(super) fn error(refusal: &Refusal) -> String {
    let Refusal { code, message } = refusal;
    let message = message.replace('&', "&amp;").replace('<', "&lt;");
    format!(
        "<ErrorResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><Error><Type>Sender</Type>\
         <Code>{code}</Code><Message>{message}</Message></Error>\
         <RequestId>00000000-0000-4000-8000-000000000000</RequestId></ErrorResponse>"
    )
}

/// Rounds down to whole seconds, which STS reports: rounding up would announce a later expiry than the real one.
fn whole_seconds(time: SystemTime) -> SystemTime {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    SystemTime::UNIX_EPOCH + Duration::from_secs(since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ARN: &str = "RoleArn=arn%3Aaws%3Aiam%3A%3A111122223333%3Arole%2Fteam%2FReader";

    #[test]
    fn a_form_is_read() {
        let form = format!("Action=AssumeRole&Version=2011-06-15&{ARN}&RoleSessionName=gw&ExternalId=a%20b");
        let read = AssumeRole::read(form.as_bytes()).unwrap();
        assert_eq!((&*read.account, &*read.role, &*read.session_name), ("111122223333", "Reader", "gw"));
        assert_eq!((read.external_id.as_deref(), read.lifetime.as_secs()), (Some("a b"), 3600));
    }

    #[test]
    fn what_is_no_assume_role_is_refused() {
        for (form, code) in [
            ("Action=GetCallerIdentity".to_owned(), "InvalidAction"),
            ("Action=AssumeRole&RoleSessionName=gw".to_owned(), "ValidationError"),
            (format!("Action=AssumeRole&{ARN}"), "ValidationError"),
            (format!("Action=AssumeRole&{ARN}&RoleSessionName=%3Cgw%3E"), "ValidationError"),
            (format!("Action=AssumeRole&{ARN}&RoleSessionName=gw&DurationSeconds=1"), "ValidationError"),
            ("Action=AssumeRole&RoleArn=Reader&RoleSessionName=gw".to_owned(), "ValidationError"),
        ] {
            assert_eq!(AssumeRole::read(form.as_bytes()).unwrap_err().code, code, "{form}");
        }
    }
}
