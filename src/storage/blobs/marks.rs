//! Marks: which deployments a blob store belongs to.
//!
//! A deployment is a database and all processes that use it. It removes blobs that its database does not know, so that
//! two of them must not share a store. Each marks its store with an object named after the id that its database has
//! for it.

use futures::TryStreamExt as _;
use object_store::path::Path as ObjectPath;
use object_store::{ObjectStoreExt as _, PutPayload};

use super::{BlobError, Blobs};
use crate::domain::ids::BlobId;

const DIRECTORY: &str = "deployment";

impl Blobs {
    /// Marks the store as one that belongs to a deployment.
    pub async fn mark(&self, id: BlobId) -> Result<(), BlobError> {
        self.store.put(&marker(id), PutPayload::new()).await?;
        Ok(())
    }

    /// Takes such a mark away. One that is not there is taken away already.
    pub async fn unmark(&self, id: BlobId) -> Result<(), BlobError> {
        match self.store.delete(&marker(id)).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// The deployments that have marked the store.
    pub async fn marks(&self) -> Result<Vec<BlobId>, BlobError> {
        let objects = self.store.list(Some(&ObjectPath::from(DIRECTORY)));
        let ids =
            objects.try_filter_map(|object| std::future::ready(Ok(object.location.filename().and_then(BlobId::parse))));
        Ok(ids.try_collect().await?)
    }

    /// The store as that of the deployment with this mark: it counts as gone when the mark is.
    #[must_use]
    pub fn belonging_to(self, id: BlobId) -> Self {
        Self { mark: Some(id), ..self }
    }

    /// Whether the store answers, and still is the deployment's.
    pub async fn check(&self) -> Result<(), BlobError> {
        let object = self.mark.map_or_else(|| ObjectPath::from("probe"), marker);
        match self.store.head(&object).await {
            Ok(_) => Ok(()),
            Err(object_store::Error::NotFound { .. }) if self.mark.is_none() => Ok(()),
            Err(object_store::Error::NotFound { .. }) => Err(BlobError::Unmarked),
            Err(error) => Err(error.into()),
        }
    }

    /// Refuses to write to a local store whose directory was deleted or moved away: it would be made anew, without the
    /// files that were in it.
    pub(super) async fn check_directory(&self) -> Result<(), BlobError> {
        let (Some(directory), Some(mark)) = (&self.directory, self.mark) else { return Ok(()) };
        let mark = directory.join(marker(mark).as_ref());
        match tokio::fs::try_exists(mark).await {
            Ok(false) => Err(BlobError::Unmarked),
            // What else is wrong shows in the write itself.
            Ok(true) | Err(_) => Ok(()),
        }
    }
}

fn marker(id: BlobId) -> ObjectPath {
    ObjectPath::from_iter([DIRECTORY, id.to_string().as_str()])
}
