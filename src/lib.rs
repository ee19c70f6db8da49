//! Sluice shares stdio MCP servers with many remote clients.
#![forbid(unsafe_code)]

pub mod auth;
pub mod cli;
pub mod config;
pub mod demo;
