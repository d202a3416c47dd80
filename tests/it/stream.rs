//! The stream: the same listing, a message a page.

use std::{collections::HashSet, time::SystemTime};

use ssm_gateway::{
    proto::{DescribeInstanceInformationRequest, StreamInstanceInformationRequest, StreamInstanceInformationResponse},
    simulator::{FailureKind, Faults},
};
use tonic::Code;
use tonic_types::StatusExt as _;

use crate::support::{Client, failing, filter, messages, simulated, within};

fn ids(messages: &[StreamInstanceInformationResponse]) -> Vec<&str> {
    messages
        .iter()
        .flat_map(|page| &page.instance_information_list)
        .map(ssm_gateway::proto::InstanceInformation::instance_id)
        .collect()
}

#[tokio::test]
async fn a_stream_gives_the_walk_in_full_messages() {
    let (gateway, _simulator) = simulated(237).await;
    let walk = gateway.walk(DescribeInstanceInformationRequest::default()).await;
    let walk: Vec<_> = walk.iter().map(ssm_gateway::proto::InstanceInformation::instance_id).collect();
    for (page_size, sizes) in
        [(None, vec![50, 50, 50, 50, 37]), (Some(100), vec![100, 100, 37]), (Some(1000), vec![237])]
    {
        let request = StreamInstanceInformationRequest { page_size, ..Default::default() };
        let messages = gateway.stream(request).await.unwrap();
        let found: Vec<_> = messages.iter().map(|page| page.instance_information_list.len()).collect();
        assert_eq!(found, sizes);
        assert_eq!(ids(&messages), walk);
    }
}

#[tokio::test]
async fn a_message_ends_before_default_clients_refuse_it() {
    let (gateway, simulator) = simulated(1_000).await;
    simulator.set_faults(Faults { padding: 5_000, ..Faults::default() });
    // It takes no more than four mebibytes.
    let mut client = Client::new(gateway.channel().await);
    for (page_size, count) in [(Some(1000), 2), (None, 20)] {
        let request = StreamInstanceInformationRequest { page_size, ..Default::default() };
        let messages = messages(within(client.stream_instance_information(request)).await.unwrap().into_inner()).await;
        let messages = messages.unwrap();
        assert_eq!((messages.len(), ids(&messages).iter().collect::<HashSet<_>>().len()), (count, 1_000));
    }
    // A node that is larger than that goes alone.
    let (gateway, simulator) = simulated(3).await;
    simulator.set_faults(Faults { padding: 4 << 20, ..Faults::default() });
    let messages = gateway.stream(StreamInstanceInformationRequest::default()).await.unwrap();
    assert_eq!(messages.iter().map(|page| page.instance_information_list.len()).collect::<Vec<_>>(), [1, 1, 1]);
}

#[tokio::test]
async fn every_message_tells_its_target_its_time_and_where_to_go_on() {
    let (gateway, _simulator) = simulated(120).await;
    let before = SystemTime::now();
    let messages = gateway.stream(StreamInstanceInformationRequest::default()).await.unwrap();
    let mut last = before;
    for message in &messages {
        assert_eq!((&*message.target, message.stale, &message.unreachable), ("default", false, &None));
        let as_of = SystemTime::try_from(message.as_of.unwrap()).unwrap();
        assert!(last <= as_of && as_of <= SystemTime::now());
        last = as_of;
        assert!(!message.resume_token.is_empty());
    }
}

#[tokio::test]
async fn a_stream_goes_on_after_any_of_its_messages() {
    let (gateway, _simulator) = simulated(237).await;
    let whole =
        gateway.stream(StreamInstanceInformationRequest { page_size: Some(30), ..Default::default() }).await.unwrap();
    for (index, message) in whole.iter().enumerate() {
        // With another page size, and beside an entry that is absent.
        let resume_tokens = vec![String::new(), message.resume_token.clone()];
        let request = StreamInstanceInformationRequest { resume_tokens, page_size: Some(70), ..Default::default() };
        let rest = gateway.stream(request).await.unwrap();
        assert_eq!(ids(&rest), ids(&whole[index + 1..]));
        assert_eq!(rest.last().unwrap().instance_information_list.is_empty(), index + 1 == whole.len());
    }
    let next_token = Some(whole[0].resume_token.clone());
    let request = DescribeInstanceInformationRequest { next_token, ..Default::default() };
    let answer = gateway.describe(request).await.unwrap();
    assert_eq!(answer.instance_information_list[0].instance_id(), ids(&whole)[30], "a unary call goes on there too");
}

