use base64::{Engine as _, engine::general_purpose::STANDARD};

use super::invalid::InvalidPem;

const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();
const DASHES: &[u8] = b"-----";
/// Base64 of this length outside of a block is more likely a remainder of a block than a word.
const LONG: usize = 32;

const ENCRYPTED: &str = "the private key is encrypted, and no passphrase can be configured: decrypt it with \
                         `openssl pkey -in FILE`, into a file that nobody else may read";

/// The text before a mark, and the text after it.
type Split<'a> = (&'a [u8], &'a [u8]);

/// A block of a PEM file, decoded.
pub(super) struct Block {
    /// The number of its first line, from 1.
    pub(super) line: usize,
    pub(super) kind: Kind,
    pub(super) der: Vec<u8>,
}

/// The content of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Certificate,
    Pkcs8Key,
    Pkcs1Key,
    Sec1Key,
    /// The curve of the following key, which repeats it.
    Parameters,
}

/// A block whose END line has not been read yet.
struct Open<'a> {
    line: usize,
    label: &'a [u8],
    kind: Kind,
    base64: Vec<u8>,
}

/// Reads all blocks of a file.
pub(super) fn blocks(pem: &[u8]) -> Result<Vec<Block>, InvalidPem> {
    if pem.contains(&0) {
        return Err(InvalidPem::File("the file is not PEM text: it may be DER, PKCS #12 or UTF-16"));
    }
    let mut blocks = Vec::new();
    let mut open = None;
    // Several blocks may share a line if files were concatenated without a line end.
    for (line, text) in (1..).zip(pem.split(|&byte| byte == b'\n')) {
        let mut rest = text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(text).trim_ascii();
        while !rest.is_empty() {
            let wrong = |reason| InvalidPem::Line { line, reason };
            let following = match open.take() {
                None => {
                    let Some((label, following)) = begin(rest).map_err(wrong)? else { break };
                    open = Some(Open { line, label, kind: kind(label).map_err(wrong)?, base64: Vec::new() });
                    following
                }
                Some(mut inside) => {
                    let Some(following) = inside.take(rest).map_err(wrong)? else {
                        open = Some(inside);
                        break;
                    };
                    blocks.push(inside.close()?);
                    following
                }
            };
            rest = following.trim_ascii();
        }
    }
    match open {
        None => Ok(blocks),
        Some(Open { line, .. }) => {
            Err(InvalidPem::Line { line, reason: "the block that begins here has no end: is the file truncated?" })
        }
    }
}

/// Returns the label of the block that begins here and the text after its BEGIN line, or `None` for a comment.
fn begin(text: &[u8]) -> Result<Option<Split<'_>>, &'static str> {
    if let Some(rest) = text.strip_prefix(b"-----BEGIN ") {
        let begun = split_once(rest, DASHES).ok_or("a BEGIN line without the five dashes at its end")?;
        return Ok(Some(begun));
    }
    let is_comment = text.starts_with(b"#");
    if !is_comment && split_once(text, DASHES).is_some() {
        return Err("dashes of a BEGIN or END line where no block can begin: is the line damaged or quoted?");
    }
    // A line of `=` alone underlines a title.
    let is_base64 = text.iter().copied().all(is_base64) && text.iter().any(u8::is_ascii_alphanumeric);
    if !is_comment && is_base64 && text.len() >= LONG {
        return Err("base64 outside of a block: is the BEGIN line before it missing or damaged?");
    }
    Ok(None)
}

fn kind(label: &[u8]) -> Result<Kind, &'static str> {
    match label {
        // The two older names are in RFC 7468, section 5.1.
        b"CERTIFICATE" | b"X509 CERTIFICATE" | b"X.509 CERTIFICATE" => Ok(Kind::Certificate),
        b"PRIVATE KEY" => Ok(Kind::Pkcs8Key),
        b"RSA PRIVATE KEY" => Ok(Kind::Pkcs1Key),
        b"EC PRIVATE KEY" => Ok(Kind::Sec1Key),
        b"EC PARAMETERS" => Ok(Kind::Parameters),
        b"ENCRYPTED PRIVATE KEY" => Err(ENCRYPTED),
        b"OPENSSH PRIVATE KEY" => {
            Err("a private key in OpenSSH's format: convert it with `ssh-keygen -p -m PKCS8 -f FILE`")
        }
        b"TRUSTED CERTIFICATE" => {
            Err("a TRUSTED CERTIFICATE, OpenSSL's own format: convert it with `openssl x509 -in FILE`")
        }
        b"CERTIFICATE REQUEST" | b"NEW CERTIFICATE REQUEST" => {
            Err("a certificate request: use the certificate that an authority issued for it")
        }
        b"X509 CRL" => Err("a certificate revocation list, which is not supported: remove it"),
        b"PUBLIC KEY" | b"RSA PUBLIC KEY" => {
            Err("a public key, which is not used: remove it, because certificates contain their keys")
        }
        b"DH PARAMETERS" => Err("Diffie-Hellman parameters, which are not used: remove them"),
        b"PKCS7" | b"CMS" => Err("a PKCS #7 bundle: convert it with `openssl pkcs7 -print_certs -in FILE`"),
        // The message omits the label, which may be anything in a damaged file.
        _ => Err("a block of an unknown type: neither CERTIFICATE nor PRIVATE KEY"),
    }
}

impl Open<'_> {
    /// Adds a line to the block. Returns the text after the END line, if the block ends in this line.
    fn take<'a>(&mut self, text: &'a [u8]) -> Result<Option<&'a [u8]>, &'static str> {
        let Some((inside, after)) = split_once(text, DASHES) else { return self.push(text).map(|()| None) };
        self.push(inside)?;
        if after.starts_with(b"BEGIN ") {
            return Err("a block begins inside another block: is an END line missing?");
        }
        let rest = after.strip_prefix(b"END ").and_then(|rest| rest.strip_prefix(self.label));
        let rest = rest.and_then(|rest| rest.strip_prefix(DASHES));
        rest.map(Some).ok_or("the END line is damaged or belongs to another block")
    }

    fn push(&mut self, text: &[u8]) -> Result<(), &'static str> {
        if text.contains(&b'\\') {
            return Err("a backslash inside a block: replace each literal \\n by a line end");
        }
        if text.contains(&b':') {
            let is_encrypted = text.starts_with(b"Proc-Type:") && text.ends_with(b"ENCRYPTED");
            return Err(if is_encrypted { ENCRYPTED } else { "a block with headers, which are not supported" });
        }
        let base64 = text.iter().copied().filter(|byte| !byte.is_ascii_whitespace());
        if !base64.clone().all(is_base64) {
            return Err("a character inside a block that is not base64");
        }
        self.base64.extend(base64);
        Ok(())
    }

    fn close(self) -> Result<Block, InvalidPem> {
        let Self { line, kind, base64, .. } = self;
        let reason = "the base64 of the block that begins here is damaged or truncated";
        let der = STANDARD.decode(base64).map_err(|_damaged| InvalidPem::Line { line, reason })?;
        Ok(Block { line, kind, der })
    }
}

fn is_base64(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'=')
}

fn split_once<'a>(text: &'a [u8], mark: &[u8]) -> Option<Split<'a>> {
    let at = text.windows(mark.len()).position(|window| window == mark)?;
    let (before, rest) = text.split_at_checked(at)?;
    Some((before, rest.strip_prefix(mark)?))
}
