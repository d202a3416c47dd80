//! What AWS's own variables and shared files say about a target that its configuration leaves open.

use std::{collections::HashMap, env, ffi::OsString, fmt};

use aws_config::profile::{Profile, ProfileFileLoadError, ProfileSet};
use aws_runtime::env_config::{file::EnvConfigFiles, property::PropertiesKey};
use aws_types::os_shim_internal::{Env, Fs};

use super::{
    build_error::{AwsFilesError, BuildError},
    config::is_endpoint,
};

/// AWS's variables and shared files, read once for a target. A variable that is empty is unset, as with AWS's CLI; the
/// SDK takes it for said, and panics at an empty endpoint.
pub(super) struct Environment {
    variables: HashMap<String, String>,
    profiles: ProfileSet,
}

/// Shows no variable and no profile: both hold secrets.
impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Environment({} profiles)", self.profiles.profiles().count())
    }
}

impl Environment {
    /// Reads the process's variables and AWS's shared files, in which `profile` is selected, or else `AWS_PROFILE` or
    /// `default`.
    ///
    /// # Errors
    /// [`AwsFilesError`], if a file is there and cannot be used.
    pub(super) async fn load(profile: Option<&str>) -> Result<Self, AwsFilesError> {
        let text = |(name, value): (OsString, OsString)| Some((name.into_string().ok()?, value.into_string().ok()?));
        let variables: Vec<_> = env::vars_os().filter_map(text).collect();
        Self::read(variables, profile).await
    }

    /// Reads AWS's shared files as these variables say.
    pub(super) async fn read(
        variables: impl IntoIterator<Item = (String, String)>,
        profile: Option<&str>,
    ) -> Result<Self, AwsFilesError> {
        let variables: HashMap<_, _> = variables.into_iter().filter(|(_, value)| !value.trim().is_empty()).collect();
        let files = EnvConfigFiles::default();
        let selected = profile.map(|name| name.to_owned().into());
        let loaded = aws_config::profile::load(&Fs::real(), &Env::from(variables.clone()), &files, selected).await;
        let profiles = loaded.map_err(|error| {
            let is_parsing = matches!(error, ProfileFileLoadError::ParseError { .. });
            if is_parsing { AwsFilesError::Parse } else { AwsFilesError::Read }
        })?;
        Ok(Self { variables, profiles })
    }

    /// The variable of this name, unless it is empty.
    pub(super) fn variable(&self, name: &str) -> Option<&str> {
        self.variables.get(name).map(String::as_str)
    }

    /// Returns all profiles.
    pub(super) fn profiles(&self) -> &ProfileSet {
        &self.profiles
    }

    /// The profile of this name.
    pub(super) fn profile(&self, name: &str) -> Option<&Profile> {
        self.profiles.get_profile(name)
    }

    /// The region, by variable or profile.
    pub(super) fn region(&self) -> Option<&str> {
        self.variable("AWS_REGION")
            .or_else(|| self.variable("AWS_DEFAULT_REGION"))
            .or_else(|| self.of_profile("region"))
    }

    /// The endpoint of a service, `ssm` or `sts`, where one is said: by the variable of the service, the variable for
    /// all services, the profile's `services`, or the profile, in this order.
    ///
    /// # Errors
    /// [`BuildError::AwsEndpointUrl`], if it cannot be asked.
    pub(super) fn endpoint_url(&self, service: &'static str) -> Result<Option<String>, BuildError> {
        if self.is_true("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", "ignore_configured_endpoint_urls") {
            return Ok(None);
        }
        let names = [format!("AWS_ENDPOINT_URL_{}", service.to_ascii_uppercase()), "AWS_ENDPOINT_URL".to_owned()];
        let of_variable = names.into_iter().find_map(|name| Some((self.variable(&name)?, name)));
        let profile = self.profiles.selected_profile();
        let found = of_variable
            .or_else(|| Some((self.of_services(service)?, format!("the services of profile {profile:?}"))))
            .or_else(|| Some((self.of_profile("endpoint_url")?, format!("endpoint_url of profile {profile:?}"))));
        match found {
            Some((url, place)) if !is_endpoint(url) => Err(BuildError::AwsEndpointUrl { place }),
            found => Ok(found.map(|(url, _)| url.to_owned())),
        }
    }

    /// Returns whether endpoints are to be those of FIPS 140.
    pub(super) fn uses_fips(&self) -> bool {
        self.is_true("AWS_USE_FIPS_ENDPOINT", "use_fips_endpoint")
    }

    /// Returns whether endpoints are to be those that speak IPv6 too.
    pub(super) fn uses_dual_stack(&self) -> bool {
        self.is_true("AWS_USE_DUALSTACK_ENDPOINT", "use_dualstack_endpoint")
    }

