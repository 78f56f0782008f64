//! Weights that can be used but look wrong: mistakes that converters and uploads are known for.

use crate::checkpoint::gguf::Gguf;
use crate::codec::{RowTrits, TensorRows};
use crate::error::Result;

/// Scales of trained models are about the mean magnitude of their weights, some hundredths to a few units. Above this,
/// the file probably holds the reciprocal.
const MAX_SCALE: f32 = 10.0;

/// A projection's weights, and the factor that the file stores in a tensor of its own (1 without one).
pub(super) type Projection<'a> = (TensorRows<'a>, f32);

/// What looks wrong, a sentence for each kind of mistake. Of each tensor it reads the first rows only, up to one that
/// is not zero.
pub(super) fn warnings(gguf: &Gguf, projections: &[Projection]) -> Result<Vec<String>> {
    let scales: Vec<Vec<f32>> = projections.iter().map(scales).collect();
    let found = [lossy(projections), odd_scale(projections, &scales), lost_scales(&scales), zero_tensors(gguf)?];
    Ok(found.into_iter().flatten().collect())
}

/// Trits that llama.cpp stored as Q4_0.
fn lossy(projections: &[Projection]) -> Option<String> {
    let lossy = projections.iter().map(|(rows, _)| rows).filter(|rows| rows.is_lossy_ternary(0));
    let tensors = list(&lossy.map(TensorRows::name).collect::<Vec<_>>())?;
    Some(format!(
        "ternary weights are stored lossily in {tensors}: Q4_0 gives trits of one sign 7/8 of the magnitude of the \
         others; get the model in TQ1_0, TQ2_0 or I2_S"
    ))
}

/// Scales that no trained model has.
fn odd_scale(projections: &[Projection], scales: &[Vec<f32>]) -> Option<String> {
    let is_odd = |scale: &&f32| !(**scale > 0.0 && **scale <= MAX_SCALE);
    let all = projections.iter().zip(scales);
    let odd: Vec<_> = all.filter_map(|((rows, _), scales)| Some((rows, scales.iter().find(is_odd)?))).collect();
    let (rows, scale) = odd.first()?;
    Some(format!(
        "scales outside the range of trained models (above 0, at most {MAX_SCALE}): {}, the first being {scale} of \
         '{}' of type {}; the converter may have stored the reciprocal, or something else",
        odd.len(),
        rows.name(),
        rows.kind()
    ))
}

/// The scale 1 everywhere: trits without their scales.
fn lost_scales(scales: &[Vec<f32>]) -> Option<String> {
    let lost = scales.iter().all(|scales| !scales.is_empty() && scales.iter().all(|scale| *scale == 1.0));
    lost.then(|| {
        "every projection has the scale 1, which no trained model has; the converter has probably lost the scales"
            .into()
    })
}

/// Matrices and norms that hold nothing but zeros. Biases may.
fn zero_tensors(gguf: &Gguf) -> Result<Option<String>> {
    let mut zero = Vec::new();
    for tensor in gguf.tensors().iter().filter(|tensor| tensor.name().ends_with(".weight")) {
        if TensorRows::of(gguf, tensor)?.is_zero() {
            zero.push(tensor.name());
        }
    }
    let warning = |tensors| {
        format!("all weights are zero in {tensors}; the model was converted or uploaded wrongly, get another file")
    };
    Ok(list(&zero).map(warning))
}

/// The scales of the first row, with the factor: as a ternary type stores them, or the magnitude of the first row that
/// is not zero if its values are ternary. Blocks of zeros may have the scale 0.
fn scales((rows, factor): &Projection) -> Vec<f32> {
    let scales = rows.stored_scales(0).unwrap_or_else(|| {
        let mut trits = vec![0; rows.cols()];
        let all = (0..rows.rows()).map(|row| rows.trits(row, &mut trits));
        let found = all.into_iter().find(|found| !matches!(found, Ok(RowTrits::Zero)));
        if let Some(Ok(RowTrits::Scale(scale))) = found { vec![scale] } else { Vec::new() }
    });
    let is_used = |scale: &f32| *scale != 0.0 || rows.has_one_scale();
    scales.into_iter().filter(is_used).map(|scale| scale * factor).collect()
}

/// The first tensor's name and how many there are, for people; `None` without any.
fn list(tensors: &[&str]) -> Option<String> {
    match tensors {
        [] => None,
        [only] => Some(format!("tensor '{only}'")),
        [first, ..] => Some(format!("{} tensors, the first being '{first}'", tensors.len())),
    }
}
