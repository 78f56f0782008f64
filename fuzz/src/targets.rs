//! What is done with untrusted bytes, one function for each kind. Any bytes may give an error, but no panic, no memory
//! out of proportion, and no long run. `tests/fuzz.rs` replays the corpus through the same functions.

use bitnet::chat::{ChatSession, ChatStream, encode};
use bitnet::checkpoint::gguf::{Gguf, TensorType};
use bitnet::codec::{RowTrits, TensorRows};
use bitnet::engine::{Engine, Inspection, Options};
use bitnet::receipt::Receipt;
use bitnet::sampler::{GrammarKind, GrammarSource, SamplingParams};
use bitnet::template::{ChatTurn, Conversation, Role, Template};
use bitnet::token::TokenId;
use bitnet::tokenizer::Tokenizer;
use std::alloc::{GlobalAlloc, Layout, System};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, LazyLock, Mutex};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// What is done with an input.
pub type Target = fn(&[u8]);

/// Every target by its name, which is also that of its folder in `fuzz/corpus`, and how many times the time and memory
/// of others it may take: the parser of a grammar has limits of its own, and is stopped after 5 s.
pub const TARGETS: [(&str, Target, u32); 10] = [
    ("gguf", gguf, 1),
    ("hf", hf, 1),
    ("codec", codec, 1),
    ("tokenizer_gguf", tokenizer_gguf, 1),
    ("tokenizer_json", tokenizer_json, 1),
    ("template", template, 1),
    ("prompt", prompt, 1),
    ("receipt", receipt, 1),
    ("session", session, 1),
    ("grammar", grammar, 8),
];

/// An input may take so much memory, whatever its size: a context, the rows of a batch, a tokenizer's tables.
const BASE_MEMORY: usize = 64 << 20;
/// And so many times its size.
const MEMORY_FACTOR: usize = 100;

/// Runs a target, and asserts its bounds, `times` those of most; `most_time` is of the processor.
pub fn bounded(target: Target, data: &[u8], times: u32, most_time: Duration) {
    LazyLock::force(&ENGINE);
    let (memory, time) = (ALLOCATED.load(Relaxed), processor_time());
    PEAK.store(memory, Relaxed);
    target(data);
    let (memory, time) = (PEAK.load(Relaxed) - memory, processor_time() - time);
    let most = times as usize * BASE_MEMORY + MEMORY_FACTOR * data.len();
    assert!(memory <= most, "{memory} bytes of memory for an input of {} bytes", data.len());
    assert!(time <= times * most_time, "{time:?} for an input of {} bytes", data.len());
}

/// The time that this process has computed; unlike the clock's, it is the same on a busy machine.
fn processor_time() -> Duration {
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    // Fields 14 and 15 are hundredths of a second. The second field, a name in parentheses, may contain spaces.
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    let ticks: Vec<u64> = fields.skip(11).take(2).filter_map(|field| field.parse().ok()).collect();
    if ticks.is_empty() { START.elapsed() } else { Duration::from_millis(10 * ticks.iter().sum::<u64>()) }
}

// Targets -----------------------------------------------------------------------------------------------------------

/// A model file: listed, opened, run.
fn gguf(data: &[u8]) {
    use_model(&FILES.write("model.gguf", data));
}

/// A directory: its `config.json`, a zero byte, and its safetensors file.
fn hf(data: &[u8]) {
    let config = halves(data).0;
    let folder = FILES.0.path().join("directory");
    std::fs::create_dir_all(&folder).expect("a folder");
    std::fs::write(folder.join("config.json"), config).expect("written");
    std::fs::write(folder.join("model.safetensors"), data.get(config.len() + 1..).unwrap_or_default())
        .expect("written");
    use_model(&folder);
}

fn use_model(path: &Path) {
    if let Ok(inspection) = Inspection::open(path, &mut || false) {
        let _ = (inspection.metadata().iter().count(), inspection.tensors(), inspection.types());
        let _ = (inspection.zeros(&mut || false), inspection.model().map(drop));
    }
    let options = Options { n_threads: Some(1), n_batch: Some(8), n_ctx: Some(8), ..Options::default() };
    let Ok(engine) = Engine::open(path, options, &mut || false) else { return };
    let _ = (engine.warnings(), engine.tokenizer().map(drop), engine.template().map(drop));
    let _ = engine.logits(&[vec![0, 1]], &mut || false);
}

