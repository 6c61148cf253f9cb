//! Keys and sessions are found by an index, however many there are.

use batchwright::domain::api_key::SecretHash;
use batchwright::domain::ids::KeyId;
use batchwright::storage::{KeyStore as _, Result};

use super::statements::{assert_found_by, sent};
use crate::given::{OWNER, START, TestStorage, after};

on_both_databases!(keys_and_sessions_are_found_by_index);

async fn keys_and_sessions_are_found_by_index(storage: TestStorage) -> Result<()> {
    let (hash, id) = (SecretHash::of("secret"), KeyId::new());
    let of_keys = [
        sent(storage.key_of(&hash)).await?,
        sent(storage.note_use(id, START, START)).await?,
        sent(storage.any_revoke_key(id, START)).await?,
        sent(storage.any_keys(Some(&OWNER), None, 10)).await?,
        sent(storage.key_of_session(&hash, START)).await?,
    ];
    let indexes = ["autoindex_api_keys", "api_keys_pkey", "api_keys_hash_key", "api_keys_by_owner"];
    for statements in of_keys {
        assert_found_by(&storage.place, &indexes, statements).await;
    }
    let statements = sent(storage.create_session(&hash, id, after(1), START)).await?;
    assert_found_by(&storage.place, &["dashboard_sessions_by_end"], statements).await;
    Ok(())
}
