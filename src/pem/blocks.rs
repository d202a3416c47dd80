use base64::{Engine as _, engine::general_purpose::STANDARD};

use super::InvalidPem;

const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();
const DASHES: &[u8] = b"-----";
/// Base64 of this length outside of a block is more likely the rest of one than a word.
const LONG: usize = 32;

const ENCRYPTED: &str = "the private key is encrypted, and there is no passphrase to read it with: write it without one by \
                         `openssl pkey -in FILE`, to a file that nobody else may read";

/// What stands before a mark, and behind it.
type Split<'a> = (&'a [u8], &'a [u8]);

/// A block of a PEM file, decoded.
pub(super) struct Block {
    /// The line that it begins in, from 1.
    pub(super) line: usize,
    pub(super) kind: Kind,
    pub(super) der: Vec<u8>,
}

/// What a block holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Certificate,
    Pkcs8Key,
    Pkcs1Key,
    Sec1Key,
    /// The curve of the key that follows, which says it itself.
    Parameters,
}

/// A block whose end is not reached yet.
struct Open<'a> {
    line: usize,
    label: &'a [u8],
    kind: Kind,
    base64: Vec<u8>,
}

/// Reads all blocks of a file.
pub(super) fn blocks(pem: &[u8]) -> Result<Vec<Block>, InvalidPem> {
    if pem.contains(&0) {
        return Err(InvalidPem::File("it is no text: DER, PKCS #12 or UTF-16, where PEM is read"));
    }
    let (mut blocks, mut open) = (Vec::new(), None);
    // Several blocks may share a line: files are glued without a line end.
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
            Err(InvalidPem::Line { line, reason: "the block that begins here has no end: is the file cut short?" })
        }
    }
}

/// Returns the label of the block that begins here, and what follows; none for a remark.
fn begin(text: &[u8]) -> Result<Option<Split<'_>>, &'static str> {
    if let Some(rest) = text.strip_prefix(b"-----BEGIN ") {
        let begun = split_once(rest, DASHES).ok_or("a BEGIN line without the five dashes at its end")?;
        return Ok(Some(begun));
    }
    let is_comment = text.starts_with(b"#");
    if !is_comment && split_once(text, DASHES).is_some() {
        return Err("dashes as of a BEGIN or END line, where no block can begin: is the line damaged, or quoted?");
    }
    // A line under a title consists of `=` alone.
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
        b"OPENSSH PRIVATE KEY" => Err("a private key in OpenSSH's form: write it by `ssh-keygen -p -m PKCS8 -f FILE`"),
        b"TRUSTED CERTIFICATE" => {
            Err("a TRUSTED CERTIFICATE, OpenSSL's own form: write it as CERTIFICATE by `openssl x509 -in FILE`")
        }
        b"CERTIFICATE REQUEST" | b"NEW CERTIFICATE REQUEST" => {
            Err("a certificate request: give the certificate that an authority made of it")
        }
        b"X509 CRL" => Err("a list of revoked certificates, which is not used: leave it out"),
        b"PUBLIC KEY" | b"RSA PUBLIC KEY" => Err("a public key, which is not used: certificates hold theirs"),
        b"DH PARAMETERS" => Err("parameters of Diffie-Hellman, which are not used: leave them out"),
        b"PKCS7" | b"CMS" => {
            Err("a bundle in PKCS #7: write its certificates by `openssl pkcs7 -print_certs -in FILE`")
        }
        // Its name is not shown: the label of a damaged file may be anything.
        _ => Err("a block of a kind that is not known: neither CERTIFICATE nor PRIVATE KEY"),
    }
}

impl Open<'_> {
    /// Takes what a line has of the block. Returns what follows the end of the block, if it ends there.
    fn take<'a>(&mut self, text: &'a [u8]) -> Result<Option<&'a [u8]>, &'static str> {
        let Some((inside, after)) = split_once(text, DASHES) else { return self.push(text).map(|()| None) };
        self.push(inside)?;
        if after.starts_with(b"BEGIN ") {
            return Err("a block begins before the one before it has ended: is an END line missing?");
        }
        let rest = after.strip_prefix(b"END ").and_then(|rest| rest.strip_prefix(self.label));
        let rest = rest.and_then(|rest| rest.strip_prefix(DASHES));
        rest.map(Some).ok_or("an END line that is damaged, or another block's")
    }

    fn push(&mut self, text: &[u8]) -> Result<(), &'static str> {
        if text.contains(&b'\\') {
            return Err("a backslash inside a block: line ends that are written as \\n must be real ones");
        }
        if text.contains(&b':') {
            let is_encrypted = text.starts_with(b"Proc-Type:") && text.ends_with(b"ENCRYPTED");
            return Err(if is_encrypted { ENCRYPTED } else { "a block with headers, which cannot be read" });
        }
        let base64 = text.iter().copied().filter(|byte| !byte.is_ascii_whitespace());
        if !base64.clone().all(is_base64) {
            return Err("a character inside a block that is no base64");
        }
        self.base64.extend(base64);
        Ok(())
    }

    fn close(self) -> Result<Block, InvalidPem> {
        let Self { line, kind, base64, .. } = self;
        let reason = "the base64 of the block that begins here is damaged or cut short";
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
