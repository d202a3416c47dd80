//! Traces, as a receiver of OTLP gets them that knows nothing of us.

use std::{
    io::{BufRead as _, BufReader},
    process::{Command, Stdio},
    sync::mpsc,
};

use futures_util::future::join_all;
use serde_json::Value;
use ssm_gateway::{
    proto::{DescribeInstanceInformationRequest, StreamInstanceInformationRequest},
    simulator::{FailureKind, Faults, Simulator},
};

use crate::{
    program::Program,
    proofs::Folder,
    support::{Client, PATIENCE, Running, failing, filter, filtered, root, run, simulator_of, tool, within},
};

const DESCRIBE: &str = "ssm_gateway.v1.InstanceInformationService/DescribeInstanceInformation";

/// The receiver; dropping it ends it.
pub(crate) struct Receiver {
    pub(crate) url: String,
    child: Running,
    lines: mpsc::Receiver<String>,
}

impl Receiver {
    pub(crate) fn start() -> Self {
        let mut command = Command::new(tool("venv/bin/python"));
        command.arg(root().join("tests/peers/otlp_receiver.py")).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let (out, (sender, lines)) = (BufReader::new(child.stdout.take().unwrap()), mpsc::channel());
        std::thread::spawn(move || out.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
        Self { url: lines.recv_timeout(PATIENCE).unwrap(), child: Running(child), lines }
    }

    /// All spans that it was sent, once the program that sends them has ended.
    pub(crate) fn spans(mut self) -> Vec<Value> {
        drop(self.child.0.stdin.take());
        self.lines.iter().map(|line| serde_json::from_str(&line).unwrap()).collect()
    }
}

fn of_name<'a>(spans: &'a [Value], name: &str) -> Vec<&'a Value> {
    spans.iter().filter(|span| span["name"] == name).collect()
}

/// A request of the trace of this many equal digits.
fn traced<T>(message: T, digit: char, flags: &str) -> tonic::Request<T> {
    let (trace, span) = (digit.to_string().repeat(32), digit.to_string().repeat(16));
    let mut request = tonic::Request::new(message);
    request.metadata_mut().insert("traceparent", format!("00-{trace}-{span}-{flags}").parse().unwrap());
    request
}

