use std::{fmt, sync::Arc};

use sha2::{Digest as _, Sha256};

use super::TargetName;

/// One condition: the node's value for `key` is one of `values`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Filter {
    /// What is compared, such as `PingStatus` or `tag:Name`.
    pub key: String,
    /// The values of which one must match.
    pub values: Vec<String>,
}

/// The conditions of a query, all of which a node must meet. AWS has two forms, and they are different queries.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Filters {
    /// AWS's `Filters`; empty where nothing is filtered.
    Current(Vec<Filter>),
    /// AWS's `InstanceInformationFilterList`.
    Legacy(Vec<Filter>),
}

/// As people read it: `PingStatus=Online,Inactive tag:Env=prod`.
impl fmt::Display for Filters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::Current(list) | Self::Legacy(list)) = self;
        if matches!(self, Self::Legacy(_)) {
            f.write_str("(legacy) ")?;
        }
        for (index, Filter { key, values }) in list.iter().enumerate() {
            let space = if index == 0 { "" } else { " " };
            write!(f, "{space}{key}={}", values.join(","))?;
        }
        Ok(())
    }
}

/// What is asked of a target, normalised: the order of filters and of values does not matter, repeats do. Cheap to
/// clone.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Query {
    target: TargetName,
    filters: Arc<Filters>,
}

impl Query {
    /// Builds the normal form. Two filters with the same key stay two: AWS combines them with AND.
    ///
    /// ```
    /// use ssm_gateway::model::{Filter, Filters, Query, TargetName};
    ///
    /// let query = |values: [&str; 2]| {
    ///     let values = values.map(str::to_owned).to_vec();
    ///     let filter = Filter { key: "PingStatus".to_owned(), values };
    ///     Query::new(TargetName::default_target(), Filters::Current(vec![filter]))
    /// };
    /// assert_eq!(query(["Online", "Inactive"]), query(["Inactive", "Online"]));
    /// ```
    #[must_use]
    pub fn new(target: TargetName, mut filters: Filters) -> Self {
        let (Filters::Current(list) | Filters::Legacy(list)) = &mut filters;
        for filter in &mut *list {
            filter.values.sort_unstable();
        }
        list.sort_unstable();
        Self { target, filters: Arc::new(filters) }
    }

    /// Returns the target that is asked.
    #[must_use]
    pub fn target(&self) -> &TargetName {
        &self.target
    }

    /// Returns the conditions in their normal order.
    #[must_use]
    pub fn filters(&self) -> &Filters {
        &self.filters
    }

    /// Returns roughly how many bytes of memory it takes.
    #[must_use]
    pub fn size(&self) -> usize {
        let (Filters::Current(list) | Filters::Legacy(list)) = &*self.filters;
        let strings = list.iter().flat_map(|filter| filter.values.iter().chain([&filter.key]));
        size_of::<Self>() + strings.map(|string| size_of::<String>() + string.len()).sum::<usize>()
    }

    /// Returns sixteen bytes that stand for this query of a target that is in this scope, the same in every process and
    /// release.
    #[must_use]
    pub fn fingerprint(&self, scope: Scope) -> [u8; 16] {
        let (form, list) = match &*self.filters {
            Filters::Current(list) => (0u8, list),
            Filters::Legacy(list) => (1u8, list),
        };
        let mut hash = Parts::default();
        hash.part(self.target.as_str().as_bytes());
        hash.part(&scope.0);
        hash.part(&[form]);
        for Filter { key, values } in list {
            hash.part(key.as_bytes());
            hash.part(&(values.len() as u64).to_be_bytes());
            for value in values {
                hash.part(value.as_bytes());
            }
        }
        hash.head()
    }
}

/// What a target's answers depend on beside the filters, its name apart: where it is asked, and as whom. Targets of one
/// name that are configured alike have equal scopes, in every process and release; others have others, so that what one
/// of them gave out is not taken for the other's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Scope([u8; 16]);

impl Scope {
    /// Returns the scope of these settings, in an order that never changes; one that is absent differs from an empty
    /// one.
    #[must_use]
    pub fn of<'a>(settings: impl IntoIterator<Item = Option<&'a str>>) -> Self {
        let mut hash = Parts::default();
        for setting in settings {
            hash.part(&[u8::from(setting.is_some())]);
            hash.part(setting.unwrap_or_default().as_bytes());
        }
        Self(hash.head())
    }
}

