//! The unary call: pages, cursors, and every answer that real AWS was seen to give.

use std::{collections::HashSet, time::Duration};

use ssm_gateway::{
    proto::{
        DescribeInstanceInformationRequest, InstanceInformation, InstanceInformationFilter,
        InstanceInformationStringFilter, ReadOptions, StreamInstanceInformationRequest,
    },
    simulator::Faults,
};
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::support::{Client, Gateway, filter, filtered, simulated, simulated_with};

/// The reason, and the fields at fault.
fn refusal(status: &Status) -> (String, Vec<String>) {
    assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
    let info = status.get_details_error_info().unwrap();
    assert_eq!(info.domain, "ssm.amazonaws.com");
    let violations = status.get_details_bad_request().unwrap().field_violations;
    (info.reason, violations.into_iter().map(|violation| violation.field).collect())
}

/// Expects a refusal with AWS's message, and tells how many calls it cost.
async fn refused(
    gateway: &Gateway,
    request: DescribeInstanceInformationRequest,
    message: &str,
    (reason, field): (&str, &str),
) {
    let status = gateway.describe(request).await.unwrap_err();
    assert_eq!(status.message(), message);
    assert_eq!(refusal(&status), (reason.to_owned(), vec![field.to_owned()]));
}

#[tokio::test]
async fn a_walk_gives_every_node_once_whatever_the_page_size() {
    let (gateway, _simulator) = simulated(137).await;
    let mut walks = Vec::new();
    for max_results in [None, Some(5), Some(7), Some(50)] {
        let nodes = gateway.walk(DescribeInstanceInformationRequest { max_results, ..Default::default() }).await;
        assert_eq!(nodes.iter().map(InstanceInformation::instance_id).collect::<HashSet<_>>().len(), 137);
        walks.push(nodes);
    }
    assert!(walks.iter().all(|walk| *walk == walks[0]));
}

#[tokio::test]
async fn pages_are_full_until_the_last_though_upstream_pages_are_empty() {
    let (gateway, simulator) = simulated(120).await;
    simulator.set_faults(Faults { empty_every: 2, unknown_members: true, ..Faults::default() });
    let mut request = DescribeInstanceInformationRequest { max_results: Some(35), ..Default::default() };
    let mut sizes = Vec::new();
    loop {
        let answer = gateway.describe(request.clone()).await.unwrap();
        sizes.push(answer.instance_information_list.len());
        request.next_token = answer.next_token;
        if request.next_token.is_none() {
            break;
        }
    }
    assert_eq!(sizes, [35, 35, 35, 15]);
}

#[tokio::test]
async fn pages_are_full_though_upstream_ignores_how_many_were_asked_for() {
    for page_size in [51, 5000] {
        let (gateway, simulator) = simulated(5_100).await;
        simulator.set_faults(Faults { page_size, ..Faults::default() });
        let mut ids = Vec::new();
        let mut request = DescribeInstanceInformationRequest { max_results: Some(50), ..Default::default() };
        loop {
            let answer = gateway.describe(request.clone()).await.unwrap();
            assert_eq!(answer.instance_information_list.len(), 50);
            ids.extend(answer.instance_information_list.iter().map(|node| node.instance_id().to_owned()));
            request.next_token = answer.next_token;
            if request.next_token.is_none() {
                break;
            }
        }
        assert_eq!((ids.len(), ids.iter().collect::<HashSet<_>>().len()), (5_100, 5_100));
        let streamed = StreamInstanceInformationRequest { page_size: Some(1000), ..Default::default() };
        let messages = gateway.stream(streamed).await.unwrap();
        let sizes: Vec<_> = messages.iter().map(|page| page.instance_information_list.len()).collect();
        assert_eq!(sizes, [1000, 1000, 1000, 1000, 1000, 100]);
        assert_eq!(simulator.stats().calls, 5_100_u64.div_ceil(page_size as u64));
        // Another replica goes on in the middle of a page.
        let replica = Gateway::at(&simulator.url(), |_| {}).await;
        let resume_tokens = vec![messages[3].resume_token.clone()];
        let rest = StreamInstanceInformationRequest { resume_tokens, ..Default::default() };
        let rest: Vec<_> = replica.stream(rest).await.unwrap();
        let rest = rest.iter().flat_map(|page| &page.instance_information_list).map(InstanceInformation::instance_id);
        assert!(rest.eq(ids[4000..].iter()));
    }
}

