#![allow(clippy::doc_markdown, reason = "help texts show no Markdown")]

use std::{
    collections::BTreeMap,
    io::{self, IsTerminal as _, Write as _},
    mem,
    str::FromStr,
    time::Duration,
};

use tokio::time;
use tonic_types::StatusExt as _;

use super::{
    CliError,
    client::{Connection, Server},
    failed,
    output::{Format, Output},
};
use crate::proto::{
    InstanceInformationStringFilter, ReadOptions, StreamInstanceInformationRequest, Unreachable,
    instance_information_service_client::InstanceInformationServiceClient,
};

/// A client of a gateway.
pub(super) type Client = InstanceInformationServiceClient<Connection>;

/// How often in a row a call is tried that the gateway wants to be tried later.
const TRIES: usize = 5;

/// List managed nodes, asking a gateway.
///
/// Prints every node that meets all filters, in the order AWS gives them. Over several targets, nodes of different targets
/// come as they are answered, and the command ends with what could not be reached. Where the gateway says to come back
/// later, it does, and goes on where it was. Should it fail all the same, what was received is printed.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    server: Server,
    /// A condition that nodes must meet; may be repeated, and all must be met. KEY is PingStatus, PlatformTypes,
    /// InstanceIds, tag:NAME or another of AWS's filter keys; one of the values must match.
    #[arg(long, value_name = "KEY=VALUE[,VALUE...]")]
    filter: Vec<Filter>,
    /// A target to ask, or a glob such as 'prod-*'; may be repeated [default: the gateway's default target].
    #[arg(long, value_name = "NAME")]
    target: Vec<String>,
    /// How to print the nodes.
    #[arg(long, value_name = "FORMAT", default_value = "table")]
    output: Format,
    /// How old the answer may be at most, such as 5m; 0s asks AWS now [default: the gateway's].
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    max_age: Option<Duration>,
    /// How much older it may be while AWS is asked or fails [default: the gateway's].
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    max_stale: Option<Duration>,
    /// How many nodes to ask for in a message, from 1 to 1000 [default: 50].
    #[arg(long, value_name = "N")]
    page_size: Option<i32>,
    /// How long it may take in all [default: as long as it takes].
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    timeout: Option<Duration>,
}

/// A filter as it is written on the command line.
#[derive(Debug, Clone)]
struct Filter(InstanceInformationStringFilter);

impl FromStr for Filter {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, &'static str> {
        let (key, values) = text.split_once('=').ok_or("a filter is KEY=VALUE[,VALUE...]")?;
        let values = values.split(',').map(str::to_owned).collect();
        Ok(Self(InstanceInformationStringFilter { key: Some(key.to_owned()), values }))
    }
}

impl Args {
    pub(super) async fn run(self) -> Result<(), CliError> {
        let mut last = None;
        // The call ends with the future that makes it, at the gateway too.
        match self.timeout {
            None => self.list(&mut last).await,
            Some(timeout) => match time::timeout(timeout, self.list(&mut last)).await {
                Ok(outcome) => outcome,
                Err(_elapsed) => Err(last.unwrap_or(CliError::Timeout)),
            },
        }
    }

    /// Leaves in `last` why it waits, while it does.
    async fn list(self, last: &mut Option<CliError>) -> Result<(), CliError> {
        let mut client = Client::new(self.server.connect().await?).max_decoding_message_size(usize::MAX);
        // Where several may be meant, each node says which it is of.
        let has_targets = self.target.len() > 1 || self.target.iter().any(|target| target.contains('*'));
        let age = |age: Option<Duration>| age.and_then(|age| age.try_into().ok());
        let mut request = StreamInstanceInformationRequest {
            filters: self.filter.into_iter().map(|filter| filter.0).collect(),
            page_size: self.page_size,
            targets: self.target,
            read_options: Some(ReadOptions { max_age: age(self.max_age), max_stale: age(self.max_stale) }),
            ..Default::default()
        };
        let mut begin = || Output::new(self.output, has_targets, io::stdout().lock());
        // A table comes at the end; other formats would be written over where both go to one terminal.
        let is_mixed = self.output != Format::Table && io::stdout().is_terminal();
        let mut progress = Progress { nodes: 0, is_shown: io::stderr().is_terminal() && !is_mixed };
        let mut listing = Listing { tokens: BTreeMap::new(), unreachable: Vec::new(), tries: 0, output: None };
        let outcome = loop {
            let nodes = progress.nodes;
            match listing.read(&mut client, request.clone(), &mut begin, &mut progress).await {
                Ok(()) if listing.unreachable.is_empty() => break Ok(()),
                Ok(()) => break Err(CliError::Unreachable(mem::take(&mut listing.unreachable))),
                Err(CliError::Call(status)) if listing.tries < TRIES => {
                    // Where it got on, it may try as often as at first.
                    listing.tries = if progress.nodes > nodes { 1 } else { listing.tries + 1 };
                    let Some(delay) = status.get_details_retry_info().and_then(|info| info.retry_delay) else {
                        break Err(CliError::Call(status));
                    };
                    *last = Some(CliError::Call(status));
                    time::sleep(delay).await;
                    request.resume_tokens = listing.tokens.values().cloned().collect();
                }
                Err(error) => break Err(error),
            }
        };
        if let (Err(CliError::Call(_)), [_, ..]) = (&outcome, &listing.unreachable[..]) {
            writeln!(io::stderr(), "could not be reached: {}", listing.unreachable.join(", "))?;
        }
        // What was received is printed even if more should have come.
        progress.finish()?;
        listing.output.map_or(Ok(()), Output::finish)?;
        outcome
    }
}

/// How far a listing was read, over all calls that it took.
struct Listing<W: io::Write> {
    /// The latest resume token of each target.
    tokens: BTreeMap<String, String>,
    unreachable: Vec<String>,
    tries: usize,
    /// None until there is an answer.
    output: Option<Output<W>>,
}

impl<W: io::Write> Listing<W> {
    /// Prints what one call brings.
    async fn read(
        &mut self,
        client: &mut Client,
        request: StreamInstanceInformationRequest,
        begin: &mut impl FnMut() -> Result<Output<W>, CliError>,
        progress: &mut Progress,
    ) -> Result<(), CliError> {
        self.unreachable.clear();
        let mut pages = client.stream_instance_information(request).await.map_err(failed)?.into_inner();
        let output = match &mut self.output {
            Some(output) => output,
            none => none.insert(begin()?),
        };
        while let Some(page) = pages.message().await.map_err(failed)? {
            for node in &page.instance_information_list {
                output.node(&page.target, node)?;
            }
            progress.add(page.instance_information_list.len())?;
            let told = |unreachable: Unreachable| format!("{} ({})", page.target, unreachable.message);
            self.unreachable.extend(page.unreachable.map(told));
            self.tokens.insert(page.target, page.resume_token);
        }
        Ok(())
    }
}

/// How far the listing is, on standard error where a person may be waiting.
struct Progress {
    nodes: usize,
    is_shown: bool,
}

impl Progress {
    fn add(&mut self, nodes: usize) -> io::Result<()> {
        self.nodes += nodes;
        if self.is_shown { write!(io::stderr(), "\r{} nodes", self.nodes) } else { Ok(()) }
    }

    fn finish(&self) -> io::Result<()> {
        if self.is_shown { write!(io::stderr(), "\r\x1b[K") } else { Ok(()) }
    }
}
