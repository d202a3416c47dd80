//! Made-up fleets: mixed as in real accounts, with members absent where real answers omit them.

use std::collections::BTreeMap;

use fastrand::Rng;
use serde::{Serialize, Serializer};
use serde_json::value::RawValue;

/// 2026-11-01T00:00:00Z, the present time of every fleet; fixed, so that equal seeds make equal fleets.
const PRESENT_MILLIS: i64 = 1_793_491_200_000;
const MINUTE: i64 = 60_000;
const DAY: i64 = 24 * 60 * MINUTE;

/// One managed node, with AWS's member names; tags are not part of AWS's answer.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Node {
    pub(super) instance_id: String,
    pub(super) ping_status: &'static str,
    last_ping_date_time: Option<Time>,
    pub(super) agent_version: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    is_latest_version: Option<bool>,
    pub(super) platform_type: &'static str,
    platform_name: &'static str,
    platform_version: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) activation_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) iam_role: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    registration_date: Option<Time>,
    pub(super) resource_type: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    #[serde(rename = "IPAddress")]
    ip_address: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    computer_name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) association_status: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_association_execution_date: Option<Time>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_successful_association_execution_date: Option<Time>,
    #[serde(skip_serializing_if = "Option::is_none")]
    association_overview: Option<Overview>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) source_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) source_type: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    source_location: Option<&'static str>,
    #[serde(skip)]
    pub(super) tags: BTreeMap<&'static str, String>,
}

impl Node {
    /// Returns the JSON of the node, its name lengthened by so many characters.
    pub(super) fn padded(&self, by: usize) -> serde_json::Result<String> {
        let name = self.name.clone().unwrap_or_default() + &"x".repeat(by);
        serde_json::to_string(&Self { name: Some(name), ..self.clone() })
    }
}

#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Overview {
    detailed_status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    instance_association_status_aggregated_count: Option<BTreeMap<&'static str, u32>>,
}

/// A time in one of the three forms in which AWS writes epoch seconds.
#[derive(Debug, Clone, Copy)]
enum Time {
    Whole { seconds: i64 },
    Fraction { millis: i64 },
    Exponent { millis: i64 },
}

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        RawValue::from_string(self.write()).map_err(serde::ser::Error::custom)?.serialize(serializer)
    }
}

impl Time {
    fn new(random: &mut Rng, millis: i64) -> Self {
        match random.u8(..3) {
            0 => Self::Whole { seconds: millis / 1000 },
            1 => Self::Fraction { millis },
            _ => Self::Exponent { millis },
        }
    }

    fn write(self) -> String {
        match self {
            Self::Whole { seconds } => seconds.to_string(),
            Self::Fraction { millis } => format!("{}.{:03}", millis / 1000, millis % 1000),
            // Ten digits of seconds: from 2001 to 2286.
            Self::Exponent { millis } => {
                format!("{}.{:012}E9", millis / 1_000_000_000_000, millis % 1_000_000_000_000)
            }
        }
    }
}

/// The origins of nodes, with their shares of the fleet in percent.
const ORIGINS: [(Origin, u32); 8] = [
    (Origin::Ec2Linux, 52),
    (Origin::Ec2Windows, 15),
    (Origin::HybridLinux, 13),
    (Origin::HybridWindows, 6),
    (Origin::Ec2Mac, 4),
    (Origin::Azure, 4),
    (Origin::Google, 4),
    (Origin::Greengrass, 2),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Origin {
    Ec2Linux,
    Ec2Windows,
    Ec2Mac,
    HybridLinux,
    HybridWindows,
    Azure,
    Google,
    Greengrass,
}

/// The names and versions of operating systems.
type Platforms = &'static [(&'static str, &'static str)];
const LINUX: Platforms =
    &[("Amazon Linux", "2023"), ("Amazon Linux", "2"), ("Ubuntu", "24.04"), ("Red Hat Enterprise Linux", "9.4")];
const WINDOWS: Platforms = &[
    ("Microsoft Windows Server 2022 Datacenter", "10.0.20348"),
    ("Microsoft Windows Server 2019 Datacenter", "10.0.17763"),
];
const MACOS: Platforms = &[("macOS", "14.7.1"), ("macOS", "15.1")];

impl Origin {
    fn draw(random: &mut Rng) -> Self {
        let mut left = random.u32(..100);
        for (origin, share) in ORIGINS {
            match left.checked_sub(share) {
                None => return origin,
                Some(rest) => left = rest,
            }
        }
        Self::Ec2Linux
    }

    fn is_ec2(self) -> bool {
        matches!(self, Self::Ec2Linux | Self::Ec2Windows | Self::Ec2Mac)
    }

    fn platform(self) -> (&'static str, Platforms) {
        match self {
            Self::Ec2Windows | Self::HybridWindows => ("Windows", WINDOWS),
            Self::Ec2Mac => ("MacOS", MACOS),
            _ => ("Linux", LINUX),
        }
    }

    fn source_type(self) -> &'static str {
        match self {
            Self::Ec2Linux | Self::Ec2Windows | Self::Ec2Mac => "AWS::EC2::Instance",
            Self::HybridLinux | Self::HybridWindows => "AWS::SSM::ManagedInstance",
            Self::Azure => "Microsoft.Compute/virtualMachines",
            Self::Google => "compute.googleapis.com/Instance",
            Self::Greengrass => "AWS::IoT::Thing",
        }
    }
}

