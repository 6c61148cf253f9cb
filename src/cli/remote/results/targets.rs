//! Where result lines go, and how much of them is there already.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, BufWriter, Seek as _, SeekFrom, Write};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Args;

use super::lines::kind_of;
use crate::domain::result_cursor::{ResultCursor, ResultKind};

/// The flags that say where result lines go.
#[derive(Args, Debug, Clone, Default)]
pub(in crate::cli) struct Targets {
    /// Write the lines to this file; `-` is standard output.
    #[arg(short, long, value_name = "FILE")]
    output_file: Option<PathBuf>,
    /// Write the lines of rows that did not succeed to this file, and only the others to `-o`.
    #[arg(short, long, value_name = "FILE")]
    error_file: Option<PathBuf>,
}

impl Targets {
    /// Whether any is named.
    pub(in crate::cli::remote) fn any(&self) -> bool {
        self.output_file.is_some() || self.error_file.is_some()
    }

    /// Whether lines are meant to go to standard output, of all places that are named.
    pub(in crate::cli::remote) fn is_standard_output(&self) -> bool {
        self.any() && (self.output() == Path::new("-") || self.error_file.as_deref() == Some(Path::new("-")))
    }

    fn output(&self) -> &Path {
        self.output_file.as_deref().unwrap_or(Path::new("-"))
    }
}

/// What was written of one kind of lines.
#[derive(Default)]
struct LinesOfKind {
    bytes: u64,
    /// The last line of a file that was there before. The server has to begin with the same line, so that no file goes
    /// on with the lines of another batch.
    expected: Option<Vec<u8>>,
}

/// The open targets.
pub(super) struct Sinks {
    kind: ResultKind,
    output: Sink,
    /// If lines of errors go elsewhere.
    errors: Option<Sink>,
    written: [LinesOfKind; 2],
}

impl Sinks {
    /// Opens the targets. With `append`, a file that is there is gone on with. Otherwise it is replaced, once all lines
    /// are there.
    pub(super) fn open(targets: &Targets, kind: ResultKind, append: bool) -> anyhow::Result<Self> {
        let mut written = [LinesOfKind::default(), LinesOfKind::default()];
        let mut open = |path: &Path, kind| {
            let cannot = || format!("{} cannot be written", path.display());
            if append { Sink::appending(path, kind, &mut written) } else { Sink::replacing(path) }.with_context(cannot)
        };
        let output = targets.output();
        let (output, errors) = match (kind, targets.error_file.as_deref().filter(|errors| *errors != output)) {
            (ResultKind::All, Some(errors)) => {
                (open(output, ResultKind::Output)?, Some(open(errors, ResultKind::Errors)?))
            }
            (ResultKind::Errors, Some(errors)) => (open(errors, kind)?, None),
            _ => (open(output, kind)?, None),
        };
        for LinesOfKind { bytes, expected } in &mut written {
            *bytes -= expected.as_ref().map_or(0, |last| last.len() as u64);
        }
        Ok(Self { kind, output, errors, written })
    }

    /// The cursor behind all lines that were written, or before the last line of each kind that was there before.
    pub(super) fn cursor(&self) -> ResultCursor {
        ResultCursor { output: self.written(ResultKind::Output), errors: self.written(ResultKind::Errors) }
    }

    /// Where the lines of a kind go on, in bytes of their file.
    pub(super) fn written(&self, kind: ResultKind) -> u64 {
        self.written[slot(kind)].bytes
    }

