//! From a file's tensors to a model's layers: names, shapes, and what each projection becomes.

use super::config::Config;
use super::head::Head;
use super::linear::{Dense, Linear, Matrix, Packed, pack};
use super::{ActQuant, Block, LoadOptions, Model};
use crate::checkpoint::gguf::{Gguf, Tensor};
use crate::codec::TensorRows;
use crate::error::{Error, Result};
use crate::kernel::Team;
use crate::kernel::ternary::Ternary;
use crate::machine::memory::Arena;
use crate::ops::rope::Rope;
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// The projections of a block, in the order of their computation.
const PROJECTIONS: [&str; 7] = ["attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"];

/// Scales of trained models are about the mean magnitude of their weights, some hundredths to a few units. Above this
/// it is rather the reciprocal that was stored.
const MOST_SCALE: f32 = 10.0;

/// Looks up tensors, checks their shapes, and remembers which were asked for.
struct Loader<'a> {
    gguf: &'a Arc<Gguf>,
    config: &'a Config,
    team: &'a Team<'a>,
    used: RefCell<BTreeSet<String>>,
    /// Read between tensors.
    cancel: &'a AtomicBool,
}

/// Whether linear layers take int8 activations, and why.
pub struct ActQuantDecision {
    /// What they take.
    pub act_quant: ActQuant,
    /// The reason, for people.
    pub reason: String,
}

pub(super) fn load(
    gguf: Arc<Gguf>,
    config: Config,
    options: &LoadOptions,
    team: &Team,
    cancel: &AtomicBool,
) -> Result<Model> {
    let loader = Loader { gguf: &gguf, config: &config, team, used: RefCell::default(), cancel };
    let head = Head::new(!options.exact_head);
    let (width, vocab) = (config.hidden_size, config.vocab_size);
    let embedding = loader.dense("token_embd.weight", width, vocab)?;
    let output = loader.optional("output.weight", width, vocab)?.map(|t| Dense::new(&gguf, t, 1.0)).transpose()?;
    let output_norm = loader.vector("output_norm.weight", width)?;
    let divisors = loader.optional_vector("rope_freqs.weight", config.rope_dim / 2)?;
    // Every tensor is looked up before the first is packed, so that a wrong file is refused at once.
    for layer in 0..config.n_layers {
        PROJECTIONS.iter().try_for_each(|name| loader.projection(layer, name).map(drop))?;
        loader.norms(layer)?;
    }
    loader.refuse_surplus()?;

    let (packed, verdict) = pack_all(&loader, options.act_quant)?;
    let warnings = loader.warnings()?;
    let mut packed = packed.into_iter();
    let mut layers = Vec::with_capacity(config.n_layers);
    for layer in 0..config.n_layers {
        let [attn_norm, attn_sub_norm, ffn_norm, ffn_sub_norm] = loader.norms(layer)?;
        let mut next = |name| loader.linear(layer, name, packed.next().flatten());
        let [q, k, v, o, gate, up, down] = PROJECTIONS.map(&mut next);
        layers.push(Block {
            attn_norm: attn_norm.expect("required"),
            q: q?,
            k: k?,
            v: v?,
            attn_sub_norm,
            o: o?,
            ffn_norm: ffn_norm.expect("required"),
            gate: gate?,
            up: up?,
            ffn_sub_norm,
            down: down?,
        });
    }
    let rope =
        Rope::new(config.rope_style, config.rope_dim, config.rope_base, config.rope_factor, divisors.as_deref())?;
    let some_dense = layers.iter().flat_map(Block::linears).any(|l| matches!(l.matrix, Matrix::Dense(_)));
    Ok(Model { gguf, config, verdict, warnings, embedding, output, head, output_norm, layers, some_dense, rope })
}

