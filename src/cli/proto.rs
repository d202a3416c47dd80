use std::{
    fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
};

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
        let descriptors = proto::descriptors(&[proto::FILE_DESCRIPTOR_SET, tonic_types::pb::FILE_DESCRIPTOR_SET])?;
        self.write("descriptors.binpb", &descriptors.encode_to_vec())
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
