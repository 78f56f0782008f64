//! What the layers of a forward pass share.

use super::KvCache;
use super::cache::RowPosition;
use super::input::InputBuilder;
use super::linear::Linear;
use super::scratch::Buffers;
use super::state::Recurrence;
use super::trace::Recorder;
use crate::error::Result;
use crate::kernel::Team;
use crate::ops::rope::CosSin;

/// A forward pass under way.
pub(super) struct Pass<'a, 'c> {
    /// The threads, with their kernels.
    pub team: &'a Team<'a>,
    /// Makes the inputs of projections.
    pub inputs: InputBuilder<'a>,
    /// One row a token, each.
    pub buffers: Buffers<'a>,
    /// The caches of the batch's sequences.
    pub caches: &'a mut [&'c mut KvCache],
    /// The sequence and the position of each row.
    pub positions: Vec<RowPosition>,
    /// Cosines and sines of these positions.
    pub cos_sin: CosSin,
    /// The same for layers with a sliding window.
    pub window_cos_sin: Option<CosSin>,
    /// For each sequence its recurrent states, if the model has some and the batch has rows of the sequence.
    pub recurrences: Vec<Option<Recurrence>>,
    /// Counts the work and records values.
    pub record: Recorder<'a>,
}

/// `normed = RMSNorm(x)`, and `out = W·normed + b` for some projections. If they have norms of their inputs, each reads
/// `normed_in = RMSNorm(normed)` instead. Projections that share an input are rotated alike.
pub(super) fn norm_and_project(
    inputs: &mut InputBuilder,
    x: &[f32],
    gamma: &[f32],
    [normed, normed_in]: [&mut [f32]; 2],
    projections: &mut [(&Linear, &mut [f32])],
    record: &mut Recorder,
) -> Result<()> {
    let team = inputs.team;
    if projections.iter().all(|(linear, _)| linear.norm.is_none()) {
        let rotation = projections.first().and_then(|(linear, _)| linear.rotation.as_deref());
        let input = inputs.norm(x, gamma, rotation, normed)?;
        projections.iter_mut().for_each(|(linear, out)| linear.apply(team, &input, out, record));
        return Ok(());
    }
    inputs.norm_floats(x, gamma, normed);
    for (linear, out) in projections {
        let gamma = linear.norm.as_deref().expect("a file has such norms for all projections or none");
        let input = inputs.norm(normed, gamma, linear.rotation.as_deref(), normed_in)?;
        linear.apply(team, &input, out, record);
    }
    Ok(())
}
