//! Receipts of an engine's answers: how they are made.

use super::{Config, Engine, Finish, Stream, Watch};
use crate::checkpoint::fingerprint;
use crate::checkpoint::gguf::Gguf;
use crate::decode::{Generation, Sequence};
use crate::error::{Error, Result};
use crate::grammar;
use crate::machine::facts;
use crate::receipt::{
    Claim, Forced, GrammarClaim, LazyHash, ModelInfo, PreviousReceipt, Receipt, Redactable, Run, Sampling, Seconds,
    Speculation, gate_error, ns_to_seconds,
};
use serde_json::{Map, Value as Json};
use std::time::Duration;

/// Version of the order of float operations (`docs/numerics.md`). Results with the same number agree bit for bit.
pub const NUMERICS: u32 = 1;

/// The parts that all receipts of an engine share.
pub(super) struct Identity {
    fingerprint: LazyHash,
    pub model_info: ModelInfo,
    environment: Map<String, Json>,
}

impl Identity {
    pub(super) fn new(gguf: &Gguf, config: &Config, threads: usize) -> Identity {
        let files = gguf.files().map_err(|error| error.to_string());
        // A packed model stands for the one that was packed: both give the same answers.
        let (file, bytes) =
            gguf.packed().map_or_else(|| (gguf.name(), gguf.file_size()), |packed| (packed.file.clone(), packed.bytes));
        let told = gguf.packed().map(|packed| packed.fingerprint.clone());
        let hash = move |watch: &mut Watch| {
            if let Some(told) = &told {
                return Ok(told.clone());
            }
            let failed = |why: String| gate_error("model", format!("its file could not be hashed: {why}"));
            let files = files.as_ref().map_err(|why| failed(why.clone()))?;
            let hash = fingerprint(files, threads, watch).map_err(|error| failed(error.to_string()))?;
            hash.ok_or(Error::Cancelled)
        };
        let facts = [
            ("os", std::env::consts::OS.to_string()),
            ("arch", std::env::consts::ARCH.to_string()),
            ("processor", facts::processor_name()),
            ("cores", facts::cores().to_string()),
        ];
        Identity {
            fingerprint: LazyHash::new(hash),
            model_info: ModelInfo {
                file,
                bytes,
                architecture: config.arch.name.into(),
                layers: config.n_layers as u64,
                hidden_size: config.hidden_size as u64,
                num_attention_heads: config.n_heads as u64,
                num_key_value_heads: config.n_kv_heads as u64,
                vocab_size: config.vocab_size as u64,
            },
            environment: facts.map(|(name, value)| (name.to_string(), value.into())).into_iter().collect(),
        }
    }
}

impl Engine {
    /// BLAKE3 of the model file, in hexadecimal. The first call reads the whole file; a packed file tells the fingerprint
    /// of the model that was packed.
    pub fn fingerprint(&self, watch: &mut Watch) -> Result<&str> {
        self.identity.fingerprint.get_watched(watch)
    }

    /// The receipt of an answer that has ended with at least one id.
    pub(super) fn receipt_of(&self, stream: &Stream, sequence: &Sequence) -> Receipt {
        let (generation, clock, origin) = (&stream.generation, &stream.clock, &stream.origin);
        let times = &generation.times;
        let model = &self.runtime.model;
        let seconds = |duration: Duration| ns_to_seconds(duration.as_nanos() as u64);
        let claim = Claim {
            numerics: NUMERICS,
            model: self.identity.fingerprint.clone(),
            tokenizer: self.tokenizer().ok().map(|tokenizer| tokenizer.fingerprint.clone()),
            act_quant: self.act_quant().name().into(),
            act_block: model.act_block(),
            ffn_act: self.config().activation.name().into(),
            kv_type: self.kv_type.name().into(),
            lm_head: self.inexact_head().map(str::to_string),
            n_ctx: self.n_ctx() as u64,
            template: origin.template.clone(),
            system: origin.system.clone().map(Redactable::Whole),
            prompt_ids: Redactable::Whole(generation.prompt().to_vec()),
            sampling: Sampling::new(generation.params.clone(), generation.seed, generation.stop_ids.clone()),
            grammar: generation
                .constraint()
                .map(|grammar| GrammarClaim::new(grammar.source(), grammar.after(), grammar::ENGINE)),
            logits_processor: stream.processor_name().map(str::to_string),
            output_ids: Redactable::Whole(generation.generated().to_vec()),
            finish_reason: generation.finish.unwrap_or(Finish::Cancelled).name().into(),
            previous: origin.previous.clone().map(PreviousReceipt::InMemory),
        };
        let run = Run {
            version: env!("CARGO_PKG_VERSION").into(),
            isa: self.isa().into(),
            threads: self.n_threads() as u64,
            n_batch: self.n_batch() as u64,
            cached_tokens: generation.cached_tokens as u64,
            work: sequence.work(),
            seconds: Seconds {
                render: seconds(origin.render),
                tokenize: seconds(origin.tokenize),
                prefill: seconds(times.prefill),
                first_token: seconds(clock.first_token),
                decode: seconds(Duration::from_nanos(times.steps.iter().sum())),
                sample: seconds(times.sample),
                detokenize: seconds(clock.detokenize),
                wall: seconds(clock.wall),
                consumer: seconds(clock.consumer),
            },
            step_ns: times.steps.clone(),
            forced: generation.constraint().map(|_| forced(generation, sequence)),
            speculation: generation.guesses().map(|(proposed, accepted)| Speculation { proposed, accepted }),
            memory_bytes: (model.owned_bytes()
                + model.copied_bytes()
                + model.head_upper_bytes()
                + model.neuron_bytes()
                + sequence.bytes()) as u64,
        };
        Receipt::new(claim, run, self.identity.model_info.clone(), self.identity.environment.clone())
    }
}

/// What a grammar has saved: the ids without a step of their own, and the difference between the ids and the positions.
fn forced(generation: &Generation, sequence: &Sequence) -> Forced {
    let ids = generation.generated().len() as u64;
    let steps = generation.times.steps.len() as u64 + 1;
    let due = (generation.prompt().len() as u64 + ids).saturating_sub(1);
    let computed = sequence.ids().len() as u64;
    Forced {
        ids: ids.saturating_sub(steps),
        uncomputed: due.saturating_sub(computed),
        wasted: computed.saturating_sub(due),
    }
}
