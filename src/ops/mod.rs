//! Operations without weights, on whole batches: one row of floats a token.

pub mod activation;
pub mod attention;
pub mod rope;
