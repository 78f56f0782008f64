//! The engine as Rust callers use it: scores, perplexity, embeddings, spans, prompts and inspection.

use bitnet::codec::TensorRows;
use bitnet::engine::{
    ActQuant, Embedding, Engine, Finish, Inspection, Options, Pooling, Question, Scores, Stream, TextOrIds, TypeTotal,
    spans, template_of_file,
};
use bitnet::error::{Error, Result};
use bitnet::sampler::SamplingParams;
use bitnet::template::{ChatTurn, Conversation, Role, Template};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

const MODELS: [&str; 3] = ["relu2-i2s", "silu-odd", "llama-iq2bn"];

fn fixture(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(format!("{name}.gguf"))
}

/// The model that the Python package contains: it has a tokenizer and a chat template.
fn inside() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("python/bitnet/models/trit.gguf")
}

fn open(path: PathBuf, options: Options) -> Engine {
    Engine::open(&path, options, &mut || false).unwrap_or_else(|error| panic!("{error}"))
}

fn ids(n: usize, seed: u32) -> Vec<u32> {
    let next = |state: &mut u32| {
        *state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        Some((*state >> 8) % 96)
    };
    let mut state = seed;
    std::iter::from_fn(|| next(&mut state)).take(n).collect()
}

/// The log-probability of `id`, by the formula, and whether its logit is the first of the largest.
fn expected(logits: &[f32], id: u32) -> (f64, bool) {
    let sum: f64 = logits.iter().map(|logit| (*logit as f64).exp()).sum();
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    (logits[id as usize] as f64 - sum.ln(), logits.iter().position(|logit| *logit == largest) == Some(id as usize))
}

fn message(result: Result<impl Sized>) -> String {
    result.map(drop).expect_err("an error").to_string()
}

fn logprobs(engine: &Engine, ids: &[u32]) -> Vec<f32> {
    engine.logprobs(&[ids.to_vec()], &mut || false).expect("computed").concat()
}

fn score(engine: &Engine, context: &[u32], continuations: &[Vec<u32>]) -> Result<Scores> {
    let question = Question { context: context.to_vec(), continuations: continuations.to_vec() };
    engine.score(&[question], &mut || false).map(|mut all| all.remove(0))
}

fn perplexity(engine: &Engine, ids: &[u32], stride: Option<usize>) -> Result<f64> {
    engine.perplexity(&[ids.to_vec()], stride, &mut || false).map(|all| all[0]).map_err(|(_, error)| error)
}

#[test]
fn scores_are_the_log_probabilities_of_the_logits() {
    for model in MODELS {
        let engine = open(fixture(model), Options { n_batch: Some(7), ..Options::default() });
        let ids = ids(40, 1);
        let logits = engine.logits(std::slice::from_ref(&ids), &mut || false).expect("computed").concat();
        let logprobs = logprobs(&engine, &ids);
        let scores = score(&engine, &ids[..10], &[ids[10..].to_vec()]).expect("computed");
        assert_eq!((logprobs.len(), scores.continuations[0].tokens.len()), (39, 30));
        let mut greedy = 0;
        for (i, row) in logits.chunks(engine.n_vocab()).take(39).enumerate() {
            let (logprob, is_greedy) = expected(row, ids[i + 1]);
            assert!((logprobs[i] as f64 - logprob).abs() < 1e-5, "{model}: {} and {logprob}", logprobs[i]);
            if let Some(token) = i.checked_sub(9).map(|i| scores.continuations[0].tokens[i]) {
                assert_eq!((token.logprob, token.is_greedy), (logprobs[i], is_greedy), "{model}");
            }
            greedy += is_greedy as usize;
        }
        assert!(greedy < 39, "random ids are not all greedy");
    }
}

