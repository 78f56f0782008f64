//! Saved conversations: JSON documents, and files that can also hold the KV cache.
//!
//! A file is the JSON document. If the cache is saved, the bytes of its pages follow, and then the BLAKE3 of everything
//! before. So the document and the cache cannot come apart, and no page is used before the hash has been checked.

use super::ChatSession;
use crate::decode::Sequence;
use crate::engine::{Engine, NUMERICS, Watch};
use crate::error::{Error, Result};
use crate::machine::file::{self, Readers, write_atomically};
use crate::receipt::JsonSize;
use crate::sampler::{SamplingParams, bias_from_json, bias_to_json_exact};
use crate::template::{ChatTurn, Role, Template, TemplateOrigin};
use crate::token::TokenId;
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::Path;

const FORMAT: &str = "bitnet chat 1";

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Saved {
    format: String,
    system: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    enable_thinking: Option<bool>,
    template: SavedTemplate,
    turns: Vec<SavedTurn>,
    /// Files call them `forgotten`.
    #[serde(rename = "forgotten")]
    evicted_turns: usize,
    params: SamplingParams,
    /// The `logit_bias` of the parameters. JSON has no infinite numbers: they are texts.
    logit_bias: Vec<(TokenId, Json)>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    cache: Option<SavedCache>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SavedTemplate {
    origin: String,
    bos_token: Option<String>,
    eos_token: Option<String>,
    source: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SavedTurn {
    role: String,
    content: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reasoning: Option<String>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    cancelled: bool,
}

/// Everything that decides the contents of the pages. Only an engine that agrees in all of it can use them.
#[derive(PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SavedCache {
    model: String,
    numerics: u32,
    act_quant: String,
    ffn_act: String,
    kv_type: String,
    /// The table of rotary frequencies of a model that has two.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    rope: Option<String>,
    ids: Vec<TokenId>,
    /// The positions of recurrent states, which follow the pages.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    states: Vec<usize>,
}

fn wrong(what: impl std::fmt::Display) -> Error {
    Error::Argument(format!("not a saved conversation: {what}"))
}

/// The most bytes of a document, without the cache.
const MAX_BYTES: u64 = 256 << 20;
/// The most values of a document: more than half a million turns have.
const MAX_VALUES: usize = 4 << 20;

fn check_size(size: &JsonSize) -> Result<()> {
    if size.bytes <= MAX_BYTES && size.values <= MAX_VALUES {
        return Ok(());
    }
    Err(Error::Argument(format!(
        "the saved conversation has more than {MAX_BYTES} bytes or {MAX_VALUES} values; clear or rewind it before it \
         is saved"
    )))
}

/// A document while it is read: within the limits, and as long as nobody cancels it.
struct Document<'a, 'w, T> {
    inner: T,
    size: JsonSize,
    watch: &'a mut Watch<'w>,
    /// Why reading ended early.
    failed: Option<Error>,
}

/// A watch is called after so many bytes.
const BYTES_UNWATCHED: u64 = 64 << 10;

impl<T: Read> Read for Document<'_, '_, T> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        let before = self.size.bytes;
        self.size.add(&buffer[..n]);
        let cancelled = before / BYTES_UNWATCHED != self.size.bytes / BYTES_UNWATCHED && (self.watch)();
        self.failed = if cancelled { Some(Error::Cancelled) } else { check_size(&self.size).err() };
        if self.failed.is_some() { Err(io::Error::other("it ends early")) } else { Ok(n) }
    }
}

impl Saved {
    fn to_json(&self) -> Result<String> {
        let text = serde_json::to_string_pretty(self)
            .map_err(|error| Error::Argument(format!("the conversation cannot be written as JSON: {error}")))?;
        check_size(&JsonSize::of(&text))?;
        Ok(text + "\n")
    }

    fn new(session: &ChatSession, params: &SamplingParams) -> Saved {
        let template = &session.template;
        let turn = |turn: &ChatTurn| SavedTurn {
            role: turn.role.name().into(),
            content: turn.text.clone(),
            reasoning: turn.reasoning.clone(),
            cancelled: turn.cancelled,
        };
        Saved {
            format: FORMAT.into(),
            system: session.system.clone(),
            enable_thinking: session.enable_thinking,
            template: SavedTemplate {
                origin: template.origin.name().into(),
                bos_token: template.bos_token.clone(),
                eos_token: template.eos_token.clone(),
                source: template.source.clone(),
            },
            turns: session.turns.iter().map(turn).collect(),
            evicted_turns: session.evicted_turns,
            params: params.clone(),
            logit_bias: bias_to_json_exact(&params.logit_bias),
            cache: None,
        }
    }

