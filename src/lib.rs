//! Sluice shares stdio MCP servers with many remote clients.
#![forbid(unsafe_code)]

pub mod auth;
pub mod cli;
pub mod config;
pub mod gateway;
pub mod http;
pub mod jsonrpc;
pub mod process;
pub mod session;
pub mod shutdown;
pub mod stream;
pub mod telemetry;
pub mod tenant;
pub mod worker;
