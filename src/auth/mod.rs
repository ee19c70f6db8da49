//! A credential becomes a principal here, or the request ends with 401.

mod principal;

pub use principal::Principal;
