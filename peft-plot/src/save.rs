//! Pictures as bytes and as files.

use crate::error::{Error, Result};
use crate::style::FONT;
use resvg::tiny_skia::{Pixmap, Transform};
use resvg::usvg::{Options, Tree};
use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};
use tempfile::{Builder, NamedTempFile};

/// Pixels of a PNG in a unit of the SVG, each way.
const SCALE: f32 = 2.0;

pub(crate) fn png(svg: &str) -> Result<Vec<u8>> {
    let mut options = Options::default();
    let fonts = options.fontdb_mut();
    fonts.load_font_data(FONT.to_vec());
    fonts.set_sans_serif_family("DejaVu Sans");
    let tree = Tree::from_str(svg, &options).map_err(Error::draw)?;
    let size = tree.size().to_int_size().scale_by(SCALE).ok_or_else(|| Error::draw("no pixels"))?;
    let mut pixels =
        Pixmap::new(size.width(), size.height()).ok_or_else(|| Error::draw("too many pixels"))?;
    resvg::render(&tree, Transform::from_scale(SCALE, SCALE), &mut pixels.as_mut());
    pixels.encode_png().map_err(Error::draw)
}

/// Writes `name.svg` and `name.png`. Both lie beside their places before the first of them is put there.
pub(crate) fn save(dir: &Path, name: &str, svg: &str, png: &[u8]) -> Result<[PathBuf; 2]> {
    let plain = |c: char| c.is_alphanumeric() || matches!(c, '-' | '_' | '.');
    if name.is_empty() || name.starts_with('.') || !name.chars().all(plain) {
        return Err(Error::Name(name.to_owned()));
    }
    make_directory(dir)?;
    let paths = ["svg", "png"].map(|kind| dir.join(format!("{name}.{kind}")));
    let files = [write(dir, &paths[0], svg.as_bytes())?, write(dir, &paths[1], png)?];
    for (file, path) in files.into_iter().zip(&paths) {
        file.persist(path).map_err(|e| Error::file(path, e.error))?;
    }
    // The renaming is on disk once the directory is. Elsewhere directories cannot be opened, and there is no such step.
    if cfg!(unix) {
        File::open(dir)
            .and_then(|dir| dir.sync_all())
            .or_else(unsupported)
            .map_err(|e| Error::file(dir, e))?;
    }
    Ok(paths)
}

/// Makes a directory for pictures, if there is none. Long work does that before it begins.
///
/// # Errors
/// [`Error::File`]: it cannot be made or written to, or something else has that name.
pub fn make_directory(dir: &Path) -> Result<()> {
    if dir.exists() && !dir.is_dir() {
        return Err(Error::file(dir, "is a file; pictures need a directory"));
    }
    std::fs::create_dir_all(dir).map_err(|e| Error::file(dir, format!("cannot be made a directory: {e}")))?;
    // A file that is gone at once says whether others can be written.
    NamedTempFile::new_in(dir).map_err(|e| Error::file(dir, format!("cannot be written to: {e}")))?;
    Ok(())
}

/// Some file systems cannot sync directories.
fn unsupported(error: io::Error) -> io::Result<()> {
    match error.kind() {
        ErrorKind::Unsupported | ErrorKind::InvalidInput => Ok(()),
        _ => Err(error),
    }
}

/// A temporary file with these bytes, on disk. Its mode is the umask's; what killed writers of the same picture have left
/// is removed.
fn write(dir: &Path, path: &Path, bytes: &[u8]) -> Result<NamedTempFile> {
    let name = path.file_name().unwrap_or_default().display();
    let (prefix, suffix) = (format!(".{name}."), ".saving");
    let fill = || {
        clear(dir, &prefix, suffix)?;
        let mut builder = Builder::new();
        builder.prefix(&prefix).suffix(suffix);
        #[cfg(unix)]
        builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
        let mut file = builder.tempfile_in(dir)?;
        // Held while it is written, so that others see that it is not left over. Not every file system has locks.
        let _ = file.as_file().try_lock();
        file.write_all(bytes)?;
        file.as_file().sync_all()?;
        Ok(file)
    };
    fill().map_err(|e: io::Error| Error::file(path, e))
}

/// Removes files of that form which nobody holds.
fn clear(dir: &Path, prefix: &str, suffix: &str) -> io::Result<()> {
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        let left = name.to_str().is_some_and(|name| name.starts_with(prefix) && name.ends_with(suffix));
        if left && File::open(entry.path()).is_ok_and(|file| file.try_lock().is_ok()) {
            std::fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}
