//! Batches and files as tables show them.

use crate::cli::output::{Tabled, time};
use crate::client::{RemoteBatch, RemoteFile};

impl Tabled for RemoteBatch {
    const COLUMNS: &'static [&'static str] =
        &["ID", "STATUS", "ROWS", "COMPLETED", "FAILED", "ENDPOINT", "WINDOW", "CREATED", "OUTPUT", "ERRORS"];

    fn cells(&self) -> Vec<String> {
        let counts = self.request_counts;
        vec![
            self.id.clone(),
            self.status.to_string(),
            counts.total.to_string(),
            counts.completed.to_string(),
            counts.failed.to_string(),
            self.endpoint.clone(),
            self.completion_window.clone(),
            time(self.created_at),
            self.output_file_id.clone().unwrap_or_default(),
            self.error_file_id.clone().unwrap_or_default(),
        ]
    }
}

impl Tabled for RemoteFile {
    const COLUMNS: &'static [&'static str] = &["ID", "NAME", "BYTES", "PURPOSE", "CREATED", "EXPIRES"];

    fn cells(&self) -> Vec<String> {
        vec![
            self.id.clone(),
            self.filename.clone(),
            self.bytes.to_string(),
            self.purpose.clone(),
            time(self.created_at),
            self.expires_at.map(time).unwrap_or_default(),
        ]
    }
}
