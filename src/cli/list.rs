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
    CliError,
    client::{Connection, Server},
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

/// How often in a row a call is tried that the gateway wants to be tried later.
const TRIES: usize = 5;
/// Clears the line that the cursor is in.
const CLEAR: &str = "\r\x1b[K";

/// List managed nodes, asking a gateway.
///
/// Prints every node that meets all filters, in the order AWS gives them. Over several targets, nodes of different targets
/// come as they are answered, and the command ends with what could not be reached. Where the gateway says to come back
/// later, it does, and goes on where it was; on a terminal it says why it waits. What does not pass with time, such as an
/// access that is denied, is reported at once. Should it fail half-way, what was received is printed, and the exit code is not
/// 0; a JSON document then has the reason as its member "error". To a terminal, characters that would steer it are not sent.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    server: Server,
    /// A condition that nodes must meet; may be repeated, and all must be met. KEY is PingStatus, PlatformTypes,
    /// InstanceIds, tag:NAME or another of AWS's filter keys; one of the values must match. Blanks around the key and the values
    /// do not count. A backslash makes a comma, an equals sign, a blank or a backslash part of the text: 'tag:Name=a\,b' is one
    /// value.
    #[arg(long, value_name = "KEY=VALUE[,VALUE...]")]
    filter: Vec<Filter>,
    /// A target to ask, or a glob such as 'prod-*'; may be repeated [default: the gateway's default target].
    #[arg(long, value_name = "NAME", value_parser = NonEmptyStringValueParser::new())]
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

impl Args {
    pub(super) async fn run(self) -> Result<(), CliError> {
        let mut listing = Listing::new(&self);
        let timeout = self.timeout;
        let reading = listing.read(self);
        // The call ends with the future that makes it, at the gateway too.
        let outcome = match timeout {
            None => reading.await,
            Some(timeout) => time::timeout(timeout, reading).await.unwrap_or(Err(CliError::Timeout)),
        };
        listing.finish(outcome)
    }
}

/// How far a listing was read, over all calls that it took.
struct Listing {
    format: Format,
    options: Options,
    /// None until there is an answer.
    output: Option<Output<StdoutLock<'static>>>,
    progress: Progress,
    /// The latest resume token of each target.
    tokens: BTreeMap<String, String>,
    unreachable: Vec<String>,
    tries: usize,
    /// Why the gateway wanted to be asked later, last.
    postponed: Option<Box<Status>>,
}

impl Listing {
    fn new(args: &Args) -> Self {
        let is_terminal = io::stdout().is_terminal();
        // A table comes at the end; other formats would be written over where both go to one terminal.
        let is_mixed = args.output != Format::Table && is_terminal;
        let reports = io::stderr().is_terminal();
        Self {
            format: args.output,
            // Where several may be meant, each node says which it is of.
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

    /// Prints what as many calls bring as it takes.
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
            // Where it got on, it may try as often as at first.
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

    /// Prints what one call brings.
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
            let told = |unreachable: Unreachable| harmless(&format!("{} ({})", page.target, unreachable.message));
            self.unreachable.extend(page.unreachable.map(told));
            self.tokens.insert(page.target, page.resume_token);
        }
        Ok(())
    }

    /// Prints what is left: what was received is printed even if more should have come.
    fn finish(self, outcome: Result<(), CliError>) -> Result<(), CliError> {
        self.progress.finish()?;
        let outcome = match outcome {
            // That it waited says more than that it waited too long.
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

/// Returns how long to wait before the same call may succeed: None where the gateway advises nothing, or where time does not help.
/// A refusal carries advice, too, about when the gateway asks AWS again.
fn postponement(status: &Status) -> Option<Duration> {
    let passes = match status.code() {
        Code::ResourceExhausted => true,
        Code::Unavailable => status.get_details_error_info().is_none_or(|info| info.reason != "AWS_CREDENTIALS"),
        _ => false,
    };
    status.get_details_retry_info()?.retry_delay.filter(|_| passes)
}

/// How far the listing is, on standard error where a person may be waiting.
struct Progress {
    nodes: usize,
    /// Whether standard error is a terminal.
    reports: bool,
    /// Whether the count of nodes is shown there.
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
        let (clear, message) = (if self.is_shown { CLEAR } else { "" }, harmless(error.message()));
        writeln!(io::stderr(), "{clear}the gateway answered {:?}: {message}; trying again in {delay:.1?}", error.code())
    }

    fn finish(&self) -> io::Result<()> {
        if self.is_shown { write!(io::stderr(), "{CLEAR}") } else { Ok(()) }
    }
}
