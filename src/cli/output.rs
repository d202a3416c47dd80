//! The output formats of `list`. The JSON is ProtoJSON, which differs from AWS's only in times. Nodes choose their own
//! names: files get the names unmodified, a terminal gets no control characters.

use std::io::{self, Write};

use prost::Message as _;
use prost_reflect::{DescriptorPool, DynamicMessage, MessageDescriptor};
use serde_json::Value;

use super::{
    error::CliError,
    terminal::{harmless, harmless_json, width},
};
use crate::proto::{FILE_DESCRIPTOR_SET, InstanceInformation};

/// The column, and the member in JSON, of the target. In lower case, because the member is not AWS's.
const TARGET: &str = "target";

/// An output format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Format {
    /// Columns for people: the most useful members.
    Table,
    /// One JSON document in AWS's format; if the listing fails half-way, with the nodes received so far and the member
    /// "error".
    Json,
    /// One JSON object per line.
    Jsonl,
    /// Comma-separated values: every member, with a header. Values are unmodified: import them as text, because a
    /// spreadsheet evaluates values that begin with = + - or @ as formulas.
    Csv,
}

/// The columns of a table; the target only if several are listed.
const COLUMNS: [&str; 8] = [
    "target",
    "InstanceId",
    "PingStatus",
    "PlatformType",
    "PlatformName",
    "AgentVersion",
    "LastPingDateTime",
    "ComputerName",
];

/// Prints nodes one by one; a table at the end, because its columns are as wide as the widest cells.
pub(super) struct Output<W: Write> {
    to: Sink<W>,
    node: MessageDescriptor,
    options: Options,
}

#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Options {
    /// Whether the output names the target of each node.
    pub(super) has_targets: bool,
    /// Whether the output is a terminal, which must not get control characters. A table never has any.
    pub(super) is_terminal: bool,
}

enum Sink<W: Write> {
    Table { to: W, rows: Vec<[String; COLUMNS.len()]> },
    Json { to: W, is_first: bool },
    Jsonl { to: W },
    Csv { to: Box<csv::Writer<W>> },
}

impl<W: Write> Output<W> {
    /// Starts the output, and prints whatever precedes the first node.
    pub(super) fn new(format: Format, options: Options, mut to: W) -> Result<Self, CliError> {
        let pool = DescriptorPool::decode(FILE_DESCRIPTOR_SET)?;
        let node = pool.get_message_by_name("ssm_gateway.v1.InstanceInformation").ok_or(CliError::Contract)?;
        let to = match format {
            Format::Table => Sink::Table { to, rows: vec![COLUMNS.map(str::to_owned)] },
            Format::Json => {
                write!(to, "{{\"InstanceInformationList\":[")?;
                Sink::Json { to, is_first: true }
            }
            Format::Jsonl => Sink::Jsonl { to },
            Format::Csv => {
                let mut to = csv::Writer::from_writer(to);
                let members = node.fields().map(|field| field.json_name().to_owned());
                let target = options.has_targets.then(|| TARGET.to_owned());
                to.write_record(target.into_iter().chain(members)).map_err(unwritten)?;
                Sink::Csv { to: Box::new(to) }
            }
        };
        Ok(Self { to, node, options })
    }

    /// Prints one node of a target.
    pub(super) fn node(&mut self, target: &str, node: &InstanceInformation) -> Result<(), CliError> {
        let node = DynamicMessage::decode(self.node.clone(), node.encode_to_vec().as_slice())?;
        let mut json = serde_json::to_value(&node).map_err(io::Error::from)?;
        let Options { has_targets, is_terminal } = self.options;
        if let Some(members) = json.as_object_mut().filter(|_| has_targets) {
            members.insert(TARGET.to_owned(), target.into());
        }
        let line = |json: &Value| if is_terminal { harmless_json(&json.to_string()) } else { json.to_string() };
        match &mut self.to {
            Sink::Table { rows, .. } => rows.push(COLUMNS.map(|column| harmless(&cell(&json, column)))),
            Sink::Json { to, is_first } => {
                let before = if std::mem::take(is_first) { "\n" } else { ",\n" };
                write!(to, "{before}{}", line(&json))?;
            }
            Sink::Jsonl { to } => writeln!(to, "{}", line(&json))?,
            Sink::Csv { to } => {
                let target = has_targets.then(|| target.to_owned());
                let cells = target.into_iter().chain(self.node.fields().map(|field| cell(&json, field.json_name())));
                let cells = cells.map(|cell| if is_terminal { harmless(&cell) } else { cell });
                to.write_record(cells).map_err(unwritten)?;
            }
        }
        Ok(())
    }

