use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{glob, method::Method, principal::Principal};

/// A rule of the policy, an `[[allow]]` table of the configuration file. Rules only add up: a call that no rule allows
/// is denied.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Allow {
    /// The callers that the rule applies to: a principal, or a glob. Only `anonymous`, in full, applies to callers who
    /// proved nothing.
    pub principal: String,
    /// The methods that they may call; absent, every method.
    pub methods: Option<Vec<Method>>,
    /// The targets that they may ask about, by names or globs; absent, every target.
    pub targets: Option<Vec<String>>,
    /// The smallest `max_age` that they may ask for.
    #[serde(default, with = "humantime_serde")]
    pub min_max_age: Duration,
}

/// The rules by which callers are authorised.
///
/// ```
/// use std::time::Duration;
/// use ssm_gateway::access::{Allow, Denied, Method, Policy, Principal};
///
/// let policy = Policy::Rules(vec![Allow {
///     principal: "spiffe://acme/*".to_owned(),
///     methods: None,
///     targets: Some(vec!["prod-*".to_owned()]),
///     min_max_age: Duration::ZERO,
/// }]);
/// let orders = Principal::spiffe("spiffe://acme/orders").ok_or("no SPIFFE ID")?;
/// let asks = |target| policy.check(&orders, Method::DescribeInstanceInformation, Some(target), None);
/// assert_eq!(asks("prod-eu"), Ok(()));
/// assert_eq!(asks("prod-*"), Ok(()), "the rule allows everything that this glob can match");
/// assert_eq!(asks("*"), Err(Denied::Target));
/// # Ok::<(), &str>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Policy {
    /// Every caller may ask everything.
    Open,
    /// A caller may ask what one of these rules allows.
    Rules(Vec<Allow>),
}

/// Why a call is denied, by the rule that comes closest to allowing it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Denied {
    /// No rule applies to the principal.
    Principal,
    /// No rule that applies allows the method.
    Method,
    /// No rule that allows the method allows the target.
    Target,
    /// No rule that allows the target allows so small a `max_age`; the smallest that one allows is this.
    MaxAge(Duration),
}

impl Policy {
    /// Authorises a principal to call a method about a target, with this `max_age`. Without a target, a rule for any
    /// target suffices. For a glob, one rule must allow everything that the glob can match.
    ///
    /// # Errors
    /// [`Denied`] if no rule allows the call.
    pub fn check(
        &self,
        principal: &Principal,
        method: Method,
        target: Option<&str>,
        max_age: Option<Duration>,
    ) -> Result<(), Denied> {
        let Self::Rules(rules) = self else { return Ok(()) };
        let mut denied = Denied::Principal;
        let mut least = None;
        for rule in rules.iter().filter(|rule| rule.applies_to(principal)) {
            if !rule.allows_method(method) {
                denied = denied.max(Denied::Method);
            } else if !target.is_none_or(|target| rule.allows_target(target)) {
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
    fn applies_to(&self, principal: &Principal) -> bool {
        if principal.is_anonymous() {
            self.principal == principal.as_str()
        } else {
            glob::matches(&self.principal, principal.as_str())
        }
    }

    fn allows_method(&self, method: Method) -> bool {
        self.methods.as_ref().is_none_or(|methods| methods.contains(&method))
    }

    fn allows_target(&self, target: &str) -> bool {
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
    fn a_call_is_allowed_by_a_rule_or_denied_for_what_the_closest_rule_lacks() {
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
    fn a_glob_is_allowed_where_everything_that_it_can_match_is() {
        let (policy, orders) = (policy(), Principal::spiffe("spiffe://acme/orders").unwrap());
        for (glob, expected) in [("prod-*", Ok(())), ("prod-e*", Ok(())), ("*", Err(Denied::Target))] {
            assert_eq!(policy.check(&orders, DESCRIBE, Some(glob), None), expected, "{glob}");
        }
    }

    #[test]
    fn a_star_does_not_apply_to_callers_who_proved_nothing() {
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
