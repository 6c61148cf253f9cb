//! Translates between the Responses API and Chat Completions. Every member of a request is forwarded, or refused by
//! name. A member is dropped only if it does not change the answer.

mod answer;
mod content;
mod input;
mod message;
mod messages;
mod node;
mod request;
mod tools;

pub use answer::turn;
pub use message::{ChatAnswer, answers};
pub use request::request;
