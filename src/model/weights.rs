//! From a file's tensors to a model's layers, and what each projection becomes: packed trits or dense rows.

use super::arch::{
    DELTA_NET, K_HEAD_NORM, NORM_IN, OUTPUT, OUTPUT_NORM, Q_HEAD_NORM, ROPE_DIVISORS, ROPE_LONG_DIVISORS,
    ROPE_SHORT_DIVISORS, TOKEN_EMBEDDING,
};
use super::attention::Attention;
use super::config::Config;
use super::delta_net::DeltaNet;
use super::feed_forward::NeuronCopies;
use super::head::{Copy, Head};
use super::input::InputForm;
use super::linear::{Dense, Linear, Matrix};
use super::pack::{NotPacked, Packer, pack, pack_grouped};
use super::plausible;
use super::projections::{Projection, projections};
use super::rotation::{Rotation, Rotations};
use super::tensors::Tensors;
use super::{ActQuant, Block, LoadOptions, Mixer, Model, Norms, check_cancelled};
use crate::checkpoint::gguf::{Gguf, Tensor, TensorType};
use crate::codec::TensorRows;
use crate::error::{Error, Result};
use crate::kernel::Team;
use crate::kernel::packing::Packing;
use crate::ops::rope::Rope;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// What the inputs of projections are rounded to, and why.
pub struct ActQuantDecision {
    /// The type of their inputs.
    pub chosen: ActQuant,
    /// Why, as a phrase for people.
    pub reason: String,
}

