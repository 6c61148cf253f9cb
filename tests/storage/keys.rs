//! Keys and sessions: whom a secret acts for, and how that ends.

use std::time::Duration;

use batchwright::domain::api_key::{ApiKey, KeyScopes, RandomSecret, SecretHash};
use batchwright::domain::ids::KeyId;
use batchwright::domain::owner::Owner;
use batchwright::storage::{KeyStore as _, Result};

use crate::given::{START, TestStorage, after};

on_both_databases!(
    a_key_is_found_by_its_hash_until_it_is_revoked,
    the_first_key_is_there_for_good,
    keys_are_listed_in_the_order_in_which_they_were_made,
    a_use_is_noted_unless_a_later_one_was,
    a_session_ends_when_it_expires_or_is_ended,
    a_key_that_is_revoked_ends_its_sessions_and_no_others,
);

fn key_of(project: &str) -> ApiKey {
    ApiKey {
        id: KeyId::new(),
        owner: Owner::parse(project).expect("an id of an owner"),
        name: "näme".to_owned(),
        scopes: KeyScopes::parse("read,write").expect("they are scopes"),
        ending: "wxyz".to_owned(),
        created_at: START,
        last_used_at: None,
        revoked_at: None,
    }
}

/// A key that is kept, and the hash by which it is found.
async fn kept(storage: &TestStorage, project: &str) -> Result<(ApiKey, SecretHash)> {
    let (key, hash) = (key_of(project), RandomSecret::new_key().hash());
    storage.create_key(&key, &hash).await?;
    Ok((key, hash))
}

async fn a_key_is_found_by_its_hash_until_it_is_revoked(storage: TestStorage) -> Result<()> {
    let (key, hash) = kept(&storage, "a").await?;
    let (other, hash_of_other) = kept(&storage, "b").await?;
    assert_eq!(storage.key_of(&hash).await?, Some(key.clone()));
    assert_eq!(storage.key_of(&SecretHash::of("guessed")).await?, None);

    let revoked = storage.any_revoke_key(key.id, after(1)).await?.expect("it is there");
    let again = storage.any_revoke_key(key.id, after(2)).await?;

    assert_eq!(revoked.revoked_at, Some(after(1)));
    assert_eq!(again, Some(revoked), "the time stays");
    assert_eq!(storage.key_of(&hash).await?, None);
    assert_eq!(storage.key_of(&hash_of_other).await?, Some(other));
    assert_eq!(storage.any_revoke_key(KeyId::new(), after(1)).await?, None);
    Ok(())
}

async fn the_first_key_is_there_for_good(storage: TestStorage) -> Result<()> {
    assert!(!storage.has_keys().await?);
    let (key, _) = kept(&storage, "a").await?;
    assert!(storage.has_keys().await?);

    storage.any_revoke_key(key.id, after(1)).await?;

    assert!(storage.has_keys().await?);
    Ok(())
}

async fn keys_are_listed_in_the_order_in_which_they_were_made(storage: TestStorage) -> Result<()> {
    let (first, _) = kept(&storage, "a").await?;
    let (of_other, _) = kept(&storage, "b").await?;
    let (last, _) = kept(&storage, "a").await?;

    let all = storage.any_keys(None, None, 2).await?;
    let rest = storage.any_keys(None, Some(of_other.id), 2).await?;
    let of_a = storage.any_keys(Some(&first.owner), None, 10).await?;

    assert_eq!((all.data, all.has_more), (vec![first.clone(), of_other], true));
    assert_eq!((rest.data, rest.has_more), (vec![last.clone()], false));
    assert_eq!((of_a.data, of_a.has_more), (vec![first, last], false));
    Ok(())
}

async fn a_use_is_noted_unless_a_later_one_was(storage: TestStorage) -> Result<()> {
    let (key, hash) = kept(&storage, "a").await?;
    let used = async || storage.key_of(&hash).await.map(|key| key.expect("it is there").last_used_at);
    let minute = Duration::from_mins(1);
    let cases = [(after(100), Some(after(100))), (after(130), Some(after(100))), (after(160), Some(after(160)))];
    for (now, expected) in cases {
        storage.note_use(key.id, now, now.minus(minute)).await?;
        assert_eq!(used().await?, expected, "{now:?}");
    }
    Ok(())
}

async fn a_session_ends_when_it_expires_or_is_ended(storage: TestStorage) -> Result<()> {
    let (key, _) = kept(&storage, "a").await?;
    let [token, ended] = [RandomSecret::new_token().hash(), RandomSecret::new_token().hash()];
    for token in [&token, &ended] {
        storage.create_session(token, key.id, after(100), START).await?;
    }
    storage.end_session(&ended).await?;

    assert_eq!(storage.key_of_session(&token, after(99)).await?, Some(key.clone()));
    assert_eq!(storage.key_of_session(&token, after(100)).await?, None);
    assert_eq!(storage.key_of_session(&ended, after(1)).await?, None);
    assert_eq!(storage.key_of_session(&SecretHash::of("guessed"), after(1)).await?, None);

    // Another one that begins has it forgotten.
    storage.create_session(&ended, key.id, after(200), after(100)).await?;
    assert_eq!(storage.key_of_session(&token, after(99)).await?, None);
    assert_eq!(storage.key_of_session(&ended, after(100)).await?, Some(key));
    Ok(())
}

async fn a_key_that_is_revoked_ends_its_sessions_and_no_others(storage: TestStorage) -> Result<()> {
    let [(key, _), (other, _)] = [kept(&storage, "a").await?, kept(&storage, "a").await?];
    let [token, of_other] = [RandomSecret::new_token().hash(), RandomSecret::new_token().hash()];
    storage.create_session(&token, key.id, after(100), START).await?;
    storage.create_session(&of_other, other.id, after(100), START).await?;

    storage.any_revoke_key(key.id, after(1)).await?;

    assert_eq!(storage.key_of_session(&token, after(1)).await?, None);
    assert_eq!(storage.key_of_session(&of_other, after(1)).await?, Some(other));
    Ok(())
}
