//! `batchwright split`: an input file becomes several, each within the limits of a batch.

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use bytesize::ByteSize;
use clap::Args;

use super::input;
use super::output::print_text;

/// The arguments of `split`.
#[derive(Args, Debug, Clone)]
pub struct SplitArgs {
    /// Batch input file; `-` is standard input.
    #[arg(value_name = "INPUT")]
    pub input: PathBuf,

    /// Rows that a part may have. The default is what `serve` and OpenAI let a batch have.
    #[arg(long, value_name = "N", default_value_t = 50_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub rows: u64,

    /// Size that a part may have. The default is what OpenAI lets a batch have, a little less than that of `serve`.
    #[arg(long, value_name = "SIZE", default_value = "200MB")]
    pub bytes: ByteSize,

    /// Directory for the parts; by default that of the input, and the current one for standard input. A part that is
    /// there already is an error.
    #[arg(long, value_name = "DIRECTORY")]
    pub directory: Option<PathBuf>,
}

/// The part that is being written.
struct PartFile {
    path: PathBuf,
    file: BufWriter<File>,
    rows: u64,
    bytes: u64,
}

pub(super) fn run(args: &SplitArgs) -> anyhow::Result<ExitCode> {
    let limit = args.bytes.as_u64();
    let (mut number, mut part) = (0_u64, None::<PartFile>);
    let mut row_number = 0_u64;
    input::for_each_row(&args.input, |row| {
        row_number += 1;
        let bytes = row.len() as u64 + 1;
        if bytes > limit {
            bail!("row {row_number} has {bytes} bytes, more than a part may have: raise --bytes");
        }
        if let Some(full) = part.take_if(|part| part.rows >= args.rows || part.bytes + bytes > limit) {
            full.close()?;
        }
        if part.is_none() {
            number += 1;
            part = Some(PartFile::create(path(args, number))?);
        }
        part.as_mut().map_or(Ok(()), |part| part.write(row))
    })?;
    match part {
        Some(part) => part.close()?,
        None => bail!("{} has no rows", input::name(&args.input)),
    }
    Ok(ExitCode::SUCCESS)
}

/// The path of a part: that of the input, with a number.
fn path(args: &SplitArgs, number: u64) -> PathBuf {
    let input = if input::is_standard(&args.input) { Path::new("input.jsonl") } else { &args.input };
    let stem = input.file_stem().unwrap_or_default().to_string_lossy();
    let extension = input.extension().map_or_else(|| "jsonl".into(), |extension| extension.to_string_lossy());
    let directory = args.directory.as_deref().or(input.parent()).unwrap_or(Path::new(""));
    directory.join(format!("{stem}-{number:04}.{extension}"))
}

impl PartFile {
    fn create(path: PathBuf) -> anyhow::Result<Self> {
        let file = File::create_new(&path)
            .with_context(|| format!("{} cannot be made; choose another --directory", path.display()))?;
        Ok(Self { path, file: BufWriter::with_capacity(256 << 10, file), rows: 0, bytes: 0 })
    }

    fn write(&mut self, row: &[u8]) -> anyhow::Result<()> {
        let written = self.file.write_all(row).and_then(|()| self.file.write_all(b"\n"));
        written.with_context(|| format!("{} cannot be written", self.path.display()))?;
        self.rows += 1;
        self.bytes += row.len() as u64 + 1;
        Ok(())
    }

    /// Ends the part, and prints its name.
    fn close(mut self) -> anyhow::Result<()> {
        self.file.flush().with_context(|| format!("{} cannot be written", self.path.display()))?;
        Ok(print_text(&format!("{}\n", self.path.display()))?)
    }
}
