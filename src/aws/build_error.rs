use super::http::CaBundleError;
use crate::display::Shown;

/// A target's client that cannot be built, by the setting that is wrong.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// Neither the configuration nor the environment names a region.
    #[error("no AWS region: pass --region, set AWS_REGION, or name one in the configuration file")]
    NoRegion,
    /// A setting is there, and empty.
    #[error("must not be empty: leave it out for the default")]
    Empty(&'static str),
    /// The region is none.
    #[error("{} is not an AWS region, such as eu-west-1 (an availability zone has a letter behind it)", Shown(.0))]
    Region(String),
    /// A variable or a profile of AWS's names a region that is none.
    #[error("AWS_REGION, AWS_DEFAULT_REGION or the profile's region is not an AWS region, such as eu-west-1")]
    AwsRegion,
    /// The endpoint is no URL that can be asked.
    #[error("{} is not an endpoint URL, such as https://ssm.eu-west-1.amazonaws.com", Shown(.1))]
    EndpointUrl(&'static str, String),
    /// The endpoint has a user or a query, which are not used.
    #[error("an endpoint URL has no user and no query")]
    Secret(&'static str),
    /// The rate is none.
    #[error("requests_per_second must be more than 0, not {0}")]
    Rate(f64),
    /// The role is none.
    #[error("{} is not the ARN of a role, such as arn:aws:iam::123456789012:role/SsmReader", Shown(.0))]
    RoleArn(String),
    /// STS refuses such an external ID.
    #[error("an external ID has 2 to 1224 letters, digits and _+=,.@:/-")]
    ExternalId,
    /// STS refuses such a name.
    #[error("{} is not a session name, which has 2 to 64 letters, digits and _+=,.@-", Shown(.0))]
    SessionName(String),
    /// AWS's shared files have no such profile.
    #[error(
        "AWS's files (~/.aws/config and ~/.aws/credentials, or AWS_CONFIG_FILE and AWS_SHARED_CREDENTIALS_FILE) have no profile {}",
        Shown(.0)
    )]
    UnknownProfile(String),
    /// A profile says nothing of credentials.
    #[error("profile {} of AWS's files has no credentials: keys, a role with its source, SSO or a credential_process", Shown(.0))]
    ProfileWithoutCredentials(String),
    /// Profiles name each other as their source.
    #[error("profile {} of AWS's files has itself among its sources", Shown(.0))]
    ProfileLoop(String),
    /// Half a pair of keys: to pass over it could sign as somebody else.
    #[error("{0}")]
    HalfPair(&'static str),
    /// AWS's shared files cannot be used.
    #[error(transparent)]
    AwsFiles(#[from] AwsFilesError),
    /// A variable or a profile of AWS's names an endpoint that cannot be asked.
    #[error("{place} is not an endpoint URL without user and query, such as https://ssm.eu-west-1.amazonaws.com")]
    AwsEndpointUrl {
        /// The variable, or the place in AWS's files.
        place: String,
    },
    /// The authorities to trust cannot be used.
    #[error(transparent)]
    CaBundle(#[from] CaBundleError),
}

impl BuildError {
    /// Returns the key of the setting that is wrong.
    #[must_use]
    pub fn key(&self) -> &'static str {
        match self {
            Self::NoRegion | Self::Region(_) | Self::AwsRegion => "region",
            Self::Empty(key) | Self::EndpointUrl(key, _) | Self::Secret(key) => key,
            Self::Rate(_) => "requests_per_second",
            Self::RoleArn(_) => "role_arn",
            Self::ExternalId => "external_id",
            Self::SessionName(_) => "session_name",
            Self::UnknownProfile(_)
            | Self::ProfileWithoutCredentials(_)
            | Self::ProfileLoop(_)
            | Self::HalfPair(_)
            | Self::AwsFiles(_) => "profile",
            Self::AwsEndpointUrl { .. } => "endpoint_url",
            Self::CaBundle(_) => "ca_bundle",
        }
    }
}

/// AWS's shared files that cannot be used. The parser's own words are left out, since they may repeat a line with a
/// secret.
#[derive(Debug, thiserror::Error)]
pub enum AwsFilesError {
    /// A file is there and cannot be read.
    #[error("AWS's shared files (~/.aws/config and ~/.aws/credentials) cannot be read: check their permissions")]
    Read,
    /// A file is not of AWS's form.
    #[error(
        "AWS's shared files (~/.aws/config and ~/.aws/credentials) cannot be parsed: `aws configure list` names the line"
    )]
    Parse,
}
