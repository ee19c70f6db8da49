//! Tenants: the servers that a tenant may use, and the tenant's limits.

mod directory;

pub use directory::{Admission, Directory, Refusal};
