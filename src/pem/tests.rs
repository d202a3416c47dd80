use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};

use super::*;

const BYTE_ORDER_MARK: &str = "\u{feff}";

struct Files {
    authority: String,
    leaf: String,
    key: String,
}

fn files() -> Files {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(rcgen::DnType::CommonName, "authority");
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let leaf = CertificateParams::new(vec!["localhost".to_owned()]).unwrap().signed_by(&key, &authority).unwrap();
    Files { authority: authority.pem(), leaf: leaf.pem(), key: key.serialize_pem() }
}

/// Returns the error message.
fn refused<T>(read: Result<T, InvalidPem>) -> String {
    read.err().expect("the file is rejected").to_string()
}

#[test]
fn everything_that_is_clear_is_accepted_and_nothing_is_dropped() {
    let Files { authority, leaf, key } = files();
    let indented = format!("    {}", leaf.replace('\n', "\n    "));
    for (name, text) in [
        ("plain", format!("{leaf}{authority}")),
        ("byte order marks", format!("{BYTE_ORDER_MARK}{leaf}{BYTE_ORDER_MARK}{authority}")),
        ("indented", format!("{authority}{indented}")),
        ("other line ends", format!("{leaf}{authority}").replace('\n', "\r\n")),
        ("glued", format!("{}{}", leaf.trim_end(), authority.trim_end())),
        ("on one line each", format!("{}\n{}", leaf.replace('\n', " "), authority.replace('\n', " "))),
        (
            "remarks",
            format!("Bag Attributes\n  friendlyName: x\nsubject=CN=x\n{leaf}Root CA\n=======\n# {leaf}\n{authority}"),
        ),
        ("an older name", format!("{leaf}{}", authority.replace("CERTIFICATE", "X509 CERTIFICATE"))),
    ] {
        let text = text.replace(&format!("# {leaf}"), &format!("# {}", leaf.trim_end().replace('\n', "\n# ")));
        assert_eq!(certificates(text.as_bytes()).map(|found| found.len()), Ok(2), "{name}");
    }
    assert_eq!(authorities(authority.as_bytes()).map(|found| found.len()), Ok(1));
    let parameters = "-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n";
    assert!(private_key(format!("{parameters}{key}").as_bytes()).is_ok());
    let both = format!("{key}{leaf}{authority}");
    assert_eq!(pair(both.as_bytes(), both.as_bytes()).map(|(found, _)| found.len()), Ok(2));
}

#[test]
fn what_is_not_understood_is_refused_by_its_line_and_reason() {
    let Files { authority, leaf, key } = files();
    let lines = leaf.lines().count();
    let trusted = authority.replace("CERTIFICATE", "TRUSTED CERTIFICATE");
    let cut = leaf.rsplit_once("-----END").unwrap().0;
    let short = leaf.lines().enumerate().filter(|(line, _)| *line != 2).map(|(_, text)| format!("{text}\n"));
    for (text, line, reason) in [
        (format!("{leaf}{trusted}"), lines + 1, "TRUSTED CERTIFICATE, OpenSSL's own format"),
        (leaf.replace('\n', "\\n"), 1, "replace each literal \\n by a line end"),
        (leaf.replacen('\n', "\\n", 2), 1, "replace each literal \\n by a line end"),
        (format!("{leaf}\"{authority}"), lines + 1, "no block can begin"),
        (cut.to_owned(), 1, "has no end"),
        (format!("{cut}{authority}"), lines, "begins inside another block"),
        (short.collect(), 1, "labelled CERTIFICATE"),
        (leaf.replace("-----", "—–"), 2, "base64 outside of a block"),
        (leaf.replacen("-----BEGIN", "----BEGIN", 1), 1, "no block can begin"),
        (leaf.replacen("CERTIFICATE-----", "CERTIFICATE", 1), 1, "without the five dashes"),
        (leaf.replacen("END CERTIFICATE", "END CERT", 1), lines, "the END line is damaged"),
        (leaf.replacen("\nM", "\n*", 1), 2, "not base64"),
        (format!("{leaf}{key}"), lines + 1, "a private key in a file of certificates"),
        (leaf.replace("CERTIFICATE", "SECRET"), 1, "of an unknown type"),
    ] {
        let message = refused(certificates(text.as_bytes()));
        assert!(message.starts_with(&format!("line {line}: ")) && message.contains(reason), "{reason}: {message}");
        assert!(!message.contains("SECRET"), "{message}");
    }
    assert_eq!(refused(certificates(b"nothing")), "the file contains no PEM certificate");
    assert!(refused(certificates(&[0x30, 0x82, 0x01, 0x00])).contains("DER"));
    assert!(refused(authorities(format!("{authority}{leaf}").as_bytes())).contains("not an authority's"));
}

#[test]
fn a_file_of_a_key_holds_one_key_which_is_not_encrypted() {
    let Files { leaf, key, .. } = files();
    let lines = key.lines().count();
    let legacy = "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-256-CBC,00\n\nMAA=\n";
    for (text, line, reason) in [
        (format!("{key}{key}"), lines + 1, "a second private key"),
        (key.replace("PRIVATE", "ENCRYPTED PRIVATE"), 1, "is encrypted"),
        (legacy.to_owned(), 2, "is encrypted"),
        (leaf.clone(), 1, "a certificate in the file of the private key"),
        (key.replace("PRIVATE", "OPENSSH PRIVATE"), 1, "OpenSSH's format"),
        (key.replace('\n', "\\n"), 1, "replace each literal \\n by a line end"),
    ] {
        let message = refused(private_key(text.as_bytes()));
        assert!(message.starts_with(&format!("line {line}: ")) && message.contains(reason), "{reason}: {message}");
    }
    assert_eq!(refused(private_key(b"")), "the file contains no PEM private key");
    assert!(matches!(pair(leaf.as_bytes(), leaf.as_bytes()), Err(InvalidPair::Key(InvalidPem::File(_)))));
    assert!(matches!(pair(key.as_bytes(), key.as_bytes()), Err(InvalidPair::Cert(InvalidPem::File(_)))));
}

#[test]
fn what_is_written_is_what_was_read() {
    let Files { authority, leaf, key } = files();
    let (chain, key) = pair(format!("{leaf}{authority}").as_bytes(), key.as_bytes()).unwrap();
    assert_eq!(certificates(write_certificates(&chain).as_bytes()).unwrap(), chain);
    assert_eq!(private_key(write_key(&key).as_bytes()).unwrap(), key);
}
