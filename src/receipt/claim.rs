//! What an answer claims: everything that decides its ids, and the ids.

use super::{GrammarClaim, Receipt, Sampling, gate_error};
use crate::error::{Error, Result, Watch};
use crate::machine::facts::process_id;
use crate::token::TokenId;
use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::de::{IntoDeserializer, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Value as Json, json};
use std::marker::PhantomData;
use std::sync::{Arc, Mutex, OnceLock, TryLockError};
use std::time::Duration;

/// What was computed: enough to compute it again.
#[derive(Clone, Serialize, Deserialize)]
pub struct Claim {
    /// The number of the order of float operations (`docs/numerics.md`).
    pub numerics: u32,
    /// BLAKE3 of the model's file, in hexadecimal; for a split model, of its files one after the other.
    pub model: LazyHash,
    /// BLAKE3 of what defines the tokenizer, in hexadecimal; none if the model has no tokenizer.
    pub tokenizer: Option<String>,
    /// What the inputs of projections are rounded to: "int8", "int16", "int24" or "none".
    pub act_quant: String,
    /// The columns that share a step of int8 activations; none if each token has one step, or for other types.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub act_block: Option<u64>,
    /// The activation function of the feed-forward network.
    pub ffn_act: String,
    /// The number format of the KV cache.
    pub kv_type: String,
    /// "int8" for logits of the output head in 8 bits; none for exact ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lm_head: Option<String>,
    /// The context length in positions.
    pub n_ctx: u64,
    /// The chat template that formatted the prompt; none for a prompt that was given as text or ids.
    pub template: Option<TemplateClaim>,
    /// The conversation's system prompt.
    pub system: Option<Redactable<String>>,
    /// The ids of the prompt.
    pub prompt_ids: Redactable<Vec<TokenId>>,
    /// How the ids of the answer were chosen.
    pub sampling: Sampling,
    /// The form that the answer had to have; none if it was free.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grammar: Option<GrammarClaim>,
    /// The name of a function outside the engine that changed the logits before ids were chosen. Without that function
    /// the answer cannot be computed again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub logits_processor: Option<String>,
    /// All ids that were sampled, a stop id included.
    pub output_ids: Redactable<Vec<TokenId>>,
    /// Why the answer ended: "stop", "length", "context" or "cancelled".
    pub finish_reason: String,
    /// The receipt before this one in a conversation.
    pub previous: Option<PreviousReceipt>,
}

/// A part of a claim that can be left out: the part itself, or the hash that stands for it in the digest.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Redactable<T> {
    /// The value, readable by anyone.
    Whole(T),
    /// What a redacted receipt holds instead.
    Hashed {
        /// The number of items, or of characters of a text.
        count: u64,
        /// BLAKE3 of the part's canonical JSON, in hexadecimal.
        blake3: String,
    },
}

/// A type of the parts that can be left out.
pub trait Part: Serialize + PartialEq + Default {
    /// The number of items, or of characters of a text.
    fn count(&self) -> u64;

    /// What stands for the part in the digest.
    fn blake3(&self) -> String {
        blake3(&serde_json::to_vec(self).expect("texts and numbers"))
    }
}

impl Part for String {
    fn count(&self) -> u64 {
        self.chars().count() as u64
    }
}

impl<T: Serialize + PartialEq> Part for Vec<T> {
    fn count(&self) -> u64 {
        self.len() as u64
    }
}

impl<T: Part> Redactable<T> {
    /// The part itself, unless it was left out.
    pub fn whole(&self) -> Option<&T> {
        if let Redactable::Whole(whole) = self { Some(whole) } else { None }
    }

    /// Whether the part equals `other`; if it was left out, whether count and hash are those of `other`.
    pub fn matches(&self, other: &T) -> bool {
        match self {
            Redactable::Whole(whole) => whole == other,
            Redactable::Hashed { count, blake3 } => *count == other.count() && *blake3 == other.blake3(),
        }
    }

    /// Whether count and hash of a part that was left out agree, as far as they can without the part: exactly the empty
    /// part has the count 0.
    pub(super) fn agrees(&self) -> bool {
        match self {
            Redactable::Whole(_) => true,
            Redactable::Hashed { count, blake3 } => (*count == 0) == (*blake3 == T::default().blake3()),
        }
    }
}

/// By hand: what serde derives for an untagged enum first copies a list into values of eight times its size.
impl<'de, T: Deserialize<'de>> Deserialize<'de> for Redactable<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        deserializer.deserialize_any(RedactableVisitor(PhantomData))
    }
}

struct RedactableVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for RedactableVisitor<T> {
    type Value = Redactable<T>;

    fn expecting(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.write_str("a list or a text, or an object with count and blake3 in its place")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> std::result::Result<Self::Value, E> {
        T::deserialize(text.into_deserializer()).map(Redactable::Whole)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> std::result::Result<Self::Value, A::Error> {
        T::deserialize(SeqAccessDeserializer::new(list)).map(Redactable::Whole)
    }

    fn visit_map<A: MapAccess<'de>>(self, object: A) -> std::result::Result<Self::Value, A::Error> {
        let Hash { count, blake3 } = Hash::deserialize(MapAccessDeserializer::new(object))?;
        Ok(Redactable::Hashed { count, blake3 })
    }
}

/// The fields of [`Redactable::Hashed`].
#[derive(Deserialize)]
struct Hash {
    count: u64,
    blake3: String,
}

impl<T> Redactable<Vec<T>> {
    /// The number of items, also if they were left out.
    #[expect(clippy::len_without_is_empty, reason = "nothing asks whether it is empty")]
    pub fn len(&self) -> usize {
        match self {
            Redactable::Whole(items) => items.len(),
            Redactable::Hashed { count, .. } => *count as usize,
        }
    }
}

/// Which chat template formatted the prompt.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TemplateClaim {
    /// The name of the built-in template that it is, or "jinja".
    pub name: String,
    /// Where it came from: "argument", "gguf", "tokenizer" or "fallback".
    pub origin: String,
    /// BLAKE3 of the template's Jinja source.
    pub blake3: String,
}

