//! Rules that concern several tables at once: what every call would fail by, and what would be open to everybody by
//! mistake. A table by itself is checked by its component.

use std::collections::VecDeque;

use toml::Value;

use super::Config;
use crate::{
    access::{Allow, Principal},
    admin,
    display::Shown,
    setting::{InvalidSetting, NOT_EMPTY, bounded, require},
};

impl Config {
    /// Checks all tables, each by its component, and what they are together.
    ///
    /// # Errors
    /// The first setting that breaks a rule.
    pub(super) fn check_settings(&self) -> Result<(), InvalidSetting> {
        // Numbers beyond those of TOML, which fail here, come from no file.
        if let Some(key) = Value::try_from(self).ok().and_then(|config| empty(&config)) {
            return Err(InvalidSetting { key: key.into(), rule: NOT_EMPTY.to_owned() });
        }
        let Config {
            default_target,
            edge,
            auth,
            allow,
            limits,
            service,
            upstream,
            listing,
            targets,
            // Right or wrong only together with `[auth]`.
            admin: _,
            log,
            trace,
        } = self;
        if let Some(name) = default_target.as_ref().filter(|name| !self.targets().contains_key(name)) {
            let rule = format!("is {}, and there is no such target", Shown(name.as_str()));
            return Err(InvalidSetting::new("default_target", rule));
        }
        let within = |table: &'static str| move |invalid: InvalidSetting| invalid.within(&[table]);
        edge.check().map_err(within("edge"))?;
        check_address(self).map_err(within("edge"))?;
        require(!allow.is_empty() || !self.has_authentication(), "allow", "must have a rule, or nobody may call")?;
        for (index, rule) in allow.iter().enumerate() {
            check_rule(self, rule).map_err(|invalid| invalid.within(&["allow", &index.to_string()]))?;
        }
        auth.check().map_err(within("auth"))?;
        limits.check().map_err(within("limits"))?;
        service.check().map_err(within("service"))?;
        listing.check().map_err(within("listing"))?;
        check_admin(self).map_err(within("admin"))?;
        trace.check().map_err(within("trace"))?;
        log.check().map_err(within("log"))?;
        upstream.check().map_err(within("upstream"))?;
        for (name, target) in targets {
            let resolved = target.resolve(upstream, listing);
            resolved.check().map_err(|invalid| invalid.within(&["targets", name.as_str()]))?;
        }
        Ok(())
    }
}

/// Returns the key of a text that is empty, which no setting may be.
fn empty(value: &Value) -> Option<VecDeque<String>> {
    let within = |name: &str, inner: &Value| {
        let mut key = empty(inner)?;
        key.push_front(name.to_owned());
        Some(key)
    };
    match value {
        Value::String(text) => text.trim().is_empty().then(VecDeque::new),
        Value::Table(table) => table.iter().find_map(|(name, inner)| within(name, inner)),
        Value::Array(list) => list.iter().enumerate().find_map(|(index, inner)| within(&index.to_string(), inner)),
        _ => None,
    }
}

/// Checks that the address is open to everybody, and takes tokens in plain text, only where the configuration says so.
fn check_address(config: &Config) -> Result<(), InvalidSetting> {
    let listen = &config.edge.listen;
    let auth = &config.auth;
    if listen.is_local() {
        return Ok(());
    }
    let is_guarded = config.has_authentication() || auth.allow_anonymous;
    let rule = format!(
        "is {listen}, where everybody could call: let callers prove who they are by [auth] or edge.tls.client_ca, or say \
         allow_anonymous (--allow-anonymous)"
    );
    require(is_guarded, "listen", &rule)?;
    let is_secret = config.edge.tls.is_some() || !auth.has_tokens() || auth.allow_plaintext_tokens;
    let rule = format!(
        "is {listen} without [edge.tls], so that others could read tokens: say \
         allow_plaintext_tokens (--allow-plaintext-tokens) if they cannot"
    );
    require(is_secret, "listen", &rule)
}

fn check_rule(config: &Config, rule: &Allow) -> Result<(), InvalidSetting> {
    let Allow { principal, methods: _, targets: _, min_max_age } = rule;
    if let Some(why) = unprovable(config, principal) {
        return Err(InvalidSetting::new("principal", format!("is {}, {why}", Shown(principal))));
    }
    bounded("min_max_age", *min_max_age)
}

/// Returns why no caller can ever be this principal, or any that the glob matches.
fn unprovable(config: &Config, principal: &str) -> Option<&'static str> {
    let auth = &config.auth;
    let has_certs = config.has_client_certs();
    let is_anonymous_admitted = auth.allow_anonymous || !config.has_authentication();
    let (is_provable, why) = match principal.split_once(':') {
        Some((kind, _)) if kind.contains('*') => (true, ""),
        None if principal.contains('*') => (true, ""),
        Some(("spiffe" | "dns", _)) if !has_certs => (false, "which only edge.tls.client_ca could prove"),
        Some(("spiffe", _)) => (
            Principal::is_spiffe_pattern(principal),
            "which no SPIFFE ID is: spiffe://DOMAIN/PATH, the domain in lower case",
        ),
        Some(("dns", name)) => {
            (!name.bytes().any(|byte| byte.is_ascii_uppercase()), "which no name is: they are compared in lower case")
        }
        Some(("jwt", _)) => (auth.jwt.is_some(), "which only [auth.jwt] could prove"),
        Some(("token", name)) => {
            let is_known = name.contains('*') || auth.tokens.iter().any(|token| token.name == name);
            (is_known, "and there is no such token in [[auth.tokens]]")
        }
        None if principal == "anonymous" => (is_anonymous_admitted, "who is not admitted: say auth.allow_anonymous"),
        _ => (false, "which is none of spiffe://…, dns:…, jwt:…, token:…, anonymous and *"),
    };
    (!is_provable).then_some(why)
}

/// Checks that the token of administrators is sent in plain text only where somebody says that nobody can read it.
fn check_admin(config: &Config) -> Result<(), InvalidSetting> {
    let admin::Config { listen, token_sha256 } = &config.admin;
    let is_local = listen.ip().to_canonical().is_loopback();
    let is_secret = is_local || token_sha256.is_none() || config.auth.allow_plaintext_tokens;
    let rule = "would be sent without TLS, so that others could read it: say allow_plaintext_tokens \
                (--allow-plaintext-tokens) if they cannot, or listen on loopback";
    require(is_secret, "token_sha256", rule)
}

#[cfg(test)]
mod tests;
