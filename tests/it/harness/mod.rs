//! Runs a real gateway in the test's process, with the fixture server as its children, and speaks to it byte by byte.
//!
//! ```ignore
//! let gateway = Gateway::start(fixture("echo")).await;
//! let mut client = gateway.sse().await;
//! assert_eq!(client.call("echo", json!({"text": "hello"})).await, "hello");
//! gateway.finish().await;
//! ```
//!
//! `finish` drains the gateway and fails the test if a child, a session, a connection or a task is left behind. A test
//! that does not call it fails too. Nothing here sleeps for luck: what is waited for is a condition, with a deadline.

mod bystander;
mod caller;
mod events;
mod gateway;
mod http;
mod leftovers;
mod metrics;
mod selftest;
mod servers;
mod sse;
mod streamable;
mod wait;

pub(crate) use bystander::Bystander;
pub(crate) use caller::Caller;
pub(crate) use gateway::Gateway;
pub(crate) use http::{Connection, Reply, Request, Response};
pub(crate) use metrics::Metrics;
pub(crate) use servers::{fixture, fixture_path, key, named};
pub(crate) use sse::{Sse, hello, resolve, text_of};
pub(crate) use streamable::Streamable;
pub(crate) use wait::{PATIENCE, eventually, in_time};