#[tokio::test]
async fn a_page_ends_before_default_clients_refuse_it() {
    let (gateway, simulator) = simulated(60).await;
    simulator.set_faults(Faults { padding: 100_000, ..Faults::default() });
    let mut client = Client::new(gateway.channel().await);
    let mut request = DescribeInstanceInformationRequest { max_results: Some(50), ..Default::default() };
    let mut sizes = Vec::new();
    loop {
        let answer = client.describe_instance_information(request.clone()).await.unwrap().into_inner();
        sizes.push(answer.instance_information_list.len());
        request.next_token = answer.next_token;
        if request.next_token.is_none() {
            break;
        }
    }
    assert_eq!(sizes, [36, 24]);
}

#[tokio::test]
async fn ten_nodes_are_the_default_and_fifty_are_asked_of_aws() {
    let (gateway, simulator) = simulated(60).await;
    let answer = gateway.describe(DescribeInstanceInformationRequest::default()).await.unwrap();
    assert_eq!(answer.instance_information_list.len(), 10);
    assert_eq!(simulator.stats().last_request["MaxResults"], 50);
}

#[tokio::test]
async fn empty_strings_in_a_request_are_absent() {
    let (gateway, _simulator) = simulated(6).await;
    let request = DescribeInstanceInformationRequest { next_token: Some(String::new()), ..Default::default() };
    assert_eq!(gateway.describe(request).await.unwrap().instance_information_list.len(), 6);
}

#[tokio::test]
async fn an_unknown_instance_id_is_an_empty_answer() {
    let (gateway, _simulator) = simulated(20).await;
    let answer = gateway.describe(filtered(vec![filter("InstanceIds", &["i-00000000000000000"])])).await.unwrap();
    assert_eq!((answer.instance_information_list.len(), answer.next_token), (0, None));
}

#[tokio::test]
async fn what_aws_is_certain_to_refuse_is_refused_in_its_words_without_a_call() {
    let (gateway, simulator) = simulated(20).await;
    let validation = |field| ("VALIDATION", field);
    let results =
        |max_results| DescribeInstanceInformationRequest { max_results: Some(max_results), ..Default::default() };

    let message = "1 validation error detected: Value at 'filters.1.member.values' failed to satisfy constraint: \
                   Member must have length greater than or equal to 1";
    refused(&gateway, filtered(vec![filter("IamRole", &[])]), message, validation("filters[0].values")).await;
    for too_few in [4, 0, -1] {
        let message = format!(
            "1 validation error detected: Value '{too_few}' at 'maxResults' failed to satisfy constraint: \
             Member must have value greater than or equal to 5"
        );
        refused(&gateway, results(too_few), &message, validation("max_results")).await;
    }
    let message = "1 validation error detected: Value '51' at 'maxResults' failed to satisfy constraint: \
                   Member must have value less than or equal to 50";
    refused(&gateway, results(51), message, validation("max_results")).await;
    let message = "1 validation error detected: Value null at 'filters.2.member.key' failed to satisfy constraint: \
                   Member must not be null";
    let keyless = InstanceInformationStringFilter { key: None, values: vec!["x".into()] };
    let request = filtered(vec![filter("IamRole", &["x"]), keyless]);
    refused(&gateway, request, message, validation("filters[1].key")).await;
    let message = "Cannot mix tag or inventory filter with any other filter.";
    let request = filtered(vec![filter("tag:Env", &["prod"]), filter("IamRole", &["x"])]);
    refused(&gateway, request, message, validation("filters[1].key")).await;
    let message = "Cannot use both legacy and new filter simultaneously.";
    let request = both_forms();
    refused(&gateway, request, message, validation("instance_information_filter_list")).await;
    assert_eq!(simulator.stats().calls, 0);
}