    /// Prints the rest; in JSON with the error, if the listing is incomplete.
    pub(super) fn finish(self, error: Option<&str>) -> Result<(), CliError> {
        match self.to {
            Sink::Table { mut to, rows } => {
                let widest =
                    |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| width(cell)).max();
                let widths: [usize; COLUMNS.len()] = std::array::from_fn(|column| widest(column).unwrap_or_default());
                let left_out = usize::from(!self.options.has_targets);
                for row in rows {
                    let cells = row.iter().zip(widths).skip(left_out);
                    let cells =
                        cells.map(|(cell, widest)| format!("{cell}{:1$}", "", widest.saturating_sub(width(cell))));
                    writeln!(to, "{}", cells.collect::<Vec<_>>().join("  ").trim_end())?;
                }
                to.flush()?;
            }
            Sink::Json { mut to, .. } => match error {
                None => writeln!(to, "\n]}}")?,
                Some(error) => writeln!(to, "\n],\"error\":{}}}", harmless_json(&Value::from(error).to_string()))?,
            },
            Sink::Jsonl { mut to } => to.flush()?,
            Sink::Csv { mut to } => to.flush()?,
        }
        Ok(())
    }
}

/// Returns the I/O error under a CSV error, which may be a closed pipe.
fn unwritten(error: csv::Error) -> io::Error {
    match error.into_kind() {
        csv::ErrorKind::Io(error) => error,
        other => io::Error::other(format!("{other:?}")),
    }
}

