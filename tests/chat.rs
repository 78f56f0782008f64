//! Conversations as Rust callers use them: saved sessions, metrics, and streams that several threads share.

use bitnet::chat::{ChatSession, ChatStream, SharedStream};
use bitnet::decode::Sequence;
use bitnet::engine::{Engine, Finish, KvType, Options};
use bitnet::error::{Error, Result};
use bitnet::receipt::Receipt;
use bitnet::sampler::SamplingParams;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

fn open(options: Options) -> Arc<Engine> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("python/bitnet/models/trit.gguf");
    Arc::new(Engine::open(&path, options, &mut || false).unwrap_or_else(|error| panic!("{error}")))
}

fn new_session(engine: &Engine) -> Arc<Mutex<ChatSession>> {
    let template = engine.template().expect("a template");
    Arc::new(Mutex::new(ChatSession::new(template, Some("Be brief.".into()))))
}

fn params() -> SamplingParams {
    SamplingParams {
        max_tokens: Some(12),
        seed: Some(3),
        temperature: 0.5,
        logit_bias: vec![(1, f32::NEG_INFINITY), (2, 0.25)],
        ..SamplingParams::default()
    }
}

/// Sends a text, and returns the ids of the answer and how much of its prompt was cached.
fn send(engine: &Arc<Engine>, session: &Arc<Mutex<ChatSession>>, text: &str) -> (Vec<u32>, usize) {
    let mut stream =
        ChatStream::begin(engine.clone(), session.clone(), text.into(), params(), &mut || false).expect("a stream");
    while stream.next(&mut || false).expect("computed").is_some() {}
    (stream.stream.generation.generated().to_vec(), stream.stream.generation.cached_tokens)
}

fn contents(sequence: &Sequence) -> Vec<Vec<u8>> {
    let mut pieces = Vec::new();
    let stored: Result<()> = sequence.write_to(|piece| {
        pieces.push(piece.to_vec());
        Ok(())
    });
    stored.expect("nothing fails");
    pieces
}

fn message(result: Result<impl Sized>) -> String {
    result.map(drop).expect_err("an error").to_string()
}

#[test]
fn a_saved_conversation_goes_on_from_its_cache() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("new/chat");
    for kv_type in [KvType::F16, KvType::F32] {
        let engine = open(Options { kv_type: Some(kv_type), ..Options::default() });
        let session = new_session(&engine);
        for text in ["What is 2+2?", "And what is a cat?"] {
            send(&engine, &session, text);
        }
        let saved = session.lock().expect("idle").clone();
        saved.save(&params(), Some(&engine), &path, &mut || false).expect("saved");
        let expected = send(&engine, &session, "Why?");

        let other = open(Options { kv_type: Some(kv_type), n_threads: Some(1), ..Options::default() });
        let (loaded, loaded_params) = ChatSession::load(&other, true, &path, &mut || false).expect("loaded");
        assert_eq!((&loaded.turns, &loaded.system, loaded_params), (&saved.turns, &saved.system, params()));
        assert_eq!((&loaded.template, loaded.evicted_turns), (&saved.template, 0));
        let (cache, original) = (loaded.sequence.as_ref().expect("a cache"), saved.sequence.as_ref().expect("a cache"));
        assert_eq!(cache.ids(), original.ids());
        assert!(contents(cache) == contents(original));
        let reply = send(&other, &Arc::new(Mutex::new(loaded)), "Why?");
        assert_eq!(reply, expected);
        assert!(reply.1 > 20, "the saved prefix is reused");

        let (cold, _) = ChatSession::load(&other, false, &path, &mut || false).expect("loaded");
        assert!(cold.sequence.is_none());
        let cold = Arc::new(Mutex::new(cold));
        assert_eq!(send(&other, &cold, "Why?"), (expected.0, 0), "the same answer, all of it computed");
    }
}

