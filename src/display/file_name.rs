use std::{fmt, path::Path};

use super::shown::is_random;

/// The longest name of a file.
const MAX_NAME: usize = 255;
/// What a JWT begins with: `{"` in base64.
const JWT: &str = "eyJ";

/// A path, as a message displays it. A text that cannot be a path is not shown: it is more likely the content of a
/// file, which was put where the name belongs, and may be a key or a token.
///
/// ```
/// use std::path::Path;
/// use ssm_gateway::display::FileName;
///
/// assert_eq!(FileName(Path::new("/etc/tls/tls.key")).to_string(), "/etc/tls/tls.key");
/// assert!(!FileName(Path::new("-----BEGIN PRIVATE KEY-----\nMIGH")).to_string().contains("MIGH"));
/// ```
#[derive(Debug, Clone, Copy)]
pub struct FileName<'a>(pub &'a Path);

impl fmt::Display for FileName<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.0.to_string_lossy();
        let is_content = path.contains("-----")
            || path.contains(char::is_control)
            || [JWT, "{", "["].iter().any(|start| path.starts_with(start))
            || !path.contains(['/', '.']) && is_random(&path)
            || path.split('/').any(|name| name.len() > MAX_NAME);
        if is_content { f.write_str("(a text that is no file's name)") } else { f.write_str(&path) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_a_token_and_a_set_of_keys_are_not_shown_as_names() {
        let long = "k".repeat(256);
        for content in [
            "-----BEGIN PRIVATE KEY-----\\nMIGH",
            "a\nb",
            "eyJhbGciOiJFUzI1NiJ9.e30.x",
            "{\"keys\":[]}",
            "K7MDENG9bPxRfiCYzEXAMPLEKEY",
            &long,
        ] {
            assert_eq!(FileName(Path::new(content)).to_string(), "(a text that is no file's name)");
        }
        assert_eq!(FileName(Path::new("../tls/my key.pem")).to_string(), "../tls/my key.pem");
    }
}