#[expect(deprecated, reason = "the legacy form is what is tested")]
fn both_forms() -> DescribeInstanceInformationRequest {
    DescribeInstanceInformationRequest {
        filters: vec![filter("IamRole", &["x"])],
        instance_information_filter_list: vec![legacy("IamRole", &["x"])],
        ..Default::default()
    }
}

fn legacy(key: &str, values: &[&str]) -> InstanceInformationFilter {
    let value_set = values.iter().map(|value| (*value).to_owned()).collect();
    InstanceInformationFilter { key: Some(key.to_owned()), value_set }
}

#[tokio::test]
async fn limits_of_members_come_first_and_are_reported_together() {
    let (gateway, _simulator) = simulated(20).await;
    let mut request = both_forms();
    request.max_results = Some(99);
    request.filters[0].values = vec![String::new()];
    let status = gateway.describe(request).await.unwrap_err();
    assert!(status.message().starts_with("2 validation errors detected: "), "{}", status.message());
    assert_eq!(refusal(&status).1, ["filters[0].values", "max_results"]);
}

#[tokio::test]
async fn an_error_stays_small_whatever_was_sent() {
    let (gateway, _simulator) = simulated(1).await;
    let status = gateway.describe(filtered(vec![filter("", &[]); 100])).await.unwrap_err();
    assert!(status.message().starts_with("200 validation errors detected: "), "{}", status.message());
    assert_eq!(refusal(&status).1.len(), 8);
    let many = gateway.describe(filtered(vec![filter("", &[]); 101])).await.unwrap_err();
    assert_eq!((many.code(), many.message()), (Code::InvalidArgument, "filters must be 100 at most, not 101"));
    assert_eq!(many.get_details_bad_request().unwrap().field_violations[0].field, "filters");
    let named = |len| DescribeInstanceInformationRequest { target: "x".repeat(len), ..Default::default() };
    let unknown = gateway.describe(named(256)).await.unwrap_err();
    assert_eq!(unknown.code(), Code::NotFound);
    let long = gateway.describe(named(500_000)).await.unwrap_err();
    assert_eq!((long.code(), long.message()), (Code::InvalidArgument, "target must be 256 bytes at most"));
    for status in [status, unknown, long] {
        assert!(status.message().len() <= 1024 && status.details().len() <= 4096, "{}", status.details().len());
    }
}

#[tokio::test]
async fn in_all_else_aws_decides_and_its_words_are_passed_on() {
    let (gateway, simulator) = simulated(20).await;
    let message = "UnknownKey filter Key is invalid.";
    refused(&gateway, filtered(vec![filter("Color", &["red"])]), message, ("VALIDATION", "filters")).await;
    let message = "ResourceType filter may contain only one value.";
    let request = filtered(vec![filter("ResourceType", &["EC2Instance", "ManagedInstance"])]);
    refused(&gateway, request, message, ("INVALID_INSTANCE_INFORMATION_FILTER_VALUE", "filters")).await;
    let message = "The number of tag values for tag:Name was 35. Max: 5.";
    let values: Vec<String> = (0..35).map(|index| index.to_string()).collect();
    let values: Vec<&str> = values.iter().map(String::as_str).collect();
    refused(&gateway, filtered(vec![filter("tag:Name", &values)]), message, ("VALIDATION", "filters")).await;
    #[expect(deprecated, reason = "the legacy form is what is tested")]
    let request = DescribeInstanceInformationRequest {
        instance_information_filter_list: vec![legacy("SourceIds", &["x"])],
        ..Default::default()
    };
    let status = gateway.describe(request).await.unwrap_err();
    assert!(status.message().contains("Member must satisfy enum value set: [InstanceIds, "), "{}", status.message());
    assert_eq!(refusal(&status).1, ["instance_information_filter_list"]);
    assert_eq!(simulator.stats().calls, 4);
}

#[tokio::test]
async fn the_legacy_form_filters_as_the_current_one_does() {
    let (gateway, _simulator) = simulated(200).await;
    #[expect(deprecated, reason = "the legacy form is what is tested")]
    let request = DescribeInstanceInformationRequest {
        instance_information_filter_list: vec![legacy("PlatformTypes", &["Windows"])],
        ..Default::default()
    };
    let nodes = gateway.walk(request).await;
    assert!(!nodes.is_empty());
    assert_eq!(nodes, gateway.walk(filtered(vec![filter("PlatformTypes", &["Windows"])])).await);
}

