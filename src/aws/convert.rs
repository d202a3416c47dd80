//! AWS's members to and from the SDK's types: every member, nothing added, nothing lost.

use aws_sdk_ssm::{
    error::BuildError,
    primitives::DateTime,
    types::{
        InstanceAggregatedAssociationOverview, InstanceInformation, InstanceInformationFilter,
        InstanceInformationFilterKey, InstanceInformationStringFilter,
    },
};
use prost::Message as _;
use prost_types::Timestamp;
use tracing::warn;

use crate::{
    model::{Filter, Records, RecordsBuilder, TargetName},
    proto,
};

/// The seconds that protobuf's `Timestamp` has: of the years 1 to 9999.
const SECONDS: std::ops::RangeInclusive<i64> = -62_135_596_800..=253_402_300_799;
/// What stands in an answer that was repaired where no character is.
const REPLACEMENT: &[u8] = "\u{fffd}".as_bytes();
/// How many nodes a line of the log names.
const NAMED: usize = 5;

/// Encodes the nodes of one answer, in its order, and counts those that lost something: a time that protobuf does not
/// have, or a character where the answer `is_repaired`. The log names the first of them.
pub(super) fn records(nodes: Vec<InstanceInformation>, is_repaired: bool, target: &TargetName) -> (Records, u64) {
    let mut builder = RecordsBuilder::default();
    let mut message = Vec::new();
    let mut losers = Vec::new();
    for node in nodes {
        message.clear();
        let times = [
            node.last_ping_date_time.is_some(),
            node.registration_date.is_some(),
            node.last_association_execution_date.is_some(),
            node.last_successful_association_execution_date.is_some(),
        ];
        let record = record(node);
        let has_lost_time = times
            != [
                record.last_ping_date_time.is_some(),
                record.registration_date.is_some(),
                record.last_association_execution_date.is_some(),
                record.last_successful_association_execution_date.is_some(),
            ];
        record.encode_raw(&mut message);
        let has_lost_character = is_repaired && message.windows(REPLACEMENT.len()).any(|bytes| bytes == REPLACEMENT);
        if has_lost_time || has_lost_character {
            losers.push(record.instance_id.unwrap_or_default());
        }
        builder.push(&message);
    }
    if !losers.is_empty() {
        let count = losers.len();
        let instance_ids = losers.get(..NAMED).unwrap_or(&losers).join(" ");
        warn!(target_name = %target, count, instance_ids, "invalid characters or timestamps in AWS's answer are replaced or left out");
    }
    (builder.build(), losers.len() as u64)
}

/// Converts AWS's `Filters`.
pub(super) fn filter(filter: &Filter) -> Result<InstanceInformationStringFilter, BuildError> {
    let Filter { key, values } = filter.clone();
    InstanceInformationStringFilter::builder().key(key).set_values(Some(values)).build()
}

/// Converts AWS's `InstanceInformationFilterList`; a key that the SDK does not know goes to AWS as it is.
pub(super) fn legacy_filter(filter: &Filter) -> Result<InstanceInformationFilter, BuildError> {
    let Filter { key, values } = filter.clone();
    InstanceInformationFilter::builder()
        .key(InstanceInformationFilterKey::from(key.as_str()))
        .set_value_set(Some(values))
        .build()
}

fn record(node: InstanceInformation) -> proto::InstanceInformation {
    proto::InstanceInformation {
        instance_id: node.instance_id,
        ping_status: node.ping_status.map(|status| status.as_str().to_owned()),
        last_ping_date_time: node.last_ping_date_time.and_then(timestamp),
        agent_version: node.agent_version,
        is_latest_version: node.is_latest_version,
        platform_type: node.platform_type.map(|platform| platform.as_str().to_owned()),
        platform_name: node.platform_name,
        platform_version: node.platform_version,
        activation_id: node.activation_id,
        iam_role: node.iam_role,
        registration_date: node.registration_date.and_then(timestamp),
        resource_type: node.resource_type.map(|resource| resource.as_str().to_owned()),
        name: node.name,
        ip_address: node.ip_address,
        computer_name: node.computer_name,
        association_status: node.association_status,
        last_association_execution_date: node.last_association_execution_date.and_then(timestamp),
        last_successful_association_execution_date: node.last_successful_association_execution_date.and_then(timestamp),
        association_overview: node.association_overview.map(overview),
        source_id: node.source_id,
        source_type: node.source_type.map(|source| source.as_str().to_owned()),
        source_location: node.source_location,
    }
}

