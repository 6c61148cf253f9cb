//! `batchwright files`: the files of a server.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use tokio::io::stdout;

use super::input::{InputFile, uploaded};
use super::server::CalledServer;
use crate::cli::exit::Exit;
use crate::cli::output::{OutputArgs, say};
use crate::client::RemoteFile;
use crate::config::ServerArgs;

/// What is done with files.
#[derive(Subcommand)]
pub(in crate::cli) enum FilesAction {
    /// List files, the newest first.
    List(ListFilesArgs),
    /// Show a file's name, size and times.
    Get(FileArgs),
    /// Upload the input file of a batch.
    Upload(UploadArgs),
    /// Download a file.
    Download(DownloadArgs),
    /// Delete files.
    Delete(DeleteArgs),
}

/// The arguments of `files list`.
#[derive(Args, Debug)]
pub(in crate::cli) struct ListFilesArgs {
    /// The most files that are listed.
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    limit: u32,
    /// Only files older than this one.
    #[arg(long, value_name = "FILE_ID")]
    after: Option<String>,
    /// Only files for this purpose, such as `batch` or `batch_output`.
    #[arg(long, value_name = "PURPOSE")]
    purpose: Option<String>,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    server: ServerArgs,
}

/// The arguments of `files get`.
#[derive(Args, Debug)]
pub(in crate::cli) struct FileArgs {
    /// The file.
    #[arg(value_name = "FILE_ID")]
    id: String,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    server: ServerArgs,
}

/// The arguments of `files upload`.
#[derive(Args, Debug)]
pub(in crate::cli) struct UploadArgs {
    /// The file; `-` is standard input.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Name of the file on the server, instead of its own.
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    server: ServerArgs,
}

/// The arguments of `files download`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  batchwright files download file-0123 | head -1
  batchwright files download file-0123 -o output.jsonl")]
pub(in crate::cli) struct DownloadArgs {
    /// The file.
    #[arg(value_name = "FILE_ID")]
    id: String,
    /// Where to write it; `-` is standard output. The file has the whole content or is not there.
    #[arg(short, long, value_name = "FILE", default_value = "-")]
    output_file: PathBuf,
    #[command(flatten)]
    server: ServerArgs,
}

/// The arguments of `files delete`.
#[derive(Args, Debug)]
pub(in crate::cli) struct DeleteArgs {
    /// The files.
    #[arg(value_name = "FILE_ID", required = true)]
    ids: Vec<String>,
    #[command(flatten)]
    server: ServerArgs,
}

pub(super) async fn run(action: FilesAction) -> anyhow::Result<Exit> {
    match action {
        FilesAction::List(args) => list(args).await?,
        FilesAction::Get(args) => {
            let server = CalledServer::new(&args.server)?;
            let file = server.client.file(&args.id).await.map_err(|error| server.explain(error))?;
            args.output.print_one(&file)?;
        }
        FilesAction::Upload(args) => {
            let server = CalledServer::new(&args.server)?;
            let input = InputFile::open(&args.file)?;
            let name = args.name.unwrap_or_else(|| input.name.clone());
            args.output.print_one(&uploaded(&server, &input, &name).await?)?;
        }
        FilesAction::Download(args) => {
            let server = CalledServer::new(&args.server)?;
            let downloaded = if args.output_file == Path::new("-") {
                server.client.download(&args.id, &mut stdout()).await
            } else {
                server.client.download_to(&args.id, &args.output_file).await
            };
            downloaded.map_err(|error| server.explain(error))?;
        }
        FilesAction::Delete(args) => {
            let server = CalledServer::new(&args.server)?;
            for id in &args.ids {
                server.client.delete_file(id).await.map_err(|error| server.explain(error).context(id.clone()))?;
                say(format!("deleted {id}"));
            }
        }
    }
    Ok(Exit::Well)
}

async fn list(args: ListFilesArgs) -> anyhow::Result<()> {
    let server = CalledServer::new(&args.server)?;
    let page = server.client.files(args.purpose.as_deref(), args.after.as_deref(), Some(args.limit)).await;
    let mut files: Vec<RemoteFile> = page.map_err(|error| server.explain(error))?.data;
    // Not every server knows the limit.
    files.truncate(args.limit as usize);
    Ok(args.output.print_list(&files)?)
}
