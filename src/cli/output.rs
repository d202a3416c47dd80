//! Nodes as people and programs read them. The JSON is ProtoJSON, which is AWS's but for times.

use std::io::{self, Write};

use prost::Message as _;
use prost_reflect::{DescriptorPool, DynamicMessage, MessageDescriptor};
use serde_json::Value;

use super::CliError;
use crate::proto::{FILE_DESCRIPTOR_SET, InstanceInformation};

/// The column of the target, and its member in JSON: not one of AWS's, and so not in AWS's spelling.
const TARGET: &str = "target";

/// How nodes are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Format {
    /// Columns for people: the members that tell nodes apart.
    Table,
    /// One JSON document, as AWS would answer it.
    Json,
    /// A JSON object a line.
    Jsonl,
    /// Comma-separated values: every member, with a header.
    Csv,
}

/// What a table shows: first the target, where several are listed.
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

/// Prints nodes one after the other, a table at the end: its columns are as wide as its widest cells.
pub(super) struct Output<W: Write> {
    to: Sink<W>,
    node: MessageDescriptor,
    has_targets: bool,
}

enum Sink<W: Write> {
    Table { to: W, rows: Vec<[String; COLUMNS.len()]> },
    Json { to: W, is_first: bool },
    Jsonl { to: W },
    Csv { to: Box<csv::Writer<W>> },
}

impl<W: Write> Output<W> {
    /// Begins; `has_targets` adds to each node the target that it is of.
    pub(super) fn new(format: Format, has_targets: bool, mut to: W) -> Result<Self, CliError> {
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
                let target = has_targets.then(|| TARGET.to_owned());
                to.write_record(target.into_iter().chain(members)).map_err(unwritten)?;
                Sink::Csv { to: Box::new(to) }
            }
        };
        Ok(Self { to, node, has_targets })
    }

    /// Prints one node of a target.
    pub(super) fn node(&mut self, target: &str, node: &InstanceInformation) -> Result<(), CliError> {
        let node = DynamicMessage::decode(self.node.clone(), node.encode_to_vec().as_slice())?;
        let mut json = serde_json::to_value(&node).map_err(io::Error::from)?;
        if let Some(members) = json.as_object_mut().filter(|_| self.has_targets) {
            members.insert(TARGET.to_owned(), target.into());
        }
        match &mut self.to {
            Sink::Table { rows, .. } => {
                // Nodes name themselves: what they say must not steer the terminal.
                rows.push(COLUMNS.map(|column| cell(&json, column).replace(char::is_control, "\u{fffd}")));
            }
            Sink::Json { to, is_first } => {
                to.write_all(if std::mem::take(is_first) { b"\n" } else { b",\n" })?;
                serde_json::to_writer(to, &json).map_err(io::Error::from)?;
            }
            Sink::Jsonl { to } => {
                serde_json::to_writer(&mut *to, &json).map_err(io::Error::from)?;
                writeln!(to)?;
            }
            Sink::Csv { to } => {
                let cells = self.node.fields().map(|field| cell(&json, field.json_name()));
                let target = self.has_targets.then(|| target.to_owned());
                to.write_record(target.into_iter().chain(cells)).map_err(unwritten)?;
            }
        }
        Ok(())
    }

    /// Prints what is left.
    pub(super) fn finish(self) -> Result<(), CliError> {
        match self.to {
            Sink::Table { mut to, rows } => {
                let width = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(String::len).max();
                let widths: [usize; COLUMNS.len()] = std::array::from_fn(|column| width(column).unwrap_or_default());
                let left_out = usize::from(!self.has_targets);
                for row in rows {
                    let cells = row.iter().zip(widths).skip(left_out).map(|(cell, width)| format!("{cell:width$}"));
                    writeln!(to, "{}", cells.collect::<Vec<_>>().join("  ").trim_end())?;
                }
                to.flush()?;
            }
            Sink::Json { mut to, .. } => writeln!(to, "\n]}}")?,
            Sink::Jsonl { mut to } => to.flush()?,
            Sink::Csv { mut to } => to.flush()?,
        }
        Ok(())
    }
}

/// The I/O error under a CSV error, which may be a closed pipe.
fn unwritten(error: csv::Error) -> io::Error {
    match error.into_kind() {
        csv::ErrorKind::Io(error) => error,
        other => io::Error::other(format!("{other:?}")),
    }
}

/// A member as text: empty where it is absent, JSON where it has parts.
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
    use crate::proto::InstanceAggregatedAssociationOverview;

    fn printed(format: Format) -> String {
        printed_with(format, false)
    }

    fn printed_with(format: Format, has_targets: bool) -> String {
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
        let mut bytes = Vec::new();
        let mut output = Output::new(format, has_targets, &mut bytes).unwrap();
        for node in &nodes {
            output.node("prod-eu", node).unwrap();
        }
        output.finish().unwrap();
        String::from_utf8(bytes).unwrap()
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
        let table = printed_with(Format::Table, true);
        assert!(table.starts_with("target   InstanceId") && table.ends_with("\nprod-eu  mi-2\n"), "{table}");
        let json: Value = serde_json::from_str(&printed_with(Format::Json, true)).unwrap();
        assert_eq!(json["InstanceInformationList"][1], serde_json::json!({"InstanceId": "mi-2", "target": "prod-eu"}));
        assert!(printed_with(Format::Csv, true).starts_with("target,InstanceId,"));
        assert!(!printed(Format::Table).contains("target"));
    }

    #[test]
    fn a_table_shows_no_control_characters() {
        let mut bytes = Vec::new();
        let mut output = Output::new(Format::Table, false, &mut bytes).unwrap();
        let name = Some("evil\u{1b}[2J".into());
        output.node("default", &InstanceInformation { computer_name: name, ..Default::default() }).unwrap();
        output.finish().unwrap();
        assert!(!bytes.contains(&0x1b));
    }

    #[test]
    fn a_table_lines_up_its_columns() {
        let text = printed(Format::Table);
        let at: Vec<_> = text.lines().take(2).map(|line| line.find("PlatformName").or(line.find("Red"))).collect();
        assert_eq!(at[0], at[1]);
        assert_eq!(text.lines().last(), Some("mi-2"));
    }
}