/// A program that sends its traces to a receiver, with this in the table that says so.
async fn tracing(more: &str) -> (Receiver, Simulator, Program, Client, Folder) {
    let (receiver, folder) = (Receiver::start(), Folder::new());
    let simulator = simulator_of(120).await;
    let config = format!("[log]\nformat = 'json'\n[trace]\nendpoint = '{}'\n{more}", receiver.url);
    let program = Program::in_front_of(&simulator, &folder, &config, "127.0.0.1:0", "");
    let client = within(Client::connect(format!("http://{}", program.addr))).await.unwrap();
    (receiver, simulator, program, client, folder)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_is_a_span_of_its_callers_trace_and_linked_to_the_fetches_it_is_of() {
    let (receiver, simulator, program, client, _folder) = tracing("").await;
    let describe = async |request| within(client.clone().describe_instance_information(request)).await;

    // Two that wait for one fetch, and one that finds it there.
    simulator.set_faults(Faults { latency: std::time::Duration::from_millis(200), ..Faults::default() });
    let empty = DescribeInstanceInformationRequest::default;
    let both = join_all(['1', '2'].map(|digit| describe(traced(empty(), digit, "01")))).await;
    assert!(both.iter().all(Result::is_ok));
    describe(traced(empty(), '3', "01")).await.unwrap();
    // One whose caller does not want it traced, and one that says nothing.
    describe(traced(empty(), '4', "00")).await.unwrap();
    describe(tonic::Request::new(empty())).await.unwrap();
    let stream = traced(StreamInstanceInformationRequest::default(), '5', "01");
    let mut pages = within(client.clone().stream_instance_information(stream)).await.unwrap().into_inner();
    while within(pages.message()).await.unwrap().is_some() {}
    // And two of which neither has a node.
    let nobody = || filtered(vec![filter("InstanceIds", &["i-028ea792daEXAMPLE"])]);
    let both = join_all(['7', '8'].map(|digit| describe(traced(nobody(), digit, "01")))).await;
    assert!(both.iter().all(|answer| answer.as_ref().unwrap().get_ref().instance_information_list.is_empty()));
    simulator.set_faults(failing(FailureKind::AccessDenied));
    let denied = filtered(vec![filter("PingStatus", &["Online"])]);
    describe(traced(denied, '6', "01")).await.unwrap_err();
    drop((pages, client));
    let log = program.stop();
    let spans = receiver.spans();

    let of_trace = |digit: char| {
        let is_of = |span: &&Value| span["kind"] == 2 && span["trace"] == digit.to_string().repeat(32);
        spans.iter().find(is_of).unwrap_or_else(|| panic!("no span of {digit} among {spans:#?}"))
    };
    let fetches = of_name(&spans, "fetch");
    let linked = |call: &Value| -> Vec<&Value> {
        let is_linked = |fetch: &&&Value| {
            let links = call["links"].as_array().unwrap();
            links.iter().any(|link| link["span"] == fetch["span"] && link["trace"] == fetch["trace"])
        };
        fetches.iter().filter(is_linked).copied().collect()
    };
    let first = linked(of_trace('1'));
    for (digit, provenances) in [('1', &["miss", "coalesced"][..]), ('2', &["miss", "coalesced"]), ('3', &["hit"])] {
        let call = of_trace(digit);
        assert_eq!(
            (&call["name"], &call["parent"], &call["kind"]),
            (&DESCRIBE.into(), &digit.to_string().repeat(16).into(), &2.into())
        );
        let attributes = &call["attributes"];
        assert_eq!(attributes["rpc.response.status_code"], "OK");
        assert!(provenances.contains(&attributes["ssm_gateway.provenance"].as_str().unwrap()), "{attributes}");
        assert_eq!(linked(call), first, "one fetch for all three");
        assert_eq!(attributes["aws.request_id"], first[0]["attributes"]["aws.request_id"]);
    }
    assert_eq!((first.len(), &first[0]["parent"], &first[0]["kind"]), (1, &"".into(), &3.into()));
    assert!(spans.iter().all(|span| span["trace"] != "4".repeat(32)), "it was not to be traced");
    assert_eq!(of_name(&spans, DESCRIBE).len(), 7, "with the one that said nothing");
    assert_eq!(linked(of_trace('5')).len(), 3, "a stream is linked to every page's fetch");
    assert_eq!((linked(of_trace('7')).len(), linked(of_trace('7'))), (1, linked(of_trace('8'))));
    let (denied, failed) = (of_trace('6'), linked(of_trace('6'))[0]);
    assert_eq!(denied["attributes"]["error.type"], "AWS_ACCESS_DENIED");
    assert_eq!(denied["attributes"]["aws.request_id"], failed["attributes"]["aws.request_id"]);
    assert_eq!((&failed["is_error"], &failed["attributes"]["error.type"]), (&true.into(), &"access_denied".into()));
    assert_eq!(of_trace('1')["resource"]["service.name"], "ssm-gateway");

    // And in the log the trace and AWS's request stand in one line.
    let line = log.lines().find(|line| line.contains(&"3".repeat(32))).unwrap();
    let line: Value = serde_json::from_str(line).unwrap();
    assert_eq!(line["aws_request_id"], first[0]["attributes"]["aws.request_id"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_grpcurl_calls_trace_leads_to_the_request_that_aws_knows() {
    let folder = Folder::new();
    let simulator = simulator_of(1).await;
    let program = Program::in_front_of(&simulator, &folder, "[log]\nformat = 'json'\n", "127.0.0.1:0", "");
    let trace = "0af7651916cd43dd8448eb211c80319c";
    let mut grpcurl = Command::new(tool("bin/grpcurl"));
    let traceparent = format!("traceparent: 00-{trace}-b7ad6b7169203331-01");
    run(grpcurl.args(["-plaintext", "-H", &traceparent, &program.addr.to_string(), DESCRIBE]));
    let log = program.stop();
    let lines: Vec<Value> =
        log.lines().filter(|line| line.contains(trace)).map(|line| serde_json::from_str(line).unwrap()).collect();
    let line = lines.iter().find(|line| line["method"] == DESCRIBE).unwrap();
    assert_eq!((&line["trace_id"], &line["provenance"]), (&trace.into(), &"miss".into()));
    assert!(line["aws_request_id"].as_str().is_some_and(|id| id.len() > 30), "{line}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_that_is_not_there_costs_nobody_anything() {
    let folder = Folder::new();
    let simulator = simulator_of(1).await;
    let config = "[trace]\nendpoint = 'http://127.0.0.1:1'\n";
    let program = Program::in_front_of(&simulator, &folder, config, "127.0.0.1:0", "");
    let mut client = within(Client::connect(format!("http://{}", program.addr))).await.unwrap();
    for _ in 0..100 {
        within(client.describe_instance_information(DescribeInstanceInformationRequest::default())).await.unwrap();
    }
    drop(client);
    let log = program.stop();
    assert!(log.contains("stopped") && log.contains("BatchSpanProcessor.ExportError"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_that_says_nothing_is_traced_as_often_as_configured_and_one_that_does_as_it_says() {
    let (receiver, _simulator, program, mut client, _folder) = tracing("ratio = 0.0\n").await;
    let empty = DescribeInstanceInformationRequest::default;
    for request in [tonic::Request::new(empty()), traced(empty(), '1', "01"), tonic::Request::new(empty())] {
        within(client.describe_instance_information(request)).await.unwrap();
    }
    drop(client);
    program.stop();
    let spans = receiver.spans();
    let (calls, fetches) = (of_name(&spans, DESCRIBE), of_name(&spans, "fetch"));
    assert_eq!(calls.iter().map(|span| &span["trace"]).collect::<Vec<_>>(), [&Value::from("1".repeat(32))]);
    // Whoever caused the fetch was not traced, and the one who is finds it all the same.
    assert_eq!((fetches.len(), &calls[0]["links"][0]["span"]), (1, &fetches[0]["span"]));
    assert_eq!(calls[0]["links"].as_array().unwrap().len(), 1, "once");
}
