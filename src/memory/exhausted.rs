//! The refusal of a charge.

/// A charge was refused: the account, or all accounts together, hold as much as they may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Exhausted {
    /// The account holds as much as is left for the others.
    #[error("the share of the gateway's memory that it counts for is used up (limits.memory_budget)")]
    Share,
    /// The account holds as much as its own limit allows.
    #[error("the tenant holds as much of the gateway's memory as it may (tenants.NAME.limits.memory_budget)")]
    Limit,
    /// The sum is more than the account could ever hold, even if nothing else were held.
    #[error(
        "more than one tenant may hold of the gateway's memory (limits.memory_budget, tenants.NAME.limits.memory_budget)"
    )]
    TooLarge,
}
