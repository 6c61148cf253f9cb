//! The vendored files are those of the packages that their table names.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use sha2::{Digest as _, Sha256};

#[test]
fn vendored_files_have_the_hashes_of_the_table() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/dashboard/vendor");
    let table = fs::read_to_string(folder.join("README.md")).expect("the table is there");
    let mut files = 0;
    for entry in fs::read_dir(&folder).expect("the folder is there") {
        let path = entry.expect("it can be read").path();
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        if ["README.md", "fetch.sh"].contains(&name.as_str()) {
            continue;
        }
        let digest = Sha256::digest(fs::read(&path).expect("a file"));
        let hash = digest.iter().fold(String::new(), |mut text, byte| {
            write!(text, "{byte:02x}").expect("a String takes all");
            text
        });
        let row = table.lines().find(|row| row.starts_with(&format!("| {name} |")));
        assert!(row.is_some_and(|row| row.contains(&hash)), "{name} has {hash}");
        files += 1;
    }
    assert_eq!(files, 5);
}