#[test]
fn continuations_score_as_if_alone_and_the_context_is_computed_once() {
    let engine = open(fixture("silu-odd"), Options { n_batch: Some(20), ..Options::default() });
    let context = ids(30, 2);
    let greedy = engine.generate(&context, 4, &[], &mut || false).expect("computed");
    let mut almost = greedy.clone();
    almost[3] = (almost[3] + 1) % 96;
    let continuations = [greedy, ids(15, 3), vec![], ids(1, 4), almost, ids(50, 5)];
    engine.clear_cache();
    let scores = score(&engine, &context, &continuations).expect("computed");
    assert_eq!(scores.computed_tokens, 30 + 3 + 14 + 3 + 49);
    for (ids, score) in continuations.iter().zip(&scores.continuations) {
        let whole = [&context[..], ids].concat();
        let logprobs = logprobs(&engine, &whole);
        let own: Vec<f32> = score.tokens.iter().map(|token| token.logprob).collect();
        assert_eq!(own, logprobs[29..]);
        assert_eq!(score.logprob(), own.iter().map(|x| *x as f64).sum::<f64>() as f32);
    }
    let greedy: Vec<bool> = scores.continuations.iter().map(|score| score.is_greedy()).collect();
    assert_eq!(greedy, [true, false, true, false, false, false]);

    assert!(message(score(&engine, &[], &[vec![1]])).contains("context is empty"));
    assert!(message(score(&engine, &[1], &[vec![1], vec![97]])).contains("token id 97 at position 0"));
    // The last id of a continuation is not computed, so it takes no position of the 512.
    assert!(score(&engine, &ids(500, 6), &[vec![1; 13]]).is_ok());
    let too_long = score(&engine, &ids(500, 6), &[vec![1; 14]]);
    let error = too_long.err().expect("refused");
    assert!(matches!(error.kind(), Error::Context { needed: 513, n_ctx: 512, .. }));
    assert!(error.to_string().starts_with("continuations[0]: "));
}

#[test]
fn texts_are_split_where_the_ids_of_the_context_end() {
    let engine = open(inside(), Options::default());
    let whole = |text: &str| engine.ids_of(text.into(), &mut || false).expect("encoded");
    let texts = ["Paris".to_string(), "Rome, I think".to_string(), String::new()];
    let (context, continuations) =
        engine.encode_continuations("The capital is ", &texts, &mut || false).expect("split");
    assert_eq!(context, whole("The capital is"), "the space goes to the continuations");
    for (text, ids) in texts.iter().zip(&continuations) {
        assert_eq!([&context[..], ids].concat(), whole(&format!("The capital is {text}")));
    }
    // " the" is one token, and " th" is several.
    let error = message(engine.encode_continuations("It is th", &[String::new(), "e".into()], &mut || false));
    assert!(error.starts_with("continuations[1]: ") && error.contains("adds no token of its own"), "{error}");
}

#[test]
fn perplexity_slides_a_window() {
    let n_ctx = 64;
    let engine = open(fixture("relu2-i2s"), Options { n_ctx: Some(n_ctx), n_batch: Some(10), ..Options::default() });
    let ids = ids(150, 7);
    for stride in [1, 20, 32, 64] {
        // Each id once, in the first window that reaches it.
        let (mut expected, mut seen) = (Vec::new(), 0);
        for begin in (0..ids.len()).step_by(stride) {
            let end = (begin + n_ctx).min(ids.len());
            let window = logprobs(&engine, &ids[begin..end]);
            expected.extend((seen.max(begin + 1)..end).map(|i| window[i - begin - 1] as f64));
            seen = end;
            if end == ids.len() {
                break;
            }
        }
        // Windows that do not overlap have no score for their first ids.
        assert_eq!(expected.len(), if stride < 64 { 149 } else { 147 });
        let mean = expected.iter().sum::<f64>() / expected.len() as f64;
        let perplexity = perplexity(&engine, &ids, Some(stride)).expect("computed");
        assert!((perplexity / (-mean).exp() - 1.0).abs() < 1e-12, "{perplexity}");
    }
    let default = perplexity(&engine, &ids, None).expect("computed");
    assert_eq!(default, perplexity(&engine, &ids, Some(32)).expect("computed"));

    let error = |ids: &[u32], stride| message(perplexity(&engine, ids, stride));
    assert_eq!(error(&[1], None), "perplexity needs at least two tokens; the text has 1");
    assert!(error(&ids, Some(65)).contains("stride is 65"));
    assert!(error(&ids, Some(0)).contains("stride is 0"));
    assert!(error(&[1, 96], None).contains("token id 96 at position 1"));
}

