//! The engine: one open model with its threads, shared by any number of callers.
//!
//! Everything that a caller of the crate needs for one model starts here: text and ids in, text and ids out, scores,
//! embeddings, spans, receipts. The plain data types of the layers below are re-exported.

mod embed;
mod generate;
mod hardware;
mod inspect;
mod open;
mod pack;
mod prefixes;
mod prompt;
mod receipts;
mod replay;
mod score;
mod spans;
mod stop_strings;
mod stream;
mod template;
mod tensor;
mod thoughts;
mod together;
mod tool_calls;
mod trace;

pub use crate::decode::{Finish, Likelihood, TokenScore, Watch};
pub use crate::model::config::{Config, Pooling};
pub use crate::model::{ActQuant, InputTrace, LayerTrace, LmHead, PerToken, ProjectionTrace, Trace};
pub use crate::ops::activation::Activation;
pub use crate::ops::attention::KvType;
pub use embed::Embedding;
pub use generate::Prefill;
pub use hardware::{dot_peak, isas, look_up_peak};
pub use inspect::{Inspection, ModelSummary, TensorSummary, TypeTotal};
pub use open::Options;
pub use pack::{PackedFile, Packing, check_packed, pack};
pub use prompt::{LogitsProcessor, PromptOrigin, Request, TextOrIds};
pub use receipts::NUMERICS;
pub use replay::{Replay, ReplayTask};
pub use score::{ContinuationScore, Question, Scores};
pub use spans::{Span, spans};
pub use stream::{Piece, Stream};
pub use template::template_of_file;
pub use tensor::TensorValues;
pub use tool_calls::ToolCall;

use crate::checkpoint::gguf::Gguf;
use crate::decode::{PrefixCache, Runtime};
use crate::error::{Error, Result};
use crate::grammar::Grammars;
use crate::machine::facts::{Resident, resident};
use crate::template::Template;
use crate::tokenizer::Tokenizer;
use open::TokenizerThread;
use receipts::Identity;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

/// An open model with its threads. Any number of callers can share it: only its caches change.
pub struct Engine {
    runtime: Arc<Runtime>,
    kv_type: KvType,
    identity: Identity,
    tokenizer: OnceLock<Result<Arc<Tokenizer>>>,
    /// The compiler of grammars, made when one is first needed.
    grammars: OnceLock<Result<Grammars>>,
    tokenizer_thread: Mutex<TokenizerThread>,
    template: OnceLock<Arc<Template>>,
    /// Sequences that were computed before.
    prefix_cache: PrefixCache,
}

/// Memory that an engine takes, in bytes.
pub struct MemoryUse {
    /// Ternary weights, packed for the kernels when the model was opened.
    pub packed_weights: usize,
    /// Weights that stay in the mapped file, where the operating system can evict them and processes share them. Of a
    /// packed model these are all weights.
    pub mapped_weights: usize,
    /// The 8-bit copy of the output head, once it has been made; a packed model's is mapped.
    pub head_copy: usize,
    /// The upper six bits of that copy, once they have been made: a single row reads them first.
    pub head_upper: usize,
    /// The copy of the feed-forward matrices by neurons, once it has been made: a single row skips zeros in it.
    pub neuron_copy: usize,
    /// The prefix cache: keys, values and recurrent states.
    pub kv_cache: usize,
    /// The model file on disk.
    pub file: u64,
    /// What the process takes, and the part of it that are pages of files; 0 where the system does not tell.
    pub process: Resident,
}

impl Engine {
    /// The model and the threads that run it.
    pub fn runtime(&self) -> &Arc<Runtime> {
        &self.runtime
    }

    /// Passes so far, the steps in all of them, and what waits in the queue of steps.
    pub fn queue_counts(&self) -> (u64, u64, usize) {
        self.runtime.batcher.counts()
    }

    /// The model's dimensions and constants.
    pub fn config(&self) -> &Config {
        self.runtime.model.config()
    }

