//! The check that no NaN and no infinity leaves the model.

use crate::error::{Error, Result};

/// An [`Error::Model`] if a value of `x` is not finite: `describe(i, value)` is its text, for the first such value, in
/// row i of `width` values each.
pub(super) fn check_finite(x: &[f32], width: usize, describe: impl Fn(usize, f32) -> String) -> Result<()> {
    // Without an early exit, the compiler makes vector code of this loop.
    if x.iter().fold(true, |all, x| all & x.is_finite()) {
        return Ok(());
    }
    match x.iter().position(|x| !x.is_finite()) {
        Some(at) => Err(Error::Model(describe(at / width, x[at]))),
        None => Ok(()),
    }
}