#[tokio::test]
async fn a_cursor_that_leads_nowhere_is_refused_with_its_cause() {
    let (gateway, simulator) = simulated(60).await;
    let answer = gateway.describe(DescribeInstanceInformationRequest::default()).await.unwrap();
    let cursor = answer.next_token.unwrap();
    let calls = simulator.stats().calls;
    for (next_token, filters, cause) in [
        ("nonsense".to_owned(), vec![], "malformed"),
        (cursor[..cursor.len() - 4].to_owned(), vec![], "malformed"),
        (cursor.clone(), vec![filter("PingStatus", &["Online"])], "other_query"),
    ] {
        let request =
            DescribeInstanceInformationRequest { next_token: Some(next_token), filters, ..Default::default() };
        let status = gateway.describe(request).await.unwrap_err();
        assert_eq!(refusal(&status), ("INVALID_NEXT_TOKEN".to_owned(), vec!["next_token".to_owned()]));
        assert_eq!(status.get_details_error_info().unwrap().metadata["cause"], cause);
    }
    assert_eq!(simulator.stats().calls, calls);
}

#[tokio::test]
async fn a_cursor_expires_when_the_configuration_says() {
    let (gateway, _simulator) = simulated_with(60, |config| config.listing.cursor_lifetime = Duration::ZERO).await;
    let next_token = gateway.describe(DescribeInstanceInformationRequest::default()).await.unwrap().next_token;
    let request = DescribeInstanceInformationRequest { next_token, ..Default::default() };
    let status = gateway.describe(request).await.unwrap_err();
    assert_eq!(status.get_details_error_info().unwrap().metadata["cause"], "expired");
}

#[tokio::test]
async fn a_cursor_is_good_for_another_replica_and_any_order_of_filters() {
    let (one, simulator) = simulated(300).await;
    let other = Gateway::at(&simulator.url(), |_| {}).await;
    let filters = vec![filter("PingStatus", &["Online", "Inactive"]), filter("ResourceType", &["EC2Instance"])];
    let all = one.walk(filtered(filters.clone())).await;
    let first = one.describe(filtered(filters)).await.unwrap();
    let reordered = vec![filter("ResourceType", &["EC2Instance"]), filter("PingStatus", &["Inactive", "Online"])];
    let rest = DescribeInstanceInformationRequest { next_token: first.next_token, ..filtered(reordered) };
    assert_eq!([first.instance_information_list, other.walk(rest).await].concat(), all);
}

#[tokio::test]
async fn an_unknown_target_is_not_found() {
    let (gateway, simulator) = simulated(5).await;
    let request = |target: &str| DescribeInstanceInformationRequest { target: target.into(), ..Default::default() };
    let status = gateway.describe(request("prod")).await.unwrap_err();
    assert_eq!(status.code(), Code::NotFound);
    let info = status.get_details_error_info().unwrap();
    assert_eq!((&*info.reason, &*info.domain, &*info.metadata["target"]), ("UNKNOWN_TARGET", "ssm-gateway", "prod"));
    let resource = status.get_details_resource_info().unwrap();
    assert_eq!((&*resource.resource_type, &*resource.resource_name), ("target", "prod"));
    assert_eq!(simulator.stats().calls, 0);
    assert_eq!(gateway.describe(request("default")).await.unwrap().instance_information_list.len(), 5);
}

#[tokio::test]
async fn read_options_must_not_be_negative() {
    let (gateway, _simulator) = simulated(5).await;
    let second = |seconds| Some(prost_types::Duration { seconds, nanos: 0 });
    let request = |read_options| DescribeInstanceInformationRequest { read_options, ..Default::default() };
    let negative = ReadOptions { max_age: second(0), max_stale: second(-1) };
    let status = gateway.describe(request(Some(negative))).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    assert_eq!(status.get_details_bad_request().unwrap().field_violations[0].field, "read_options.max_stale");
    let fine = ReadOptions { max_age: second(0), max_stale: second(60) };
    assert!(gateway.describe(request(Some(fine))).await.is_ok());
}