    /// The mapped model file: metadata and tensors.
    pub fn gguf(&self) -> &Gguf {
        self.runtime.model.gguf()
    }

    /// Number of token ids: valid ids are 0 up to, not including, this.
    pub fn n_vocab(&self) -> usize {
        self.config().vocab_size
    }

    /// Positions that one sequence may have.
    pub fn n_ctx(&self) -> usize {
        self.runtime.n_ctx
    }

    /// Positions that one forward pass takes at most.
    pub fn n_batch(&self) -> usize {
        self.runtime.n_batch
    }

    /// Answers that one forward pass advances at most.
    pub fn max_batch(&self) -> usize {
        self.runtime.max_batch
    }

    /// Number of threads that compute.
    pub fn n_threads(&self) -> usize {
        self.runtime.pool.size()
    }

    /// The instruction set in use, such as `avx512-vnni`.
    pub fn isa(&self) -> &'static str {
        self.runtime.kernels.isa.name()
    }

    /// How keys and values are stored.
    pub fn kv_type(&self) -> KvType {
        self.kv_type
    }

    /// Which of LongRoPE's tables of frequencies `n_ctx` has chosen; `None` for other models.
    pub fn rope_table(&self) -> Option<&'static str> {
        self.config().rope_table(self.n_ctx())
    }

    /// Whether the projections' inputs are rounded to int8.
    pub fn act_quant(&self) -> ActQuant {
        self.runtime.model.act_quant.chosen
    }

    /// How logits are computed.
    pub fn lm_head(&self) -> LmHead {
        self.runtime.model.lm_head()
    }

    /// The name of the output head, unless its logits are exact.
    fn inexact_head(&self) -> Option<&'static str> {
        (self.lm_head() == LmHead::Int8).then(|| self.lm_head().name())
    }

    /// What looks wrong in the file or its weights, although the model runs. It waits for nothing, so the tokenizer,
    /// which may still be in the making, tells its own.
    pub fn warnings(&self) -> Vec<String> {
        [self.gguf().warnings(), &self.runtime.model.warnings].concat()
    }

    /// The memory that the engine takes at this moment.
    pub fn memory(&self) -> MemoryUse {
        let model = &self.runtime.model;
        MemoryUse {
            packed_weights: model.owned_bytes(),
            mapped_weights: model.mapped_bytes(),
            head_copy: model.copied_bytes(),
            head_upper: model.head_upper_bytes(),
            neuron_copy: model.neuron_bytes(),
            kv_cache: self.cached_bytes(),
            file: model.gguf().file_size(),
            process: resident(),
        }
    }

    /// What computing one token costs.
    pub fn per_token(&self) -> PerToken {
        self.runtime.model.per_token(self.kv_type)
    }

    /// The model's tokenizer; an error if the file has none, or one of an unknown kind.
    pub fn tokenizer(&self) -> Result<&Tokenizer> {
        let built = self.tokenizer.get_or_init(|| {
            let mut thread = self.tokenizer_thread.lock().unwrap_or_else(PoisonError::into_inner);
            let built = thread.join().unwrap_or_else(|| Err(Error::Model("building the tokenizer failed".into())));
            built.map(Arc::new)
        });
        built.as_ref().map(|tokenizer| &**tokenizer).map_err(Error::clone)
    }

    /// What reads grammars for the model's vocabulary.
    fn grammars(&self) -> Result<&Grammars> {
        self.tokenizer()?;
        let make = || {
            let tokenizer = self.tokenizer.get().cloned().expect("it was asked for")?;
            Grammars::new(tokenizer, self.n_vocab())
        };
        self.grammars.get_or_init(make).as_ref().map_err(Error::clone)
    }

    /// The model's chat template: the file's own, or else one that the model's name suggests.
    pub fn template(&self) -> Result<Arc<Template>> {
        if let Some(template) = self.template.get() {
            return Ok(template.clone());
        }
        let template = Arc::new(template::template_of(self.gguf(), self.tokenizer().ok(), None)?);
        Ok(self.template.get_or_init(|| template).clone())
    }
}