#[test]
fn a_document_holds_the_history_without_the_cache() {
    let engine = open(Options::default());
    let session = new_session(&engine);
    send(&engine, &session, "Hi");
    let session = session.lock().expect("idle").clone();
    let json = session.to_json(&params()).expect("JSON");
    let (loaded, loaded_params) = ChatSession::from_json(&json).expect("loaded");
    assert_eq!((&loaded.turns, &loaded_params), (&session.turns, &params()));
    assert!(loaded.sequence.is_none() && loaded.receipts.is_empty());
    assert_eq!(loaded.to_json(&loaded_params).expect("JSON"), json);
    let folder = tempfile::tempdir().expect("a folder");
    session.save(&params(), None, &folder.path().join("chat.json"), &mut || false).expect("saved");
    assert_eq!(std::fs::read_to_string(folder.path().join("chat.json")).expect("a text"), json);

    let broken = |from: &str, to: &str| {
        assert!(json.contains(from), "{from}");
        message(ChatSession::from_json(&json.replacen(from, to, 1)))
    };
    assert!(broken("bitnet chat 1", "bitnet chat 2").contains("expected \"bitnet chat 1\""));
    assert!(broken("\"user\"", "\"system\"").contains("turn 0"));
    assert!(broken("\"forgotten\": 0", "\"forgotten\": 4").contains("4 of them evicted"));
    assert!(broken("\"-inf\"", "\"much\"").contains("logit_bias: it is \"much\" for id 1"));
    assert!(broken("\"temperature\": 0.5", "\"temperature\": -1.0").contains("temperature is -1"));
    assert!(message(ChatSession::from_json("{}")).starts_with("not a saved conversation"));
}

#[test]
fn a_damaged_or_foreign_cache_is_refused() {
    let engine = open(Options::default());
    let session = new_session(&engine);
    send(&engine, &session, "Hi");
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("chat");
    session.lock().expect("idle").save(&params(), Some(&engine), &path, &mut || false).expect("saved");
    let whole = std::fs::read(&path).expect("bytes");
    let document = whole.windows(3).position(|bytes| bytes == b"\n}\n").expect("the document's end") + 3;
    for at in [document, document + 999, whole.len() - 1] {
        let mut damaged = whole.clone();
        damaged[at] ^= 1;
        std::fs::write(&path, &damaged).expect("written");
        assert!(message(ChatSession::load(&engine, true, &path, &mut || false)).contains("damaged"), "byte {at}");
        assert!(ChatSession::load(&engine, false, &path, &mut || false).is_ok(), "its document is whole");
    }
    for shorter in [&whole[..whole.len() - 1], &whole[..document]] {
        std::fs::write(&path, shorter).expect("written");
        assert!(message(ChatSession::load(&engine, true, &path, &mut || false)).contains("damaged"));
    }
    std::fs::write(&path, &whole).expect("written");
    let other = open(Options { kv_type: Some(KvType::F32), ..Options::default() });
    let foreign = message(ChatSession::load(&other, true, &path, &mut || false));
    assert!(foreign.contains("its kv_type is 'f16', this engine's 'f32'"), "{foreign}");
    assert!(!foreign.contains("cache="), "the core names no interface: {foreign}");
    let small = open(Options { n_ctx: Some(4), ..Options::default() });
    let long = ChatSession::load(&small, true, &path, &mut || false).err().expect("too long");
    assert!(matches!(long.kind(), Error::Context { n_ctx: 4, .. }), "{long}");
}

#[test]
fn an_error_of_a_file_names_it() {
    let engine = open(Options::default());
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("x.json");
    let start = format!("{}: ", path.display());
    for (content, what) in [(None, ""), (Some("{}"), "not a saved conversation"), (Some("no JSON"), "not a saved")] {
        if let Some(content) = content {
            std::fs::write(&path, content).expect("written");
        }
        let found = message(ChatSession::load(&engine, true, &path, &mut || false));
        assert!(found.starts_with(&format!("{start}{what}")), "{found}");
    }
    let found = message(Receipt::load(&path));
    assert!(found.starts_with(&format!("{start}receipt, gate 'form': ")), "{found}");
}

/// A receipt is for everyone who may read the folder, unlike a conversation.
#[test]
fn a_saved_receipt_is_the_same_when_it_is_loaded() {
    let engine = open(Options::default());
    let session = new_session(&engine);
    send(&engine, &session, "Hi");
    let receipt = session.lock().expect("idle").receipts[0].clone();
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("new").join("receipt.json");
    receipt.save(&path).expect("saved");
    assert_eq!(Receipt::load(&path).expect("loaded").to_json().expect("JSON"), receipt.to_json().expect("JSON"));
    #[cfg(unix)]
    {
        let mode = std::fs::metadata(&path).expect("a file").permissions();
        assert_eq!(std::os::unix::fs::PermissionsExt::mode(&mode) & 0o777, 0o644);
    }
}

