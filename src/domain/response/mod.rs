//! What a row for `/v1/responses` is made of when it takes more than one call: turns of the model, calls of tools, the
//! steps that are kept of both, and the response that comes of them.

pub mod chat;
mod fields;
pub mod native;
mod tool_name;
mod turn;

pub use fields::Fields;
pub use tool_name::mcp_function_name;
pub use turn::{ItemIds, TokenUsage, Turn, TurnEnd, Unsupported};
