//! The operations of a layer on whole batches: rows of floats, one row a token.
//!
//! What needs no fused multiply-add is plain Rust here, since adding, multiplying and dividing round the same way
//! on every processor; the rest calls the kernel table.

pub mod attention;
pub mod rope;

use crate::kernel::Kernels;
use crate::kernel::pool::Team;

/// `out = RMSNorm(x)` of every row; see [`Kernels::rms_norm`].
pub fn rms_norm(kernels: &Kernels, team: &Team, x: &[f32], gamma: &[f32], eps: f32, out: &mut [f32]) {
    let n = gamma.len();
    team.for_each_chunk(out, n, |row, out| kernels.rms_norm(&x[row * n..][..n], gamma, eps, out));
}

/// `x += y`.
pub fn add(x: &mut [f32], y: &[f32]) {
    assert_eq!(x.len(), y.len());
    x.iter_mut().zip(y).for_each(|(x, y)| *x += y);
}

/// `gate = relu(gate)² · up`, the activation of BitNet b1.58 2B-4T.
pub fn relu2_mul(gate: &mut [f32], up: &[f32]) {
    assert_eq!(gate.len(), up.len());
    for (gate, up) in gate.iter_mut().zip(up) {
        let relu = if *gate < 0.0 { 0.0 } else { *gate };
        *gate = relu * relu * up;
    }
}
