//! One budget of bytes for everything that the gateway keeps of what clients and children send.
//!
//! Every buffer is charged to an [`Account`] with the capacity that the buffer really holds: [`Account::hold`] for bytes
//! that wait somewhere, a [`Charge`] for buffers that grow and for records. An account is a tenant's, or that of those
//! who are not authenticated, or of a server whose children belong to nobody.
//!
//! Invariants: what is charged never exceeds the budget; a quarter of the budget is kept for connections; of the rest
//! an account holds only as much as is left for the others; what is charged is given back when the last reference to
//! the bytes is gone.

mod account;
mod accounts;
mod budget;
mod charge;
mod exhausted;
mod held;
mod share;
mod text;
mod total;

#[cfg(test)]
mod tests;

pub use account::Account;
pub use budget::Memory;
pub use charge::Charge;
pub use exhausted::Exhausted;
pub use text::Text;