/// The head of a SHA-256 over parts, each preceded by its length.
#[derive(Default)]
struct Parts(Sha256);

impl Parts {
    fn part(&mut self, bytes: &[u8]) {
        self.0.update((bytes.len() as u64).to_be_bytes());
        self.0.update(bytes);
    }

    fn head(self) -> [u8; 16] {
        let mut head = [0; 16];
        head.iter_mut().zip(self.0.finalize()).for_each(|(to, from)| *to = from);
        head
    }
}

#[cfg(test)]
mod tests {
    use proptest::{prelude::*, sample::subsequence};

    use super::*;

    fn query(filters: &[(&str, &[&str])]) -> Query {
        let filters = filters
            .iter()
            .map(|(key, values)| Filter {
                key: (*key).to_owned(),
                values: values.iter().map(|value| (*value).to_owned()).collect(),
            })
            .collect();
        Query::new(TargetName::default_target(), Filters::Current(filters))
    }

    fn scope() -> Scope {
        Scope::of([Some("eu-west-1"), None, Some("arn:aws:iam::111122223333:role/Reader"), None])
    }

    #[test]
    fn scopes_agree_just_where_all_settings_do_and_tell_absent_from_empty() {
        let same = Scope::of([Some("eu-west-1"), None, Some("arn:aws:iam::111122223333:role/Reader"), None]);
        assert_eq!(scope(), same);
        for other in [
            [Some("eu-west-2"), None, Some("arn:aws:iam::111122223333:role/Reader"), None],
            [Some("eu-west-1"), Some(""), Some("arn:aws:iam::111122223333:role/Reader"), None],
            [Some("eu-west-1"), Some("arn:aws:iam::111122223333:role/Reader"), None, None],
            [Some("eu-west-1"), None, Some("arn:aws:iam::444455556666:role/Reader"), None],
            [Some("eu-west-1"), None, Some("arn:aws:iam::111122223333:role/Reader"), Some("a")],
        ] {
            assert_ne!(scope(), Scope::of(other));
            assert_ne!(query(&[]).fingerprint(scope()), query(&[]).fingerprint(Scope::of(other)));
        }
    }

    #[test]
    fn order_of_filters_and_values_does_not_matter() {
        let one = query(&[("PingStatus", &["Online", "Inactive"]), ("IamRole", &["a"])]);
        let other = query(&[("IamRole", &["a"]), ("PingStatus", &["Inactive", "Online"])]);
        assert_eq!(one, other);
        assert_eq!(one.fingerprint(scope()), other.fingerprint(scope()));
    }

    #[test]
    fn filters_with_the_same_key_are_not_merged() {
        let two = query(&[("IamRole", &["a"]), ("IamRole", &["b"])]);
        assert_ne!(two.fingerprint(scope()), query(&[("IamRole", &["a", "b"])]).fingerprint(scope()));
    }

    #[test]
    fn the_two_forms_of_filters_are_different_queries() {
        let current = query(&[("IamRole", &["a"])]);
        let Filters::Current(list) = current.filters() else { unreachable!() };
        let legacy = Query::new(TargetName::default_target(), Filters::Legacy(list.clone()));
        assert_ne!(legacy.fingerprint(scope()), current.fingerprint(scope()));
    }

    /// A fingerprint outlives a release: cursors of the release before carry it.
    #[test]
    fn a_fingerprint_does_not_change_between_releases() {
        let fingerprint = u128::from_be_bytes(query(&[("PingStatus", &["Online"])]).fingerprint(scope()));
        assert_eq!(fingerprint, 0xa68e_5eb9_1974_d9db_4aa0_102a_90ff_f148);
    }

    proptest! {
        #[test]
        fn fingerprints_agree_just_where_queries_do(
            one in subsequence(vec!["", "a", "b", "ab", "ba"], 0..5),
            other in subsequence(vec!["", "a", "b", "ab", "ba"], 0..5),
            split in 0usize..5,
        ) {
            let (left, right) = other.split_at(split.min(other.len()));
            let one = query(&[("k", &one), ("l", &[])]);
            let other = query(&[("k", left), ("l", right)]);
            prop_assert_eq!(one == other, one.fingerprint(scope()) == other.fingerprint(scope()));
        }
    }
}