    /// Checks the document and returns the conversation with its sampling parameters.
    fn open(self) -> Result<(ChatSession, SamplingParams)> {
        if self.format != FORMAT {
            return Err(wrong(format!("its format is {:?}, expected {FORMAT:?}", self.format)));
        }
        let SavedTemplate { origin, bos_token, eos_token, source } = self.template;
        let origin = TemplateOrigin::ALL
            .into_iter()
            .find(|known| known.name() == origin)
            .ok_or_else(|| wrong("its template has no origin"))?;
        let mut template = Template::from_jinja(&source, bos_token.as_deref(), eos_token.as_deref())?;
        template.origin = origin;
        let mut session = ChatSession::new(template.into(), self.system);
        session.enable_thinking = self.enable_thinking;
        for (i, turn) in self.turns.into_iter().enumerate() {
            let expected = [Role::User, Role::Assistant][i % 2];
            if turn.role != expected.name() {
                return Err(wrong(format!("turn {i} has role {:?}, expected {:?}", turn.role, expected.name())));
            }
            let SavedTurn { content: text, reasoning, cancelled, .. } = turn;
            session.turns.push(ChatTurn { role: expected, text, reasoning, cancelled });
        }
        let (turns, evicted) = (session.turns.len(), self.evicted_turns);
        if turns % 2 != 0 || evicted % 2 != 0 || evicted > turns {
            return Err(wrong(format!("it has {turns} turns, {evicted} of them evicted; expected whole exchanges")));
        }
        session.evicted_turns = evicted;
        let logit_bias = bias_from_json(&self.logit_bias).map_err(|what| wrong(format!("logit_bias: {what}")))?;
        let params = SamplingParams { logit_bias, ..self.params };
        params.validate()?;
        Ok((session, params))
    }
}

impl SavedCache {
    fn new(engine: &Engine, ids: &[TokenId], states: Vec<usize>, watch: &mut Watch) -> Result<SavedCache> {
        Ok(SavedCache {
            model: engine.fingerprint(watch)?.into(),
            numerics: NUMERICS,
            act_quant: engine.act_quant().name().into(),
            ffn_act: engine.config().activation.name().into(),
            kv_type: engine.kv_type().name().into(),
            rope: engine.rope_table().map(String::from),
            ids: ids.to_vec(),
            states,
        })
    }

    /// The sequence, whose pages `read` fills. Fails if this engine would have computed other pages.
    fn open(
        self,
        engine: &Engine,
        mut read: impl FnMut(&mut [u8]) -> Result<()>,
        watch: &mut Watch,
    ) -> Result<Sequence> {
        engine.check_ids(&self.ids, 0)?;
        let own = SavedCache::new(engine, &self.ids, Vec::new(), watch)?;
        let table = |rope: &Option<String>| rope.clone().unwrap_or_default();
        for (name, theirs, own) in [
            ("model", &self.model, &own.model),
            ("numerics", &self.numerics.to_string(), &own.numerics.to_string()),
            ("act_quant", &self.act_quant, &own.act_quant),
            ("ffn_act", &self.ffn_act, &own.ffn_act),
            ("kv_type", &self.kv_type, &own.kv_type),
            ("table of rotary frequencies, which follows from n_ctx,", &table(&self.rope), &table(&own.rope)),
        ] {
            if theirs != own {
                return Err(Error::Argument(format!(
                    "the saved cache is of another engine: its {name} is '{theirs}', this engine's '{own}'; load the \
                     conversation without its cache"
                )));
            }
        }
        let is_hybrid = engine.config().delta_nets.is_some();
        let last = Some(self.ids.len()).filter(|ids| is_hybrid && *ids > 0);
        let ascends = self.states.first() != Some(&0) && self.states.windows(2).all(|pair| pair[0] < pair[1]);
        if self.states.last().copied() != last || !ascends {
            let (states, ids) = (&self.states, self.ids.len());
            return Err(wrong(format!(
                "its cache of {ids} ids has recurrent states at {states:?}; the file is damaged"
            )));
        }
        engine.restore_sequence(self.ids, &self.states, |page| if watch() { Err(Error::Cancelled) } else { read(page) })
    }
}

