//! The operations of a layer on whole batches: rows of floats, one row a token.

pub mod attention;
pub mod rope;
