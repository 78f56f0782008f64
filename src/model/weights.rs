//! From a file's tensors to a model's layers, and what each projection becomes: packed trits or dense rows.

use super::arch::{
    K_HEAD_NORM, NORM_IN, OUTPUT, OUTPUT_NORM, Q_HEAD_NORM, ROPE_DIVISORS, ROPE_LONG_DIVISORS, ROPE_SHORT_DIVISORS,
    TOKEN_EMBEDDING,
};
use super::config::Config;
use super::head::Head;
use super::linear::{Dense, Linear, Matrix, NotPacked, pack};
use super::plausible;
use super::tensors::Tensors;
use super::{ActQuant, Block, LoadOptions, Model, Norms, check_cancelled};
use crate::checkpoint::gguf::{Gguf, Tensor};
use crate::codec::TensorRows;
use crate::error::{Error, Result};
use crate::kernel::Team;
use crate::kernel::ternary::Ternary;
use crate::machine::memory::Arena;
use crate::ops::rope::Rope;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// Whether the projections take int8 activations, and why.
pub struct ActQuantDecision {
    /// The type of their inputs.
    pub chosen: ActQuant,
    /// Why, as a phrase for people.
    pub reason: String,
}

/// A projection of every block: its tensor's name, and how many channels go in and out.
struct Projection {
    name: &'static str,
    cols: usize,
    rows: usize,
    /// Whether it must have a bias.
    biased: bool,
    /// The RMSNorm of its input alone, if the architecture has one.
    norm: Option<&'static str>,
}

struct Loader<'a> {
    tensors: Tensors<'a>,
    config: &'a Config,
    /// In the order of computation.
    projections: [Projection; 7],
    team: &'a Team<'a>,
    /// Read between tensors; true ends the loading with an error.
    cancel: &'a AtomicBool,
}

pub(super) fn load(
    gguf: Arc<Gguf>,
    config: Config,
    options: &LoadOptions,
    team: &Team,
    cancel: &AtomicBool,
) -> Result<Model> {
    let tensors = Tensors::new(&gguf, config.arch.name);
    let (hidden_size, vocab_size) = (config.hidden_size, config.vocab_size);
    let embedding = tensors.dense(TOKEN_EMBEDDING, hidden_size, vocab_size)?;
    let output = tensors.optional(OUTPUT, hidden_size, vocab_size)?;
    let output = output.map(|tensor| Dense::new(&gguf, tensor, 1.0)).transpose()?;
    let output_norm = tensors.vector(OUTPUT_NORM, hidden_size)?;
    let rope = rope(&tensors, &config, options.n_ctx)?;
    let window_rope =
        config.window.as_ref().map(|window| Rope::new(&window.rope, config.head_dim, None)).transpose()?;
    let loader = Loader { tensors, config: &config, projections: projections(&config), team, cancel };
    // Every tensor is looked up before the first is packed, so that a wrong file is refused at once.
    let norms = (0..config.n_layers).map(|layer| {
        loader.projections.iter().try_for_each(|projection| loader.tensor(layer, projection).map(drop))?;
        loader.norms(layer)
    });
    let norms: Vec<Norms> = norms.collect::<Result<_>>()?;
    loader.tensors.refuse_surplus()?;

    let (packed, act_quant) = loader.pack_all(options.act_quant)?;
    let warnings = [config.warnings.clone(), plausible::warnings(&gguf, &loader.views()?)?].concat();
    let mut packed = packed.into_iter();
    let mut layers = Vec::with_capacity(config.n_layers);
    for (layer, norms) in norms.into_iter().enumerate() {
        let mut next = |projection| loader.linear(layer, projection, packed.next().flatten());
        let [q, k, v, o, gate, up, down] = loader.projections.each_ref().map(&mut next);
        layers.push(Block { norms, q: q?, k: k?, v: v?, o: o?, gate: gate?, up: up?, down: down? });
    }
    let has_dense = layers.iter().flat_map(Block::linears).any(|l| matches!(l.matrix, Matrix::Dense(_)));
    // The intervals of the 8-bit copy are those of logits before the softcap.
    let head = Head::new(options.exact_head || config.softcap.is_some());
    Ok(Model {
        gguf,
        config,
        act_quant,
        warnings,
        embedding,
        output,
        head,
        output_norm,
        layers,
        has_dense,
        rope,
        window_rope,
    })
}

