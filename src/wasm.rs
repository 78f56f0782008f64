//! The module for browsers and node, which imports nothing: without files, network and clock it can only compute. It
//! opens a model from bytes and replays receipts. `docs/verify/verify.js` calls it.
//!
//! The host asks for memory with [`bitnet_input`], writes a model or a receipt there, calls [`bitnet_open`] or
//! [`bitnet_replay`], and reads the JSON text at [`bitnet_output`]. A panic traps; its message is the output then.

use crate::engine::{ActQuant, Activation, Engine, KvType, LmHead, Options, Replay};
use crate::error::{Error, Result};
use crate::receipt::{Claim, Receipt};
use serde_json::{Value as Json, json};
use std::cell::RefCell;
use std::sync::Arc;

thread_local! {
    /// Bytes that the host has written.
    static INPUT: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
    /// The text for the host.
    static OUTPUT: RefCell<String> = const { RefCell::new(String::new()) };
    static MODEL: RefCell<Option<Model>> = const { RefCell::new(None) };
}

/// An open model.
struct Model {
    bytes: Arc<Vec<u8>>,
    /// The name of the instruction set; none for the best.
    isa: Option<String>,
    engine: Engine,
    /// The claimed settings for which the engine was opened.
    settings: Json,
}

/// The name of the model in errors. The host knows the file's.
const NAME: &str = "model.gguf";

/// Room for `len` bytes of the host, instead of those before; null if there is no memory for them.
// SAFETY: no other symbol of the program has this name; the same holds for those below.
#[unsafe(no_mangle)]
pub extern "C" fn bitnet_input(len: usize) -> *mut u8 {
    INPUT.with_borrow_mut(|input| {
        *input = Vec::new();
        if input.try_reserve_exact(len).is_err() {
            return std::ptr::null_mut();
        }
        input.resize(len, 0);
        input.as_mut_ptr()
    })
}

/// The text of the last call.
// SAFETY: as for `bitnet_input`.
#[unsafe(no_mangle)]
pub extern "C" fn bitnet_output() -> *const u8 {
    OUTPUT.with_borrow(|output| output.as_ptr())
}

/// The length of the text in bytes.
// SAFETY: as for `bitnet_input`.
#[unsafe(no_mangle)]
pub extern "C" fn bitnet_output_len() -> usize {
    OUTPUT.with_borrow(String::len)
}

/// Opens the model whose bytes are the input. `isa` is the index of an instruction set in the list of those that there
/// are, or beyond it for the best.
// SAFETY: as for `bitnet_input`.
#[unsafe(no_mangle)]
pub extern "C" fn bitnet_open(isa: usize) {
    let bytes = Arc::new(INPUT.take());
    MODEL.set(None);
    let isa = crate::engine::isas().get(isa).map(|isa| isa.to_string());
    answer(|| {
        let engine = Engine::from_bytes(NAME, bytes.clone(), options(isa.clone(), None), &mut || false)?;
        let told = json!({
            "architecture": engine.config().arch.name,
            "blake3": engine.fingerprint(&mut || false)?,
            "isa": engine.isa(),
            "isas": crate::engine::isas(),
        });
        MODEL.set(Some(Model { bytes, isa, engine, settings: Json::Null }));
        Ok(told)
    });
}

/// Validates the receipt that is the input and computes its answer again.
// SAFETY: as for `bitnet_input`.
#[unsafe(no_mangle)]
pub extern "C" fn bitnet_replay() {
    let bytes = INPUT.take();
    answer(|| {
        let checked = receipt(bytes).and_then(|receipt| {
            receipt.validate()?;
            Ok(receipt)
        });
        let receipt = match checked {
            Ok(receipt) => receipt,
            Err(error) => return Ok(json!({"valid": false, "error": error.to_string()})),
        };
        let replay = MODEL.with_borrow_mut(|model| model.as_mut().map(|model| replay(model, &receipt)));
        Ok(json!({
            "valid": true,
            "digest": receipt.digest()?,
            "model": {"file": receipt.model_info.file, "blake3": receipt.claim.model.get()?},
            "ids": receipt.claim.output_ids.len(),
            "replay": replay,
        }))
    });
}

/// Makes what `work` returns the output.
fn answer(work: impl FnOnce() -> Result<Json>) {
    // Each time: a dependency has a hook of its own.
    std::panic::set_hook(Box::new(|panic| OUTPUT.set(json!({"error": panic.to_string()}).to_string())));
    let text = work().unwrap_or_else(|error| json!({"error": error.to_string()})).to_string();
    OUTPUT.set(text);
}

fn receipt(bytes: Vec<u8>) -> Result<Receipt> {
    let text = String::from_utf8(bytes);
    Receipt::from_json(&text.map_err(|_| crate::receipt::gate_error("form", "it is not a receipt: it is not UTF-8"))?)
}

/// What a replay finds, in the form of the server's `/v1/receipts/verify`.
fn replay(model: &mut Model, receipt: &Receipt) -> Json {
    let replayed = model.fit(&receipt.claim).and_then(|()| model.engine.replay(receipt, None, &mut || false));
    let Replay { same, ids, told } = match replayed {
        Ok(replay) => replay,
        Err(error) => return json!({"same": contradicted(&error).then_some(false), "error": error.to_string()}),
    };
    let first = receipt.claim.output_ids.whole().filter(|_| !same).map(|claimed| {
        let differ = claimed.iter().zip(&ids).position(|(one, other)| one != other);
        differ.unwrap_or(claimed.len().min(ids.len()))
    });
    let at = |ids: Option<&Vec<u32>>| first.and_then(|first| ids?.get(first).copied());
    let (claimed, found) = (at(receipt.claim.output_ids.whole()), at(Some(&ids)));
    json!({
        "same": same, "first_difference": first, "claimed": claimed, "found": found, "not_checked": told,
        "isa": model.engine.isa(),
    })
}

/// Whether a replay failed because the receipt says what is not so, not because it needs another engine.
fn contradicted(error: &Error) -> bool {
    let gates = ["model_info.", "claim.n_ctx", "claim.template", "claim.system"];
    matches!(error, Error::Receipt { gate, .. } if gates.iter().any(|begin| gate.starts_with(begin)))
}

impl Model {
    /// Opens the engine again if the claim needs other settings.
    fn fit(&mut self, claim: &Claim) -> Result<()> {
        let n_ctx = claim.n_ctx.min(self.engine.config().context as u64);
        let settings = json!([claim.act_quant, claim.ffn_act, claim.kv_type, claim.lm_head, n_ctx]);
        if settings != self.settings {
            let options = Options { n_ctx: Some(n_ctx as usize), ..options(self.isa.clone(), Some(claim)) };
            self.engine = Engine::from_bytes(NAME, self.bytes.clone(), options, &mut || false)?;
            self.settings = settings;
        }
        Ok(())
    }
}

/// An engine's options, as a claim says. Names that this version does not know are left to the replay's checks.
fn options(isa: Option<String>, claim: Option<&Claim>) -> Options {
    let Some(claim) = claim else { return Options { isa, ..Options::default() } };
    Options {
        isa,
        act_quant: ActQuant::ALL.into_iter().find(|kind| kind.name() == claim.act_quant),
        ffn_act: Activation::ALL.into_iter().find(|kind| kind.name() == claim.ffn_act),
        kv_type: KvType::ALL.into_iter().find(|kind| kind.name() == claim.kv_type),
        lm_head: if claim.lm_head.is_some() { LmHead::Int8 } else { LmHead::Auto },
        ..Options::default()
    }
}
