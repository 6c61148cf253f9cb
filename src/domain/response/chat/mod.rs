//! Asking through the Chat Completions API what was asked of the Responses API. Every member of a request is forwarded
//! or refused by its name; what is dropped is dropped because it changes nothing about the answer.

mod answer;
mod content;
mod input;
mod messages;
mod node;
mod request;
mod tools;

pub use answer::turn;
pub use request::request;
