//! Requests to queries. What AWS is certain to refuse is refused here in AWS's words, without spending a call; in all
//! else AWS decides. As with AWS, limits of single members come before rules between them, and are reported together.

use std::{
    collections::{BTreeMap, HashMap},
    fmt::Display,
    ops::RangeInclusive,
    time::Duration,
};

use tonic::Code;

use super::status;
use crate::{
    grpc::{Failure, Reason},
    model::{Filter, Filters, Freshness, Query, TargetName},
    proto::{InstanceInformationFilter, InstanceInformationStringFilter, ReadOptions},
    read::{InvalidCursor, Listings, belongs_to},
};

const MAX_RESULTS: RangeInclusive<i32> = 5..=50;
const DEFAULT_MAX_RESULTS: usize = 10;
const PAGE_SIZE: RangeInclusive<i32> = 1..=1000;
const DEFAULT_PAGE_SIZE: usize = 50;
const MAX_VALUES: usize = 100;
const MAX_PATTERNS: usize = 1000;
/// The longest name of a target, or glob; names are shorter.
const MAX_PATTERN: usize = 256;
/// The most violations that are named; the rest are counted.
const MAX_VIOLATIONS: usize = 8;
/// The keys that AWS is certain not to take for tags; it may know more.
const KEYS: [&str; 10] = [
    "ActivationIds",
    "AgentVersion",
    "AssociationStatus",
    "IamRole",
    "InstanceIds",
    "PingStatus",
    "PlatformTypes",
    "ResourceType",
    "SourceIds",
    "SourceTypes",
];

/// Collects what AWS's model finds wrong with single members, worded as AWS words it.
#[derive(Debug)]
pub(super) struct Constraints {
    max_filters: usize,
    /// How many there are.
    count: usize,
    /// The first of them, each with its field.
    violations: Vec<(String, String)>,
}

impl Constraints {
    /// Nothing is wrong yet. AWS states no limit to the number of filters, so the gateway has one.
    pub(super) fn new(max_filters: usize) -> Self {
        Self { max_filters, count: 0, violations: Vec::new() }
    }

    /// Checks AWS's `Filters`.
    pub(super) fn filters(&mut self, filters: Vec<InstanceInformationStringFilter>) -> Result<Vec<Filter>, Failure> {
        self.check_count("filters", filters.len())?;
        let checked = filters.into_iter().enumerate().map(|(index, filter)| {
            let field = (format!("filters[{index}]"), format!("filters.{}.member", index + 1));
            self.filter(&field, ("values", "values"), filter.key, filter.values)
        });
        Ok(checked.collect())
    }

    /// Checks AWS's `InstanceInformationFilterList`.
    pub(super) fn legacy_filters(&mut self, filters: Vec<InstanceInformationFilter>) -> Result<Vec<Filter>, Failure> {
        self.check_count("instance_information_filter_list", filters.len())?;
        let checked = filters.into_iter().enumerate().map(|(index, filter)| {
            let ours = format!("instance_information_filter_list[{index}]");
            let field = (ours, format!("instanceInformationFilterList.{}.member", index + 1));
            self.filter(&field, ("value_set", "valueSet"), filter.key, filter.value_set)
        });
        Ok(checked.collect())
    }

    /// Checks AWS's `MaxResults`.
    pub(super) fn max_results(&mut self, max_results: Option<i32>) -> usize {
        let Some(given) = max_results else { return DEFAULT_MAX_RESULTS };
        let least = MAX_RESULTS.start();
        let most = MAX_RESULTS.end();
        let value = format!("'{given}' ");
        if given < *least {
            self.add("max_results", &value, "maxResults", format!("have value greater than or equal to {least}"));
        } else if given > *most {
            self.add("max_results", &value, "maxResults", format!("have value less than or equal to {most}"));
        }
        usize::try_from(given).unwrap_or(DEFAULT_MAX_RESULTS)
    }

    /// Reports all violations together, as AWS does.
    pub(super) fn finish(self) -> Result<(), Failure> {
        let count = self.count;
        if count == 0 {
            return Ok(());
        }
        let list = self.violations.iter().map(|(_, violation)| violation.as_str()).collect::<Vec<_>>().join("; ");
        let plural = if count == 1 { "" } else { "s" };
        let failure = validation(format!("{count} validation error{plural} detected: {list}"));
        Err(self.violations.into_iter().fold(failure, |failure, (field, violation)| failure.at(field, violation)))
    }

    /// Checks one filter, which goes by our path and by AWS's, as do its values.
    fn filter(
        &mut self,
        (ours, aws): &(String, String),
        (our_values, aws_values): (&str, &str),
        key: Option<String>,
        values: Vec<String>,
    ) -> Filter {
        let at_key = (format!("{ours}.key"), format!("{aws}.key"));
        match key.as_deref() {
            None => self.add(at_key.0, "null ", at_key.1, "not be null"),
            Some("") => self.add(at_key.0, "'' ", at_key.1, "have length greater than or equal to 1"),
            Some(_) => {}
        }
        let at_values = (format!("{ours}.{our_values}"), format!("{aws}.{aws_values}"));
        if values.is_empty() {
            self.add(at_values.0, "", at_values.1, "have length greater than or equal to 1");
        } else if values.len() > MAX_VALUES {
            self.add(at_values.0, "", at_values.1, format!("have length less than or equal to {MAX_VALUES}"));
        } else if values.iter().any(String::is_empty) {
            let rule = "satisfy constraint: [Member must have length greater than or equal to 1]";
            self.add(at_values.0, "", at_values.1, rule);
        }
        Filter { key: key.unwrap_or_default(), values }
    }