#[test]
fn embeddings_are_the_states_that_the_head_reads() {
    let engine = open(fixture("relu2-i2s"), Options { n_batch: Some(6), ..Options::default() });
    let texts = [ids(3, 8), ids(25, 9), ids(1, 10)];
    let size = engine.config().hidden_size;
    let how = |pooling| Embedding { pooling: Some(pooling), normalize: false };
    let embed = |texts: &[Vec<u32>], pooling| engine.embed(texts, how(pooling), &mut || false).expect("computed");
    let (last, mean) = (embed(&texts, Pooling::Last), embed(&texts, Pooling::Mean));
    assert_eq!((last.len(), mean.len()), (3 * size, 3 * size));

    // The head is the embedding, so its rows times the last state are the logits.
    let tensor = engine.gguf().tensor("token_embd.weight").expect("an embedding");
    let head = TensorRows::of(engine.gguf(), tensor).expect("readable");
    let logits = engine.logits(&texts[1..2], &mut || false).expect("computed").concat();
    let mut row = vec![0f32; size];
    for (id, logit) in logits[24 * engine.n_vocab()..].iter().enumerate() {
        head.dequantize(id, &mut row);
        let dot: f64 = row.iter().zip(&last[size..2 * size]).map(|(w, x)| *w as f64 * *x as f64).sum();
        assert!((dot - *logit as f64).abs() < 1e-4, "{dot} and {logit}");
    }

    // The mean of a text is the mean of the last states of all its beginnings.
    let beginnings: Vec<Vec<u32>> = (1..=25).map(|n| texts[1][..n].to_vec()).collect();
    let states = embed(&beginnings, Pooling::Last);
    for (i, x) in mean[size..2 * size].iter().enumerate() {
        let sum: f64 = states.chunks(size).map(|state| state[i] as f64).sum();
        assert_eq!(*x, (sum / 25.0) as f32);
    }
    assert_eq!(last[2 * size..], mean[2 * size..], "of one position");

    // The first state, the file's own pooling (none stated: the mean), and vectors of length 1.
    let first = [texts[1][..1].to_vec()];
    assert_eq!(embed(&texts[1..2], Pooling::Cls), embed(&first, Pooling::Last));
    assert_eq!(engine.embed(&texts, Embedding::default(), &mut || false).expect("computed"), mean);
    let unit = Embedding { pooling: Some(Pooling::Last), normalize: true };
    let unit = engine.embed(&texts, unit, &mut || false).expect("computed");
    for (unit, last) in unit.chunks(size).zip(last.chunks(size)) {
        let length = |x: &[f32]| x.iter().map(|x| (*x as f64).powi(2)).sum::<f64>().sqrt();
        assert!((length(unit) - 1.0).abs() < 1e-6);
        assert_eq!(unit[0], (last[0] as f64 / length(last)) as f32);
    }

    assert!(embed(&[], Pooling::Mean).is_empty());
    assert!(message(engine.embed(&[vec![1], vec![]], how(Pooling::Mean), &mut || false)).contains("texts[1] is empty"));
    assert!(
        message(engine.embed(&[vec![96]], how(Pooling::Last), &mut || false)).contains("token id 96 at position 0")
    );
}

#[test]
fn spans_are_the_prompt_and_their_tokens_its_ids() {
    let engine = open(inside(), Options::default());
    let (template, tokenizer) = (engine.template().expect("a template"), engine.tokenizer().expect("a tokenizer"));
    let turns = [
        ChatTurn::new(Role::User, "What is 2+2?"),
        ChatTurn::new(Role::Assistant, "2+2=4."),
        ChatTurn::new(Role::User, "  And <|eot_id|> 3+3? "),
    ];
    let conversation = Conversation::from_turns(&turns, Some("Be brief."));
    let spans = spans(&template, &conversation, Some(tokenizer), &mut || false).expect("spans");

    let controls: Vec<&str> = tokenizer.control_texts().collect();
    let prompt = template.prompt(&conversation, &controls, &mut || false).expect("a prompt");
    assert_eq!(spans.iter().map(|span| span.text.as_str()).collect::<String>(), prompt.text);
    let tokens: Vec<u32> = spans.iter().flat_map(|span| span.token_ids.clone().expect("tokens")).collect();
    assert_eq!(tokens, tokenizer.encode_prompt(&prompt, &mut || false).expect("ids"));
    for span in &spans {
        assert_eq!(prompt.text[span.start..span.end], span.text);
        assert!(!span.rewritten, "{span:?}");
    }
    let of_messages: Vec<_> =
        spans.iter().filter_map(|span| Some((span.message?, span.role.as_deref()?, span.text.trim()))).collect();
    assert_eq!(
        of_messages,
        [
            (0, "system", "Be brief."),
            (1, "user", "What is 2+2?"),
            (2, "assistant", "2+2=4."),
            (3, "user", "And <|eot_id|> 3+3?"),
        ]
    );
}

