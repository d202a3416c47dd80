use std::{fmt, str::FromStr};

use http::Uri;

/// The longest label of a host name in DNS.
const MAX_LABEL: usize = 63;

/// The address of a gateway, as the user wrote it: `https://HOST:PORT`, `http://HOST:PORT`, `HOST:PORT` without TLS, or
/// `unix:PATH`. Messages show the address, so that a URL with a user, a password, a path or a query is rejected.
#[derive(Debug, Clone)]
pub(super) struct Gateway(String);

impl FromStr for Gateway {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let gateway = Self(text.to_owned());
        let is_host = |host: &str| !host.is_empty() && host.split('.').all(|label| label.len() <= MAX_LABEL);
        let is_address = gateway.url().parse::<Uri>().is_ok_and(|url| {
            let has_path = url.path_and_query().is_some_and(|path| path != "/");
            let has_user = url.authority().is_none_or(|authority| authority.as_str().contains('@'));
            matches!(url.scheme_str(), Some("http" | "https"))
                && !has_path
                && !has_user
                && url.host().is_some_and(is_host)
        });
        if is_address || text.strip_prefix("unix:").is_some_and(|path| !path.is_empty()) {
            Ok(gateway)
        } else {
            Err("not the address of a gateway, such as http://127.0.0.1:50051, https://HOST:PORT or unix:PATH")
        }
    }
}

impl Gateway {
    /// Returns the URL to connect to.
    pub(super) fn url(&self) -> String {
        let is_url = self.0.contains("://") || self.is_unix();
        if is_url { self.0.clone() } else { format!("http://{}", self.0) }
    }

    pub(super) fn is_tls(&self) -> bool {
        self.0.starts_with("https://")
    }

    pub(super) fn is_unix(&self) -> bool {
        self.0.starts_with("unix:")
    }
}

impl From<&crate::edge::Address> for Gateway {
    fn from(address: &crate::edge::Address) -> Self {
        Self(address.to_string())
    }
}

impl fmt::Display for Gateway {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_of_a_gateway_has_a_host_or_a_path_and_nothing_else() {
        for text in
            ["http://127.0.0.1:50051", "https://acme.internal/", "localhost:50051", "[::1]:1", "unix:/run/a", "unix:b"]
        {
            assert_eq!(text.parse::<Gateway>().map(|gateway| gateway.to_string()).as_deref(), Ok(text));
        }
        let long = "k".repeat(64);
        for text in [
            "",
            "https://me:password@acme:1",
            "me:password@acme:1",
            "https://me@acme",
            "https://acme/?token=x",
            "https://acme/token",
            "https://",
            "htps://acme:1",
            "two words",
            "unix:",
            &long,
        ] {
            assert!(text.parse::<Gateway>().is_err(), "{text}");
        }
    }
}
