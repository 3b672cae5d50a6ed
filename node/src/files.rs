//! Small files that must be right: written whole and durably or not at all, read with their permissions checked.

use std::fs::{self, DirBuilder, File, Metadata, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

use polder_types::{ClusterFile, GenesisError, SigningKey};

/// The most bytes of any file that is read here.
const FILE_BYTES_MAX: u64 = 16 << 20;

/// Permission bits: anything at all for others than the owner, and what lets others write.
const BY_OTHERS: u32 = 0o077;
const WRITABLE_BY_OTHERS: u32 = 0o022;
const WRITABLE_BY_ALL: u32 = 0o002;
/// In such a folder only who owns a file may rename or delete it.
const STICKY: u32 = 0o1000;

/// A file that cannot be used, in words that say what to do.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It cannot be read or written.
    #[error("{path}: {error}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// Others than its owner may read a secret.
    #[error("{path}: others than its owner may read this key (mode {mode:04o}); run: chmod 600 {path}")]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// Others than its owner may change it.
    #[error(
        "{path}: others than its owner may change this {what} (mode {mode:04o}), and so decide what this program does; \
         run: chmod go-w {path}"
    )]
    Writable {
        /// The file or the folder.
        path: PathBuf,
        /// Which of them it is.
        what: &'static str,
        /// Its permission bits.
        mode: u32,
    },
    /// Another user than the one who runs this owns it, and so may change it.
    #[error(
        "{path}: this {what} belongs to user {owner}, not to user {user} who runs this program, nor to root: who owns \
         it decides what this program does; run: chown {user} {path}, or use a copy of your own"
    )]
    Foreign {
        /// The file or the folder.
        path: PathBuf,
        /// Which of them it is.
        what: &'static str,
        /// Whose it is.
        owner: u32,
        /// Who runs this.
        user: u32,
    },
    /// It does not hold what it should.
    #[error("{path}: {why}")]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong, and what would be right.
        why: String,
    },
}

/// Who may read a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readers {
    /// Its owner alone: mode 0600.
    Owner,
    /// Everybody: mode 0644.
    All,
}

/// Writes a file durably: beside its place first, synced, then renamed over it, then the folder synced. After a crash
/// it is the old one or the new one.
///
/// # Errors
///
/// When the file system refuses any of it.
pub fn write_durably(path: &Path, bytes: &[u8], readers: Readers) -> Result<(), FileError> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    let beside = PathBuf::from(beside);
    let write = || -> io::Result<()> {
        // A file left by a crash may have another mode: the mode is set only when the file is created.
        match fs::remove_file(&beside) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut options = OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        {
            use std::os::unix::fs::OpenOptionsExt as _;
            options.mode(if readers == Readers::Owner { 0o600 } else { 0o644 });
        }
        let mut file = options.open(&beside)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&beside, path)?;
        File::open(folder)?.sync_all()
    };
    write().map_err(|error| FileError::Io { path: path.to_owned(), error })
}

/// Makes a folder, and those above it, if it is not there: what is made, others may not write, and not read if it is for
/// its owner alone.
///
/// # Errors
///
/// When the file system refuses.
pub fn make_folder(path: &Path, readers: Readers) -> Result<(), FileError> {
    let mut builder = DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::DirBuilderExt as _;
        builder.mode(if readers == Readers::Owner { 0o700 } else { 0o755 });
    }
    builder.create(path).map_err(|error| FileError::Io { path: path.to_owned(), error })
}

/// Checks that not everybody may put files into a folder, or take them away: it is not writable by all, or files in it
/// are their owners' alone, as in `/tmp`; and it is the own one, or root's.
///
/// # Errors
///
/// [`FileError::Writable`], [`FileError::Foreign`], and when there is no such folder.
pub fn check_folder(path: &Path) -> Result<(), FileError> {
    let metadata = fs::metadata(path).map_err(|error| FileError::Io { path: path.to_owned(), error })?;
    check_owner(path, "folder", &metadata)?;
    let mode = mode(&metadata);
    let is_open = mode & WRITABLE_BY_ALL != 0 && mode & STICKY == 0;
    if is_open { Err(FileError::Writable { path: path.to_owned(), what: "folder", mode }) } else { Ok(()) }
}

