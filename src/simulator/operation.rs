//! `DescribeInstanceInformation`, answered as observed from real AWS.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{
    faults::Faults,
    fleet::{Fleet, Node},
    token::Token,
};

/// The operation's input.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct Input {
    filters: Vec<Filter>,
    instance_information_filter_list: Vec<LegacyFilter>,
    max_results: Option<i64>,
    next_token: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Filter {
    key: Option<String>,
    #[serde(default)]
    values: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct LegacyFilter {
    key: Option<String>,
    #[serde(default)]
    value_set: Vec<String>,
}

/// An error with SSM's code and message.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) code: &'static str,
    pub(super) message: Option<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Output {
    instance_information_list: Vec<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_token: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    invented_member: Option<&'static str>,
}

const LEGACY_KEYS: [&str; 8] = [
    "InstanceIds",
    "AgentVersion",
    "PingStatus",
    "PlatformTypes",
    "ActivationIds",
    "IamRole",
    "ResourceType",
    "AssociationStatus",
];
const MAX_TAG_VALUES: usize = 5;

/// Returns a page of the nodes that the input selects, as JSON.
pub(super) fn answer(
    fleet: &Fleet,
    input: Input,
    faults: &Faults,
    token_lifetime: Duration,
) -> Result<String, Refusal> {
    check_constraints(&input)?;
    let asked_for = input.max_results.and_then(|given| usize::try_from(given).ok()).unwrap_or(10);
    let limit = if faults.page_size > 0 { faults.page_size } else { asked_for };
    let conditions = conditions(input.filters, input.instance_information_filter_list)?;
    let token = match input.next_token.as_deref().filter(|token| !token.is_empty()) {
        None => Token::new(fleet.seed, 0, 0),
        Some(_) if faults.expire_tokens => return Err(Refusal { code: "InvalidNextToken", message: None }),
        Some(text) => {
            Token::read(text, fleet.seed, token_lifetime).ok_or(Refusal { code: "InvalidNextToken", message: None })?
        }
    };
    let matching = || fleet.nodes.iter().filter(|node| conditions.iter().all(|condition| condition.holds(node)));
    let is_empty = faults.empty_every > 0 && (token.page + 1).is_multiple_of(faults.empty_every);
    let page: Vec<&Node> = matching().skip(token.offset).take(if is_empty { 0 } else { limit }).collect();
    let offset = token.offset + page.len();
    let more = matching().nth(offset).is_some();
    let next_token = more.then(|| match input.next_token {
        Some(given) if faults.repeat_token => given,
        _ => Token::new(fleet.seed, offset, token.page + 1).write(),
    });
    write(&page, next_token, faults)
        .map_err(|error| Refusal { code: "InternalServerError", message: Some(error.to_string()) })
}

fn write(page: &[&Node], next_token: Option<String>, faults: &Faults) -> serde_json::Result<String> {
    let element = |node: &&Node| {
        let mut json = if faults.padding > 0 { node.padded(faults.padding) } else { serde_json::to_string(node) }?;
        if faults.unknown_members {
            json = json.replacen('{', r#"{"InventedMember":{"Deep":[1,null,"x"]},"#, 1);
        }
        RawValue::from_string(json)
    };
    serde_json::to_string(&Output {
        instance_information_list: page.iter().map(element).collect::<Result<_, _>>()?,
        next_token,
        invented_member: faults.unknown_members.then_some("of a later model"),
    })
}

/// Checks the constraints of AWS's model on single members, and reports all violations together.
fn check_constraints(input: &Input) -> Result<(), Refusal> {
    let mut violations = Vec::new();
    for (index, filter) in (1..).zip(&input.filters) {
        check_filter(
            &mut violations,
            &format!("filters.{index}.member"),
            "values",
            filter.key.as_deref(),
            &filter.values,
        );
    }
    for (index, filter) in (1..).zip(&input.instance_information_filter_list) {
        let path = format!("instanceInformationFilterList.{index}.member");
        check_filter(&mut violations, &path, "valueSet", filter.key.as_deref(), &filter.value_set);
        if let Some(key) = filter.key.as_deref().filter(|key| !LEGACY_KEYS.contains(key)) {
            let set = LEGACY_KEYS.join(", ");
            violations.push(violation(
                &format!("'{key}' "),
                &format!("{path}.key"),
                &format!("satisfy enum value set: [{set}]"),
            ));
        }
    }
    match input.max_results {
        Some(given @ ..5) => {
            violations.push(violation(&format!("'{given}' "), "maxResults", "have value greater than or equal to 5"));
        }
        Some(given @ 51..) => {
            violations.push(violation(&format!("'{given}' "), "maxResults", "have value less than or equal to 50"));
        }
        _ => {}
    }
    match violations.as_slice() {
        [] => Ok(()),
        [one] => Err(validation(format!("1 validation error detected: {one}"))),
        many => Err(validation(format!("{} validation errors detected: {}", many.len(), many.join("; ")))),
    }
}

fn check_filter(violations: &mut Vec<String>, path: &str, values_name: &str, key: Option<&str>, values: &[String]) {
    const NOT_EMPTY: &str = "have length greater than or equal to 1";
    match key {
        None => violations.push(violation("null ", &format!("{path}.key"), "not be null")),
        Some("") => violations.push(violation("'' ", &format!("{path}.key"), NOT_EMPTY)),
        Some(_) => {}
    }
    let path = format!("{path}.{values_name}");
    if values.is_empty() {
        violations.push(violation("", &path, NOT_EMPTY));
    } else if values.len() > 100 {
        violations.push(violation("", &path, "have length less than or equal to 100"));
    } else if values.iter().any(String::is_empty) {
        violations.push(violation("", &path, &format!("satisfy constraint: [Member must {NOT_EMPTY}]")));
    }
}

fn violation(value: &str, path: &str, rule: &str) -> String {
    format!("Value {value}at '{path}' failed to satisfy constraint: Member must {rule}")
}

fn validation(message: impl Into<String>) -> Refusal {
    Refusal { code: "ValidationException", message: Some(message.into()) }
}

/// A filter that a node can be held against.
struct Condition {
    key: Key,
    values: Vec<String>,
}

enum Key {
    /// A member of the node.
    Member(fn(&Node) -> Option<&str>),
    /// The keys of the node's tags.
    AnyTag,
    /// The value of one tag.
    Tag(String),
}

impl Condition {
    fn holds(&self, node: &Node) -> bool {
        let is_asked_for = |value: &str| self.values.iter().any(|asked| asked == value);
        match &self.key {
            Key::Member(member) => member(node).is_some_and(is_asked_for),
            Key::AnyTag => node.tags.keys().any(|key| is_asked_for(key)),
            Key::Tag(name) => node.tags.get(name.as_str()).is_some_and(|value| is_asked_for(value)),
        }
    }
}

/// Checks the rules between members, in AWS's order as far as it is known.
fn conditions(filters: Vec<Filter>, legacy: Vec<LegacyFilter>) -> Result<Vec<Condition>, Refusal> {
    if !filters.is_empty() && !legacy.is_empty() {
        return Err(validation("Cannot use both legacy and new filter simultaneously."));
    }
    let legacy = legacy.into_iter().map(|filter| (filter.key, filter.value_set));
    let filters = filters.into_iter().map(|filter| (filter.key, filter.values)).chain(legacy);
    let conditions = filters.map(|(name, values)| condition(&name.unwrap_or_default(), values));
    let conditions = conditions.collect::<Result<Vec<_>, _>>()?;
    let tags = conditions.iter().filter(|condition| !matches!(condition.key, Key::Member(_))).count();
    if tags != 0 && tags != conditions.len() {
        return Err(validation("Cannot mix tag or inventory filter with any other filter."));
    }
    Ok(conditions)
}

fn condition(name: &str, values: Vec<String>) -> Result<Condition, Refusal> {
    let key = match name {
        "InstanceIds" => Key::Member(|node| Some(&node.instance_id)),
        "PingStatus" => Key::Member(|node| Some(node.ping_status)),
        "AgentVersion" => Key::Member(|node| Some(&node.agent_version)),
        "PlatformTypes" => Key::Member(|node| Some(node.platform_type)),
        "ActivationIds" => Key::Member(|node| node.activation_id.as_deref()),
        "IamRole" => Key::Member(|node| node.iam_role.as_deref()),
        "ResourceType" if values.len() > 1 => {
            let message = Some("ResourceType filter may contain only one value.".to_owned());
            return Err(Refusal { code: "InvalidInstanceInformationFilterValue", message });
        }
        "ResourceType" => Key::Member(|node| Some(node.resource_type)),
        "AssociationStatus" => Key::Member(|node| node.association_status),
        "SourceIds" => Key::Member(|node| node.source_id.as_deref()),
        "SourceTypes" => Key::Member(|node| node.source_type),
        "tag-key" => Key::AnyTag,
        _ => match name.strip_prefix("tag:") {
            Some(tag) if values.len() > MAX_TAG_VALUES => {
                let count = values.len();
                return Err(validation(format!(
                    "The number of tag values for tag:{tag} was {count}. Max: {MAX_TAG_VALUES}."
                )));
            }
            Some(tag) => Key::Tag(tag.to_owned()),
            None => return Err(validation("UnknownKey filter Key is invalid.")),
        },
    };
    Ok(Condition { key, values })
}