/// The managed nodes of an account in a region.
#[derive(Debug)]
pub(super) struct Fleet {
    /// The seed of this fleet.
    pub(super) seed: u64,
    pub(super) nodes: Vec<Node>,
}

impl Fleet {
    /// Makes a fleet; equal arguments make equal fleets, and a larger one begins with the smaller.
    pub(super) fn new(nodes: usize, seed: u64) -> Self {
        let mut random = Rng::with_seed(seed);
        Self { seed, nodes: (0..nodes).map(|index| node(&mut random, index)).collect() }
    }
}

fn node(random: &mut Rng, index: usize) -> Node {
    let origin = Origin::draw(random);
    let (platform_type, platforms) = origin.platform();
    let (platform_name, platform_version) = choose(random, platforms);
    let (ping_status, silent) = match random.u8(..100) {
        0..88 => ("Online", random.i64(0..5 * MINUTE)),
        88..98 => ("ConnectionLost", random.i64(10 * MINUTE..30 * DAY)),
        _ => ("Inactive", random.i64(30 * DAY..90 * DAY)),
    };
    let node = Node {
        ping_status,
        last_ping_date_time: Some(Time::new(random, PRESENT_MILLIS - silent)),
        agent_version: choose(random, &["3.3.987.0", "3.3.859.0", "3.2.2303.0", "3.1.1927.0"]).to_owned(),
        is_latest_version: (origin != Origin::Greengrass).then(|| random.bool()),
        platform_type,
        platform_name,
        platform_version,
        ip_address: address(random),
        computer_name: (random.u8(..20) > 0).then(|| format!("host-{index:06}.corp.example.com")),
        tags: tags(random, index),
        ..Node::default()
    };
    let node = if origin.is_ec2() { ec2(random, node) } else { hybrid(random, origin, index, node) };
    with_associations(random, node)
}

fn ec2(random: &mut Rng, node: Node) -> Node {
    // Instances from before 2016 have short IDs.
    let digits = if random.u8(..50) == 0 { 8 } else { 17 };
    let instance_id = format!("i-{}", hex(random, digits));
    Node {
        iam_role: (random.u8(..4) == 0).then(|| "AWSSystemsManagerDefaultEC2InstanceManagementRole".to_owned()),
        resource_type: "EC2Instance",
        source_id: Some(instance_id.clone()),
        source_type: Some("AWS::EC2::Instance"),
        instance_id,
        ..node
    }
}

fn hybrid(random: &mut Rng, origin: Origin, index: usize, node: Node) -> Node {
    let instance_id = format!("mi-{}", hex(random, 17));
    let registered = PRESENT_MILLIS - random.i64(DAY..900 * DAY);
    let (source_id, source_location) = match origin {
        Origin::Azure => (uuid(random), Some(choose(random, &["westeurope", "eastus2"]))),
        Origin::Google => (random.u64(10u64.pow(18)..10u64.pow(19)).to_string(), Some("europe-west1-b")),
        Origin::Greengrass => (format!("greengrass-core-{index}"), None),
        _ => (instance_id.clone(), None),
    };
    Node {
        activation_id: (origin != Origin::Greengrass).then(|| uuid(random)),
        iam_role: Some(choose(random, &["service-role/HybridNodes", "service-role/Factory"]).to_owned()),
        registration_date: Some(Time::new(random, registered)),
        resource_type: "ManagedInstance",
        name: (random.u8(..10) > 0).then(|| format!("rack-{}-{index:06}", random.u8(1..40))),
        source_id: Some(source_id),
        source_type: Some(origin.source_type()),
        source_location,
        instance_id,
        ..node
    }
}

