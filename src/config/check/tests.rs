use super::*;

fn check(config: &Config) -> Result<(), InvalidSetting> {
    config.check_settings()
}

fn refused(text: &str) -> Option<String> {
    check(&toml::from_str(text).unwrap()).err().map(|wrong| wrong.key.join("."))
}

#[test]
fn a_value_that_every_call_would_fail_by_is_refused() {
    assert!(check(&Config::default()).is_ok());
    for (text, name) in [
        ("[edge]\nmax_concurrent_streams = 1", "edge.max_concurrent_streams"),
        ("[log]\nfilter = 'ssm_gateway=loud'", "log.filter"),
        ("[log]\nfilter = ','", "log.filter"),
        ("[log]\nslow_call = '0s'", "log.slow_call"),
        ("[trace]\nendpoint = 'collector:4317'", "trace.endpoint"),
        ("[trace]\nendpoint = 'http://user:secret@collector:4317'", "trace.endpoint"),
        ("[trace]\nratio = 1.5", "trace.ratio"),
        ("[upstream]\nendpoint_url = 'http://127.0.0.1:1/?secret=x'", "upstream.endpoint_url"),
        ("[edge]\nmax_header_list_size = 10", "edge.max_header_list_size"),
        ("[edge]\nkeepalive_interval = '500000000000 years'", "edge.keepalive_interval"),
        ("[edge]\nrequest_timeout = '0s'", "edge.request_timeout"),
        ("[limits]\nmax_calls = 0", "limits.max_calls"),
        ("[limits]\nmax_call_time = '0s'", "limits.max_call_time"),
        ("[listing]\npage_cap = 0", "listing.page_cap"),
        ("[listing]\nmax_bytes = 5\nmax_listing_bytes = 6", "listing.max_listing_bytes"),
        ("[listing]\njitter_percent = 101", "listing.jitter_percent"),
        ("[listing]\nstall_timeout = '0s'", "listing.stall_timeout"),
        ("[upstream]\nfetch_timeout = '0s'", "upstream.fetch_timeout"),
        ("[upstream]\nrequests_per_second = 0", "upstream.requests_per_second"),
        ("[targets.prod]\nattempt_timeout = '0s'", "targets.prod.attempt_timeout"),
        ("[targets.prod]\nrole_arn = 'SsmReader'", "targets.prod.role_arn"),
        ("[targets.prod]\nsts_endpoint_url = 'sts'", "targets.prod.sts_endpoint_url"),
        ("default_target = 'prod'", "default_target"),
    ] {
        assert_eq!(refused(text).as_deref(), Some(name));
    }
}

#[test]
fn no_setting_is_empty() {
    let hash = "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b";
    for (table, key) in [
        ("[edge.tls]\nkey = 'k'", "edge.tls.cert"),
        ("[edge.tls]\ncert = 'c'", "edge.tls.key"),
        ("[edge.tls]\ncert = 'c'\nkey = 'k'", "edge.tls.client_ca"),
        ("[auth.jwt]\nissuer = 'i'\naudiences = ['a']", "auth.jwt.jwks"),
        ("[auth.jwt]\njwks = 'j'\naudiences = ['a']", "auth.jwt.issuer"),
        (&format!("[[auth.tokens]]\nsha256 = '{hash}'"), "auth.tokens.0.name"),
        ("[[allow]]", "allow.0.principal"),
        ("[upstream]", "upstream.ca_bundle"),
        ("[upstream]", "upstream.region"),
        ("[targets.prod]", "targets.prod.ca_bundle"),
        ("[log]", "log.filter"),
        ("[trace]", "trace.endpoint"),
    ] {
        for empty in ["", " "] {
            let text = format!("{table}\n{} = '{empty}'", key.rsplit('.').next().unwrap());
            let wrong = check(&toml::from_str(&text).unwrap()).unwrap_err();
            assert_eq!((&*wrong.key.join("."), &*wrong.rule), (key, "must not be empty"), "{text}");
        }
    }
    let audience = "[auth.jwt]\njwks = 'j'\nissuer = 'i'\naudiences = ['a', '']";
    assert_eq!(refused(audience).as_deref(), Some("auth.jwt.audiences.1"));
}