/// The rotary embedding, with the divisors that the file has for it.
fn rope(tensors: &Tensors, config: &Config, n_ctx: Option<usize>) -> Result<Rope> {
    let pairs = config.rope.dim / 2;
    let divisors = match config.rope_table(config.n_ctx(n_ctx)?) {
        Some(table) => {
            let short = positive(ROPE_SHORT_DIVISORS, tensors.vector(ROPE_SHORT_DIVISORS, pairs)?)?;
            let long = positive(ROPE_LONG_DIVISORS, tensors.vector(ROPE_LONG_DIVISORS, pairs)?)?;
            Some(if table == "long" { long } else { short })
        }
        None => match tensors.optional_vector(ROPE_DIVISORS, pairs)? {
            Some(divisors) => Some(positive(ROPE_DIVISORS, divisors)?),
            None => None,
        },
    };
    Rope::new(&config.rope, config.head_dim, divisors.as_deref())
}

/// The divisors of a tensor, which must be above 0.
fn positive(name: &str, divisors: Vec<f32>) -> Result<Vec<f32>> {
    match divisors.iter().position(|divisor| *divisor <= 0.0) {
        None => Ok(divisors),
        Some(i) => Err(Error::Model(format!(
            "tensor '{name}' holds {} at index {i}, expected divisors above 0; the file is broken",
            divisors[i]
        ))),
    }
}

fn projections(config: &Config) -> [Projection; 7] {
    let (hidden, ffn, q, kv) = (config.hidden_size, config.intermediate_size, config.q_dim(), config.kv_dim());
    let names = &config.arch.tensors;
    let plain = |name, cols, rows| Projection { name, cols, rows, biased: false, norm: None };
    let biased = |projection| Projection { biased: config.arch.qkv_bias, ..projection };
    [
        biased(plain(names.q, hidden, q)),
        biased(plain(names.k, hidden, kv)),
        biased(plain(names.v, hidden, kv)),
        Projection { norm: names.attn_sub_norm, ..plain(names.o, q, hidden) },
        plain(names.gate, hidden, ffn),
        plain(names.up, hidden, ffn),
        Projection { norm: names.ffn_sub_norm, ..plain(names.down, ffn, hidden) },
    ]
}

impl<'a> Loader<'a> {
    fn norms(&self, layer: usize) -> Result<Norms> {
        let (config, names) = (self.config, &self.config.arch.tensors);
        let norm = |name: &str, len| self.tensors.vector(&format!("blk.{layer}.{name}.weight"), len);
        let optional = |name: Option<&str>| name.map(|name| norm(name, config.hidden_size)).transpose();
        let head = config.head_dim;
        let heads = config.arch.head_norm.map(|_| Ok([norm(Q_HEAD_NORM, head)?, norm(K_HEAD_NORM, head)?]));
        Ok(Norms {
            attn: norm(names.attn_norm, config.hidden_size)?,
            heads: heads.transpose()?,
            post_attn: optional(names.post_attn_norm)?,
            ffn: norm(names.ffn_norm, config.hidden_size)?,
            post_ffn: optional(names.post_ffn_norm)?,
        })
    }

    /// The RMSNorm of a projection's input alone. A file has [`NORM_IN`] for every projection or for none.
    fn norm(&self, layer: usize, projection: &Projection) -> Result<Option<Vec<f32>>> {
        let norm_in =
            |layer: usize, projection: &Projection| format!("blk.{layer}.{}{NORM_IN}.weight", projection.name);
        let first = norm_in(0, &self.projections[0]);
        let name = if self.config.arch.norm_in && self.tensors.gguf.tensor(&first).is_some() {
            Some(norm_in(layer, projection))
        } else {
            projection.norm.map(|name| format!("blk.{layer}.{name}.weight"))
        };
        name.map(|name| self.tensors.vector(&name, projection.cols)).transpose()
    }

