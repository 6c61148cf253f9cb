//! The dashboard as a browser asks for it, over HTTP. `dashboard.test.mjs` beside this looks at it in a browser.

#[path = "../common/mod.rs"]
mod common;

mod access;
mod attempts;
mod keys;
mod pages;
mod vendored;
