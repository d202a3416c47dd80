#![allow(clippy::doc_markdown, reason = "help texts show no Markdown")]

use std::{
    collections::BTreeMap,
    io::{self, IsTerminal as _, StdoutLock, Write as _},
    time::Duration,
};

use clap::builder::NonEmptyStringValueParser;
use tokio::time;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use super::{
    client::{Connection, Server},
    error::CliError,
    filter::Filter,
    output::{Format, Options, Output},
    terminal::harmless,
};
use crate::{
    display::ErrorChain,
    proto::{
        ReadOptions, StreamInstanceInformationRequest, Unreachable,
        instance_information_service_client::InstanceInformationServiceClient,
    },
};

/// A client of a gateway.
pub(super) type Client = InstanceInformationServiceClient<Connection>;

/// The most consecutive attempts without progress.
const TRIES: usize = 5;
/// Clears the line of the cursor.
const CLEAR: &str = "\r\x1b[K";

/// List managed nodes from a gateway.
///
/// Prints every node that matches all filters, in AWS's order. Nodes of several targets are printed as they arrive; if
/// some targets cannot be reached, the exit code is 3. If the gateway advises to retry later, the command waits and
/// resumes the listing; on a terminal it prints the reason. Permanent errors, such as denied access, are reported at
/// once. If the command fails half-way, it prints the nodes that it received and exits with 1; a JSON document then has
/// the member "error". Control characters are not sent to a terminal.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    server: Server,
    /// A condition that every node must meet; may be repeated. KEY is PingStatus, PlatformTypes, InstanceIds, tag:NAME
    /// or another of AWS's filter keys; one of the values must match. Blanks around the key and the values are ignored.
    /// A backslash escapes a comma, an equals sign, a blank or a backslash: 'tag:Name=a\,b' has one value.
    #[arg(long, value_name = "KEY=VALUE[,VALUE...]")]
    filter: Vec<Filter>,
    /// A target, or a glob such as 'prod-*'; may be repeated [default: the gateway's default target].
    #[arg(long, value_name = "NAME", value_parser = NonEmptyStringValueParser::new())]
    target: Vec<String>,
    /// The output format.
    #[arg(long, value_name = "FORMAT", default_value = "table")]
    output: Format,
    /// The maximum age of the answer, such as 5m; 0s asks AWS now [default: the gateway's].
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    max_age: Option<Duration>,
    /// How much older the answer may be while AWS is asked or fails [default: the gateway's].
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    max_stale: Option<Duration>,
    /// The number of nodes in a message, from 1 to 1000 [default: 50].
    #[arg(long, value_name = "N")]
    page_size: Option<i32>,
    /// The timeout of the command [default: none].
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    timeout: Option<Duration>,
}

impl Args {
    pub(super) async fn run(self) -> Result<(), CliError> {
        let mut listing = Listing::new(&self);
        let timeout = self.timeout;
        let reading = listing.read(self);
        // Dropping the future cancels the call, at the gateway too.
        let outcome = match timeout {
            None => reading.await,
            Some(timeout) => time::timeout(timeout, reading).await.unwrap_or(Err(CliError::Timeout)),
        };
        listing.finish(outcome)
    }
}

/// The state of a listing, over all calls that read it.
struct Listing {
    format: Format,
    options: Options,
    /// `None` until the first answer.
    output: Option<Output<StdoutLock<'static>>>,
    progress: Progress,
    /// The latest resume token of each target.
    tokens: BTreeMap<String, String>,
    unreachable: Vec<String>,
    tries: usize,
    /// The last error after which the command retried.
    postponed: Option<Box<Status>>,
}

impl Listing {
    fn new(args: &Args) -> Self {
        let is_terminal = io::stdout().is_terminal();
        // A table is printed at the end. In other formats the count would overwrite rows if both go to the terminal.
        let is_mixed = args.output != Format::Table && is_terminal;
        let reports = io::stderr().is_terminal();
        Self {
            format: args.output,
            // With several targets, the output names the target of each node.
            options: Options {
                has_targets: args.target.len() > 1 || args.target.iter().any(|target| target.contains('*')),
                is_terminal,
            },
            output: None,
            progress: Progress { nodes: 0, reports, is_shown: reports && !is_mixed },
            tokens: BTreeMap::new(),
            unreachable: Vec::new(),
            tries: 0,
            postponed: None,
        }
    }

