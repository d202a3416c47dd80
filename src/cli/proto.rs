use std::{
    fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use prost::Message as _;
use prost_types::FileDescriptorSet;

use super::CliError;
use crate::proto;

/// Write the contract that this program speaks, to generate clients from.
///
/// Writes the .proto files, a service config for clients, and descriptors.binpb: the same files as a FileDescriptorSet, with
/// all that they import and the details of errors. Files that are there are replaced. Prints what it wrote.
#[derive(Debug, clap::Args)]
#[allow(clippy::doc_markdown, reason = "help texts show no Markdown")]
pub(super) struct Args {
    /// The folder to write to, which is made if it is not there.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

impl Args {
    pub(super) fn run(self) -> Result<(), CliError> {
        for (name, text) in proto::FILES {
            self.write(name, text.as_bytes())?;
        }
        self.write("descriptors.binpb", &descriptors()?.encode_to_vec())
    }

    fn write(&self, name: &str, content: &[u8]) -> Result<(), CliError> {
        let path = self.out.join(name);
        let folder = path.parent().unwrap_or(Path::new("."));
        let written = fs::create_dir_all(folder).and_then(|()| fs::write(&path, content));
        written.map_err(|error| CliError::Write(path.clone(), error))?;
        writeln!(io::stdout(), "{}", path.display())?;
        Ok(())
    }
}

/// The contract and `google.rpc`, of which each file is there once, after all that it imports.
fn descriptors() -> Result<FileDescriptorSet, CliError> {
    let mut all = FileDescriptorSet::default();
    for set in [proto::FILE_DESCRIPTOR_SET, tonic_types::pb::FILE_DESCRIPTOR_SET] {
        for file in FileDescriptorSet::decode(set)?.file {
            if all.file.iter().all(|known| known.name != file.name) {
                all.file.push(file);
            }
        }
    }
    Ok(all)
}
