//! `install`: puts this binary into a folder that the app's container shares, where its hook can run it.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

/// Flags of `install`.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// The folder, such as an emptyDir that both containers mount
    #[arg(value_name = "DIR")]
    pub folder: PathBuf,
}

/// The name of the copy.
const NAME: &str = "gracekeeper";

/// Every user may run it, and none may change it.
const MODE: u32 = 0o555;

/// Copies the running binary into the folder, and says where it is. The copy appears as a whole, and replaces an
/// older one.
///
/// # Errors
/// When it cannot be written there.
pub fn run(args: &Args) -> anyhow::Result<PathBuf> {
    let to = args.folder.join(NAME);
    let made = args.folder.join(format!(".{NAME}.{}", std::process::id()));
    let copied = copy(&made).and_then(|()| fs::rename(&made, &to));
    if copied.is_err() {
        let _ = fs::remove_file(&made);
    }
    copied.with_context(|| {
        format!(
            "{} cannot be written; mount a volume at {} that user {} may write to",
            to.display(),
            args.folder.display(),
            user()
        )
    })?;
    Ok(to)
}

fn copy(to: &Path) -> io::Result<()> {
    let mut from = fs::File::open("/proc/self/exe")?;
    let mut made = fs::File::create(to)?;
    io::copy(&mut from, &mut made)?;
    made.set_permissions(fs::Permissions::from_mode(MODE))?;
    made.sync_all()
}

/// The user that this process runs as.
fn user() -> String {
    use std::os::unix::fs::MetadataExt as _;
    fs::metadata("/proc/self").map_or_else(|_| "?".to_owned(), |me| me.uid().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_can_be_run_by_every_user_and_replaces_an_older_one() {
        let folder = tempfile::tempdir().unwrap();
        let args = Args {
            folder: folder.path().to_owned(),
        };
        fs::write(folder.path().join(NAME), "old").unwrap();
        let copy = run(&args).unwrap();
        let own = fs::read("/proc/self/exe").unwrap();
        assert_eq!(fs::read(&copy).unwrap().len(), own.len());
        assert_eq!(
            fs::metadata(&copy).unwrap().permissions().mode() & 0o777,
            MODE
        );
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_missing_folder_is_an_error_with_a_remedy() {
        let args = Args {
            folder: "/nowhere/at/all".into(),
        };
        let message = format!("{:#}", run(&args).unwrap_err());
        assert!(
            message.contains("/nowhere/at/all") && message.contains("mount"),
            "{message}"
        );
    }
}
