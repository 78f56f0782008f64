//! The engine: one open model with its threads, shared by any number of callers.

mod receipts;
mod stop_strings;
mod stream;

pub use receipts::NUMERICS;
pub use stream::{Piece, Stream};

use crate::checkpoint::gguf::Gguf;
use crate::decode::{Generation, Runtime, Sequence, Watch, complete_all};
use crate::error::{Error, Result};
use crate::kernel::{Team, kernels};
use crate::machine::facts;
use crate::machine::pool::{Pool, Workers};
use crate::model::config::Config;
use crate::model::{ActQuant, LoadOptions, LogitsFor, Model, Row};
use crate::ops::activation::Activation;
use crate::ops::attention::KvType;
use crate::receipt::{Receipt, TemplateClaim};
use crate::sampler::SamplingParams;
use crate::template::Template;
use crate::tokenizer::Tokenizer;
use receipts::Identity;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// The context that an engine has unless told otherwise, if the model's is longer.
const DEFAULT_CONTEXT: usize = 4096;
/// Rows of a pass unless told otherwise: enough to amortise reading the weights, few enough to stay in the cache.
const DEFAULT_BATCH: usize = 128;

/// How to open a model. `None` leaves the choice to the engine.
#[derive(Default)]
pub struct Options {
    /// Positions that one sequence may have.
    pub n_ctx: Option<usize>,
    /// Threads that compute.
    pub n_threads: Option<usize>,
    /// Rows that one forward pass takes at most.
    pub n_batch: Option<usize>,
    /// Instruction set, by name.
    pub isa: Option<String>,
    /// How keys and values are stored.
    pub kv_type: Option<KvType>,
    /// Whether activations are rounded to int8.
    pub act_quant: Option<ActQuant>,
    /// The feed-forward network's activation.
    pub ffn_act: Option<Activation>,
    /// Whether every logit is computed, also where a choice needs few of them.
    pub exact_head: bool,
}

/// What is to be answered.
pub struct Request {
    /// The prompt's ids, checked.
    pub prompt: Vec<u32>,
    /// How to choose ids.
    pub params: SamplingParams,
    /// All ids that end the answer.
    pub stop_ids: Vec<u32>,
    /// Where the prompt comes from.
    pub origin: PromptOrigin,
}

/// Where a prompt comes from, for the receipt; by default from ids.
#[derive(Default)]
pub struct PromptOrigin {
    /// Time spent on formatting the prompt.
    pub render: Duration,
    /// Time spent on turning it into ids.
    pub tokenize: Duration,
    /// What formatted it.
    pub template: Option<TemplateClaim>,
    /// The conversation's system prompt.
    pub system: Option<String>,
    /// The receipt before this answer's in a conversation.
    pub previous: Option<Arc<Receipt>>,
}

/// What a prefill did.
pub struct Prefill {
    /// Positions of the prompt.
    pub tokens: usize,
    /// Of these, positions that the cache held already.
    pub cached_tokens: usize,
    /// Time spent computing the others.
    pub elapsed: Duration,
}

/// An open model.
pub struct Engine {
    runtime: Runtime,
    /// How keys and values are stored.
    pub kv_type: KvType,
    identity: Identity,
    tokenizer: OnceLock<Result<Tokenizer>>,
    tokenizer_thread: Mutex<TokenizerThread>,
    template: OnceLock<Arc<Template>>,
    /// The sequence of the last prefill or generation, for the next one's prefix; taken out while in use.
    warm: Mutex<Option<Sequence>>,
}

/// Builds the tokenizer beside everything else, until somebody needs it. Whoever drops it waits: the thread reads the
/// mapped file, which its owner may replace as soon as the engine is gone.
struct TokenizerThread {
    handle: Option<JoinHandle<Result<Tokenizer>>>,
    process: u32,
}

impl TokenizerThread {
    fn start(gguf: Arc<Gguf>) -> Self {
        let handle = std::thread::spawn(move || Tokenizer::from_gguf(&gguf, None));
        TokenizerThread { handle: Some(handle), process: std::process::id() }
    }