/// Encoded rows. The first byte is the type, the second the number of columns in blocks.
fn codec(data: &[u8]) {
    let [kind, blocks, bytes @ ..] = data else { return };
    let kind = TensorType::ALL[usize::from(*kind) % TensorType::ALL.len()];
    let cols = kind.block_elements() * (1 + usize::from(*blocks) % 4);
    let fits = |rows: &usize| kind.size_of(*rows, cols).is_ok_and(|size| size <= bytes.len());
    let Some(rows) = (1..64).rfind(fits) else { return };
    let bytes = &bytes[..kind.size_of(rows, cols).expect("asked above")];
    let Ok(tensor) = TensorRows::new("t", kind, rows, cols, bytes) else { return };
    for row in 0..rows {
        let (mut values, mut trits) = (vec![0.0; cols], vec![0; cols]);
        tensor.dequantize(row, &mut values);
        let _ = tensor.is_lossy_ternary(row);
        let checked = tensor.check(row).map_err(|error| error.to_string());
        let found = tensor.trits(row, &mut trits).map_err(|error| error.to_string());
        let equal = |scale: f32| values.iter().zip(&trits).all(|(value, trit)| *value == scale * f32::from(*trit));
        match found {
            Err(error) => assert_eq!(checked, Err(error)),
            Ok(RowTrits::Mixed(..)) => {}
            Ok(RowTrits::Zero) => assert!(checked.is_ok() && equal(0.0), "{kind}, row {row}"),
            Ok(RowTrits::Scale(scale)) => assert!(checked.is_ok() && equal(scale), "{kind}, row {row}"),
        }
    }
}

/// The tokenizer of a model file.
fn tokenizer_gguf(data: &[u8]) {
    let path = FILES.write("vocabulary.gguf", data);
    let built = Gguf::open(path).and_then(|gguf| Tokenizer::from_gguf(&gguf, None));
    if let Ok(tokenizer) = built {
        use_tokenizer(&tokenizer, "");
    }
}

/// A `tokenizer.json`, a zero byte, and a text.
fn tokenizer_json(data: &[u8]) {
    let (json, text) = halves(data);
    let path = FILES.write("tokenizer.json", json);
    if let Ok(tokenizer) = Tokenizer::open(&path, None) {
        use_tokenizer(&tokenizer, &text);
    }
}

fn use_tokenizer(tokenizer: &Tokenizer, text: &str) {
    let n = tokenizer.vocab_size() as TokenId;
    for text in ["", "Hello, wörld!\n  12345\u{301}\0 <s>", text] {
        let ids = tokenizer.encode(text, false);
        // The unknown token is one of the control tokens, and may come from any text; but not from its own.
        let spelled = |id: TokenId| tokenizer.text_of(id).is_some_and(|own| !own.is_empty() && text.contains(own));
        let is_text = |id: &TokenId| *id < n && !(tokenizer.is_control(*id) && spelled(*id));
        assert!(ids.iter().all(is_text), "{text:?} became {ids:?}");
        let special = tokenizer.encode_with_bos(text, true, true);
        assert!(special.iter().all(|id| *id < n));
        let _ = (tokenizer.decode(&ids, false), tokenizer.decode(&special, true), tokenizer.control_text_in(text));
    }
    let _ = tokenizer.decode(&[0, n.saturating_sub(1), n, TokenId::MAX], false);
}

/// A Jinja source, a zero byte, and what a user says.
fn template(data: &[u8]) {
    let (source, text) = halves(data);
    let Ok(source) = str::from_utf8(source) else { return };
    let Ok(template) = Template::from_jinja(source, Some("<s>"), Some("</s>")) else { return };
    let _ = template.render_conversation(&conversation(&text), &mut || false);
}

/// What a user says, in the templates of this package: it never becomes a control token.
fn prompt(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let tokenizer = ENGINE.tokenizer().expect("the model has one");
    for name in ["instruct", "llama3-chat", "bitnet"] {
        let template = ENGINE.template_named(name).expect("built in");
        let controls = |text: &str| {
            let ids = encode(&template, tokenizer, &conversation(text), &mut || false).expect("a prompt");
            ids.into_iter().filter(|id| tokenizer.is_control(*id)).collect::<Vec<_>>()
        };
        assert_eq!(controls(&text), controls("x"), "template {name}");
    }
}

/// A receipt.
fn receipt(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else { return };
    let Ok(receipt) = Receipt::from_json(text) else { return };
    let is_valid = receipt.validate().is_ok();
    let _ = (receipt.to_json(), receipt.digest().map(str::len));
    if let Ok(redacted) = receipt.redact()
        && is_valid
    {
        redacted.validate().expect("a valid receipt stays valid when it is redacted");
        assert_eq!(redacted.digest().ok(), receipt.digest().ok());
    }
}