#[tokio::test]
async fn an_empty_listing_is_one_empty_message() {
    let (gateway, _simulator) = simulated(20).await;
    let filters = vec![filter("InstanceIds", &["i-00000000000000000"])];
    let messages = gateway.stream(StreamInstanceInformationRequest { filters, ..Default::default() }).await.unwrap();
    assert_eq!((messages.len(), ids(&messages).len()), (1, 0));
    assert!(messages[0].as_of.is_some());
}

#[tokio::test]
async fn an_early_error_comes_before_the_headers() {
    let (gateway, simulator) = simulated(20).await;
    simulator.set_faults(failing(FailureKind::Throttling));
    let opened =
        within(gateway.client.clone().stream_instance_information(StreamInstanceInformationRequest::default())).await;
    assert_eq!(opened.unwrap_err().code(), Code::ResourceExhausted, "the call fails, not the first message");
}

#[tokio::test]
async fn a_late_error_ends_the_stream_and_its_last_token_goes_on() {
    let (gateway, simulator) = simulated(120).await;
    simulator.set_faults(Faults { expire_tokens: true, ..Faults::default() });
    let request = StreamInstanceInformationRequest::default();
    let mut pages = within(gateway.client.clone().stream_instance_information(request)).await.unwrap().into_inner();
    let first = within(pages.message()).await.unwrap().unwrap();
    assert_eq!(within(pages.message()).await.unwrap_err().code(), Code::Aborted);
    simulator.set_faults(Faults::default());
    let resume_tokens = vec![first.resume_token.clone()];
    let rest = gateway.stream(StreamInstanceInformationRequest { resume_tokens, ..Default::default() }).await.unwrap();
    assert_eq!(ids(&[first]).len() + ids(&rest).len(), 120);
}

#[tokio::test]
async fn targets_are_names_and_globs() {
    let (gateway, _simulator) = simulated(20).await;
    let stream = |targets: &[&str]| {
        let targets = targets.iter().map(|target| (*target).to_owned()).collect();
        gateway.stream(StreamInstanceInformationRequest { targets, ..Default::default() })
    };
    for targets in [&["default"][..], &["*"], &["def*", "default"], &[""], &[]] {
        assert_eq!(stream(targets).await.unwrap().len(), 1, "{targets:?}");
    }
    for targets in [&["prod"][..], &["prod-*"], &["default", "prod"]] {
        let status = stream(targets).await.unwrap_err();
        assert_eq!(status.get_details_error_info().unwrap().reason, "UNKNOWN_TARGET", "{targets:?}");
    }
}

#[tokio::test]
async fn a_wrong_request_names_the_field_at_fault() {
    let (gateway, simulator) = simulated(20).await;
    let messages = gateway.stream(StreamInstanceInformationRequest::default()).await.unwrap();
    let token = messages[0].resume_token.clone();
    let calls = simulator.stats().calls;
    let ok = StreamInstanceInformationRequest::default;
    for (request, field) in [
        (StreamInstanceInformationRequest { page_size: Some(0), ..ok() }, "page_size"),
        (StreamInstanceInformationRequest { page_size: Some(1001), ..ok() }, "page_size"),
        (StreamInstanceInformationRequest { page_size: Some(-1), ..ok() }, "page_size"),
        (StreamInstanceInformationRequest { filters: vec![filter("", &["x"])], ..ok() }, "filters[0].key"),
        (
            StreamInstanceInformationRequest { resume_tokens: vec![String::new(), "x".into()], ..ok() },
            "resume_tokens[1]",
        ),
        (StreamInstanceInformationRequest { resume_tokens: vec![token.clone(), token], ..ok() }, "resume_tokens[1]"),
    ] {
        let status = gateway.stream(request).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument);
        assert!(status.get_details_error_info().is_some());
        assert_eq!(status.get_details_bad_request().unwrap().field_violations[0].field, field);
    }
    assert_eq!(simulator.stats().calls, calls);
}