impl Claim {
    /// The claim as JSON. Computes the hashes that were not needed so far.
    pub(super) fn document(&self) -> Result<Json> {
        self.model.get()?;
        if let Some(PreviousReceipt::InMemory(previous)) = &self.previous {
            previous.digest()?;
        }
        serde_json::to_value(self).map_err(|error| gate_error("claim", error.to_string()))
    }

    /// The same with hashes in place of prompt, answer, system prompt, grammar and stop strings.
    pub(super) fn redacted(&self) -> Result<Json> {
        let mut document = self.document()?;
        for path in ["/prompt_ids", "/output_ids", "/system", "/sampling/stop", "/grammar/text"] {
            let Some(part) = document.pointer_mut(path) else { continue };
            let count = part.as_array().map(Vec::len).or(part.as_str().map(|text| text.chars().count()));
            if let Some(count) = count {
                *part = json!({"count": count, "blake3": blake3(part.to_string().as_bytes())});
            }
        }
        Ok(document)
    }

    /// The digest. It is computed from the redacted claim, so redacting a receipt does not change it.
    pub(super) fn digest(&self) -> Result<String> {
        let mut document = self.redacted()?;
        document.sort_all_objects();
        Ok(blake3(document.to_string().as_bytes()))
    }
}

/// BLAKE3 in hexadecimal.
fn blake3(bytes: &[u8]) -> String {
    blake3::hash(bytes).to_hex().to_string()
}

impl TemplateClaim {
    /// The claim for a template with this Jinja source.
    pub fn new(name: &str, origin: &str, source: &str) -> TemplateClaim {
        TemplateClaim { name: name.into(), origin: origin.into(), blake3: blake3(source.as_bytes()) }
    }

    /// Whether a template with this Jinja source is meant.
    pub fn is_of(&self, source: &str) -> bool {
        self.blake3 == blake3(source.as_bytes())
    }
}

type HashFunction = Box<dyn Fn(&mut Watch) -> Result<String> + Send>;

/// A hash that is computed when it is first read; clones share it. Hashing a model reads its whole file. An error, such
/// as a disk that fails for a moment, is not kept: the next call tries again.
#[derive(Clone)]
pub struct LazyHash(Arc<Hashing>);

struct Hashing {
    hash: OnceLock<String>,
    compute: Mutex<HashFunction>,
    /// The process that made it. In a fork of it, the lock may be held by a thread that does not exist there.
    process: u32,
}

impl LazyHash {
    /// A hash that `compute` returns.
    pub fn new(compute: impl Fn(&mut Watch) -> Result<String> + Send + 'static) -> LazyHash {
        let (hash, compute) = (OnceLock::new(), Mutex::new(Box::new(compute) as HashFunction));
        LazyHash(Arc::new(Hashing { hash, compute, process: process_id() }))
    }

    /// The hash in hexadecimal.
    pub fn get(&self) -> Result<&str> {
        self.get_watched(&mut || false)
    }

    /// [`LazyHash::get`], which `watch` can cancel.
    pub fn get_watched(&self, watch: &mut Watch) -> Result<&str> {
        let Hashing { hash, compute, process } = &*self.0;
        if let Some(hash) = hash.get() {
            return Ok(hash);
        }
        // Several callers at once wait for the first one's hash.
        let compute = loop {
            match compute.try_lock() {
                Ok(compute) => break compute,
                Err(TryLockError::Poisoned(poisoned)) => break poisoned.into_inner(),
                Err(TryLockError::WouldBlock) if *process != process_id() => {
                    let forked = "another thread was hashing its file when this process was forked; start processes \
                                  by 'spawn'";
                    return Err(gate_error("model", forked));
                }
                Err(TryLockError::WouldBlock) if watch() => return Err(Error::Cancelled),
                Err(TryLockError::WouldBlock) => std::thread::sleep(Duration::from_millis(10)),
            }
        };
        match hash.get() {
            Some(hash) => Ok(hash),
            None => compute(watch).map(|computed| &**hash.get_or_init(|| computed)),
        }
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
        Ok(LazyHash::new(move |_| Ok(text.clone())))
    }
}

/// The receipt before this one in a conversation. A document holds its digest.
#[derive(Clone, Deserialize)]
#[serde(untagged)]
pub enum PreviousReceipt {
    /// The receipt itself, from a conversation of this process. Its digest is computed when it is needed.
    #[serde(skip)]
    InMemory(Arc<Receipt>),
    /// The digest, as a document gave it.
    Digest(String),
}

impl Serialize for PreviousReceipt {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.serialize_str(match self {
            PreviousReceipt::InMemory(receipt) => receipt.digest().map_err(serde::ser::Error::custom)?,
            PreviousReceipt::Digest(digest) => digest,
        })
    }
}

impl Drop for Claim {
    /// Drops the receipts of a long conversation in a loop. Recursion could overflow the stack.
    fn drop(&mut self) {
        let mut previous = self.previous.take();
        while let Some(PreviousReceipt::InMemory(receipt)) = previous {
            previous = Arc::into_inner(receipt).and_then(|mut receipt| receipt.claim.previous.take());
        }
    }
}
