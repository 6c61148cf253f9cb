//! A full disk: clear errors, nothing acknowledged that is not durable, and work goes on once there is room.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::common::builders::rows;
use crate::common::eventually::until;
use crate::stage::Stage;

/// A file system of 24 megabytes in memory. Gone when this is dropped.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(at: &Path) -> Self {
        std::fs::create_dir_all(at).expect("the directory can be made");
        let mount = Command::new("mount").args(["-t", "tmpfs", "-o", "size=24m", "tmpfs"]).arg(at).status();
        assert!(mount.expect("there is mount").success(), "this test mounts a tmpfs, for which it must run as root");
        Self(at.to_owned())
    }

    /// Takes all the room there is.
    fn fill(&self) {
        let zeros = vec![0; 4 << 10];
        let mut file = std::fs::File::create(self.0.join("filler")).expect("a file can be made");
        while std::io::Write::write_all(&mut file, &zeros).is_ok() {}
    }

    fn make_room(&self) {
        std::fs::remove_file(self.0.join("filler")).expect("it was filled");
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_told_and_work_goes_on_once_there_is_room() {
    let stage = Stage::sqlite(&["--latency", "2ms"]).await;
    let disk = SmallDisk::mount(&stage.directory.path().join("data"));
    let server = stage.serve(&["--max-concurrency", "4"]).await;
    let client = server.client();
    let input = rows(2_000);
    let id = client.submit(input.clone()).await;
    client.wait_for_completed(&id, 100).await;

    disk.fill();
    until("the recorder to say so", || server.log().contains("outcomes could not be")).await;
    let refused = client.try_upload(rows(500)).await;
    let before = client.batch(&id).await;
    disk.make_room();
    let batch = client.wait_for(&id, "completed").await;

    assert_eq!(refused.status, 507, "{}", refused.text());
    assert!(refused.text().contains("disk"), "{}", refused.text());
    assert_eq!(before["status"], "in_progress", "what is there can be read");
    assert_eq!(stage.sent().await, (2_000, 0), "answers wait until they can be written");
    stage.prove(&client, &input, &batch, vec![server]).await;
}