#[test]
fn spans_tell_what_a_template_changes_and_give_up_where_marks_change_the_prompt() {
    let spans_of = |source: &str, text: &str| {
        let template = Template::from_jinja(source, None, None).expect("a template");
        let conversation = Conversation::from_turns(&[ChatTurn::new(Role::User, text)], None);
        let spans = spans(&template, &conversation, None, &mut || false).expect("spans");
        let parts = spans.into_iter().map(|span| (span.text, span.message, span.rewritten, span.token_ids));
        parts.collect::<Vec<_>>()
    };
    let part = |text: &str, message, rewritten| (text.to_string(), message, rewritten, None);
    let source = "[{{ messages[0].content }}]";
    assert_eq!(spans_of(source, "a b"), [part("[", None, false), part("a b", Some(0), false), part("]", None, false)]);
    let source = "[{{ messages[0].content | trim }}]";
    assert_eq!(spans_of(source, " a "), [part("[", None, false), part("a", Some(0), false), part("]", None, false)]);
    let source = "[{{ messages[0].content | upper }}]";
    assert_eq!(spans_of(source, "a"), [part("[", None, false), part("A", Some(0), true), part("]", None, false)]);
    // A mark changes the length that this template prints, so the text counts as the template's.
    let source = "{{ messages[0].content }}{{ messages[0].content | length }}";
    assert_eq!(spans_of(source, "abc"), [part("abc3", None, false)]);
}

#[test]
fn a_text_prompt_gets_bos_and_ids_stay_as_they_are() {
    let engine = open(inside(), Options::default());
    let tokenizer = engine.tokenizer().expect("a tokenizer");
    let request = |prompt: TextOrIds| engine.request(prompt, SamplingParams::default(), &mut || false);
    let of_text = request("Hi<|eot_id|>".into()).expect("a request");
    let own = tokenizer.encode("Hi<|eot_id|>", false);
    let bos = tokenizer.bos.filter(|_| tokenizer.add_bos);
    assert_eq!(of_text.prompt, bos.into_iter().chain(own.clone()).collect::<Vec<u32>>());
    assert_eq!(tokenizer.encode_with_bos("Hi<|eot_id|>", false, false), own);
    assert!(of_text.origin.tokenize > Duration::ZERO);
    assert_eq!(of_text.stop_ids, tokenizer.stop);

    let of_ids = request(own.clone().into()).expect("a request");
    assert_eq!((of_ids.prompt, of_ids.origin.tokenize), (own.clone(), Duration::ZERO));
    let free = SamplingParams { ignore_eos: true, stop_token_ids: vec![7, 3, 7], ..SamplingParams::default() };
    assert_eq!(engine.request(own.into(), free, &mut || false).expect("a request").stop_ids, [3, 7]);

    assert!(message(request(vec![].into())).contains("the prompt is empty"));
    let outside = engine.n_vocab() as u32;
    assert!(matches!(request(vec![0, outside].into()), Err(Error::TokenId { position: 1, .. })));
    let hot = SamplingParams { temperature: -1.0, ..SamplingParams::default() };
    assert!(message(engine.request(vec![1].into(), hot, &mut || false)).contains("temperature"));
}

#[test]
fn a_prefill_in_passes_is_the_same_prefill() {
    let engine = || open(fixture("llama-iq2bn"), Options { n_batch: Some(10), ..Options::default() });
    let (whole, passes) = (engine(), engine());
    let ids = ids(47, 11);
    // What is warm at first goes beyond one pass, and beyond the common prefix.
    let warm = [&ids[..23], &[1, 2]].concat();
    for engine in [&whole, &passes] {
        engine.prefill(&warm, &mut || false).expect("computed");
    }
    let at_once = whole.prefill(&ids, &mut || false).expect("computed");
    let mut lengths = Vec::new();
    let mut done = None;
    while done.as_ref().is_none_or(|done: &bitnet::engine::Prefill| done.tokens < ids.len()) {
        let pass = passes.prefill_pass(&ids, done, &mut || false).expect("computed");
        lengths.push(pass.tokens);
        done = Some(pass);
    }
    let done = done.expect("some passes");
    assert_eq!(lengths, [33, 43, 47]);
    assert_eq!((done.tokens, done.cached_tokens), (at_once.tokens, at_once.cached_tokens));
    assert_eq!(done.cached_tokens, 23);
    assert!(done.tokens_per_second() > 0.0);
    assert_eq!(whole.prefill(&ids, &mut || false).expect("computed").tokens_per_second(), 0.0, "nothing to compute");
    // What was there at first shares 23 of its 25 positions.
    assert_eq!((whole.cached_tokens(), passes.cached_tokens()), (49, 49));
    let answers = [&whole, &passes].map(|engine| engine.generate(&ids, 8, &[], &mut || false).expect("computed"));
    assert_eq!(answers[0], answers[1]);
    assert_eq!(passes.prefill_pass(&[], None, &mut || false).expect("nothing to do").tokens, 0);
}