    fn check_count(&self, field: &str, count: usize) -> Result<(), Failure> {
        let most = self.max_filters;
        if count <= most { Ok(()) } else { Err(refused(field, format!("{field} must be {most} at most, not {count}"))) }
    }

    fn add(&mut self, field: impl Into<String>, value: &str, aws_path: impl Display, rule: impl Display) {
        let violation = format!("Value {value}at '{aws_path}' failed to satisfy constraint: Member must {rule}");
        self.count += 1;
        if self.violations.len() < MAX_VIOLATIONS {
            self.violations.push((field.into(), violation));
        }
    }
}

/// Checks AWS's rules between filters, and builds the query.
pub(super) fn query(target: TargetName, current: Vec<Filter>, legacy: Vec<Filter>) -> Result<Query, Failure> {
    if !current.is_empty() && !legacy.is_empty() {
        let failure = validation("Cannot use both legacy and new filter simultaneously.");
        return Err(failure.at_field("instance_information_filter_list"));
    }
    let is_tag = |filter: &Filter| filter.key == "tag-key" || filter.key.starts_with("tag:");
    let other = current.iter().position(|filter| KEYS.contains(&filter.key.as_str()));
    if let Some(index) = other
        && current.iter().any(is_tag)
    {
        let failure = validation("Cannot mix tag or inventory filter with any other filter.");
        return Err(failure.at_field(&format!("filters[{index}].key")));
    }
    Ok(Query::new(target, if legacy.is_empty() { Filters::Current(current) } else { Filters::Legacy(legacy) }))
}

/// Checks the number of names and globs in a stream's request.
pub(super) fn pattern_count(count: usize) -> Result<(), Failure> {
    let message = || format!("targets must be {MAX_PATTERNS} names or globs at most");
    if count <= MAX_PATTERNS { Ok(()) } else { Err(refused("targets", message())) }
}

/// Checks that `name` is short enough to be a target's name, or a glob, before it is matched with any.
pub(super) fn name_length(field: &str, name: &str) -> Result<(), Failure> {
    let is_right = name.len() <= MAX_PATTERN;
    if is_right { Ok(()) } else { Err(refused(field, format!("{field} must be {MAX_PATTERN} bytes at most"))) }
}

/// Returns the default target, in place of the empty `field`.
pub(super) fn default_target(field: &str, default: Option<&TargetName>) -> Result<TargetName, Failure> {
    default.cloned().ok_or_else(|| refused(field, format!("{field} must be given: the gateway has no default target")))
}

/// Validates the size of a stream's pages.
pub(super) fn page_size(page_size: Option<i32>) -> Result<usize, Failure> {
    let Some(given) = page_size else { return Ok(DEFAULT_PAGE_SIZE) };
    usize::try_from(given).ok().filter(|_| PAGE_SIZE.contains(&given)).ok_or_else(|| {
        let least = PAGE_SIZE.start();
        let most = PAGE_SIZE.end();
        refused("page_size", format!("page_size must be from {least} to {most}, not {given}"))
    })
}

/// Returns the cursor of a unary call; an empty one is none.
pub(super) fn next_token(next_token: Option<String>) -> Option<String> {
    next_token.filter(|token| !token.is_empty())
}

/// Returns a stream's resume tokens by the query that each belongs to, with the field that it stands in: one target has
/// one latest token.
pub(super) fn resume_tokens(
    tokens: Vec<String>,
    queries: &[Query],
    listings: &Listings,
) -> Result<BTreeMap<usize, (String, String)>, Failure> {
    let mut by_query = BTreeMap::new();
    let mut tokens = tokens.into_iter().enumerate().filter(|(_, token)| !token.is_empty()).peekable();
    if tokens.peek().is_none() {
        return Ok(by_query);
    }
    // Hashed once, not once a token.
    let fingerprint = |query: &Query| Some(listings.target(query.target())?.fingerprint(query).to_vec());
    let by_fingerprint: HashMap<_, _> = queries.iter().map(fingerprint).zip(0..).collect();
    for (index, token) in tokens {
        let field = format!("resume_tokens[{index}]");
        let found = belongs_to(&token)
            .and_then(|query| by_fingerprint.get(&Some(query)).copied().ok_or(InvalidCursor::OtherQuery));
        let query = found.map_err(|error| status::invalid_cursor(error, &field))?;
        if by_query.contains_key(&query) {
            return Err(refused(&field, "only the latest resume token of a target can be resumed"));
        }
        by_query.insert(query, (field, token));
    }
    Ok(by_query)
}

/// Validates how old the answer may be.
pub(super) fn freshness(options: Option<ReadOptions>) -> Result<Freshness, Failure> {
    let ReadOptions { max_age, max_stale } = options.unwrap_or_default();
    let duration = |field, given: Option<prost_types::Duration>| {
        let negative = |_| refused(field, format!("{field} must be a duration that is not negative"));
        given.map(Duration::try_from).transpose().map_err(negative)
    };
    Ok(Freshness {
        max_age: duration("read_options.max_age", max_age)?,
        max_stale: duration("read_options.max_stale", max_stale)?,
    })
}

/// Returns a failure in AWS's words.
fn validation(message: impl Into<String>) -> Failure {
    Failure::of_aws(Code::InvalidArgument, "VALIDATION", message)
}

/// Returns the failure of a field that only the gateway has.
fn refused(field: &str, message: impl Into<String>) -> Failure {
    Failure::new(Reason::InvalidArgument, message).at_field(field)
}
