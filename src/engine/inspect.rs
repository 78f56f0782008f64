//! What a model file holds, and how an engine would run it.

use super::tensor::zeros;
use super::{ActQuant, Config, Engine, Options, Watch};
use crate::checkpoint::gguf::{Metadata, Tensor, TensorInfo};
use crate::checkpoint::{Checkpoint, Listing, Packed};
use crate::error::{Error, Result};
use std::collections::BTreeMap;
use std::path::Path;

/// An inspected model file.
pub struct Inspection(File);

enum File {
    /// A file that this engine runs.
    Model(Box<Engine>),
    /// A valid file that this engine does not run, with the reason.
    Refused(Box<Listing>, Error),
}

/// A tensor of a file.
pub struct TensorSummary<'a> {
    /// The name, such as `blk.0.attn_q.weight`.
    pub name: &'a str,
    /// The tensor type's name, such as `I2_S`.
    pub kind: &'a str,
    /// Dimensions in the file's order, the one that varies fastest first.
    pub shape: &'a [usize],
    /// Size of the data in bytes.
    pub bytes: usize,
}

impl<'a> TensorSummary<'a> {
    fn of_tensor(tensor: &'a Tensor) -> TensorSummary<'a> {
        TensorSummary { name: tensor.name(), kind: tensor.kind().name(), shape: tensor.shape(), bytes: tensor.size() }
    }

    /// A tensor as an unchecked header lists it.
    fn of_entry(info: &'a TensorInfo) -> TensorSummary<'a> {
        // The error says what else there is to say about a type that does not run.
        let kind = info.kind.split_once(" (").map_or(&*info.kind, |(name, _)| name);
        TensorSummary { name: &info.name, kind, shape: &info.shape, bytes: info.bytes }
    }
}

/// All tensors of one type.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct TypeTotal {
    /// How many tensors have the type.
    pub tensors: usize,
    /// Size of their data in bytes.
    pub bytes: usize,
}

/// How an engine runs a model.
pub struct ModelSummary<'a> {
    /// The model's dimensions and constants.
    pub config: &'a Config,
    /// Whether the embedding also serves as the output head.
    pub tied: bool,
    /// How its graph differs from Llama's, in phrases for people.
    pub graph: Vec<String>,
    /// Whether the projections' inputs are rounded to int8.
    pub act_quant: ActQuant,
    /// Why, as a sentence for people.
    pub act_quant_reason: &'a str,
    /// As [`Engine::warnings`].
    pub warnings: Vec<String>,
}

impl Inspection {
    /// Opens a model with default options. If the engine cannot run it, reads its header alone.
    pub fn open(path: &Path, watch: &mut Watch) -> Result<Inspection> {
        Ok(Inspection(match Engine::open(path, Options::default(), watch) {
            Ok(engine) => File::Model(Box::new(engine)),
            Err(error @ (Error::Unsupported(_) | Error::Model(_))) => {
                File::Refused(Box::new(Listing::open(path)?), error)
            }
            Err(error) => return Err(error),
        }))
    }

    fn checkpoint(&self) -> &Checkpoint {
        match &self.0 {
            File::Model(engine) => engine.gguf(),
            File::Refused(listing, _) => &listing.checkpoint,
        }
    }

    /// The version of the GGUF format; nothing for a Hugging Face directory.
    pub fn version(&self) -> Option<u32> {
        self.checkpoint().version()
    }

    /// What a packed file tells of the model that was packed; nothing for other models.
    pub fn packed(&self) -> Option<&Packed> {
        self.checkpoint().packed()
    }

    /// Size of the file in bytes; of several files, of all of them.
    pub fn file_size(&self) -> u64 {
        self.checkpoint().file_size()
    }

    /// All keys and values of the metadata; of a directory, those that a converter to GGUF would have written.
    pub fn metadata(&self) -> Metadata<'_> {
        self.checkpoint().metadata()
    }

    /// All tensors, in the order of the file.
    pub fn tensors(&self) -> Vec<TensorSummary<'_>> {
        match &self.0 {
            File::Model(engine) => engine.gguf().tensors().iter().map(TensorSummary::of_tensor).collect(),
            File::Refused(listing, _) => listing.tensors.iter().map(TensorSummary::of_entry).collect(),
        }
    }

    /// For each tensor the share of its values that are zero, if it is ternary. It reads all weights. Nothing for a
    /// file that this engine does not run.
    pub fn zeros(&self, watch: &mut Watch) -> Result<Vec<Option<f64>>> {
        match &self.0 {
            File::Refused(listing, _) => Ok(vec![None; listing.tensors.len()]),
            File::Model(engine) => {
                let gguf = engine.gguf();
                gguf.tensors().iter().map(|tensor| zeros(gguf, tensor, watch)).collect()
            }
        }
    }

    /// Number and size of the tensors of each type.
    pub fn types(&self) -> BTreeMap<&str, TypeTotal> {
        let mut types = BTreeMap::<&str, TypeTotal>::new();
        for tensor in self.tensors() {
            let total = types.entry(tensor.kind).or_default();
            total.tensors += 1;
            total.bytes += tensor.bytes;
        }
        types
    }

    /// How an engine runs the model, or why it cannot.
    pub fn model(&self) -> std::result::Result<ModelSummary<'_>, &Error> {
        match &self.0 {
            File::Refused(_, error) => Err(error),
            File::Model(engine) => {
                let model = &engine.runtime.model;
                let tokenizer = engine.tokenizer().ok().and_then(|tokenizer| tokenizer.warning.clone());
                Ok(ModelSummary {
                    config: model.config(),
                    tied: model.tied(),
                    graph: model.graph(),
                    act_quant: engine.act_quant(),
                    act_quant_reason: &model.act_quant.reason,
                    warnings: [engine.warnings(), tokenizer.into_iter().collect()].concat(),
                })
            }
        }
    }
}
