use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use arc_swap::ArcSwap;
use tokio::{fs, task::JoinSet, time};
use tracing::{error, info};

use crate::display::{ErrorChain, FileName};

/// A value that is built from files, and again when they change. If the new files cannot be used, the old value stays.
#[derive(Debug)]
pub(super) struct Watched<T> {
    current: Arc<ArcSwap<T>>,
    /// Ends when it is dropped.
    _watching: JoinSet<()>,
}

/// Why a file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The file could not be read.
    #[error("could not read {}", FileName(.0))]
    Read(PathBuf, #[source] io::Error),
    /// The file is not what it should be.
    #[error("{} cannot be used: {reason}", file.display())]
    Content {
        /// The file.
        file: PathBuf,
        /// What is wrong with the file.
        reason: String,
    },
}

impl<T: Send + Sync + 'static> Watched<T> {
    /// Builds the value from the contents of the files, in their order, and again when they have changed, for which it
    /// looks `every` so often.
    ///
    /// # Errors
    /// [`FileError::Read`] if a file cannot be read, and what `make` returns.
    pub(super) async fn load(
        files: Vec<PathBuf>,
        every: Duration,
        make: impl Fn(&[Vec<u8>]) -> Result<T, FileError> + Send + 'static,
    ) -> Result<Self, FileError> {
        let mut seen = read(&files).await?;
        let current = Arc::new(ArcSwap::from_pointee(make(&seen)?));
        let watched = Arc::clone(&current);
        let watching = async move {
            let named = files.first().map(|file| file.display().to_string()).unwrap_or_default();
            let mut failure = None;
            let mut is_reported = false;
            loop {
                time::sleep(every).await;
                let new = match read(&files).await {
                    Ok(new) if new == seen => Ok(None),
                    Ok(new) => make(&new).map(|value| Some((new, value))),
                    Err(error) => Err(error),
                };
                match new {
                    Ok(None) => failure = None,
                    Ok(Some((new, value))) => {
                        watched.store(Arc::new(value));
                        (seen, failure) = (new, None);
                        info!(file = named, "files changed and are used from now on");
                    }
                    Err(error) => {
                        // Files are often replaced one by one: an error is reported when it is seen twice in a row,
                        // once.
                        let failed = Some(error.to_string());
                        is_reported &= failed == failure;
                        if !is_reported && failed == failure {
                            is_reported = true;
                            let error = ErrorChain(&error);
                            error!(%error, file = named, "files changed and cannot be used: the old ones stay in use");
                        }
                        failure = failed;
                    }
                }
            }
        };
        Ok(Self { current, _watching: JoinSet::from_iter([watching]) })
    }

    /// Returns the value of the files that were loaded last.
    pub(super) fn get(&self) -> Arc<T> {
        self.current.load_full()
    }
}

async fn read(files: &[PathBuf]) -> Result<Vec<Vec<u8>>, FileError> {
    let mut contents = Vec::with_capacity(files.len());
    for file in files {
        let failed = |error| FileError::Read(Path::to_owned(file), error);
        contents.push(fs::read(file).await.map_err(failed)?);
    }
    Ok(contents)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    // Paused time passes only while no file is being read: a sleep covers as many looks as it is long.
    #[tokio::test(start_paused = true)]
    async fn a_changed_file_is_used_and_a_bad_one_is_not() {
        let file = std::env::temp_dir().join(format!("ssm-gateway-watched-{}", std::process::id()));
        let number = {
            let file = file.clone();
            move |contents: &[Vec<u8>]| {
                let text = String::from_utf8_lossy(&contents[0]).into_owned();
                text.parse::<u32>()
                    .map_err(|error| FileError::Content { file: file.clone(), reason: error.to_string() })
            }
        };
        let load = || Watched::load(vec![file.clone()], SECOND / 1000, number.clone());
        assert!(matches!(load().await, Err(FileError::Read(..))));
        std::fs::write(&file, "one").unwrap();
        assert!(matches!(load().await, Err(FileError::Content { .. })));
        std::fs::write(&file, "1").unwrap();
        let watched = load().await.unwrap();
        let becomes = async |content: &str, value| {
            std::fs::write(&file, content).unwrap();
            while *watched.get() != value {
                time::sleep(SECOND / 1000).await;
            }
        };
        time::timeout(10 * SECOND, becomes("2", 2)).await.unwrap();
        std::fs::write(&file, "two").unwrap();
        time::sleep(SECOND / 20).await;
        assert_eq!(*watched.get(), 2);
        time::timeout(10 * SECOND, becomes("3", 3)).await.unwrap();
        std::fs::remove_file(&file).unwrap();
        time::sleep(SECOND / 20).await;
        assert_eq!(*watched.get(), 3);
    }
}