/// Reads a text file of at most 16 MiB, which nobody but its owner may change, and which is the own one or root's.
///
/// # Errors
///
/// When others may change it, it is another's, it cannot be read, is larger, or is no UTF-8.
pub fn read_text(path: &Path) -> Result<String, FileError> {
    read_guarded(path, "file", |mode| {
        let path = path.to_owned();
        if mode & WRITABLE_BY_OTHERS == 0 { Ok(()) } else { Err(FileError::Writable { path, what: "file", mode }) }
    })
}

/// Reads a text file if the owner and the permission bits of what was opened are well.
fn read_guarded(
    path: &Path,
    what: &'static str,
    check: impl FnOnce(u32) -> Result<(), FileError>,
) -> Result<String, FileError> {
    let failed = |error| FileError::Io { path: path.to_owned(), error };
    // To open a pipe would wait for its other end.
    if !fs::metadata(path).map_err(failed)?.is_file() {
        return Err(FileError::Content { path: path.to_owned(), why: "this is no file".to_owned() });
    }
    let file = File::open(path).map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    check_owner(path, what, &metadata)?;
    check(mode(&metadata))?;
    let mut text = String::new();
    file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text).map_err(failed)?;
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(failed(io::Error::new(io::ErrorKind::FileTooLarge, "more than 16 MiB")));
    }
    Ok(text)
}

/// Whether it belongs to who runs this, or to root, who may do anything anyway.
#[cfg(unix)]
fn check_owner(path: &Path, what: &'static str, metadata: &Metadata) -> Result<(), FileError> {
    use std::os::unix::fs::MetadataExt as _;
    let (owner, user) = (metadata.uid(), rustix::process::geteuid().as_raw());
    if is_trusted(owner, user) { Ok(()) } else { Err(FileError::Foreign { path: path.to_owned(), what, owner, user }) }
}

/// Where files have no such owners, nothing can be said.
#[cfg(not(unix))]
fn check_owner(_: &Path, _: &'static str, _: &Metadata) -> Result<(), FileError> {
    Ok(())
}

/// Whether what this owner decides may be believed by this user.
#[cfg(unix)]
fn is_trusted(owner: u32, user: u32) -> bool {
    owner == user || owner == 0
}

#[cfg(unix)]
fn mode(metadata: &Metadata) -> u32 {
    use std::os::unix::fs::PermissionsExt as _;
    metadata.permissions().mode() & 0o7777
}

/// Where there are no such bits, nothing can be said.
#[cfg(not(unix))]
fn mode(_: &Metadata) -> u32 {
    0
}

/// Reads a signing key: 64 hexadecimal digits in a file that nobody but its owner may read, and that is the own one or
/// root's.
///
/// # Errors
///
/// When others may read it, it is another's, or it holds no key.
pub fn read_key(path: &Path) -> Result<SigningKey, FileError> {
    let text = read_guarded(path, "key", |mode| {
        if mode & BY_OTHERS == 0 { Ok(()) } else { Err(FileError::Exposed { path: path.to_owned(), mode }) }
    })?;
    SigningKey::from_hex(&text).ok_or_else(|| FileError::Content {
        path: path.to_owned(),
        why: "a key file holds 64 hexadecimal digits and nothing else".to_owned(),
    })
}

/// Writes a signing key as [`read_key`] reads it.
///
/// # Errors
///
/// When the file system refuses.
pub fn write_key(path: &Path, key: &SigningKey) -> Result<(), FileError> {
    let hex: String = key.seed().iter().map(|byte| format!("{byte:02x}")).collect();
    write_durably(path, format!("{hex}\n").as_bytes(), Readers::Owner)
}

