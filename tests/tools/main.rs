//! Tools against real servers. `npm` installs the reference MCP server, which needs Node.js 20 or newer.

#[path = "../common/eventually.rs"]
mod eventually;

mod everything;
mod limits;
mod mcp;
mod scripted;
