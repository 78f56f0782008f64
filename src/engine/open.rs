//! Opening a model.

use super::receipts::Identity;
use super::{ActQuant, Activation, Engine, KvType, LmHead, Packing, Watch};
use crate::checkpoint::gguf::Gguf;
use crate::decode::{PrefixCache, Runtime};
use crate::error::{Error, Result};
use crate::kernel::{Team, kernels};
use crate::machine::facts;
use crate::machine::pool::{Pool, Workers};
use crate::machine::thread::Background;
use crate::model::{LoadOptions, Model};
use crate::tokenizer::Tokenizer;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, OnceLock};

/// The default `n_batch`: enough rows to amortise reading the weights, few enough that they stay in the cache.
const DEFAULT_BATCH: usize = 128;

/// The default `max_batch`: more answers at once gain little speed.
const DEFAULT_MAX_BATCH: usize = 32;

/// The default size of the prefix cache, if one sequence does not need more.
const DEFAULT_CACHE_BYTES: usize = 512 << 20;

/// How to open a model. `None` takes the default.
#[derive(Default)]
pub struct Options {
    /// Positions that one sequence may have. Default: the model's, at most 4096.
    pub n_ctx: Option<usize>,
    /// Threads that compute. Default: the processors that this process may use.
    pub n_threads: Option<usize>,
    /// Positions that one forward pass takes at most. Default: 128.
    pub n_batch: Option<usize>,
    /// Answers that one forward pass advances at most. Default: 32.
    pub max_batch: Option<usize>,
    /// Bytes of keys, values and states that are kept for later prompts. Default: 512 MiB, or what one sequence of `n_ctx`
    /// positions takes if that is more.
    pub cache_bytes: Option<usize>,
    /// Instruction set by name. Default: `BITNET_ISA` from the environment, or else the best that this processor has.
    pub isa: Option<String>,
    /// How keys and values are stored. Default: f16.
    pub kv_type: Option<KvType>,
    /// Whether the projections' inputs are rounded to int8. Default: as the model was trained.
    pub act_quant: Option<ActQuant>,
    /// The activation of the feed-forward network. Default: by architecture.
    pub ffn_act: Option<Activation>,
    /// How logits are computed. Default: exactly, as far as the sampler needs them.
    pub lm_head: LmHead,
    /// How trits are packed. Default: as suits the instruction set. A packed model keeps its own.
    pub packing: Packing,
}

/// Builds the tokenizer on a thread of its own while the weights load.
///
/// Dropping it waits for the thread: the thread reads the mapped file, whose owner may replace it as soon as the engine
/// is gone.
pub(super) struct TokenizerThread {
    handle: Option<Background<Result<Tokenizer>>>,
    process: u32,
}

impl TokenizerThread {
    fn start(gguf: Arc<Gguf>) -> Result<Self> {
        let handle = Background::start("tokenizer", move || Tokenizer::from_gguf(&gguf, None))?;
        Ok(TokenizerThread { handle: Some(handle), process: facts::process_id() })
    }

    /// The tokenizer, or its error. None if this process was forked off while the thread, which stayed in the parent,
    /// was still building.
    pub(super) fn join(&mut self) -> Option<Result<Tokenizer>> {
        let handle = self.handle.take()?;
        if self.process != facts::process_id() && !handle.is_finished() {
            std::mem::forget(handle);
            return None;
        }
        handle.join().ok()
    }
}

impl Drop for TokenizerThread {
    fn drop(&mut self) {
        self.join();
    }
}

impl Engine {
    /// Opens a model file. `watch` can cancel it.
    pub fn open(path: &Path, options: Options, watch: &mut Watch) -> Result<Engine> {
        Engine::with_checkpoint(|| Gguf::open(path), options, watch)
    }

    /// Opens a model from the bytes of its GGUF file, for systems without files: see [`Gguf::from_bytes`].
    pub fn from_bytes(name: &str, bytes: Arc<Vec<u8>>, options: Options, watch: &mut Watch) -> Result<Engine> {
        Engine::with_checkpoint(|| Gguf::from_bytes(name, bytes), options, watch)
    }

    fn with_checkpoint(open: impl FnOnce() -> Result<Gguf>, options: Options, watch: &mut Watch) -> Result<Engine> {
        let isa = options.isa.or_else(|| std::env::var("BITNET_ISA").ok().filter(|isa| !isa.is_empty()));
        let kernels = kernels(isa.as_deref())?;
        let counts = [
            ("n_ctx", options.n_ctx),
            ("n_threads", options.n_threads),
            ("n_batch", options.n_batch),
            ("max_batch", options.max_batch),
        ];
        for (name, value) in counts {
            if value == Some(0) {
                return Err(Error::Argument(format!("{name} is 0, expected at least 1")));
            }
        }
        let gguf = Arc::new(open()?);
        let tokenizer_thread = TokenizerThread::start(gguf.clone())?;
        let threads = options.n_threads.unwrap_or_else(facts::cores);
        let pool = Pool::new(threads)?;
        let cancel = AtomicBool::new(false);
        let (activation, act_quant, lm_head) = (options.ffn_act, options.act_quant, options.lm_head);
        let load_options =
            LoadOptions { activation, act_quant, n_ctx: options.n_ctx, lm_head, packing: options.packing.of_kernels() };
        let load = |workers: &Workers| Model::load(gguf, &load_options, &Team::new(workers, kernels), &cancel);
        let look = || cancel.fetch_or(watch(), Relaxed) || cancel.load(Relaxed);
        let model = pool.run_watched(load, look).unwrap_or(Err(Error::Cancelled))?;
        let n_ctx = model.config().n_ctx(options.n_ctx)?;
        let n_batch = options.n_batch.unwrap_or(DEFAULT_BATCH);
        let max_batch = options.max_batch.unwrap_or(DEFAULT_MAX_BATCH);
        let identity = Identity::new(model.gguf(), model.config(), threads);
        let kv_type = options.kv_type.unwrap_or(KvType::F16);
        let cache_bytes =
            options.cache_bytes.unwrap_or_else(|| model.sequence_bytes(kv_type, n_ctx).max(DEFAULT_CACHE_BYTES));
        let (scratch, batcher) = Default::default();
        Ok(Engine {
            identity,
            runtime: Arc::new(Runtime { model, kernels, pool, n_ctx, n_batch, max_batch, scratch, batcher }),
            kv_type,
            tokenizer: OnceLock::new(),
            grammars: OnceLock::new(),
            tokenizer_thread: Mutex::new(tokenizer_thread),
            template: OnceLock::new(),
            prefix_cache: PrefixCache::new(cache_bytes),
        })
    }
}
