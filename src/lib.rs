//! Sluice shares stdio MCP servers with many remote clients.
//!
//! The path of a message, and the modules in that order: [`http`] accepts the connection and checks the request,
//! [`auth`] makes its credential a principal, [`tenant`] finds the server, [`session`] the conversation, [`pool`]
//! leases a child to it, [`worker`] talks to the child, and [`process`] runs it. The way back is the same, and ends in
//! [`stream`]. [`jsonrpc`], [`mcp`], [`config`] and [`telemetry`] serve all of them, as do [`memory`], [`permits`],
//! [`text`] and [`heavy`]; [`gateway`] is the only wiring. [`cli`] and the built-in server [`demo`] stand outside of
//! that path.
#![forbid(unsafe_code)]

pub mod auth;
pub mod cli;
pub mod config;
pub mod demo;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
pub mod gateway;
pub mod heavy;
pub mod http;
pub mod jsonrpc;
pub mod mcp;
pub mod memory;
pub mod permits;
pub mod pool;
pub mod process;
pub mod session;
pub mod shutdown;
pub mod stream;
pub mod telemetry;
pub mod tenant;
pub mod text;
pub mod worker;
