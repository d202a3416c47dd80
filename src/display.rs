//! Wrappers by which log lines and error messages display errors, file names and settings: in one line, and without
//! secrets.

mod error_chain;
mod file_name;
mod shown;

pub use self::{error_chain::ErrorChain, file_name::FileName, shown::Shown};
