//! Who pays: which servers a tenant may use, and how much of them.

mod directory;

pub use directory::{Admission, Directory, Refusal};