/// Reads a `cluster.toml` and checks that a cluster can be started from it.
///
/// # Errors
///
/// When it cannot be read, has an unknown or a missing key, or its configuration cannot be.
pub fn read_cluster(path: &Path) -> Result<ClusterFile, FileError> {
    let content = |why: String| FileError::Content { path: path.to_owned(), why };
    let cluster: ClusterFile =
        toml::from_str(&read_text(path)?).map_err(|error| content(error.to_string().trim_end().to_owned()))?;
    cluster.genesis().check().map_err(|error: GenesisError| content(error.to_string()))?;
    Ok(cluster)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_that_others_may_read_is_refused_in_words() -> Result<(), Box<dyn std::error::Error>> {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("client.key");
        let key = SigningKey::from_seed(&[5; 32]);
        write_key(&path, &key)?;
        assert_eq!(read_key(&path)?.public(), key.public());
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640))?;
        let error = read_key(&path).map(|_| ()).map_err(|error| error.to_string());
        assert!(error.is_err_and(|error| error.contains("chmod 600") && error.contains("0640")));
        Ok(())
    }

    #[test]
    fn what_others_may_change_is_refused_in_words() -> Result<(), Box<dyn std::error::Error>> {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("node.toml");
        write_durably(&path, b"replica = 0", Readers::All)?;
        for mode in [0o664, 0o646, 0o602] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode))?;
            let error = read_text(&path).map_err(|error| error.to_string());
            assert!(error.is_err_and(|error| error.contains("chmod go-w") && error.contains("node.toml")), "{mode:o}");
        }
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644))?;
        assert_eq!(read_text(&path)?, "replica = 0");
        Ok(())
    }

    #[test]
    fn a_folder_that_all_may_write_is_refused_but_for_one_like_tmp() -> Result<(), Box<dyn std::error::Error>> {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("data");
        make_folder(&path, Readers::Owner)?;
        for (mode, is_well) in [(0o700, true), (0o775, true), (0o1777, true), (0o777, false), (0o703, false)] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode))?;
            assert_eq!(check_folder(&path).is_ok(), is_well, "{mode:o}");
        }
        Ok(())
    }

    #[test]
    fn who_may_be_believed_is_oneself_and_root() {
        assert!(is_trusted(1_000, 1_000) && is_trusted(0, 1_000) && is_trusted(0, 0));
        assert!(!is_trusted(1_001, 1_000) && !is_trusted(1_000, 0));
    }

    /// Only root may give files away; who runs the tests as another user sees the words of the rule above alone.
    #[test]
    fn what_belongs_to_another_user_is_refused_in_words() -> Result<(), Box<dyn std::error::Error>> {
        let folder = tempfile::tempdir()?;
        let (key, text) = (folder.path().join("client.key"), folder.path().join("node.toml"));
        write_key(&key, &SigningKey::from_seed(&[5; 32]))?;
        write_durably(&text, b"replica = 0", Readers::All)?;
        let data = folder.path().join("data");
        make_folder(&data, Readers::Owner)?;
        for path in [&key, &text, &data] {
            if std::os::unix::fs::chown(path, Some(12_345), None).is_err() {
                return Ok(());
            }
        }
        let said = [
            read_key(&key).map(|_| ()).map_err(|error| error.to_string()),
            read_text(&text).map(|_| ()).map_err(|error| error.to_string()),
            check_folder(&data).map_err(|error| error.to_string()),
        ];
        for (said, what) in said.into_iter().zip(["key", "file", "folder"]) {
            let words = format!(": this {what} belongs to user 12345, not to user 0 who runs this program");
            assert!(said.as_ref().is_err_and(|said| said.contains(&words) && said.contains("chown 0 /")), "{said:?}");
        }
        Ok(())
    }

    #[test]
    fn what_is_no_file_is_not_waited_for() {
        let error = read_text(&std::env::temp_dir()).map_err(|error| error.to_string());
        assert!(error.is_err_and(|error| error.ends_with("this is no file")));
    }

    #[test]
    fn a_key_file_with_anything_else_in_it_is_refused() -> Result<(), Box<dyn std::error::Error>> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("k");
        write_durably(&path, b"hello", Readers::Owner)?;
        assert!(read_key(&path).is_err_and(|error| error.to_string().contains("64 hexadecimal digits")));
        Ok(())
    }

    #[test]
    fn a_durable_write_replaces_the_whole_file_and_what_a_crash_left() -> Result<(), Box<dyn std::error::Error>> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("f");
        fs::write(folder.path().join("f.new"), b"left by a crash")?;
        write_durably(&path, b"a much longer first version", Readers::All)?;
        write_durably(&path, b"second", Readers::All)?;
        assert_eq!(read_text(&path)?, "second");
        assert!(!folder.path().join("f.new").exists());
        Ok(())
    }
}
