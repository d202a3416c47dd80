use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{glob, method::Method, principal::Principal};

/// A rule of the policy, an `[[allow]]` table of the configuration file: what it says is allowed, and nothing else is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Allow {
    /// Whom it allows: a principal, or a glob. Only `anonymous` itself means callers who proved nothing.
    pub principal: String,
    /// What it allows to call; absent, every method.
    pub methods: Option<Vec<Method>>,
    /// What it allows to ask about, as names or globs; absent, every target.
    pub targets: Option<Vec<String>>,
    /// The smallest `max_age` that it allows to ask for.
    #[serde(default, with = "humantime_serde")]
    pub min_max_age: Duration,
}

/// Who may ask what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Policy {
    /// Everybody may ask everything.
    Open,
    /// What one of the rules allows.
    Rules(Vec<Allow>),
}

/// Why a call is not allowed: what is missing, by how far the nearest rule goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Denied {
    /// A rule for the principal.
    Principal,
    /// One of them for the method.
    Method,
    /// One of these for the target.
    Target,
    /// One of these for so small a `max_age`; it must be at least this.
    MaxAge(Duration),
}

impl Policy {
    /// Checks that a principal may call a method about a target, demanding this `max_age`; without a target, about any at all.
    /// The target may be a glob: then all that it could mean must be allowed.
    ///
    /// # Errors
    /// [`Denied`].
    pub fn check(
        &self,
        principal: &Principal,
        method: Method,
        target: Option<&str>,
        max_age: Option<Duration>,
    ) -> Result<(), Denied> {
        let Self::Rules(rules) = self else { return Ok(()) };
        let (mut denied, mut least) = (Denied::Principal, None);
        for rule in rules.iter().filter(|rule| rule.is_about(principal)) {
            if !rule.covers_method(method) {
                denied = denied.max(Denied::Method);
            } else if !target.is_none_or(|target| rule.covers_target(target)) {
                denied = Denied::Target;
            } else {
                least = Some(least.map_or(rule.min_max_age, |least: Duration| least.min(rule.min_max_age)));
            }
        }
        let least = least.ok_or(denied)?;
        if max_age.is_some_and(|max_age| max_age < least) { Err(Denied::MaxAge(least)) } else { Ok(()) }
    }
}

impl Allow {
    fn is_about(&self, principal: &Principal) -> bool {
        if principal.is_anonymous() {
            self.principal == principal.as_str()
        } else {
            glob::matches(&self.principal, principal.as_str())
        }
    }

    fn covers_method(&self, method: Method) -> bool {
        self.methods.as_ref().is_none_or(|methods| methods.contains(&method))
    }

    fn covers_target(&self, target: &str) -> bool {
        self.targets.as_ref().is_none_or(|patterns| patterns.iter().any(|pattern| glob::matches(pattern, target)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DESCRIBE: Method = Method::DescribeInstanceInformation;

    fn policy() -> Policy {
        #[derive(Deserialize)]
        struct File {
            allow: Vec<Allow>,
        }
        let file: File = toml::from_str(
            r#"
            [[allow]]
            principal = "spiffe://acme/orders"
            methods = ["DescribeInstanceInformation"]
            targets = ["prod-*", "test"]
            min_max_age = "10s"
            [[allow]]
            principal = "spiffe://acme/*"
            targets = ["test"]
            [[allow]]
            principal = "anonymous"
            methods = ["ListTargets"]
            "#,
        )
        .unwrap();
        Policy::Rules(file.allow)
    }

    #[test]
    fn what_a_rule_says_is_allowed_and_what_is_missing_is_told() {
        let (policy, orders) = (policy(), Principal::spiffe("spiffe://acme/orders").unwrap());
        let check = |principal: &Principal, method, target| policy.check(principal, method, Some(target), None);
        assert_eq!(check(&orders, DESCRIBE, "prod-eu"), Ok(()));
        assert_eq!(check(&orders, DESCRIBE, "dev"), Err(Denied::Target));
        assert_eq!(check(&orders, Method::StreamInstanceInformation, "prod-eu"), Err(Denied::Target));
        assert_eq!(check(&orders, Method::StreamInstanceInformation, "test"), Ok(()), "rules add up");
        assert_eq!(check(&Principal::anonymous(), DESCRIBE, "test"), Err(Denied::Method));
        assert_eq!(check(&Principal::token("ci"), DESCRIBE, "test"), Err(Denied::Principal));
    }

    #[test]
    fn the_most_generous_rule_for_a_target_bounds_the_max_age() {
        let (policy, orders) = (policy(), Principal::spiffe("spiffe://acme/orders").unwrap());
        let check = |target, millis| policy.check(&orders, DESCRIBE, Some(target), Some(Duration::from_millis(millis)));
        assert_eq!(check("prod-eu", 10_000), Ok(()));
        for millis in [0, 1, 9_999] {
            assert_eq!(check("prod-eu", millis), Err(Denied::MaxAge(Duration::from_secs(10))));
        }
        assert_eq!(check("test", 0), Ok(()));
    }

    #[test]
    fn a_glob_is_allowed_where_all_that_it_could_mean_is() {
        let (policy, orders) = (policy(), Principal::spiffe("spiffe://acme/orders").unwrap());
        for (glob, expected) in [("prod-*", Ok(())), ("prod-e*", Ok(())), ("*", Err(Denied::Target))] {
            assert_eq!(policy.check(&orders, DESCRIBE, Some(glob), None), expected, "{glob}");
        }
    }

    #[test]
    fn a_star_does_not_mean_those_who_proved_nothing() {
        let rule = |principal: &str, caller: &Principal| {
            let principal = principal.to_owned();
            let rule = Allow { principal, methods: None, targets: None, min_max_age: Duration::ZERO };
            Policy::Rules(vec![rule]).check(caller, DESCRIBE, None, None)
        };
        assert_eq!(rule("*", &Principal::anonymous()), Err(Denied::Principal));
        assert_eq!(rule("anonymous", &Principal::anonymous()), Ok(()));
        assert_eq!(rule("*", &Principal::token("any")), Ok(()));
        let now = Some(Duration::ZERO);
        assert_eq!(Policy::Open.check(&Principal::anonymous(), DESCRIBE, Some("any"), now), Ok(()));
    }

    #[test]
    fn a_method_may_be_called_about_any_target_that_a_rule_names() {
        let (policy, orders) = (policy(), Principal::spiffe("spiffe://acme/orders").unwrap());
        assert_eq!(policy.check(&orders, DESCRIBE, None, None), Ok(()));
        assert_eq!(policy.check(&Principal::anonymous(), DESCRIBE, None, None), Err(Denied::Method));
    }
}
