use std::{
    fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use super::error::CliError;
use crate::proto;

/// Write the contract of this program, to generate clients from.
///
/// Writes the .proto files, a service config for clients, and descriptors.binpb: a FileDescriptorSet of the same files,
/// their imports and the error details. Replaces existing files, and prints the paths.
#[derive(Debug, clap::Args)]
#[allow(clippy::doc_markdown, reason = "help texts show no Markdown")]
pub(super) struct Args {
    /// The directory to write to; created if missing.
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
