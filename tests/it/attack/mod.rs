//! Attacks on the promises of docs/SECURITY.md: one file a topic. Each names the promise that it attacks, and the
//! document names the test beside the promise.

mod browser;
mod code;
mod connections;
mod cost;
mod credentials;
mod early;
mod flood;
mod folders;
mod idle;
mod impersonation;
mod in_turn;
mod listen;
mod log;
mod metadata;
mod neighbour;
mod oversized;
mod parked;
mod promises;
mod resident;
mod scheduling;
mod secrets;
mod starts;

pub(crate) use neighbour::Neighbour;
