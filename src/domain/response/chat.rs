//! Asking through the Chat Completions API what was asked of the Responses API.