fn overview(overview: InstanceAggregatedAssociationOverview) -> proto::InstanceAggregatedAssociationOverview {
    proto::InstanceAggregatedAssociationOverview {
        detailed_status: overview.detailed_status,
        instance_association_status_aggregated_count: overview
            .instance_association_status_aggregated_count
            .unwrap_or_default()
            .into_iter()
            .collect(),
    }
}

/// Rounds to the millisecond: the SDK keeps AWS's number as a float, and `.094` comes out as 94000101 ns. None where
/// protobuf has no such time, by which clients could not write the node as JSON; what was meant is not guessed.
fn timestamp(time: DateTime) -> Option<Timestamp> {
    const MILLION: i128 = 1_000_000;
    let millis = (time.as_nanos() + MILLION / 2).div_euclid(MILLION);
    let seconds = i64::try_from(millis.div_euclid(1000)).ok().filter(|seconds| SECONDS.contains(seconds))?;
    Some(Timestamp { seconds, nanos: i32::try_from(millis.rem_euclid(1000)).ok()? * 1_000_000 })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn times_are_exact_to_the_millisecond(seconds in -2_000_000_000i32..2_000_000_000, rest in 0..1000i32) {
            let millis = i64::from(seconds) * 1000 + i64::from(rest);
            let float = DateTime::from_secs_f64(f64::from(seconds) + f64::from(rest) / 1000.0);
            let Timestamp { seconds, nanos } = timestamp(float).unwrap();
            prop_assert_eq!(seconds * 1000 + i64::from(nanos / 1_000_000), millis);
            prop_assert!((0..1_000_000_000).contains(&nanos) && nanos % 1_000_000 == 0);
        }
    }

    #[test]
    fn an_absent_member_stays_absent_and_an_empty_one_empty() {
        let node = InstanceInformation::builder().ip_address("").build();
        let expected = proto::InstanceInformation { ip_address: Some(String::new()), ..Default::default() };
        assert_eq!(record(node), expected);
    }

    #[test]
    fn unknown_values_of_enumerated_members_are_kept() {
        let node = InstanceInformation::builder()
            .ping_status("Sleeping".into())
            .platform_type("Plan9".into())
            .resource_type("Toaster".into())
            .source_type("Moon::Base".into())
            .build();
        let record = record(node);
        assert_eq!(record.ping_status.as_deref(), Some("Sleeping"));
        assert_eq!(record.platform_type.as_deref(), Some("Plan9"));
        assert_eq!(record.resource_type.as_deref(), Some("Toaster"));
        assert_eq!(record.source_type.as_deref(), Some("Moon::Base"));
    }

    #[test]
    fn records_decode_to_the_nodes_in_their_order() {
        let nodes = ["i-1", "i-2"].map(|id| InstanceInformation::builder().instance_id(id).build());
        let (records, repaired) = records(nodes.to_vec(), false, &TargetName::default_target());
        assert_eq!(repaired, 0);
        let answer = proto::DescribeInstanceInformationResponse::decode(records.slice(0..2)).unwrap();
        let ids: Vec<_> =
            answer.instance_information_list.iter().map(crate::proto::InstanceInformation::instance_id).collect();
        assert_eq!(ids, ["i-1", "i-2"]);
    }

    #[test]
    fn a_time_that_protobuf_does_not_have_is_left_out_and_counted() {
        let node =
            |seconds: f64| InstanceInformation::builder().last_ping_date_time(DateTime::from_secs_f64(seconds)).build();
        for (seconds, is_kept) in [
            (1_775_836_321.122, true),
            (253_402_300_799.0, true),
            (-62_135_596_800.0, true),
            (1_775_836_321_122.0, false),
            (253_402_300_800.0, false),
            (-62_135_596_801.0, false),
            (1e18, false),
            (-1e18, false),
        ] {
            assert_eq!(record(node(seconds)).last_ping_date_time.is_some(), is_kept, "{seconds}");
            let (_, repaired) = records(vec![node(seconds)], false, &TargetName::default_target());
            assert_eq!(repaired, u64::from(!is_kept));
        }
    }

    #[test]
    fn of_an_answer_that_was_repaired_those_nodes_count_which_lack_a_character() {
        let nodes = ["web-\u{fffd}", "web"].map(|name| InstanceInformation::builder().computer_name(name).build());
        let count = |is_repaired| records(nodes.to_vec(), is_repaired, &TargetName::default_target()).1;
        assert_eq!((count(true), count(false)), (1, 0));
    }
}
