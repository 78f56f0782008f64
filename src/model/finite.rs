//! The check that no NaN and no infinity leaves the model.

use crate::error::{Error, Result};

/// [`Error::Model`] if a value of `x` is not finite. `describe(row, value)` gives the message for the first one; rows
/// are `width` long.
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
