//! Reading input files from the disk or from standard input, piece by piece.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use anyhow::{Context as _, anyhow};

use crate::domain::splitter::{Line, LineSplitter};

/// The longest line, which is the most that `--max-line-bytes` of `serve` can be.
const LONGEST_LINE: usize = 1 << 30;
const CHUNK: usize = 256 << 10;

/// Whether a path stands for standard input or output.
pub(super) fn is_standard(path: &Path) -> bool {
    path == Path::new("-")
}

/// The name of an input in messages.
pub(super) fn name(path: &Path) -> String {
    if is_standard(path) { "standard input".to_owned() } else { path.display().to_string() }
}

/// Finds out whether a file can be read.
pub(super) fn check(path: &Path) -> anyhow::Result<()> {
    let opened = if is_standard(path) { Ok(()) } else { File::open(path).map(drop) };
    opened.with_context(|| format!("{} cannot be read", name(path)))
}

/// Gives the bytes of a file to `each`, chunk by chunk.
pub(super) fn for_each_chunk(path: &Path, mut each: impl FnMut(&[u8]) -> anyhow::Result<()>) -> anyhow::Result<()> {
    let failed = || format!("{} cannot be read", name(path));
    let mut file: Box<dyn Read> =
        if is_standard(path) { Box::new(io::stdin()) } else { Box::new(File::open(path).with_context(failed)?) };
    let mut chunk = vec![0; CHUNK];
    loop {
        match file.read(&mut chunk) {
            Ok(0) => return Ok(()),
            Ok(length) => each(&chunk[..length])?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error).with_context(failed),
        }
    }
}

/// Gives the rows of a file to `each`: the lines that are not blank, without their line ends.
pub(super) fn for_each_row(path: &Path, mut each: impl FnMut(&[u8]) -> anyhow::Result<()>) -> anyhow::Result<()> {
    for_each_line(path, |_, line| each(line))
}

/// The same with the numbers of these lines in the file, counted from 1.
pub(super) fn for_each_line(path: &Path, mut each: impl FnMut(u64, &[u8]) -> anyhow::Result<()>) -> anyhow::Result<()> {
    let mut row = |line: &Line<'_>| match *line {
        Line::TooLong { number } => Err(anyhow!("line {number} of {} is longer than 1 GiB", name(path))),
        Line::Whole { bytes, .. } if bytes.trim_ascii().is_empty() => Ok(()),
        Line::Whole { bytes, number, .. } => each(number, bytes),
    };
    let mut splitter = LineSplitter::new(LONGEST_LINE);
    let mut result = Ok(());
    for_each_chunk(path, |chunk| {
        splitter.push(chunk, |line| {
            if result.is_ok() {
                result = row(&line);
            }
        });
        std::mem::replace(&mut result, Ok(()))
    })?;
    splitter.finish(|line| result = row(&line));
    result
}