/// Packs the projections as `asked`; `None` where a projection stays dense.
fn pack_all(loader: &Loader, asked: Option<ActQuant>) -> Result<(Vec<Option<Ternary>>, ActQuantDecision)> {
    let count = loader.config.n_layers * PROJECTIONS.len();
    let dense = |reason: String| {
        let packed = (0..count).map(|_| None).collect();
        Ok((packed, ActQuantDecision { act_quant: ActQuant::None, reason }))
    };
    if asked == Some(ActQuant::None) {
        return dense("as asked".into());
    }
    let arena = Arena::default();
    let mut packed = Vec::with_capacity(count);
    let mut refused = None;
    for layer in 0..loader.config.n_layers {
        for name in PROJECTIONS {
            loader.refuse_cancelled()?;
            let tensor = loader.projection(layer, name)?;
            let ternary = match pack(loader.gguf, tensor, loader.team, &arena)? {
                Packed::Ternary(mut ternary) => {
                    loader.gguf.release(tensor);
                    ternary.scale_by(loader.factor(layer, name)?);
                    Some(ternary)
                }
                Packed::NotTernary(why) if asked.is_none() => {
                    return dense(format!("not every projection is ternary with one scale: {why}"));
                }
                Packed::NotTernary(why) => {
                    refused.get_or_insert(why);
                    None
                }
            };
            packed.push(ternary);
        }
    }
    let reason = match (asked, refused) {
        (None, _) => "every projection is ternary with one scale".into(),
        (Some(_), None) => "as asked; every projection is ternary with one scale".into(),
        (Some(_), Some(why)) => {
            format!("as asked; some projections stay dense and see rounded inputs: {why}")
        }
    };
    Ok((packed, ActQuantDecision { act_quant: ActQuant::Int8, reason }))
}

