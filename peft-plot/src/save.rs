//! Pictures as bytes and as files.

use crate::error::{Error, Result};
use crate::style::FONT;
use resvg::tiny_skia::{Pixmap, Transform};
use resvg::usvg::{Options, Tree};
use std::io::Write;
use std::path::{Path, PathBuf};
use tempfile::NamedTempFile;

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
    // The renaming is on disk once the directory is; where directories cannot be opened there is no such step.
    if let Ok(dir) = std::fs::File::open(dir) {
        let _ = dir.sync_all();
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

/// A temporary file with these bytes, on disk.
fn write(dir: &Path, path: &Path, bytes: &[u8]) -> Result<NamedTempFile> {
    let fill = || {
        let mut file = NamedTempFile::new_in(dir)?;
        file.write_all(bytes)?;
        readable(&file)?;
        file.as_file().sync_all()?;
        Ok(file)
    };
    fill().map_err(|e: std::io::Error| Error::file(path, e))
}

/// Temporary files are made for the owner alone; a picture is for everybody who may read the directory.
#[cfg(unix)]
fn readable(file: &NamedTempFile) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    file.as_file().set_permissions(std::fs::Permissions::from_mode(0o644))
}

#[cfg(not(unix))]
fn readable(_: &NamedTempFile) -> std::io::Result<()> {
    Ok(())
}