    /// Reads and prints the listing, with as many calls as needed.
    async fn read(&mut self, args: Args) -> Result<(), CliError> {
        let Args { server, filter, target, max_age, max_stale, page_size, .. } = args;
        let mut client = Client::new(server.connect().await?).max_decoding_message_size(usize::MAX);
        let age = |age: Option<Duration>| age.and_then(|age| age.try_into().ok());
        let mut request = StreamInstanceInformationRequest {
            filters: filter.into_iter().map(|filter| filter.0).collect(),
            page_size,
            targets: target,
            read_options: Some(ReadOptions { max_age: age(max_age), max_stale: age(max_stale) }),
            ..Default::default()
        };
        loop {
            let nodes = self.progress.nodes;
            let error = match self.call(&mut client, &server, request.clone()).await {
                Ok(()) if self.unreachable.is_empty() => return Ok(()),
                Ok(()) => return Err(CliError::Unreachable(self.unreachable.clone())),
                Err(CliError::Call(status)) => status,
                Err(error) => return Err(error),
            };
            // After progress, all attempts are available again.
            self.tries = if self.progress.nodes > nodes { 1 } else { self.tries + 1 };
            let Some(delay) = postponement(&error).filter(|_| self.tries <= TRIES) else {
                return Err(CliError::Call(error));
            };
            self.progress.wait(&error, delay)?;
            self.postponed = Some(error);
            time::sleep(delay).await;
            request.resume_tokens = self.tokens.values().cloned().collect();
        }
    }

    /// Prints the nodes of one call.
    async fn call(
        &mut self,
        client: &mut Client,
        server: &Server,
        request: StreamInstanceInformationRequest,
    ) -> Result<(), CliError> {
        self.unreachable.clear();
        let failed = |status| server.failed(status);
        let mut pages = client.stream_instance_information(request).await.map_err(failed)?.into_inner();
        let output = match &mut self.output {
            Some(output) => output,
            none => none.insert(Output::new(self.format, self.options, io::stdout().lock())?),
        };
        while let Some(page) = pages.message().await.map_err(failed)? {
            for node in &page.instance_information_list {
                output.node(&page.target, node)?;
            }
            self.progress.add(page.instance_information_list.len())?;
            let describe = |unreachable: Unreachable| harmless(&format!("{} ({})", page.target, unreachable.message));
            self.unreachable.extend(page.unreachable.map(describe));
            self.tokens.insert(page.target, page.resume_token);
        }
        Ok(())
    }

    /// Prints the rest of the output, even if the listing is incomplete.
    fn finish(self, outcome: Result<(), CliError>) -> Result<(), CliError> {
        self.progress.finish()?;
        let outcome = match outcome {
            // The reason for the wait explains more than the timeout.
            Err(CliError::Timeout) => Err(self.postponed.map_or(CliError::Timeout, CliError::Call)),
            outcome => outcome,
        };
        if let (Err(CliError::Call(_)), [_, ..]) = (&outcome, &self.unreachable[..]) {
            writeln!(io::stderr(), "could not be reached: {}", self.unreachable.join(", "))?;
        }
        let why = outcome.as_ref().err().map(|error| ErrorChain(error).to_string());
        self.output.map_or(Ok(()), |output| output.finish(why.as_deref()))?;
        outcome
    }
}

/// Returns how long to wait before a retry, or `None` if the gateway advises nothing or the error is permanent.
/// Permanent errors carry advice, too: when the gateway asks AWS again.
fn postponement(status: &Status) -> Option<Duration> {
    let is_transient = match status.code() {
        Code::ResourceExhausted => true,
        Code::Unavailable => status.get_details_error_info().is_none_or(|info| info.reason != "AWS_CREDENTIALS"),
        _ => false,
    };
    status.get_details_retry_info()?.retry_delay.filter(|_| is_transient)
}

/// Reports progress on standard error if it is a terminal.
struct Progress {
    nodes: usize,
    /// Whether standard error is a terminal.
    reports: bool,
    /// Whether the count of nodes is shown on it.
    is_shown: bool,
}

impl Progress {
    fn add(&mut self, nodes: usize) -> io::Result<()> {
        self.nodes += nodes;
        if self.is_shown { write!(io::stderr(), "\r{} nodes", self.nodes) } else { Ok(()) }
    }

    fn wait(&self, error: &Status, delay: Duration) -> io::Result<()> {
        if !self.reports {
            return Ok(());
        }
        let clear = if self.is_shown { CLEAR } else { "" };
        let message = harmless(error.message());
        writeln!(io::stderr(), "{clear}the gateway answered {:?}: {message}; retrying in {delay:.1?}", error.code())
    }

    fn finish(&self) -> io::Result<()> {
        if self.is_shown { write!(io::stderr(), "{CLEAR}") } else { Ok(()) }
    }
}
