//! The client on whose behalf a request is made.

use axum::extract::FromRequestParts;
use axum::http::request::Parts;

use super::ApiError;
use crate::domain::api_key::{ApiKey, KeyScope, KeyScopes};
use crate::domain::ids::KeyId;
use crate::domain::owner::Owner;

/// The client that a request acts for. Every handler that reads or changes what an owner has takes it. What stands
/// around the routes ([`Access`](super::Access)) finds it and puts it into the request before any body is read.
#[derive(Debug, Clone)]
pub struct Caller {
    /// The owner of all that the client can see: the project of its key.
    pub owner: Owner,
    /// Its key; none of a call without one, where such calls are answered.
    pub key: Option<KeyId>,
    /// What it may do. It was checked before the handler is called.
    pub scopes: KeyScopes,
}

impl Caller {
    /// The holder of a key.
    pub(crate) fn of_key(key: ApiKey) -> Self {
        Self { owner: key.owner, key: Some(key.id), scopes: key.scopes }
    }

    /// A client without a key, who acts for the default owner.
    pub(crate) fn anonymous(scopes: KeyScopes) -> Self {
        Self { owner: Owner::default(), key: None, scopes }
    }

    /// Whether the client may do what a scope stands for.
    #[must_use]
    pub fn may(&self, scope: KeyScope) -> bool {
        self.scopes.allow(scope)
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Caller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        // A route outside of the check answers nobody.
        parts.extensions.get::<Self>().cloned().ok_or_else(ApiError::internal)
    }
}