#[test]
fn a_stop_string_ends_a_stream_and_is_not_shown() {
    let engine = open(inside(), Options::default());
    let prompt = || TextOrIds::from("Once upon a time");
    let params = |stop: Vec<String>| SamplingParams { max_tokens: Some(24), stop, seed: Some(1), ..Default::default() };
    let complete = |params: SamplingParams| -> (Stream, String) {
        let mut stream = engine.stream(engine.request(prompt(), params, &mut || false).expect("a request"));
        let mut joined = String::new();
        while let Some(piece) = stream.next(&engine, &mut || false).expect("computed") {
            joined += &piece.text;
        }
        (stream, joined)
    };
    let (free, text) = complete(params(vec![]));
    assert_eq!(text, free.text);
    let middle: String = text.chars().skip(text.chars().count() / 2).take(3).collect();
    let (stopped, text_before) = complete(params(vec![middle.clone()]));
    assert_eq!(stopped.generation.finish, Some(Finish::Stop));
    assert_eq!(text_before, text[..text.find(&middle).expect("taken from it")]);
    assert!(stopped.receipt.is_some_and(|receipt| receipt.claim.finish_reason == "stop"));
}

#[test]
fn the_template_of_a_file_is_that_of_its_engine() {
    let (of_file, engine) =
        (template_of_file(&inside(), None).expect("a template"), open(inside(), Options::default()));
    assert_eq!(of_file, *engine.template().expect("a template"));
    assert!(of_file.bos_token.is_some() || of_file.eos_token.is_some());
    assert!(matches!(template_of_file(&fixture("none"), None), Err(Error::NotFound { .. })));
}

#[test]
fn an_inspection_shows_how_a_model_is_run() {
    let inspection = Inspection::open(&fixture("llama-iq2bn"), &mut || false).expect("readable");
    let tensors = inspection.tensors();
    assert_eq!(inspection.types().values().map(|total| total.tensors).sum::<usize>(), tensors.len());
    assert_eq!(inspection.types()["IQ2_BN"], TypeTotal { tensors: 14, bytes: 68608 });
    assert!(tensors.iter().any(|tensor| (tensor.name, tensor.kind) == ("token_embd.weight", "Q8_0")));
    let model = inspection.model().expect("it runs");
    assert_eq!((model.config.n_layers, model.config.hidden_size, model.tied), (2, 128, false));
    assert_eq!(model.act_quant, ActQuant::Int8);
    assert!(!model.act_quant_reason.is_empty());
    assert_eq!(inspection.file_size(), std::fs::metadata(fixture("llama-iq2bn")).expect("there").len());
}

#[test]
fn an_inspection_shows_the_header_of_a_model_that_is_refused() {
    let mut bytes = std::fs::read(fixture("relu2-i2s")).expect("a file");
    let (known, unknown) = (b"bitnet-b1.58", b"unheard-of-x");
    for at in 0..bytes.len() - known.len() {
        if bytes[at..].starts_with(known) {
            bytes[at..at + known.len()].copy_from_slice(unknown);
        }
    }
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("foreign.gguf");
    std::fs::write(&path, bytes).expect("written");
    let inspection = Inspection::open(&path, &mut || false).expect("readable");
    let error = inspection.model().err().expect("refused");
    assert!(matches!(error, Error::Unsupported(why) if why.contains("'unheard-of-x'")), "{error}");
    assert_eq!(inspection.metadata().str("general.architecture").expect("a text"), Some("unheard-of-x"));
    assert_eq!(inspection.types()["I2_S"].tensors, 14);
    assert!(matches!(Inspection::open(&fixture("none"), &mut || false), Err(Error::NotFound { .. })));
}

#[test]
fn a_model_opens_from_bytes_as_from_its_file() {
    let options = || Options { n_threads: Some(1), ..Options::default() };
    let bytes = Arc::new(std::fs::read(inside()).expect("the model"));
    let file = open(inside(), options());
    let read = Engine::from_bytes("trit.gguf", bytes, options(), &mut || false).expect("the same model");
    assert_eq!(read.fingerprint(&mut || false).expect("hashed"), file.fingerprint(&mut || false).expect("hashed"));
    assert_eq!(read.gguf().file_size(), file.gguf().file_size());
    assert_eq!(logprobs(&read, &ids(20, 1)), logprobs(&file, &ids(20, 1)));
    let broken = Engine::from_bytes("a.gguf", Arc::new(vec![0; 64]), options(), &mut || false);
    assert!(message(broken).starts_with("a.gguf: "));
}
