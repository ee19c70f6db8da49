//! The refusal of a charge.

/// A charge was refused: the account, or all accounts together, hold as much as they may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Exhausted {
    /// The account holds as much as is left for the others, or as its own limit allows.
    #[error("your share of the gateway's memory is used up (limits.memory_budget)")]
    Share,
    /// The sum is more than the account could ever hold, even if nothing else were held.
    #[error("more than your share of the gateway's memory (limits.memory_budget)")]
    TooLarge,
}