/// A saved conversation, which then goes on. A first byte of 1 stands for a file whose hash is right.
fn session(data: &[u8]) {
    let mut file = data.to_vec();
    if let [1, saved @ ..] = data {
        file = [saved, blake3::hash(saved).as_bytes()].concat();
    }
    let path = FILES.write("session", &file);
    let _ = str::from_utf8(data).map(|text| ChatSession::from_json(text).map(drop));
    let Ok((session, mut params)) = ChatSession::load(&ENGINE, true, &path, &mut || false) else { return };
    params.max_tokens = Some(1);
    let session = Arc::new(Mutex::new(session));
    if let Ok(mut stream) =
        ChatStream::begin(ENGINE.clone(), session.clone(), "Hi".into(), params.clone(), &mut || false)
    {
        while let Ok(Some(_)) = stream.next(&mut || false) {}
    }
    let session = session.lock().expect("no panic").clone();
    let _ = session.to_json(&params);
}

/// A form of an answer: the first byte is its kind, the rest its text. An answer that has the form replays.
fn grammar(data: &[u8]) {
    let [kind, text @ ..] = data else { return };
    let kinds = [GrammarKind::JsonSchema, GrammarKind::Regex, GrammarKind::Choice, GrammarKind::Lark];
    let Ok(text) = str::from_utf8(text) else { return };
    let source = GrammarSource { kind: kinds[usize::from(*kind) % kinds.len()], text: text.into() };
    let params = SamplingParams { max_tokens: Some(8), temperature: 1.0, seed: Some(1), ..SamplingParams::default() };
    let Ok(params) = params.with_grammar(&source) else { return };
    let session = Arc::new(Mutex::new(ChatSession::new(ENGINE.template().expect("the model has one"), None)));
    let begun = ChatStream::begin(ENGINE.clone(), session.clone(), "Hi".into(), params, &mut || false);
    let Ok(mut stream) = begun else { return };
    while let Ok(Some(_)) = stream.next(&mut || false) {}
    let receipts = session.lock().expect("no panic").receipts.clone();
    for receipt in receipts {
        receipt.validate().expect("a receipt of our own");
        assert!(ENGINE.replay(&receipt, None, &mut || false).expect("a replay").same);
    }
}

// What the targets share --------------------------------------------------------------------------------------------

/// The bytes before the first zero byte, and those after it as text.
fn halves(data: &[u8]) -> (&[u8], String) {
    let at = data.iter().position(|byte| *byte == 0).unwrap_or(data.len());
    (&data[..at], String::from_utf8_lossy(data.get(at + 1..).unwrap_or_default()).into_owned())
}

fn conversation(text: &str) -> Conversation {
    Conversation::from_turns(&[ChatTurn::new(Role::User, text)], Some("Be brief."))
}

/// The model inside the package.
static ENGINE: LazyLock<Arc<Engine>> = LazyLock::new(|| {
    let path = FILES.write("trit.gguf", include_bytes!("../../python/bitnet/models/trit.gguf"));
    let options = Options { n_threads: Some(1), ..Options::default() };
    Arc::new(Engine::open(&path, options, &mut || false).expect("the model inside"))
});

static FILES: LazyLock<Files> = LazyLock::new(|| Files(TempDir::new().expect("a folder")));

/// A folder for the inputs that are read from files.
struct Files(TempDir);

impl Files {
    fn write(&self, name: &str, data: &[u8]) -> PathBuf {
        let path = self.0.path().join(name);
        std::fs::write(&path, data).expect("written");
        path
    }
}

/// Bytes that are allocated now, and the most since a target began.
static ALLOCATED: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// The system's allocator, which counts. Mapped memory (the packed weights) does not count.
struct Counting;

// SAFETY: every call is passed on to the system's allocator as it is.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        PEAK.fetch_max(ALLOCATED.fetch_add(layout.size(), Relaxed) + layout.size(), Relaxed);
        // SAFETY: the caller keeps the contract of `GlobalAlloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        PEAK.fetch_max(ALLOCATED.fetch_add(layout.size(), Relaxed) + layout.size(), Relaxed);
        // SAFETY: the caller keeps the contract of `GlobalAlloc`.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, start: *mut u8, layout: Layout) {
        ALLOCATED.fetch_sub(layout.size(), Relaxed);
        // SAFETY: the caller keeps the contract of `GlobalAlloc`.
        unsafe { System.dealloc(start, layout) }
    }
}
