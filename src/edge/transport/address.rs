use std::{fmt, net::SocketAddr, path::PathBuf, str::FromStr};

use serde::{Deserialize, Serialize};

/// An address that callers connect to: `HOST:PORT` with an IP address for the host, or `unix:PATH`.
///
/// ```
/// use ssm_gateway::edge::Address;
///
/// let address: Address = "unix:/run/ssm-gateway.sock".parse()?;
/// assert!(address.is_local());
/// # Ok::<(), ssm_gateway::edge::InvalidAddress>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Address {
    /// A TCP address. For port 0 the system chooses a free port.
    Tcp(SocketAddr),
    /// The path of a Unix socket.
    Unix(PathBuf),
}

/// A text that is not an address.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is not an address to listen on, such as 127.0.0.1:50051 or unix:/run/ssm-gateway.sock")]
pub struct InvalidAddress(String);

impl Address {
    /// Returns whether only callers on the same machine can connect.
    #[must_use]
    pub fn is_local(&self) -> bool {
        match self {
            Self::Tcp(addr) => addr.ip().to_canonical().is_loopback(),
            Self::Unix(_) => true,
        }
    }
}

impl FromStr for Address {
    type Err = InvalidAddress;

    fn from_str(text: &str) -> Result<Self, InvalidAddress> {
        match text.strip_prefix("unix:").filter(|path| !path.is_empty()) {
            Some(path) => Ok(Self::Unix(PathBuf::from(path.strip_prefix("//").unwrap_or(path)))),
            None => text.parse().map(Self::Tcp).map_err(|_not_an_address| InvalidAddress(text.to_owned())),
        }
    }
}

impl TryFrom<String> for Address {
    type Error = InvalidAddress;

    fn try_from(text: String) -> Result<Self, InvalidAddress> {
        text.parse()
    }
}

impl From<Address> for String {
    fn from(address: Address) -> Self {
        address.to_string()
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(addr) => addr.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_port_of_an_ip_or_the_path_of_a_socket() {
        for (text, is_local) in [
            ("127.0.0.1:50051", true),
            ("[::1]:0", true),
            ("[::ffff:127.0.0.1]:1", true),
            ("0.0.0.0:50051", false),
            ("[::]:50051", false),
            ("unix:/run/gateway.sock", true),
        ] {
            let address: Address = text.parse().unwrap();
            assert_eq!((address.to_string(), address.is_local()), (text.to_owned(), is_local));
        }
        assert_eq!("unix:///run/a".parse::<Address>().unwrap(), Address::Unix("/run/a".into()));
        for text in ["localhost:50051", "unix:", "127.0.0.1", ""] {
            assert!(text.parse::<Address>().is_err(), "{text}");
        }
    }
}