#[test]
fn metrics_are_sums_over_the_receipts() {
    let engine = open(Options::default());
    let session = new_session(&engine);
    let empty = session.lock().expect("idle").metrics();
    assert_eq!((empty.exchanges, empty.prefill_tokens_per_second(), empty.decode_tokens_per_second()), (0, 0.0, 0.0));
    assert!(empty.wall_seconds.is_sign_positive());
    let replies = ["What is 2+2?", "And 3+3?"].map(|text| send(&engine, &session, text));
    let session = session.lock().expect("idle");
    let (metrics, receipts) = (session.metrics(), &session.receipts);
    assert_eq!(metrics.exchanges, 2);
    assert_eq!(metrics.completion_tokens, replies.iter().map(|(ids, _)| ids.len() as u64).sum::<u64>());
    assert_eq!(metrics.cached_tokens, replies.iter().map(|(_, cached)| *cached as u64).sum::<u64>());
    assert_eq!(metrics.prompt_tokens, receipts.iter().map(|r| r.claim.prompt_ids.len() as u64).sum::<u64>());
    let seconds: Vec<_> = receipts.iter().map(|receipt| receipt.run.seconds).collect();
    assert_eq!(metrics.wall_seconds, seconds[0].wall + seconds[1].wall);
    assert_eq!(metrics.prefill_seconds, seconds[0].prefill + seconds[1].prefill);
    let computed = (metrics.prompt_tokens - metrics.cached_tokens) as f64;
    assert_eq!(metrics.prefill_tokens_per_second(), computed / metrics.prefill_seconds);
    // The prefill gives the first id of each answer.
    assert_eq!(metrics.decode_tokens_per_second(), (metrics.completion_tokens - 2) as f64 / metrics.decode_seconds);
}

#[test]
fn an_exchange_enters_the_history_when_its_answer_ends() {
    let engine = open(Options::default());
    let session = new_session(&engine);
    let begin = || ChatStream::begin(engine.clone(), session.clone(), "Hi".into(), params(), &mut || false);
    let turns = || session.lock().expect("unlocked").turns.clone();
    drop(begin().expect("a stream")); // cancelled before its first id
    assert!(turns().is_empty());
    let mut stream = begin().expect("a stream");
    assert!(message(begin()).contains("an answer is under way"));
    stream.next(&mut || false).expect("computed");
    stream.cancel();
    assert_eq!(turns().iter().map(|turn| turn.cancelled).collect::<Vec<_>>(), [false, true]);
    session.lock().expect("unlocked").rewind(1).expect("idle");
    assert!(turns().is_empty() && session.lock().expect("unlocked").receipts.is_empty());
    assert!(message(session.lock().expect("unlocked").rewind(1)).contains("the conversation has 0"));
}

#[test]
fn a_shared_stream_has_one_consumer_and_can_be_watched_and_cancelled() {
    let engine = open(Options::default());
    let stream = || {
        let request = engine.request("Once upon a time".into(), params(), &mut || false).expect("a request");
        SharedStream::of_prompt(engine.clone(), engine.stream(request))
    };
    let whole = stream();
    let mut pulled_twice = None;
    let mut joined = String::new();
    let mut seen = 0;
    while let Some(piece) = whole
        .next(&mut || {
            // Inside of a step, as another thread would.
            pulled_twice.get_or_insert_with(|| message(whole.next(&mut || false)));
            assert_eq!(whole.progress().completion_tokens, seen);
            false
        })
        .expect("computed")
    {
        joined += &piece.text;
        seen += 1;
        assert_eq!(whole.progress().text, joined);
    }
    assert!(pulled_twice.expect("asked at each step").contains("a stream has one consumer"));
    let answer = whole.settled();
    assert_eq!((answer.text, answer.completion_tokens, answer.ids.len()), (joined, seen, seen));
    assert!(answer.receipt.is_some());

    // Cancelled during its second step, which is abandoned in time or not.
    for (abandoned, sampled) in [(true, 1), (false, 2)] {
        let cancelled = stream();
        assert!(cancelled.next(&mut || false).expect("computed").is_some());
        let piece = cancelled.next(&mut || {
            cancelled.cancel();
            abandoned
        });
        assert_eq!(piece.expect("no error").is_none(), abandoned);
        let answer = cancelled.settled();
        assert_eq!((answer.finish, answer.completion_tokens), (Some(Finish::Cancelled), sampled));
        assert!(cancelled.next(&mut || false).expect("no error").is_none());
    }
    let interrupted = stream();
    assert!(matches!(interrupted.next(&mut || true), Err(Error::Cancelled)));
    assert!(interrupted.next(&mut || false).expect("it goes on").is_some());
}