/// A reader or writer that hashes the bytes that pass through it.
struct Hashed<T> {
    inner: T,
    hasher: blake3::Hasher,
}

impl<T> Hashed<T> {
    fn new(inner: T) -> Hashed<T> {
        Hashed { inner, hasher: blake3::Hasher::new() }
    }
}

impl<T: Read> Read for Hashed<T> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        self.hasher.update(&buffer[..n]);
        Ok(n)
    }
}

impl<T: Write> Write for Hashed<T> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = self.inner.write(bytes)?;
        self.hasher.update(&bytes[..n]);
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

impl ChatSession {
    /// The conversation as a JSON document, without its cache. `params` are the sampling parameters of its answers.
    pub fn to_json(&self, params: &SamplingParams) -> Result<String> {
        Saved::new(self, params).to_json()
    }

    /// The conversation of a document that [`ChatSession::to_json`] made, with its sampling parameters.
    pub fn from_json(text: &str) -> Result<(ChatSession, SamplingParams)> {
        check_size(&JsonSize::of(text))?;
        serde_json::from_str::<Saved>(text).map_err(wrong)?.open()
    }

    /// Writes the conversation to a file, atomically. Given the engine that computed it, the file also holds the cache.
    pub fn save(&self, params: &SamplingParams, engine: Option<&Engine>, path: &Path, watch: &mut Watch) -> Result<()> {
        let sequence = self.sequence.as_ref().filter(|_| engine.is_some());
        let mut saved = Saved::new(self, params);
        if let Some(engine) = engine {
            self.check_idle()?;
            let cache =
                |sequence: &Sequence| SavedCache::new(engine, sequence.ids(), sequence.state_positions(), watch);
            saved.cache = sequence.map(cache).transpose()?;
        }
        let document = saved.to_json()?;
        let mut cancelled = false;
        // A conversation is private.
        let written = write_atomically(path, Readers::Owner, |file| {
            let mut out = Hashed::new(BufWriter::new(file));
            out.write_all(document.as_bytes())?;
            if let Some(sequence) = sequence {
                sequence.write_to(|bytes| {
                    cancelled = watch();
                    if cancelled { Err(io::ErrorKind::Interrupted.into()) } else { out.write_all(bytes) }
                })?;
                let hash = out.hasher.finalize();
                out.write_all(hash.as_bytes())?;
            }
            out.flush()
        });
        if cancelled { Err(Error::Cancelled) } else { written }
    }

    /// Reads a file that [`ChatSession::save`] wrote; with `cache` also its cache, if it has one.
    pub fn load(engine: &Engine, cache: bool, path: &Path, watch: &mut Watch) -> Result<(ChatSession, SamplingParams)> {
        ChatSession::read(engine, cache, path, watch).map_err(|error| error.of_file(path))
    }

    fn read(engine: &Engine, cache: bool, path: &Path, watch: &mut Watch) -> Result<(ChatSession, SamplingParams)> {
        let io = |source| Error::Io { path: path.into(), source };
        let damaged = || wrong("the file is damaged; its contents are not those that were saved");
        let mut file = Hashed::new(BufReader::new(file::open(path).map_err(io)?));
        let mut document = Document { inner: &mut file, size: JsonSize::default(), watch, failed: None };
        let saved = Saved::deserialize(&mut serde_json::Deserializer::from_reader(&mut document));
        let mut saved = saved.map_err(|error| document.failed.unwrap_or_else(|| wrong(error)))?;
        let mut sequence = None;
        if let Some(computed) = saved.cache.take().filter(|_| cache) {
            let mut read = |bytes: &mut [u8]| file.read_exact(bytes).map_err(|_| damaged());
            read(&mut [0])?; // the newline after the document
            sequence = Some(computed.open(engine, read, watch)?);
            let (expected, mut hash) = (file.hasher.finalize(), [0; blake3::OUT_LEN]);
            let read = file.read_exact(&mut hash).and_then(|()| file.read(&mut [0])).map_err(|_| damaged())?;
            if hash != *expected.as_bytes() || read != 0 {
                return Err(damaged());
            }
        }
        let (mut session, params) = saved.open()?;
        session.sequence = sequence;
        Ok((session, params))
    }
}