struct Loader<'a> {
    tensors: Tensors<'a>,
    config: &'a Config,
    /// Of each layer, in the order of computation.
    projections: Vec<Vec<Projection>>,
    rotations: Option<Rotations>,
    team: &'a Team<'a>,
    /// The packing of ternary matrices, if it is not to be the one that suits the kernels.
    packing: Option<Packing>,
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
    let tensors = Tensors::new(&gguf, &config);
    let (hidden_size, vocab_size) = (config.hidden_size, config.vocab_size);
    let embedding = tensors.dense(TOKEN_EMBEDDING, hidden_size, vocab_size)?;
    let output = tensors.optional(OUTPUT, hidden_size, vocab_size)?;
    let output = output.map(|tensor| Dense::new(&gguf, tensor, 1.0)).transpose()?;
    let output_norm = tensors.vector(OUTPUT_NORM, hidden_size)?;
    let rope = rope(&tensors, &config, options.n_ctx)?;
    let window_rope =
        config.window.as_ref().map(|window| Rope::new(&window.rope, config.head_dim, None)).transpose()?;
    let projections = (0..config.n_layers).map(|layer| projections(&config, layer)).collect();
    let rotations = Rotations::read(&gguf)?;
    let packing = options.packing;
    let loader = Loader { tensors, config: &config, projections, rotations, team, packing, cancel };
    // Every tensor is looked up before the first is packed, so that a wrong file is refused at once.
    let parts = (0..config.n_layers).map(|layer| {
        loader.projections[layer].iter().try_for_each(|projection| loader.tensor(layer, projection).map(drop))?;
        loader.check_rotations(layer)?;
        Ok((loader.norms(layer)?, loader.mixer_parts(layer)?))
    });
    let parts: Vec<(Norms, MixerParts)> = parts.collect::<Result<_>>()?;
    let [embedding_rotation, head_rotation] = loader.outer_rotations(output.is_some())?;
    let matrix = output.as_ref().unwrap_or(&embedding);
    let head_copy = Copy::stored(&loader.tensors, matrix)?;
    loader.tensors.refuse_surplus()?;
    loader.rotations.iter().try_for_each(Rotations::refuse_surplus)?;

    let (packed, input_form, act_quant) = loader.pack_all(options.act_quant)?;
    // What looked wrong when a model was packed, its file tells.
    let doubts = match gguf.packed() {
        Some(packed) => packed.warnings.clone(),
        None => plausible::warnings(&gguf, &loader.views()?)?,
    };
    let warnings = [config.warnings.clone(), doubts.clone()].concat();
    let mut packed = packed.into_iter();
    let mut layers = Vec::with_capacity(config.n_layers);
    for (layer, (norms, mixer)) in parts.into_iter().enumerate() {
        let projections = loader.projections[layer].iter();
        let linear = |projection| loader.linear(layer, projection, packed.next().flatten());
        let linears = projections.map(linear).collect::<Result<Vec<Linear>>>()?;
        layers.push(mixer.into_block(norms, linears));
    }
    let has_dense = layers.iter().flat_map(Block::linears).any(|l| matches!(l.matrix, Matrix::Dense(_)));
    let rounds_dense = has_dense && gguf.float_projections().next().is_none();
    let head = Head::new(options.lm_head, config.softcap.is_some(), team, matrix, (head_copy, packing))?;
    let neurons = NeuronCopies::new(&config, &layers);
    Ok(Model {
        gguf,
        config,
        act_quant,
        input_form,
        warnings,
        doubts,
        embedding,
        embedding_rotation,
        head_rotation,
        output,
        head,
        output_norm,
        layers,
        neurons,
        rounds_dense,
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

impl<'a> Loader<'a> {
    fn norms(&self, layer: usize) -> Result<Norms> {
        let (config, names) = (self.config, &self.config.arch.tensors);
        let norm = |name: &str, len| self.tensors.vector(&format!("blk.{layer}.{name}.weight"), len);
        let optional = |name: Option<&str>| name.map(|name| norm(name, config.hidden_size)).transpose();
        Ok(Norms {
            attn: norm(names.attn_norm, config.hidden_size)?,
            post_attn: optional(names.post_attn_norm)?,
            ffn: norm(names.ffn_norm, config.hidden_size)?,
            post_ffn: optional(names.post_ffn_norm)?,
        })
    }

    /// The RMSNorm of a projection's input alone. A file has [`NORM_IN`] for every projection or for none.
    fn norm(&self, layer: usize, projection: &Projection) -> Result<Option<Vec<f32>>> {
        let norm_in =
            |layer: usize, projection: &Projection| format!("blk.{layer}.{}{NORM_IN}.weight", projection.name);
        let first = norm_in(0, &self.projections[0][0]);
        let name = if self.config.arch.norm_in && self.tensors.gguf.tensor(&first).is_some() {
            Some(norm_in(layer, projection))
        } else {
            projection.norm.map(|name| format!("blk.{layer}.{name}.weight"))
        };
        name.map(|name| self.tensors.vector(&name, projection.cols)).transpose()
    }

    /// The projections of all layers, each with the index of its layer.
    fn all_projections(&self) -> impl Iterator<Item = (usize, &Projection)> {
        let n_layers = self.projections.len();
        (0..n_layers).flat_map(|layer| self.projections[layer].iter().map(move |projection| (layer, projection)))
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
        let view = |(layer, projection): (usize, &Projection)| {
            let rows = TensorRows::of(self.tensors.gguf, self.tensor(layer, projection)?)?;
            Ok((rows, self.factor(layer, projection)?))
        };
        self.all_projections().map(view).collect()
    }

    fn bias(&self, layer: usize, projection: &Projection) -> Result<Option<Vec<f32>>> {
        let name = format!("blk.{layer}.{}.bias", projection.name);
        match projection.biased {
            true => self.tensors.vector(&name, projection.rows).map(Some),
            false => self.tensors.optional_vector(&name, projection.rows),
        }
    }

    /// Packs the projections, layer by layer, as the caller `asked` or as their values suggest; `None` for one that
    /// stays dense. By default a model is packed as a whole or not at all: one whose projections are not all ternary
    /// was trained on float activations.
    fn pack_all(&self, asked: Option<ActQuant>) -> Result<(Vec<Option<Matrix>>, InputForm, ActQuantDecision)> {
        let blocks = |act_quant: ActQuant| InputForm::Blocks(act_quant.planes());
        let fine = matches!(asked, Some(ActQuant::Int16 | ActQuant::Int24));
        let prefix = if asked.is_some() { "as requested; " } else { "" };
        let decided = |packed, form, chosen, why: &str| {
            Ok((packed, form, ActQuantDecision { chosen, reason: format!("{prefix}{why}") }))
        };
        let dense = || self.all_projections().map(|_| None).collect();
        if asked == Some(ActQuant::None) {
            return Ok((
                dense(),
                InputForm::Floats,
                ActQuantDecision { chosen: ActQuant::None, reason: "as requested".into() },
            ));
        }
        let mut not_ternary = None;
        let on_floats = asked.is_none() && self.was_trained_on_floats()?;
        if !fine && !on_floats {
            match self.pack_each(pack_one_scale, true)? {
                (packed, None) => {
                    let stay = self.tensors.gguf.float_projections().count();
                    let but = if stay == 0 { String::new() } else { format!(", but for {stay} that stay floats") };
                    let why = &format!("every projection is ternary with one scale{but}");
                    return decided(packed, InputForm::PerToken, ActQuant::Int8, why);
                }
                (_, why) => not_ternary = why,
            }
        }
        // Gated delta nets magnify roundings, where a small output is normalised.
        let hybrid = self.config.delta_nets.is_some();
        let chosen = asked.unwrap_or(if hybrid { ActQuant::Int24 } else { ActQuant::Int16 });
        // Activations of 16 bits are close enough to floats that a dense projection among these is no contradiction.
        match self.pack_each(pack_groups, !fine)? {
            (packed, None) => {
                let magnifies = if hybrid { "; gated delta nets magnify roundings" } else { "" };
                let why =
                    format!("every projection is ternary with a scale for each row and group of columns{magnifies}");
                return decided(packed, blocks(chosen), chosen, &why);
            }
            (packed, Some(why)) if fine => {
                return decided(packed, blocks(chosen), chosen, &format!("some projections stay dense: {why}"));
            }
            (_, Some(why)) => not_ternary = not_ternary.or(Some(why)),
        }
        let why = not_ternary.unwrap_or_default();
        if asked == Some(ActQuant::Int8) {
            let (packed, _) = self.pack_each(pack_one_scale, false)?;
            let why = format!("some projections stay dense and read rounded inputs: {why}");
            return decided(packed, InputForm::PerToken, ActQuant::Int8, &why);
        }
        decided(dense(), InputForm::Floats, ActQuant::None, &format!("not every projection is ternary: {why}"))
    }

    /// Whether the types of the projections are those of models that were trained on float inputs, whatever their
    /// scales. Models with a norm before a projection were not.
    fn was_trained_on_floats(&self) -> Result<bool> {
        use TensorType::{PQ2_0, PTQ1_0, Q1_0, Q2_0_G64, Q2_0_G128, STQ1_0};
        let mut has_type = false;
        for (layer, projection) in self.all_projections() {
            let kind = self.tensor(layer, projection)?.kind();
            if kind.packed_layout().is_some_and(|layout| layout.group.is_some()) {
                return Ok(true);
            }
            has_type |= matches!(kind, Q2_0_G64 | Q2_0_G128 | PQ2_0 | PTQ1_0 | Q1_0 | STQ1_0);
            if self.norm(layer, projection)?.is_some() {
                return Ok(false);
            }
        }
        Ok(has_type)
    }

    /// Packs all projections by `pack`; `None` for those that are not ternary in its sense, with the reason of the
    /// first. With `whole` the first ends it.
    fn pack_each(&self, pack: PackMatrix, whole: bool) -> Result<(Vec<Option<Matrix>>, Option<String>)> {
        let packer = Packer::new(self.team, self.packing);
        let mut packed = Vec::new();
        let mut not_ternary = None;
        for (layer, projection) in self.all_projections() {
            check_cancelled(self.cancel)?;
            let (tensor, factor) = (self.tensor(layer, projection)?, self.factor(layer, projection)?);
            if self.tensors.gguf.float_projections().any(|name| name == tensor.name()) {
                packed.push(None);
                continue;
            }
            packed.push(match pack(self.tensors.gguf, tensor, factor, &packer) {
                Ok(matrix) => {
                    if tensor.kind().packed_layout().is_none() {
                        self.tensors.gguf.release(tensor, 0..tensor.size());
                    }
                    Some(matrix)
                }
                Err(NotPacked::Broken(error)) => return Err(error),
                Err(NotPacked::NotTernary(why)) if whole => return Ok((Vec::new(), Some(why))),
                Err(NotPacked::NotTernary(why)) => {
                    not_ternary.get_or_insert(why);
                    None
                }
            });
        }
        Ok((packed, not_ternary))
    }

    fn linear(&self, layer: usize, projection: &Projection, packed: Option<Matrix>) -> Result<Linear> {
        let matrix = match packed {
            Some(matrix) => matrix,
            None => {
                check_cancelled(self.cancel)?;
                let tensor = self.tensor(layer, projection)?;
                let dense = Dense::new(self.tensors.gguf, tensor, self.factor(layer, projection)?)?;
                dense.check(self.team)?;
                Matrix::Dense(dense)
            }
        };
        let (bias, norm) = (self.bias(layer, projection)?, self.norm(layer, projection)?);
        Ok(Linear { matrix, bias, norm, rotation: self.rotation(layer, projection)? })
    }
}

impl Loader<'_> {
    /// What a layer's attention or gated delta net has beside its projections.
    fn mixer_parts(&self, layer: usize) -> Result<MixerParts> {
        let config = self.config;
        let index = (0..layer).filter(|i| config.delta_net_of(*i).is_some() == config.delta_net_of(layer).is_some());
        let index = index.count();
        let vector = |name: &str, len| self.tensors.vector(&format!("blk.{layer}.{name}"), len);
        let weights = |name: &str, len| vector(&format!("{name}.weight"), len);
        let Some(nets) = config.delta_net_of(layer) else {
            let d = config.head_dim;
            let heads = config.arch.head_norm.map(|_| Ok([weights(Q_HEAD_NORM, d)?, weights(K_HEAD_NORM, d)?]));
            return Ok(MixerParts::Attention { head_norms: heads.transpose()?, kv_layer: index });
        };
        let (channels, n_heads) = (nets.channels(), nets.n_value_heads);
        let dense = |name: &str| {
            let dense = self.tensors.dense(&format!("blk.{layer}.{name}.weight"), config.hidden_size, n_heads)?;
            dense.check(self.team)?;
            Ok(dense)
        };
        let by_channel = self.tensors.matrix(&format!("blk.{layer}.{}.weight", DELTA_NET.conv), nets.conv, channels)?;
        let conv = (0..nets.conv).flat_map(|tap| by_channel.iter().skip(tap).step_by(nets.conv)).copied().collect();
        let (a, dt) = (vector(DELTA_NET.a, n_heads)?, vector(DELTA_NET.dt, n_heads)?);
        let groups = self.rotations.as_ref().is_some_and(|rotations| rotations.groups_values)
            && self.rotation_of(layer, DELTA_NET.out, nets.value_dim())?.is_some();
        let (keys, repeats) = (nets.n_key_heads, n_heads / nets.n_key_heads);
        let place = |head: usize| if groups { head % keys * repeats + head / keys } else { head };
        Ok(MixerParts::DeltaNet {
            rate_projections: Box::new([dense(DELTA_NET.alpha)?, dense(DELTA_NET.beta)?]),
            rates: a.into_iter().zip(dt).collect(),
            conv,
            norm: weights(DELTA_NET.norm, nets.head_dim)?,
            state_layer: index,
            places: (0..n_heads).map(place).collect(),
        })
    }

    fn rotation_of(&self, layer: usize, name: &str, cols: usize) -> Result<Option<Arc<Rotation>>> {
        let Some(rotations) = &self.rotations else { return Ok(None) };
        rotations.of_input(&format!("blk.{layer}.{name}.weight"), cols)
    }

    /// The rotation of a projection's input, if its weights are stored rotated.
    fn rotation(&self, layer: usize, projection: &Projection) -> Result<Option<Arc<Rotation>>> {
        self.rotation_of(layer, projection.name, projection.cols)
    }

    /// Refuses a layer of which some projections that share an input are rotated, and others not.
    fn check_rotations(&self, layer: usize) -> Result<()> {
        let rotated = |projection: &Projection| Ok(self.rotation(layer, projection)?.is_some());
        let all = self.projections[layer].iter().map(rotated).collect::<Result<Vec<bool>>>()?;
        let (mixer, ffn) = all.split_at(all.len() - 3);
        let shared = [&mixer[..mixer.len() - 1], &ffn[..2]];
        if shared.iter().all(|shared| shared.iter().all(|rotated| *rotated == shared[0])) {
            return Ok(());
        }
        Err(Error::Unsupported(format!(
            "block {layer}: of projections that read the same input, some are stored rotated and others not; this engine \
             rotates an input for all of them"
        )))
    }

    /// The rotations of the embedding's rows and of the state before the output head.
    fn outer_rotations(&self, has_output: bool) -> Result<[Option<Arc<Rotation>>; 2]> {
        let Some(rotations) = &self.rotations else { return Ok([None, None]) };
        let width = self.config.hidden_size;
        let head =
            if has_output { rotations.of_input(OUTPUT, width) } else { rotations.of_tied_head(TOKEN_EMBEDDING, width) };
        Ok([rotations.of_rows(TOKEN_EMBEDDING, width)?, head?])
    }
}

/// What an attention or a gated delta net has beside its projections.
enum MixerParts {
    Attention {
        head_norms: Option<[Vec<f32>; 2]>,
        kv_layer: usize,
    },
    DeltaNet {
        /// Of alpha and beta.
        rate_projections: Box<[Dense; 2]>,
        rates: Vec<(f32, f32)>,
        conv: Vec<f32>,
        norm: Vec<f32>,
        state_layer: usize,
        places: Vec<usize>,
    },
}

impl MixerParts {
    /// A block of these parts and the projections, which are in the order of [`projections`].
    fn into_block(self, norms: Norms, linears: Vec<Linear>) -> Block {
        let mut linears = linears.into_iter();
        let mut next = || linears.next().expect("as many as `projections` lists");
        let mixer = match self {
            MixerParts::Attention { head_norms, kv_layer } => {
                Mixer::Attention(Attention { q: next(), k: next(), v: next(), o: next(), head_norms, kv_layer })
            }
            MixerParts::DeltaNet { rate_projections, rates, conv, norm, state_layer, places } => {
                let [alpha, beta] = *rate_projections;
                let [qkv, gate, out] = [next(), next(), next()];
                Mixer::DeltaNet(DeltaNet { qkv, gate, alpha, beta, out, rates, conv, norm, state_layer, places })
            }
        };
        Block { norms, mixer, gate: next(), up: next(), down: next() }
    }
}

/// Packs a tensor whose values the file multiplies by a factor.
type PackMatrix = fn(&Arc<Gguf>, &Tensor, f32, &Packer) -> std::result::Result<Matrix, NotPacked>;

fn pack_one_scale(
    gguf: &Arc<Gguf>,
    tensor: &Tensor,
    factor: f32,
    packer: &Packer,
) -> std::result::Result<Matrix, NotPacked> {
    let mut ternary = pack(gguf, tensor, packer)?;
    ternary.scale_by(factor);
    Ok(Matrix::Ternary(ternary))
}

fn pack_groups(
    gguf: &Arc<Gguf>,
    tensor: &Tensor,
    factor: f32,
    packer: &Packer,
) -> std::result::Result<Matrix, NotPacked> {
    let mut grouped = pack_grouped(gguf, tensor, packer)?;
    grouped.scale_by(factor);
    Ok(Matrix::Grouped(grouped))
}