    /// A projection's weights; looks up the vectors beside them as well.
    fn tensor(&self, layer: usize, projection: &Projection) -> Result<&'a Tensor> {
        self.factor(layer, projection)?;
        self.bias(layer, projection)?;
        self.norm(layer, projection)?;
        let Projection { name, cols, rows, .. } = projection;
        self.tensors.required(&format!("blk.{layer}.{name}.weight"), *cols, *rows)
    }

    /// The scale that converters of 2024 stored in a tensor of its own; 1 without one.
    fn factor(&self, layer: usize, projection: &Projection) -> Result<f32> {
        let factor = self.tensors.optional_vector(&format!("blk.{layer}.{}.scale", projection.name), 1)?;
        Ok(factor.map_or(1.0, |factor| factor[0]))
    }

    /// All projections, layer by layer, each with its factor.
    fn views(&self) -> Result<Vec<plausible::Projection<'a>>> {
        let mut views = Vec::with_capacity(self.config.n_layers * self.projections.len());
        for layer in 0..self.config.n_layers {
            for projection in &self.projections {
                let rows = TensorRows::of(self.tensors.gguf, self.tensor(layer, projection)?)?;
                views.push((rows, self.factor(layer, projection)?));
            }
        }
        Ok(views)
    }

    fn bias(&self, layer: usize, projection: &Projection) -> Result<Option<Vec<f32>>> {
        let name = format!("blk.{layer}.{}.bias", projection.name);
        match projection.biased {
            true => self.tensors.vector(&name, projection.rows).map(Some),
            false => self.tensors.optional_vector(&name, projection.rows),
        }
    }

    /// Packs the projections, layer by layer; `None` for one that stays dense. Unless the caller `asked` for int8
    /// activations, all of them stay dense if one is not ternary: such a model was trained on float activations.
    fn pack_all(&self, asked: Option<ActQuant>) -> Result<(Vec<Option<Ternary>>, ActQuantDecision)> {
        let count = self.config.n_layers * self.projections.len();
        let all_dense = |reason: String| {
            let packed = (0..count).map(|_| None).collect();
            Ok((packed, ActQuantDecision { chosen: ActQuant::None, reason }))
        };
        if asked == Some(ActQuant::None) {
            return all_dense("as requested".into());
        }
        let arena = Arena::default();
        let mut packed = Vec::with_capacity(count);
        let mut not_ternary = None;
        for layer in 0..self.config.n_layers {
            for projection in &self.projections {
                check_cancelled(self.cancel)?;
                let tensor = self.tensor(layer, projection)?;
                packed.push(match pack(self.tensors.gguf, tensor, self.team, &arena) {
                    Ok(mut ternary) => {
                        self.tensors.gguf.release(tensor);
                        ternary.scale_by(self.factor(layer, projection)?);
                        Some(ternary)
                    }
                    Err(NotPacked::Broken(error)) => return Err(error),
                    Err(NotPacked::NotTernary(why)) if asked.is_none() => {
                        return all_dense(format!("not every projection is ternary with one scale: {why}"));
                    }
                    Err(NotPacked::NotTernary(why)) => {
                        not_ternary.get_or_insert(why);
                        None
                    }
                });
            }
        }
        let reason = match (asked, not_ternary) {
            (None, _) => "every projection is ternary with one scale".into(),
            (Some(_), None) => "as requested; every projection is ternary with one scale".into(),
            (Some(_), Some(why)) => format!("as requested; some projections stay dense and read rounded inputs: {why}"),
        };
        Ok((packed, ActQuantDecision { chosen: ActQuant::Int8, reason }))
    }

    fn linear(&self, layer: usize, projection: &Projection, packed: Option<Ternary>) -> Result<Linear> {
        let matrix = match packed {
            Some(ternary) => Matrix::Ternary(ternary),
            None => {
                check_cancelled(self.cancel)?;
                let tensor = self.tensor(layer, projection)?;
                let dense = Dense::new(self.tensors.gguf, tensor, self.factor(layer, projection)?)?;
                dense.check(self.team)?;
                Matrix::Dense(dense)
            }
        };
        Ok(Linear { matrix, bias: self.bias(layer, projection)?, norm: self.norm(layer, projection)? })
    }
}