impl<'a> Loader<'a> {
    fn find(&self, name: &str) -> Option<&'a Tensor> {
        let tensor = self.gguf.tensor(name)?;
        self.used.borrow_mut().insert(name.to_string());
        Some(tensor)
    }

    fn optional(&self, name: &str, cols: usize, rows: usize) -> Result<Option<&'a Tensor>> {
        let Some(tensor) = self.find(name) else { return Ok(None) };
        if matches!(tensor.shape(), [_] | [_, _]) && (tensor.cols(), tensor.rows()) == (cols, rows) {
            return Ok(Some(tensor));
        }
        Err(Error::Model(format!(
            "tensor '{name}' has the shape {:?}, expected [{cols}{}] by the metadata of architecture '{}'",
            tensor.shape(),
            if rows == 1 { String::new() } else { format!(", {rows}") },
            self.config.arch.name()
        )))
    }

    fn required(&self, name: &str, cols: usize, rows: usize) -> Result<&'a Tensor> {
        self.optional(name, cols, rows)?.ok_or_else(|| {
            Error::Model(format!(
                "tensor '{name}' is missing, which architecture '{}' needs; the file is incomplete",
                self.config.arch.name()
            ))
        })
    }

    fn dense(&self, name: &str, cols: usize, rows: usize) -> Result<Dense> {
        Dense::new(self.gguf, self.required(name, cols, rows)?, 1.0)
    }

    fn vector(&self, name: &str, len: usize) -> Result<Vec<f32>> {
        let tensor = self.required(name, len, 1)?;
        let mut values = vec![0.0; len];
        TensorRows::of(self.gguf, tensor)?.dequantize(0, &mut values);
        match values.iter().position(|x| !x.is_finite()) {
            Some(i) => Err(Error::Model(format!(
                "tensor '{name}' holds {} at index {i}, expected finite numbers; the file is broken",
                values[i]
            ))),
            None => Ok(values),
        }
    }

    fn optional_vector(&self, name: &str, len: usize) -> Result<Option<Vec<f32>>> {
        self.find(name).map(|_| self.vector(name, len)).transpose()
    }

    /// Norms of a block: attention, its output (if the architecture has it), feed-forward, its output (likewise).
    fn norms(&self, layer: usize) -> Result<[Option<Vec<f32>>; 4]> {
        let norm = |name: &str, len| self.vector(&format!("blk.{layer}.{name}.weight"), len);
        let config = self.config;
        let sub_norm = |name: &str, len| config.sub_norms.then(|| norm(name, len)).transpose();
        Ok([
            Some(norm("attn_norm", config.hidden_size)?),
            sub_norm("attn_sub_norm", config.q_width())?,
            Some(norm("ffn_norm", config.hidden_size)?),
            sub_norm("ffn_sub_norm", config.intermediate_size)?,
        ])
    }

    /// Input and output channels of a projection.
    fn measures(&self, name: &str) -> (usize, usize) {
        let config = self.config;
        match name {
            "attn_q" => (config.hidden_size, config.q_width()),
            "attn_k" | "attn_v" => (config.hidden_size, config.kv_width()),
            "attn_output" => (config.q_width(), config.hidden_size),
            "ffn_down" => (config.intermediate_size, config.hidden_size),
            _ => (config.hidden_size, config.intermediate_size),
        }
    }

    fn projection(&self, layer: usize, name: &str) -> Result<&'a Tensor> {
        let (cols, rows) = self.measures(name);
        self.factor(layer, name)?;
        self.bias(layer, name)?;
        self.required(&format!("blk.{layer}.{name}.weight"), cols, rows)
    }

    /// The separate scale that converters of 2024 wrote beside a projection.
    fn factor(&self, layer: usize, name: &str) -> Result<f32> {
        let factor = self.optional_vector(&format!("blk.{layer}.{name}.scale"), 1)?;
        Ok(factor.map_or(1.0, |factor| factor[0]))
    }

    fn bias(&self, layer: usize, name: &str) -> Result<Option<Vec<f32>>> {
        self.optional_vector(&format!("blk.{layer}.{name}.bias"), self.measures(name).1)
    }

    fn linear(&self, layer: usize, name: &str, packed: Option<Ternary>) -> Result<Linear> {
        let matrix = match packed {
            Some(ternary) => Matrix::Ternary(ternary),
            None => {
                self.refuse_cancelled()?;
                let dense = Dense::new(self.gguf, self.projection(layer, name)?, self.factor(layer, name)?)?;
                dense.check(self.team)?;
                Matrix::Dense(dense)
            }
        };
        Ok(Linear { matrix, bias: self.bias(layer, name)? })
    }

    /// What is odd about the projections without making them unusable.
    fn warnings(&self) -> Result<Vec<String>> {
        let mut lossy = Vec::new();
        let mut odd = Vec::new();
        for layer in 0..self.config.n_layers {
            for name in PROJECTIONS {
                let rows = TensorRows::of(self.gguf, self.projection(layer, name)?)?;
                if rows.is_lossy_ternary(0) {
                    lossy.push(rows.name());
                }
                if let Some((_, scale)) = rows.i2s().filter(|(_, scale)| *scale <= 0.0 || *scale > MOST_SCALE) {
                    odd.push((rows.name(), scale));
                }
            }
        }
        let mut warnings = Vec::new();
        if let Some(name) = lossy.first() {
            warnings.push(format!(
                "ternary weights stored lossily: in {} tensors of type Q4_0, the first being '{name}', trits of one \
                 sign have 7/8 of the magnitude of the others; get the model in TQ1_0, TQ2_0 or I2_S",
                lossy.len()
            ));
        }
        if let Some((name, scale)) = odd.first() {
            warnings.push(format!(
                "I2_S scales that no trained model has: {}, the first being {scale} of '{name}'; a converter may have \
                 stored something else (expected: above 0, at most {MOST_SCALE})",
                odd.len()
            ));
        }
        Ok(warnings)
    }

    fn refuse_cancelled(&self) -> Result<()> {
        if self.cancel.load(Ordering::Relaxed) { Err(Error::Cancelled) } else { Ok(()) }
    }

    fn refuse_surplus(&self) -> Result<()> {
        let used = self.used.borrow();
        let surplus: Vec<&str> =
            self.gguf.tensors().iter().map(Tensor::name).filter(|name| !used.contains(*name)).collect();
        let Some(first) = surplus.first() else { return Ok(()) };
        let more = if surplus.len() > 1 { format!(" and {} more", surplus.len() - 1) } else { String::new() };
        Err(Error::Model(format!(
            "tensor '{first}'{more} is not part of architecture '{}', so the file's model is another one",
            self.config.arch.name()
        )))
    }
}
