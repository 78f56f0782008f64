//! What an answer claims: everything that decides its ids, and the ids.

use super::{Receipt, wrong};
use crate::error::Result;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Value as Json, json};
use std::sync::{Arc, LazyLock};

/// What was computed: enough to compute it again.
#[derive(Clone, Serialize, Deserialize)]
pub struct Claim {
    /// The number of the order of float operations (`docs/numerics.md`).
    pub numerics: u32,
    /// BLAKE3 of the model's file, in hexadecimal; of a split model, of its files one after the other.
    pub model: LazyHash,
    /// BLAKE3 of what defines the tokenizer, in hexadecimal; nothing where the model has none.
    pub tokenizer: Option<String>,
    /// Whether projections take int8 activations.
    pub act_quant: String,
    /// The feed-forward network's activation.
    pub ffn_act: String,
    /// How keys and values are stored.
    pub kv_type: String,
    /// Positions of the context.
    pub n_ctx: u64,
    /// What formatted the prompt; nothing for a prompt given as it is.
    pub template: Option<TemplateClaim>,
    /// The conversation's system prompt.
    pub system: Option<Redactable<String>>,
    /// The prompt.
    pub prompt_ids: Redactable<Vec<u32>>,
    /// How ids were chosen.
    pub sampling: Sampling,
    /// All ids that were sampled, a stop id included.
    pub output_ids: Redactable<Vec<u32>>,
    /// Why the answer ended.
    pub finish_reason: String,
    /// The digest of the receipt before this one in a conversation.
    pub previous: Option<Previous>,
}

/// A part of a claim that can be left out: itself, or what stands for it in the digest.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Redactable<T> {
    /// Itself.
    Whole(T),
    /// How many items or characters it has, and the BLAKE3 of its canonical JSON.
    #[allow(missing_docs)]
    Hashed { count: u64, blake3: String },
}

impl<T: Serialize + PartialEq> Redactable<T> {
    /// Itself, unless it was left out.
    pub fn whole(&self) -> Option<&T> {
        if let Redactable::Whole(whole) = self { Some(whole) } else { None }
    }

    /// Whether it is this, as far as its hash tells.
    pub fn is(&self, other: &T) -> bool {
        match self {
            Redactable::Whole(whole) => whole == other,
            Redactable::Hashed { blake3: hash, .. } => {
                serde_json::to_vec(other).is_ok_and(|json| blake3(&json) == *hash)
            }
        }
    }
}

impl<T> Redactable<Vec<T>> {
    /// Its items.
    #[expect(clippy::len_without_is_empty, reason = "nobody asks")]
    pub fn len(&self) -> usize {
        match self {
            Redactable::Whole(items) => items.len(),
            Redactable::Hashed { count, .. } => *count as usize,
        }
    }
}

/// The template of a prompt.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TemplateClaim {
    /// Its name.
    pub name: String,
    /// Where it came from.
    pub origin: String,
    /// BLAKE3 of its Jinja source.
    pub blake3: String,
}

/// Every sampling parameter, with the seed in effect.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct Sampling {
    pub temperature: f64,
    pub top_k: u64,
    pub top_p: f64,
    pub min_p: f64,
    pub repetition_penalty: f64,
    pub repeat_last_n: u64,
    pub presence_penalty: f64,
    pub frequency_penalty: f64,
    /// Ids and what is added to their logits, as texts where infinite.
    pub logit_bias: Vec<(u32, Json)>,
    pub seed: u64,
    pub max_tokens: Option<u64>,
    pub stop: Redactable<Vec<String>>,
    /// All ids that end the answer, the model's own included.
    pub stop_token_ids: Vec<u32>,
}

impl Claim {
    /// As JSON, with every late text.
    pub(super) fn document(&self) -> Result<Json> {
        self.model.get()?;
        if let Some(Previous::Receipt(previous)) = &self.previous {
            previous.digest()?;
        }
        serde_json::to_value(self).map_err(|error| wrong("claim", error.to_string()))
    }

    /// The same with hashes in place of prompt, answer, system prompt and stop texts.
    pub(super) fn redacted(&self) -> Result<Json> {
        let mut document = self.document()?;
        for path in ["/prompt_ids", "/output_ids", "/system", "/sampling/stop"] {
            let part = document.pointer_mut(path).expect("a field of every claim");
            let count = part.as_array().map(Vec::len).or(part.as_str().map(|text| text.chars().count()));
            if let Some(count) = count {
                *part = json!({"count": count, "blake3": blake3(part.to_string().as_bytes())});
            }
        }
        Ok(document)
    }

    /// Of the redacted claim, so that leaving parts out does not change it.
    pub(super) fn digest(&self) -> Result<String> {
        let mut document = self.redacted()?;
        document.sort_all_objects();
        Ok(blake3(document.to_string().as_bytes()))
    }
}

/// BLAKE3 in hexadecimal.
pub(super) fn blake3(bytes: &[u8]) -> String {
    blake3::hash(bytes).to_hex().to_string()
}

impl TemplateClaim {
    /// Of a template with this source.
    pub fn new(name: &str, origin: &str, source: &str) -> TemplateClaim {
        TemplateClaim { name: name.into(), origin: origin.into(), blake3: blake3(source.as_bytes()) }
    }
}

type Compute = Box<dyn FnOnce() -> std::result::Result<String, String> + Send>;

/// A text that is computed when it is first read.
#[derive(Clone)]
pub struct LazyHash(Arc<LazyLock<std::result::Result<String, String>, Compute>>);

impl LazyHash {
    /// A text that `compute` gives.
    pub fn new(compute: impl FnOnce() -> std::result::Result<String, String> + Send + 'static) -> LazyHash {
        LazyHash(Arc::new(LazyLock::new(Box::new(compute))))
    }

    /// The text.
    pub fn get(&self) -> Result<&str> {
        LazyLock::force(&self.0).as_deref().map_err(|why| wrong("model", format!("no fingerprint: {why}")))
    }
}

impl Serialize for LazyHash {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.serialize_str(self.get().map_err(serde::ser::Error::custom)?)
    }
}

impl<'de> Deserialize<'de> for LazyHash {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<LazyHash, D::Error> {
        let text = String::deserialize(deserializer)?;
        Ok(LazyHash::new(move || Ok(text)))
    }
}

/// The receipt before this one: itself, or the digest that a document gives for it.
#[derive(Clone, Deserialize)]
#[serde(untagged)]
pub enum Previous {
    /// Of this process.
    #[serde(skip)]
    Receipt(Arc<Receipt>),
    /// Of a document.
    Digest(String),
}

impl Serialize for Previous {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.serialize_str(match self {
            Previous::Receipt(receipt) => receipt.digest().map_err(serde::ser::Error::custom)?,
            Previous::Digest(digest) => digest,
        })
    }
}

impl Drop for Claim {
    /// Lets go of a long conversation's receipts one after the other, not one inside the other.
    fn drop(&mut self) {
        let mut previous = self.previous.take();
        while let Some(Previous::Receipt(receipt)) = previous {
            previous = Arc::into_inner(receipt).and_then(|mut receipt| receipt.claim.previous.take());
        }
    }
}