/// Returns a member as text: empty if it is absent, JSON if it has parts.
fn cell(node: &Value, member: &str) -> String {
    match node.get(member) {
        None => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use prost_types::Timestamp;

    use super::*;
    use crate::{cli::terminal::is_unprintable, proto::InstanceAggregatedAssociationOverview};

    fn printed(format: Format) -> String {
        printed_with(format, Options::default())
    }

    const WITH_TARGETS: Options = Options { has_targets: true, is_terminal: false };

    fn printed_with(format: Format, options: Options) -> String {
        let overview = InstanceAggregatedAssociationOverview {
            detailed_status: Some("Success".into()),
            instance_association_status_aggregated_count: [("Success".to_owned(), 2)].into(),
        };
        let nodes = [
            InstanceInformation {
                instance_id: Some("i-1".into()),
                last_ping_date_time: Some(Timestamp { seconds: 1_496_315_446, nanos: 852_000_000 }),
                ip_address: Some(String::new()),
                platform_name: Some("Red, \"Hat\"".into()),
                association_overview: Some(overview),
                ..Default::default()
            },
            InstanceInformation { instance_id: Some("mi-2".into()), ..Default::default() },
        ];
        print(format, options, &nodes, None)
    }

    fn print(format: Format, options: Options, nodes: &[InstanceInformation], error: Option<&str>) -> String {
        let mut bytes = Vec::new();
        let mut output = Output::new(format, options, &mut bytes).unwrap();
        for node in nodes {
            output.node("prod-eu", node).unwrap();
        }
        output.finish(error).unwrap();
        String::from_utf8(bytes).unwrap()
    }

    fn named(name: &str) -> InstanceInformation {
        InstanceInformation {
            instance_id: Some("i-1".into()),
            platform_name: Some(name.into()),
            agent_version: Some("3.2".into()),
            computer_name: Some(name.into()),
            ..Default::default()
        }
    }

    #[test]
    fn json_is_one_document_in_aws_shape() {
        let json: Value = serde_json::from_str(&printed(Format::Json)).unwrap();
        let expected = serde_json::json!({"InstanceInformationList": [
            {
                "InstanceId": "i-1",
                "LastPingDateTime": "2017-06-01T11:10:46.852Z",
                "PlatformName": "Red, \"Hat\"",
                "IPAddress": "",
                "AssociationOverview": {
                    "DetailedStatus": "Success",
                    "InstanceAssociationStatusAggregatedCount": {"Success": 2},
                },
            },
            {"InstanceId": "mi-2"},
        ]});
        assert_eq!(json, expected);
    }

    #[test]
    fn jsonl_is_an_object_a_line() {
        let ids: Vec<Value> = printed(Format::Jsonl).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!((ids.len(), &ids[0]["InstanceId"], &ids[1]["InstanceId"]), (2, &"i-1".into(), &"mi-2".into()));
    }

    #[test]
    fn csv_has_every_member_and_quotes_where_it_must() {
        let text = printed(Format::Csv);
        let mut lines = csv::Reader::from_reader(text.as_bytes());
        assert_eq!(lines.headers().unwrap().len(), 22);
        let first = lines.records().next().unwrap().unwrap();
        assert_eq!((&first[0], &first[6]), ("i-1", "Red, \"Hat\""));
        let overview: Value = serde_json::from_str(&first[18]).unwrap();
        assert_eq!(overview["InstanceAssociationStatusAggregatedCount"]["Success"], 2);
    }

    #[test]
    fn of_several_targets_each_node_says_which_it_is_of() {
        let table = printed_with(Format::Table, WITH_TARGETS);
        assert!(table.starts_with("target   InstanceId") && table.ends_with("\nprod-eu  mi-2\n"), "{table}");
        let json: Value = serde_json::from_str(&printed_with(Format::Json, WITH_TARGETS)).unwrap();
        assert_eq!(json["InstanceInformationList"][1], serde_json::json!({"InstanceId": "mi-2", "target": "prod-eu"}));
        assert!(printed_with(Format::Csv, WITH_TARGETS).starts_with("target,InstanceId,"));
        assert!(!printed(Format::Table).contains("target"));
    }

    #[test]
    fn no_format_steers_a_terminal_and_files_keep_what_nodes_say() {
        let name = "evil\u{1b}[2J\u{9b}\u{202e}\u{2028},\n日本 e\u{301}";
        let at_terminal = Options { is_terminal: true, ..Options::default() };
        for format in [Format::Json, Format::Jsonl, Format::Csv, Format::Table] {
            let text = print(format, at_terminal, &[named(name)], Some(name));
            assert!(!text.replace('\n', "").contains(is_unprintable), "{format:?} {text}");
            assert!(text.contains("日本 e\u{301}"), "{text}");
        }
        let text = print(Format::Jsonl, at_terminal, &[named(name)], None);
        assert_eq!(serde_json::from_str::<Value>(&text).unwrap()["ComputerName"], name, "JSON is the same, escaped");
        assert!(print(Format::Jsonl, Options::default(), &[named(name)], None).contains("\u{202e}"));
        let text = print(Format::Csv, Options::default(), &[named(name)], None);
        assert_eq!(&csv::Reader::from_reader(text.as_bytes()).records().next().unwrap().unwrap()[6], name);
        assert!(!print(Format::Table, Options::default(), &[named(name)], None).contains(['\u{1b}', '\u{202e}']));
    }

    #[test]
    fn json_that_ends_early_is_json_and_says_why() {
        for nodes in [&[][..], &[named("a")], &[named("a"), named("b")]] {
            let json: Value =
                serde_json::from_str(&print(Format::Json, WITH_TARGETS, nodes, Some("it \"broke\""))).unwrap();
            assert_eq!(json["InstanceInformationList"].as_array().unwrap().len(), nodes.len());
            assert_eq!(json["error"], "it \"broke\"");
        }
        assert!(!printed(Format::Json).contains("error"));
    }

    #[test]
    fn formulas_are_written_to_csv_as_they_are() {
        let text = print(Format::Csv, Options::default(), &[named("=1+1")], None);
        assert!(text.lines().nth(1).unwrap().contains(",=1+1,"), "{text}");
    }

    #[test]
    fn a_table_lines_up_wide_and_combining_characters() {
        let table = print(Format::Table, Options::default(), &["日本語", "e\u{301}", "plain"].map(named), None);
        let before = |line: &str| width(line.split("3.2").next().unwrap());
        let columns: Vec<usize> = table.lines().skip(1).map(before).collect();
        assert_eq!(columns, [columns[0]; 3], "{table}");
        assert_eq!(columns[0], width(table.lines().next().unwrap().split("AgentVersion").next().unwrap()));
    }

    #[test]
    fn a_table_lines_up_its_columns() {
        let text = printed(Format::Table);
        let at: Vec<_> = text.lines().take(2).map(|line| line.find("PlatformName").or(line.find("Red"))).collect();
        assert_eq!(at[0], at[1]);
        assert_eq!(text.lines().last(), Some("mi-2"));
    }
}
