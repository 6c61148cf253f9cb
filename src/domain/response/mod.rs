//! Rows for `/v1/responses` that take more than one call: turns of the model, calls of tools, the steps that record
//! both, and the response that is assembled from them.

mod assemble;
mod conversation;
mod decide;
mod fields;
mod history;
mod step;
mod tool_name;
mod turn;

pub use assemble::{Assembly, McpFunction, McpList};
pub use conversation::{ScopeStart, correction, input_items, turns_of};
pub use decide::{Limit, Limits, Next, Rules, ScopeEnd, Served, Spent, decide_next};
pub use fields::{Fields, raw};
pub use history::{for_model, with_every_call_answered};
pub use step::{Step, StepBody, StepPath, StepState, ToolCall, ToolOutput};
pub use tool_name::mcp_function_name;
pub(crate) use turn::seconds;
pub use turn::{BadAnswer, ItemIds, TokenUsage, Turn, TurnEnd, Unsupported};