#[test]
fn no_principal_is_named_that_nobody_can_be() {
    let proven = "[edge.tls]\ncert = 'c'\nkey = 'k'\nclient_ca = 'ca'\n";
    let is_refused = |principal: &str| refused(&format!("{proven}[[allow]]\nprincipal = '{principal}'")).is_some();
    for principal in [
        "spiffe://ACME/x",
        "spiffe://ACME/*",
        "spiffe://acme",
        "spiffe://acme/x/",
        "spiffe:acme/x",
        "dns:Acme.internal",
    ] {
        assert!(is_refused(principal), "{principal}");
    }
    for principal in ["spiffe://acme/X", "spiffe://acme/*", "spiffe:*", "*acme*", "dns:acme.internal", "dns:*"] {
        assert!(!is_refused(principal), "{principal}");
    }
}

#[test]
fn a_value_is_shown_only_if_it_cannot_be_a_secret() {
    for (text, rule) in [
        ("[[allow]]\nprincipal = 'sipffe://acme'", "is \"sipffe://acme\", which is none of"),
        ("[[allow]]\nprincipal = 's3cr=t'", "is (a value that is not shown), which is none of"),
        ("[log]\nfilter = 'loud'", "is wrong: \"loud\" in the log filter"),
        ("[log]\nfilter = 's3cr+t'", "is wrong: (a value that is not shown) in the log filter"),
        ("default_target = 's3cret-s3crets3crets3crets3cret'", "is (a value that is not shown), and there is no"),
    ] {
        let wrong = check(&toml::from_str(text).unwrap()).unwrap_err();
        assert!(wrong.rule.starts_with(rule), "{text}: {}", wrong.rule);
    }
}

#[test]
fn no_door_is_left_open_that_nobody_meant_to() {
    let hash = "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b";
    let token = format!("[[auth.tokens]]\nname = 'ci'\nsha256 = '{hash}'\n");
    let rule = "[[allow]]\nprincipal = '*'\n";
    let public = "[edge]\nlisten = '0.0.0.0:50051'\n";
    let tls = "[edge.tls]\ncert = 'c'\nkey = 'k'\n";
    let client_ca = "client_ca = 'ca'\n";
    for (text, name) in [
        (public.to_owned(), Some("edge.listen")),
        (format!("{public}{tls}"), Some("edge.listen")),
        (format!("{public}[auth]\nallow_anonymous = true"), None),
        (format!("{public}{tls}{client_ca}{rule}"), None),
        (format!("{public}{token}{rule}"), Some("edge.listen")),
        (format!("{public}{tls}{token}{rule}"), None),
        (format!("{public}[auth]\nallow_plaintext_tokens = true\n{token}{rule}"), None),
        (format!("{token}{rule}"), None),
        (token.clone(), Some("allow")),
        (format!("{tls}{client_ca}"), Some("allow")),
        (format!("{token}{token}{rule}"), Some("auth.tokens.0.sha256")),
        ("[[allow]]\nprincipal = ''".to_owned(), Some("allow.0.principal")),
        ("[[allow]]\nprincipal = 'anonymous'".to_owned(), None),
        (format!("{token}[[allow]]\nprincipal = 'anonymous'"), Some("allow.0.principal")),
        (format!("{token}[[allow]]\nprincipal = 'token:cj'"), Some("allow.0.principal")),
        (format!("{token}[[allow]]\nprincipal = 'token:*'"), None),
        (format!("{token}[[allow]]\nprincipal = 'sipffe://acme/orders'"), Some("allow.0.principal")),
        (format!("{token}[[allow]]\nprincipal = 'spiffe://acme/orders'"), Some("allow.0.principal")),
        (format!("{token}[[allow]]\nprincipal = 'jwt:alice'"), Some("allow.0.principal")),
        (format!("{rule}[auth.jwt]\njwks = 'j'\nissuer = 'i'\naudiences = []"), Some("auth.jwt.audiences")),
        ("[edge]\nlisten = 'unix:/run/a'".to_owned(), None),
        (format!("[admin]\nlisten = '0.0.0.0:9464'\ntoken_sha256 = '{hash}'"), Some("admin.token_sha256")),
        (format!("[admin]\ntoken_sha256 = '{hash}'"), None),
        ("[admin]\nlisten = '0.0.0.0:9464'".to_owned(), None),
    ] {
        assert_eq!(refused(&text).as_deref(), name, "{text}");
    }
}
