//! Receipts of an engine's answers: how they are made and replayed.

use super::{Config, Engine, Finish, Request, Stream, Watch};
use crate::checkpoint::gguf::{Gguf, fingerprint};
use crate::decode::Sequence;
use crate::error::Result;
use crate::machine::facts;
use crate::receipt::{
    Claim, LazyHash, ModelInfo, Previous, Receipt, Redactable, Run, Sampling, Seconds, gate, seconds, wrong,
};
use crate::sampler::{SamplingParams, decimal};
use serde_json::{Map, Value as Json};
use std::time::Duration;

/// Version of the order of float operations (`docs/numerics.md`). Results with the same number agree bit for bit.
pub const NUMERICS: u32 = 1;

/// The parts that all receipts of an engine share.
pub(super) struct Identity {
    fingerprint: LazyHash,
    model_info: ModelInfo,
    environment: Map<String, Json>,
}

impl Identity {
    pub(super) fn new(gguf: &Gguf, config: &Config, threads: usize) -> Identity {
        let files = gguf.files();
        let hash = move || files.and_then(|files| fingerprint(files, threads)).map_err(|error| error.to_string());
        let file = gguf.path().file_name().unwrap_or_default().to_string_lossy().into_owned();
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
                bytes: gguf.file_size(),
                architecture: config.arch.name().into(),
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

fn sampling(params: &SamplingParams, seed: u64, stop_ids: &[u32]) -> Sampling {
    let bias = |bias: f32| if bias.is_finite() { decimal(bias).into() } else { bias.to_string().into() };
    Sampling {
        temperature: decimal(params.temperature),
        top_k: params.top_k as u64,
        top_p: decimal(params.top_p),
        min_p: decimal(params.min_p),
        repetition_penalty: decimal(params.repetition_penalty),
        repeat_last_n: params.repeat_last_n as u64,
        presence_penalty: decimal(params.presence_penalty),
        frequency_penalty: decimal(params.frequency_penalty),
        logit_bias: params.logit_bias.iter().map(|(id, x)| (*id, bias(*x))).collect(),
        seed,
        max_tokens: params.max_tokens.map(|n| n as u64),
        stop: Redactable::Whole(params.stop.clone()),
        stop_token_ids: stop_ids.to_vec(),
    }
}

fn params(sampling: &Sampling) -> Result<SamplingParams> {
    let bias = |(id, bias): &(u32, Json)| {
        let number = bias.as_f64().map(|x| x as f32).or(bias.as_str().and_then(|text| text.parse().ok()));
        let what = || format!("it is {bias} for id {id}, expected a number");
        number.map(|bias| (*id, bias)).ok_or_else(|| wrong("claim.sampling.logit_bias", what()))
    };
    Ok(SamplingParams {
        temperature: sampling.temperature as f32,
        top_k: sampling.top_k as usize,
        top_p: sampling.top_p as f32,
        min_p: sampling.min_p as f32,
        repetition_penalty: sampling.repetition_penalty as f32,
        repeat_last_n: sampling.repeat_last_n as usize,
        presence_penalty: sampling.presence_penalty as f32,
        frequency_penalty: sampling.frequency_penalty as f32,
        logit_bias: sampling.logit_bias.iter().map(bias).collect::<Result<_>>()?,
        seed: Some(sampling.seed),
        stop: sampling.stop.whole().cloned().unwrap_or_default(),
        ignore_eos: true,
        ..SamplingParams::default()
    })
}

impl Engine {
    /// BLAKE3 of the model file, in hexadecimal. The first call reads the whole file.
    pub fn fingerprint(&self) -> Result<&str> {
        self.identity.fingerprint.get()
    }

    /// The receipt of an answer that has ended with at least one id.
    pub(super) fn receipt_of(&self, stream: &Stream, sequence: &Sequence) -> Receipt {
        let (generation, clock, origin) = (&stream.generation, &stream.clock, &stream.origin);
        let times = &generation.times;
        let model = &self.runtime.model;
        let seconds = |duration: Duration| seconds(duration.as_nanos() as u64);
        let claim = Claim {
            numerics: NUMERICS,
            model: self.identity.fingerprint.clone(),
            tokenizer: self.tokenizer().ok().map(|tokenizer| tokenizer.fingerprint.clone()),
            act_quant: self.act_quant().name().into(),
            ffn_act: self.config().activation.name().into(),
            kv_type: self.kv_type.name().into(),
            n_ctx: self.n_ctx() as u64,
            template: origin.template.clone(),
            system: origin.system.clone().map(Redactable::Whole),
            prompt_ids: Redactable::Whole(generation.prompt().to_vec()),
            sampling: sampling(&generation.params, generation.seed, &generation.stop),
            output_ids: Redactable::Whole(generation.generated().to_vec()),
            finish_reason: generation.finish.unwrap_or(Finish::Cancelled).name().into(),
            previous: origin.previous.clone().map(Previous::Receipt),
        };
        let run = Run {
            version: env!("CARGO_PKG_VERSION").into(),
            isa: self.isa().into(),
            threads: self.n_threads() as u64,
            n_batch: self.n_batch() as u64,
            cached_tokens: generation.cached as u64,
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
            memory_bytes: (model.packed_bytes() + model.copied_bytes() + sequence.bytes()) as u64,
        };
        Receipt::new(claim, run, self.identity.model_info.clone(), self.identity.environment.clone())
    }

    /// Computes a receipt's answer again. Returns whether it has the same ids and ends in the same way, and its ids.
    ///
    /// Fails, naming the field, if the receipt is of another model, other settings or another order of float operations.
    /// A redacted receipt needs its prompt; if one of its redacted stop strings ended the answer, only ids are compared.
    pub fn replay(&self, receipt: &Receipt, prompt: Option<Vec<u32>>, watch: &mut Watch) -> Result<(bool, Vec<u32>)> {
        let claim = &receipt.claim;
        gate("claim.numerics", claim.numerics == NUMERICS, || {
            let theirs = claim.numerics;
            format!("it is {theirs}, this version computes by number {NUMERICS}; replay it with a version that has it")
        })?;
        let tokenizer = self.tokenizer().map_or("none", |tokenizer| &tokenizer.fingerprint);
        for (name, theirs, own) in [
            ("claim.act_quant", &*claim.act_quant, self.act_quant().name()),
            ("claim.ffn_act", &claim.ffn_act, self.config().activation.name()),
            ("claim.kv_type", &claim.kv_type, self.kv_type.name()),
            ("claim.model", claim.model.get()?, self.fingerprint()?),
            ("claim.tokenizer", claim.tokenizer.as_deref().unwrap_or("none"), tokenizer),
        ] {
            gate(name, theirs == own, || {
                format!("it is '{theirs}', this engine has '{own}'; open the engine that the receipt names")
            })?;
        }
        let prompt = prompt.or(claim.prompt_ids.whole().cloned());
        let prompt =
            prompt.ok_or_else(|| wrong("claim.prompt_ids", "the receipt is redacted; give its prompt as well"))?;
        gate("claim.prompt_ids", claim.prompt_ids.is(&prompt), || "the prompt that was given is another".into())?;
        let params = SamplingParams { max_tokens: Some(claim.output_ids.len()), ..params(&claim.sampling)? };
        let request =
            Request { stop_ids: claim.sampling.stop_token_ids.clone(), ..self.request(prompt.into(), params)? };
        let mut stream = self.stream_on(&mut None, request);
        while stream.next(self, watch)?.is_some() {}
        let stops = claim.finish_reason == Finish::Stop.name();
        let stopped = stream.generation.finish == Some(Finish::Stop);
        let unknown = claim.sampling.stop.whole().is_none() && claim.sampling.stop.len() > 0;
        let ids = stream.generation.generated().to_vec();
        Ok((claim.output_ids.is(&ids) && (stops == stopped || stops && unknown), ids))
    }
}
