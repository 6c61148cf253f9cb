//! The owner on whose behalf a request is made.

use std::convert::Infallible;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;

use crate::domain::owner::Owner;

/// The owner that a request acts for. Every handler that reads or changes what an owner has takes it.
///
/// Clients have no keys, so all of them act for the default owner.
pub struct Caller(pub Owner);

impl<S: Send + Sync> FromRequestParts<S> for Caller {
    type Rejection = Infallible;

    async fn from_request_parts(_: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Self(Owner::default()))
    }
}