    /// What it built; nothing if it was still building when this process forked off.
    fn join(&mut self) -> Option<Result<Tokenizer>> {
        let handle = self.handle.take()?;
        if self.process != std::process::id() && !handle.is_finished() {
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
    /// Opens a model file; `watch` can abandon it.
    pub fn open(path: &Path, options: Options, watch: &mut Watch) -> Result<Engine> {
        let isa = options.isa.or_else(|| std::env::var("BITNET_ISA").ok().filter(|isa| !isa.is_empty()));
        let kernels = kernels(isa.as_deref())?;
        for (name, value) in [("n_ctx", options.n_ctx), ("n_threads", options.n_threads), ("n_batch", options.n_batch)]
        {
            if value == Some(0) {
                return Err(Error::Argument(format!("{name} is 0, expected at least 1")));
            }
        }
        let gguf = Arc::new(Gguf::open(path)?);
        let tokenizer_thread = TokenizerThread::start(gguf.clone());
        let threads = options.n_threads.unwrap_or_else(facts::cores);
        let pool = Pool::new(threads)?;
        let cancel = AtomicBool::new(false);
        let (activation, act_quant, exact_head) = (options.ffn_act, options.act_quant, options.exact_head);
        let load_options = LoadOptions { activation, act_quant, exact_head };
        let load = |workers: &Workers| Model::load(gguf, &load_options, &Team::new(workers, kernels), &cancel);
        let look = || cancel.fetch_or(watch(), Relaxed) || cancel.load(Relaxed);
        let model = pool.run_watched(load, look).unwrap_or(Err(Error::Cancelled))?;
        let context = model.config().context;
        let n_ctx = options.n_ctx.unwrap_or(context.min(DEFAULT_CONTEXT));
        if n_ctx > context {
            return Err(Error::Argument(format!(
                "n_ctx is {n_ctx}, but the model was trained for {context} positions; ask for at most that"
            )));
        }
        let n_batch = options.n_batch.unwrap_or(DEFAULT_BATCH);
        let identity = Identity::new(model.gguf(), model.config(), threads);
        Ok(Engine {
            identity,
            runtime: Runtime { model, kernels, pool, n_ctx, n_batch, scratch: Mutex::default() },
            kv_type: options.kv_type.unwrap_or(KvType::F16),
            tokenizer: OnceLock::new(),
            tokenizer_thread: Mutex::new(tokenizer_thread),
            template: OnceLock::new(),
            warm: Mutex::default(),
        })
    }

    /// The model with what computes it.
    pub fn runtime(&self) -> &Runtime {
        &self.runtime
    }

    /// The model's measures and constants.
    pub fn config(&self) -> &Config {
        self.runtime.model.config()
    }

    /// The model's tokenizer; an error if the file has none that this engine can build.
    pub fn tokenizer(&self) -> Result<&Tokenizer> {
        let built = self.tokenizer.get_or_init(|| {
            let mut thread = self.tokenizer_thread.lock().unwrap_or_else(PoisonError::into_inner);
            thread.join().unwrap_or_else(|| Err(Error::Model("building the tokenizer failed".into())))
        });
        built.as_ref().map_err(|error| Error::Model(error.to_string()))
    }

    /// The chat template of the model: its file's, else one that its name suggests.
    pub fn template(&self) -> Result<Arc<Template>> {
        if let Some(template) = self.template.get() {
            return Ok(template.clone());
        }
        let metadata = self.runtime.model.gguf().metadata();
        let (jinja, name) = (metadata.str("tokenizer.chat_template")?, metadata.str("general.name")?);
        let tokenizer = self.tokenizer().ok();
        let (bos, eos) = (tokenizer.and_then(Tokenizer::bos_text), tokenizer.and_then(Tokenizer::eos_text));
        let template = Arc::new(Template::detect(jinja, name, bos, eos)?);
        Ok(self.template.get_or_init(|| template).clone())
    }

    /// An empty sequence.
    pub fn new_sequence(&self) -> Sequence {
        Sequence::new(self.runtime.model.new_cache(self.kv_type))
    }

    /// Logits after every id of every sequence, `vocab` floats each, sequence after sequence. All rows go through the
    /// same passes.
    pub fn logits(&self, sequences: &[Vec<i64>], watch: &mut Watch) -> Result<Vec<f32>> {
        let mut steps = Vec::new();
        for (sequence, ids) in sequences.iter().enumerate() {
            let ids = self.runtime.check_ids(ids, 0)?;
            steps.extend(ids.into_iter().map(|id| Row { sequence, id, logits: LogitsFor::All }));
        }
        let mut sequences: Vec<Sequence> = sequences.iter().map(|_| self.new_sequence()).collect();
        self.runtime.advance(&mut sequences.iter_mut().collect::<Vec<_>>(), &steps, watch)
    }

    /// Where the warm sequence is kept. None in a forked process: the lock may have been held when it was copied.
    fn warm(&self) -> Option<MutexGuard<'_, Option<Sequence>>> {
        self.runtime.pool.is_here().then(|| self.warm.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The warm sequence, or a fresh one while another caller has it.
    fn take_warm(&self) -> Sequence {
        let taken = self.warm().and_then(|mut warm| warm.take());
        taken.unwrap_or_else(|| self.new_sequence())
    }

    /// Keeps a sequence warm, unless another is already. What is not kept is freed outside of the lock.
    fn keep_warm(&self, sequence: Sequence) {
        let mut surplus = Some(sequence);
        if let Some(mut warm) = self.warm().filter(|warm| warm.is_none()) {
            *warm = surplus.take();
        }
    }

    /// Runs `use_it` on the warm sequence.
    fn with_warm<T>(&self, use_it: impl FnOnce(&mut Sequence) -> Result<T>) -> Result<T> {
        let mut sequence = self.take_warm();
        let result = use_it(&mut sequence);
        self.keep_warm(sequence);
        result
    }

    /// Computes the prompt, less what the warm cache holds of it, and leaves the cache holding exactly the prompt.
    ///
    /// After an error the cache is as it was.
    pub fn prefill(&self, ids: &[i64], watch: &mut Watch) -> Result<Prefill> {
        let ids = self.runtime.check_ids(ids, 0)?;
        self.with_warm(|sequence| {
            let start = Instant::now();
            let cached_tokens = sequence.common(&ids);
            sequence.replace_from(cached_tokens, |sequence| {
                self.runtime.prefill(sequence, &ids[cached_tokens..], LogitsFor::None, watch)
            })?;
            Ok(Prefill { tokens: ids.len(), cached_tokens, elapsed: start.elapsed() })
        })
    }

    /// Continues a prompt greedily: at most `max_tokens`, up to a stop id (not included) or the end of the context.
    ///
    /// Computes only what the warm cache does not hold of the prompt.
    pub fn generate(&self, ids: &[i64], max_tokens: usize, stop: &[i64], watch: &mut Watch) -> Result<Vec<u32>> {
        let greedy = self.greedy(ids, max_tokens, stop)?;
        self.with_warm(|sequence| {
            let mut answer = Generation::begin(sequence, greedy.prompt, greedy.params, 0, greedy.stop_ids);
            while answer.next(&self.runtime, sequence, watch)?.is_some() {}
            Ok(answer.answered().to_vec())
        })
    }

    /// Continues several prompts, each as [`Engine::generate`] does it alone, all of them in the same passes.
    ///
    /// Each has a sequence of its own, which begins with a copy of what the warm cache holds of its prompt.
    pub fn generate_many(
        &self,
        prompts: &[Vec<i64>],
        max_tokens: usize,
        stop: &[i64],
        watch: &mut Watch,
    ) -> Result<Vec<Vec<u32>>> {
        let greedy = prompts.iter().map(|ids| self.greedy(ids, max_tokens, stop));
        let greedy = greedy.collect::<Result<Vec<Request>>>()?;
        let mut sequences = self.with_warm(|warm| Ok(vec![warm.clone(); greedy.len()]))?;
        let begin = |(request, sequence): (Request, &mut Sequence)| {
            Generation::begin(sequence, request.prompt, request.params, 0, request.stop_ids)
        };
        let mut answers: Vec<Generation> = greedy.into_iter().zip(&mut sequences).map(begin).collect();
        complete_all(&self.runtime, &mut answers, &mut sequences, watch)?;
        Ok(answers.iter().map(|answer| answer.answered().to_vec()).collect())
    }

    /// A prompt of ids, to be continued greedily; only `stop` ends it early.
    fn greedy(&self, ids: &[i64], max_tokens: usize, stop: &[i64]) -> Result<Request> {
        let params = SamplingParams { max_tokens: Some(max_tokens), ..SamplingParams::default() };
        let stop_ids = stop.iter().filter_map(|id| u32::try_from(*id).ok()).collect();
        Ok(Request { stop_ids, ..self.request(ids, params)? })
    }

    /// A prompt of ids, to be answered by these parameters; both are checked.
    pub fn request(&self, prompt: &[i64], params: SamplingParams) -> Result<Request> {
        let prompt = self.runtime.check_ids(prompt, 0)?;
        if prompt.is_empty() {
            return Err(Error::Argument("the prompt is empty; give at least one token id".into()));
        }
        params.validate()?;
        let mut stop_ids = params.stop_token_ids.clone();
        if let (false, Ok(tokenizer)) = (params.ignore_eos, self.tokenizer()) {
            stop_ids.extend(&tokenizer.stop);
        }
        stop_ids.sort_unstable();
        stop_ids.dedup();
        Ok(Request { prompt, params, stop_ids, origin: PromptOrigin::default() })
    }

    /// Positions that the warm cache holds.
    pub fn cached_tokens(&self) -> usize {
        self.warm().and_then(|warm| Some(warm.as_ref()?.ids().len())).unwrap_or(0)
    }

    /// Bytes that the warm cache takes.
    pub fn cached_bytes(&self) -> usize {
        self.warm().and_then(|warm| Some(warm.as_ref()?.bytes())).unwrap_or(0)
    }
}
