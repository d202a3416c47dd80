//! The contract against AWS's own model of the operation, which is a copy from botocore: a newer copy shows what is new.

use std::collections::BTreeMap;

use prost_reflect::{Cardinality, DescriptorPool, FieldDescriptor, Kind, MessageDescriptor};
use serde_json::Value;
use ssm_gateway::proto::FILE_DESCRIPTOR_SET;

use crate::support::{root, run, tool};

/// AWS's shape, our message, and the first number that is the gateway's own.
const MIRRORS: [(&str, &str, u32); 6] = [
    ("InstanceInformation", "InstanceInformation", 100),
    ("InstanceAggregatedAssociationOverview", "InstanceAggregatedAssociationOverview", 100),
    ("InstanceInformationStringFilter", "InstanceInformationStringFilter", 100),
    ("InstanceInformationFilter", "InstanceInformationFilter", 100),
    ("DescribeInstanceInformationRequest", "DescribeInstanceInformationRequest", 16),
    ("DescribeInstanceInformationResult", "DescribeInstanceInformationResponse", 16),
];

fn pool() -> DescriptorPool {
    DescriptorPool::decode(FILE_DESCRIPTOR_SET).unwrap()
}

fn message(pool: &DescriptorPool, name: &str) -> MessageDescriptor {
    pool.get_message_by_name(&format!("ssm_gateway.v1.{name}")).unwrap()
}

fn model() -> Value {
    let model = include_str!("../contract/describe_instance_information.model.json");
    serde_json::from_str(model).unwrap()
}

/// `IPAddress` as `ip_address`, `valueSet` as `value_set`.
fn snake(name: &str) -> String {
    let mut snake = String::new();
    for (index, letter) in name.replace("IPAddress", "IpAddress").char_indices() {
        if letter.is_ascii_uppercase() && index > 0 {
            snake.push('_');
        }
        snake.push(letter.to_ascii_lowercase());
    }
    snake
}

/// The type that a member of AWS's must have here.
fn expected_type(model: &Value, shape: &str) -> String {
    let of = |name: &str| model["shapes"][shape][name]["shape"].as_str().unwrap();
    match model["shapes"][shape]["type"].as_str().unwrap() {
        "string" => "string".to_owned(),
        "boolean" => "bool".to_owned(),
        "integer" => "int32".to_owned(),
        "timestamp" => "google.protobuf.Timestamp".to_owned(),
        "list" => format!("repeated {}", expected_type(model, of("member"))),
        "map" => format!("map {} {}", expected_type(model, of("key")), expected_type(model, of("value"))),
        "structure" => format!("ssm_gateway.v1.{shape}"),
        other => panic!("{shape} has the unknown type {other}"),
    }
}

fn actual_type(field: &FieldDescriptor) -> String {
    let name = |kind: Kind| match kind {
        Kind::String => "string".to_owned(),
        Kind::Bool => "bool".to_owned(),
        Kind::Int32 => "int32".to_owned(),
        Kind::Message(message) => message.full_name().to_owned(),
        other => format!("{other:?}"),
    };
    if field.is_map() {
        let Kind::Message(entry) = field.kind() else { unreachable!() };
        return format!(
            "map {} {}",
            name(entry.map_entry_key_field().kind()),
            name(entry.map_entry_value_field().kind())
        );
    }
    let repeated = if field.cardinality() == Cardinality::Repeated { "repeated " } else { "" };
    format!("{repeated}{}", name(field.kind()))
}

#[test]
fn every_member_of_aws_is_mirrored_by_name_number_and_type() {
    let (pool, model) = (pool(), model());
    for (shape, name, _) in MIRRORS {
        let message = message(&pool, name);
        // The numbers are those of the model's order, but for the request, where the current filters come first.
        let mut members: Vec<_> = members_in_order(shape);
        if name == "DescribeInstanceInformationRequest" {
            members.swap(0, 1);
        }
        for (number, member) in (1..).zip(members) {
            let field = message.get_field_by_json_name(&member).unwrap_or_else(|| panic!("{name} lacks {member}"));
            assert_eq!(field.name(), snake(&member), "{name}.{member}");
            assert_eq!(field.number(), number, "{name}.{member}");
            let target = model["shapes"][shape]["members"][&member]["shape"].as_str().unwrap();
            assert_eq!(actual_type(&field), expected_type(&model, target), "{name}.{member}");
            assert!(field.is_list() || field.is_map() || field.supports_presence(), "{name}.{member} loses absence");
        }
    }
}

#[test]
fn no_member_is_invented_below_the_gateways_own_numbers() {
    let (pool, model) = (pool(), model());
    for (shape, name, own) in MIRRORS {
        let fields = message(&pool, name).fields().filter(|field| field.number() < own).count();
        assert_eq!(fields, model["shapes"][shape]["members"].as_object().unwrap().len(), "{name}");
    }
}

#[test]
fn stream_messages_carry_aws_names_too() {
    let pool = pool();
    let json_names = |name: &str| -> BTreeMap<u32, String> {
        message(&pool, name).fields().map(|field| (field.number(), field.json_name().to_owned())).collect()
    };
    assert_eq!(json_names("StreamInstanceInformationRequest")[&1], "Filters");
    assert_eq!(json_names("StreamInstanceInformationRequest")[&19], "resumeTokens");
    assert_eq!(json_names("StreamInstanceInformationResponse")[&1], "InstanceInformationList");
    assert_eq!(json_names("StreamInstanceInformationResponse")[&17], "asOf");
}

#[test]
fn buf_finds_no_fault_and_no_break_with_what_was_released() {
    let buf = || {
        let mut buf = std::process::Command::new(tool("venv/bin/buf"));
        buf.current_dir(root());
        buf
    };
    run(buf().arg("lint"));
    run(buf().args(["format", "--diff", "--exit-code"]));
    run(buf().args(["breaking", "--against", "tests/contract/released.binpb"]));
}

/// The model's members in the order in which the file has them, which `serde_json::Value` forgets.
fn members_in_order(shape: &str) -> Vec<String> {
    struct Keys(Vec<String>);
    impl<'de> serde::Deserialize<'de> for Keys {
        fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            struct Visitor;
            impl<'de> serde::de::Visitor<'de> for Visitor {
                type Value = Keys;
                fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                    f.write_str("an object")
                }
                fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<Keys, A::Error> {
                    let mut keys = Vec::new();
                    while let Some((key, _)) = map.next_entry::<String, serde::de::IgnoredAny>()? {
                        keys.push(key);
                    }
                    Ok(Keys(keys))
                }
            }
            deserializer.deserialize_map(Visitor)
        }
    }
    #[derive(serde::Deserialize)]
    struct Model {
        shapes: BTreeMap<String, Shape>,
    }
    #[derive(serde::Deserialize)]
    struct Shape {
        members: Option<Keys>,
    }
    let model: Model =
        serde_json::from_str(include_str!("../contract/describe_instance_information.model.json")).unwrap();
    model.shapes.into_iter().find(|(name, _)| name == shape).unwrap().1.members.unwrap().0
}