    /// The file of the authorities to trust.
    pub(super) fn ca_bundle(&self) -> Option<&str> {
        self.variable("AWS_CA_BUNDLE").or_else(|| self.of_profile("ca_bundle"))
    }

    /// Returns whether the instance's metadata must not be asked.
    pub(super) fn disables_metadata(&self) -> bool {
        self.is_true("AWS_EC2_METADATA_DISABLED", "")
    }

    fn of_profile(&self, key: &str) -> Option<&str> {
        self.profiles.get(key).filter(|value| !value.trim().is_empty())
    }

    /// Returns what the profile has by `services = NAME`, and `SERVICE =\n  endpoint_url = URL` in `[services NAME]`.
    fn of_services(&self, service: &str) -> Option<&str> {
        let key = PropertiesKey::builder()
            .section_key("services")
            .section_name(self.of_profile("services")?)
            .property_name(service)
            .sub_property_name("endpoint_url");
        let value = self.profiles.other_sections().get(&key.build().ok()?)?;
        Some(value.as_str()).filter(|value| !value.is_empty())
    }

    fn is_true(&self, variable: &str, key: &str) -> bool {
        let value = self.variable(variable).or_else(|| self.of_profile(key));
        value.is_some_and(|value| value.trim().eq_ignore_ascii_case("true"))
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::path::PathBuf;

    use super::*;

    /// What these variables and this `~/.aws/config` say.
    pub(in crate::aws) async fn environment(
        variables: &[(&str, &str)],
        config: &str,
        profile: Option<&str>,
    ) -> Environment {
        let file: PathBuf = env::temp_dir().join(format!("ssm-gateway-{}-{:x}", std::process::id(), fastrand::u64(..)));
        std::fs::write(&file, config).unwrap();
        let path = file.to_str().unwrap().to_owned();
        let files = [("AWS_CONFIG_FILE", &*path), ("AWS_SHARED_CREDENTIALS_FILE", "/nowhere")];
        let all = variables.iter().chain(&files).map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let read = Environment::read(all, profile).await.unwrap();
        std::fs::remove_file(&file).unwrap();
        read
    }

    #[tokio::test]
    async fn an_endpoint_is_that_of_the_service_before_that_of_all_and_of_variables_before_files() {
        let file = "[default]\nendpoint_url = http://profile\nservices = local\n[services local]\nssm =\n  endpoint_url = http://services\n";
        let url = async |variables: &[(&str, &str)], config: &str, service| {
            environment(variables, config, None).await.endpoint_url(service).unwrap()
        };
        let (ssm, all) = (("AWS_ENDPOINT_URL_SSM", "http://ssm"), ("AWS_ENDPOINT_URL", "http://all"));
        assert_eq!(url(&[ssm, all], file, "ssm").await.as_deref(), Some("http://ssm"));
        assert_eq!(url(&[ssm, all], file, "sts").await.as_deref(), Some("http://all"));
        assert_eq!(url(&[], file, "ssm").await.as_deref(), Some("http://services"));
        assert_eq!(url(&[], file, "sts").await.as_deref(), Some("http://profile"));
        assert_eq!(url(&[], "", "ssm").await, None);
        assert_eq!(url(&[all, ("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", "true")], file, "ssm").await, None);
    }

    #[tokio::test]
    async fn what_is_empty_is_unset() {
        let empty = [
            "AWS_ENDPOINT_URL_SSM",
            "AWS_ENDPOINT_URL",
            "AWS_REGION",
            "AWS_CA_BUNDLE",
            "AWS_PROFILE",
            "AWS_USE_FIPS_ENDPOINT",
        ];
        let empty = empty.map(|name| (name, ""));
        let config = "[default]\nregion = eu-west-1\nca_bundle =\nendpoint_url =\n";
        let environment = environment(&empty, config, None).await;
        assert_eq!(environment.endpoint_url("ssm").unwrap(), None);
        assert_eq!((environment.region(), environment.ca_bundle()), (Some("eu-west-1"), None));
        assert!(!environment.uses_fips());
    }

    #[tokio::test]
    async fn an_endpoint_that_cannot_be_asked_is_refused_by_its_place() {
        for (variables, config, place) in [
            (&[("AWS_ENDPOINT_URL_SSM", "localhost:4566")][..], "", "AWS_ENDPOINT_URL_SSM"),
            (&[("AWS_ENDPOINT_URL", "http://user:secret@host")], "", "AWS_ENDPOINT_URL"),
            (&[], "[default]\nendpoint_url = nonsense", "endpoint_url of profile \"default\""),
        ] {
            let error = environment(variables, config, None).await.endpoint_url("ssm").unwrap_err();
            let BuildError::AwsEndpointUrl { place: found } = &error else { panic!("{error}") };
            assert_eq!(found, place);
            assert!(!error.to_string().contains("secret"));
        }
    }
}