    /// Writes a line, of this kind if it is known.
    pub(super) fn write(&mut self, kind: Option<ResultKind>, line: &[u8]) -> io::Result<()> {
        let known = kind.or((self.kind != ResultKind::All).then_some(self.kind)).or_else(|| kind_of(line));
        // Half a line: the file that was there has lines of other lengths.
        let is_half = known.is_none() && self.written.iter().any(|written| written.expected.is_some());
        let kind = known.unwrap_or(ResultKind::Errors);
        let errors = self.errors.as_mut().filter(|_| kind == ResultKind::Errors);
        let sink = errors.unwrap_or(&mut self.output);
        let written = &mut self.written[slot(kind)];
        written.bytes += line.len() as u64;
        match written.expected.take() {
            None if !is_half => sink.to.write_all(line),
            Some(expected) if expected == line => Ok(()),
            _ => Err(io::Error::other(format!(
                "{} does not have the results of this batch; name another file, or leave out --follow to replace it",
                sink.path.display()
            ))),
        }
    }

    pub(super) fn flush(&mut self) -> io::Result<()> {
        self.output.to.flush()?;
        self.errors.as_mut().map_or(Ok(()), |errors| errors.to.flush())
    }

    /// All lines are there: the files get their names.
    pub(super) fn finish(mut self) -> io::Result<()> {
        self.flush()?;
        [Some(self.output), self.errors].into_iter().flatten().try_for_each(Sink::finish)
    }
}

fn slot(kind: ResultKind) -> usize {
    usize::from(kind == ResultKind::Errors)
}

/// One target.
struct Sink {
    path: PathBuf,
    to: Box<dyn Write + Send>,
    /// The file in place of the target until all lines are there.
    partial: Option<PathBuf>,
}

impl Sink {
    fn replacing(path: &Path) -> io::Result<Self> {
        if let Some(sink) = Self::no_file(path)? {
            return Ok(sink);
        }
        let mut partial = path.as_os_str().to_owned();
        partial.push(".partial");
        let to = Box::new(BufWriter::new(File::create(&partial)?));
        Ok(Self { path: path.to_owned(), to, partial: Some(partial.into()) })
    }

    fn appending(path: &Path, kind: ResultKind, written: &mut [LinesOfKind; 2]) -> io::Result<Self> {
        if let Some(sink) = Self::no_file(path)? {
            return Ok(sink);
        }
        let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        let whole = count_lines(&file, kind, written)?;
        // An interrupted command may have left half a line.
        file.set_len(whole)?;
        file.seek(SeekFrom::Start(whole))?;
        Ok(Self { path: path.to_owned(), to: Box::new(BufWriter::new(file)), partial: None })
    }

    /// Standard output, or what else has no length and cannot be replaced, such as a pipe.
    fn no_file(path: &Path) -> io::Result<Option<Self>> {
        let to: Box<dyn Write + Send> = if path == Path::new("-") {
            Box::new(BufWriter::new(io::stdout()))
        } else if path.metadata().is_ok_and(|metadata| !metadata.is_file()) {
            Box::new(BufWriter::new(OpenOptions::new().write(true).open(path)?))
        } else {
            return Ok(None);
        };
        Ok(Some(Self { path: path.to_owned(), to, partial: None }))
    }

    fn finish(mut self) -> io::Result<()> {
        match self.partial.take() {
            Some(partial) => std::fs::rename(partial, &self.path),
            None => Ok(()),
        }
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        if let Some(partial) = &self.partial {
            // Fails only if somebody else has removed it.
            let _ = std::fs::remove_file(partial);
        }
    }
}

/// Counts the lines of a file that was there before: the bytes of all whole lines.
fn count_lines(file: &File, kind: ResultKind, written: &mut [LinesOfKind; 2]) -> io::Result<u64> {
    let (mut reader, mut line, mut whole) = (BufReader::with_capacity(1 << 20, file), Vec::new(), 0);
    loop {
        line.clear();
        if reader.read_until(b'\n', &mut line)? == 0 || !line.ends_with(b"\n") {
            break;
        }
        whole += line.len() as u64;
        let kind = if kind == ResultKind::All { kind_of(&line).unwrap_or(ResultKind::Errors) } else { kind };
        let written = &mut written[slot(kind)];
        written.bytes += line.len() as u64;
        line.clone_into(written.expected.get_or_insert_default());
    }
    Ok(whole)
}