/// Adds associations to three nodes in four, and counts by status to most of these.
fn with_associations(random: &mut Rng, node: Node) -> Node {
    if random.u8(..4) == 0 {
        return node;
    }
    let ran = PRESENT_MILLIS - random.i64(MINUTE..DAY);
    let status = match random.u8(..10) {
        0 => "Failed",
        1 => "Pending",
        _ => "Success",
    };
    let succeeded = if status == "Success" { ran } else { ran - DAY };
    let counts = BTreeMap::from([(status, random.u32(1..4)), ("Success", random.u32(1..9))]);
    Node {
        association_status: Some(status),
        last_association_execution_date: Some(Time::new(random, ran)),
        last_successful_association_execution_date: (random.u8(..20) > 0).then(|| Time::new(random, succeeded)),
        association_overview: Some(Overview {
            detailed_status: status,
            instance_association_status_aggregated_count: (random.u8(..10) > 0).then_some(counts),
        }),
        ..node
    }
}

fn tags(random: &mut Rng, index: usize) -> BTreeMap<&'static str, String> {
    let mut tags = BTreeMap::new();
    if random.u8(..10) > 0 {
        tags.insert("Env", choose(random, &["prod", "staging", "dev"]).to_owned());
        tags.insert("Name", format!("node-{index}"));
    }
    if random.bool() {
        tags.insert("Team", choose(random, &["payments", "search", "data platform"]).to_owned());
    }
    tags
}

/// Returns an IP address, mostly IPv4, sometimes IPv6, rarely empty: AWS sends empty addresses, too.
fn address(random: &mut Rng) -> String {
    match random.u8(..50) {
        0 => String::new(),
        1..4 => format!("2001:db8:{:x}:{:x}::{:x}", random.u16(..), random.u16(..), random.u16(1..)),
        _ => format!("10.{}.{}.{}", random.u8(..), random.u8(..), random.u8(1..255)),
    }
}

fn uuid(random: &mut Rng) -> String {
    [8, 4, 4, 4, 12].map(|digits| hex(random, digits)).join("-")
}

fn hex(random: &mut Rng, digits: usize) -> String {
    std::iter::repeat_with(|| random.digit(16)).take(digits).collect()
}

fn choose<T: Copy + Default>(random: &mut Rng, among: &[T]) -> T {
    random.choice(among).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn equal_seeds_make_equal_fleets_and_others_do_not() {
        let json = |seed| serde_json::to_string(&Fleet::new(300, seed).nodes).unwrap();
        assert_eq!(json(7), json(7));
        assert_ne!(json(7), json(8));
    }

    #[test]
    fn no_two_nodes_share_an_id() {
        let fleet = Fleet::new(20_000, 1).nodes;
        assert_eq!(fleet.iter().map(|node| &node.instance_id).collect::<HashSet<_>>().len(), fleet.len());
    }

    #[test]
    fn a_fleet_is_mixed_and_its_members_absent_where_real_ones_are() {
        let fleet = serde_json::to_value(Fleet::new(1237, 1).nodes).unwrap();
        let fleet = fleet.as_array().unwrap();
        let some = |member: &str, value: &str| fleet.iter().any(|node| node[member] == value);
        for (member, values) in [
            ("PingStatus", &["Online", "ConnectionLost", "Inactive"][..]),
            ("PlatformType", &["Linux", "Windows", "MacOS"]),
            ("ResourceType", &["EC2Instance", "ManagedInstance"]),
            ("SourceType", &ORIGINS.map(|(origin, _)| origin.source_type())),
            ("IPAddress", &[""]),
        ] {
            for value in values {
                assert!(some(member, value), "{member} {value}");
            }
        }
        for member in ["ActivationId", "IamRole", "Name", "ComputerName", "AssociationStatus", "SourceLocation"] {
            assert!(fleet.iter().any(|node| node.get(member).is_none()), "{member} is never absent");
            assert!(fleet.iter().any(|node| node.get(member).is_some()), "{member} is always absent");
        }
    }

    #[test]
    fn every_time_lies_in_the_past_of_the_fleet() {
        let fleet = serde_json::to_value(Fleet::new(1237, 1).nodes).unwrap();
        for node in fleet.as_array().unwrap() {
            for member in ["LastPingDateTime", "RegistrationDate", "LastAssociationExecutionDate"] {
                let seconds = node.get(member).map_or(1_793_491_200.0, |time| time.as_f64().unwrap());
                assert!((1_600_000_000.0..=1_793_491_200.0).contains(&seconds), "{member} {seconds}");
            }
        }
    }

    #[test]
    fn times_are_written_in_three_forms() {
        assert_eq!(Time::Whole { seconds: 1_496_315_446 }.write(), "1496315446");
        assert_eq!(Time::Fraction { millis: 1_496_315_446_094 }.write(), "1496315446.094");
        assert_eq!(Time::Exponent { millis: 1_496_315_446_852 }.write(), "1.496315446852E9");
    }
}
