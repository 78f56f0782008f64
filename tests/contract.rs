//! The numerical contract: the same ids give the same logits, bit for bit, whatever computes them.
//!
//! `fixtures/digests.txt` holds one digest for each model and cache type. It was computed once; every instruction set
//! and every processor, also an emulated one (`make emulate`), must compute the same.

use bitnet::decode::{Extension, Finish, Generation, Output, Sequence};
use bitnet::engine::{ActQuant, Engine, Options};
use bitnet::error::Error;
use bitnet::kernel::{Isa, Team};
use bitnet::model::{LogitsFor, Row};
use bitnet::ops::attention::KvType;
use bitnet::sampler::SamplingParams;
use std::path::PathBuf;

const MODELS: [&str; 14] = [
    "relu2-i2s",
    "silu-odd",
    "llama-iq2bn",
    "qwen2-biases",
    "qwen3-yarn",
    "qwen3-dense",
    "qwen3-norm-in",
    "minicpm-longrope",
    "gemma3-window",
    "hunyuan-i2s",
    "llama-ptq1",
    "llama-q2-g64",
    "qwen35-hybrid",
    "qwen35-hadamard",
];
/// Of these, one with one scale, one with a scale for each group of columns, one with every optional step, and one with
/// gated delta nets and rotated weights.
const FEW: [&str; 4] = ["relu2-i2s", "llama-q2-g64", "gemma3-window", "qwen35-hadamard"];
const KV_TYPES: [(&str, KvType); 2] = [("f16", KvType::F16), ("f32", KvType::F32)];

fn fixture(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

/// Models that run as dense matrices here; by default they take activations of 16 bits.
const DENSE: [&str; 2] = ["qwen3-dense", "minicpm-longrope"];

fn open(model: &str, mut options: Options) -> Engine {
    if DENSE.contains(&model) {
        options.act_quant = Some(ActQuant::None);
    }
    let path = fixture(&format!("{model}.gguf"));
    Engine::open(&path, options, &mut || false).unwrap_or_else(|error| panic!("{error}"))
}

/// The models of the tests other than that of the digests; few of them where an emulated processor is slow.
fn models() -> &'static [&'static str] {
    if std::env::var_os("BITNET_EMULATED").is_some() { &FEW } else { &MODELS }
}

/// Pseudorandom ids, of which 150 fill more than two pages of the cache.
fn ids(engine: &Engine, n: usize) -> Vec<u32> {
    let vocab = engine.config().vocab_size as u32;
    let mut state = 7u32;
    let mut next = move || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) % vocab
    };
    (0..n).map(|_| next()).collect()
}

fn logits(engine: &Engine, ids: &[u32]) -> Vec<f32> {
    engine.logits(&[ids.to_vec()], &mut || false).unwrap_or_else(|error| panic!("{error}")).concat()
}

fn bits(x: &[f32]) -> Vec<u32> {
    x.iter().map(|x| x.to_bits()).collect()
}

/// The bytes of a sequence's cache, piece by piece.
fn contents(sequence: &Sequence) -> Vec<Vec<u8>> {
    let mut pieces = Vec::new();
    let stored: Result<(), Error> = sequence.write_to(|piece| {
        pieces.push(piece.to_vec());
        Ok(())
    });
    stored.expect("nothing fails");
    pieces
}

/// The FNV-1a hash of the bits.
fn digest(x: &[f32]) -> u64 {
    let bytes = x.iter().flat_map(|x| x.to_bits().to_le_bytes());
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ byte as u64).wrapping_mul(0x0000_0100_0000_01b3))
}

#[test]
fn logits_have_the_recorded_digest_on_every_instruction_set() {
    let recorded = std::fs::read_to_string(fixture("digests.txt")).expect("committed");
    for isa in Isa::available() {
        let mut computed = String::new();
        for model in MODELS {
            for (kv_name, kv_type) in KV_TYPES {
                let isa = Some(isa.name().into());
                let options = Options { isa, n_threads: Some(1), kv_type: Some(kv_type), ..Options::default() };
                let engine = open(model, options);
                let logits = logits(&engine, &ids(&engine, 150));
                assert!(logits.iter().all(|x| x.is_finite()));
                computed += &format!("{model} {kv_name} {:016x}\n", digest(&logits));
            }
        }
        assert_eq!(recorded, computed, "{}", isa.name());
    }
}

#[test]
fn threads_and_chunks_do_not_show() {
    for model in models() {
        let reference = open(model, Options { n_threads: Some(1), n_batch: Some(150), ..Options::default() });
        let ids = ids(&reference, 150);
        let want = bits(&logits(&reference, &ids));
        for n_threads in [1, 2, 3] {
            for n_batch in [1, 3, 17, 128] {
                let options = Options { n_threads: Some(n_threads), n_batch: Some(n_batch), ..Options::default() };
                let got = bits(&logits(&open(model, options), &ids));
                assert!(want == got, "{model}: {n_threads} threads, chunks of {n_batch}");
            }
        }
    }
}

#[test]
fn a_sequence_has_the_logits_that_it_has_alone() {
    for model in models() {
        let engine = open(model, Options { n_batch: Some(50), ..Options::default() });
        let all = ids(&engine, 120);
        let sequences: Vec<Vec<u32>> =
            [&all[..1], &all[5..70], &all[..], &all[30..31], &all[7..19]].map(<[_]>::to_vec).into();
        let together = engine.logits(&sequences, &mut || false).expect("computed").concat();
        let alone: Vec<f32> = sequences.iter().flat_map(|ids| logits(&engine, ids)).collect();
        assert!(bits(&together) == bits(&alone), "{model}");
    }
}

#[test]
fn cached_equals_recomputed() {
    for model in models() {
        for (_, kv_type) in KV_TYPES {
            let engine = open(model, Options { kv_type: Some(kv_type), ..Options::default() });
            let prompt = ids(&engine, 61);
            engine.prefill(&prompt, &mut || false).expect("computed");
            assert_eq!(engine.cached_tokens(), 61);
            let cached = engine.generate(&prompt, 12, &[], &mut || false).expect("computed");
            assert_eq!(cached.len(), 12);
            let mut sequence = prompt.clone();
            for id in cached {
                let logits = logits(&engine, &sequence);
                let last = &logits[logits.len() - engine.config().vocab_size..];
                let best = (0..last.len()).rev().max_by(|a, b| last[*a].total_cmp(&last[*b])).expect("some");
                assert_eq!(best as u32, id, "{model} after {} ids", sequence.len());
                sequence.push(id);
            }
        }
    }
}

#[test]
fn prompts_together_are_continued_as_each_alone() {
    for model in models() {
        for n_batch in [2, 128] {
            let options = || Options { n_batch: Some(n_batch), n_ctx: Some(80), ..Options::default() };
            let (engine, alone) = (open(model, options()), open(model, options()));
            let all = ids(&engine, 75);
            let prompts: Vec<Vec<u32>> =
                [&all[..1], &all[3..70], &all[..], &all[..40], &all[..]].map(<[_]>::to_vec).into();
            engine.prefill(&all[..66], &mut || false).expect("computed");
            let free = alone.generate(&prompts[1], 6, &[], &mut || false).expect("computed");
            // Some end at a stop id, some at the end of the context, some at `max_tokens`.
            for stop in [vec![], vec![free[3]]] {
                let together = engine.generate_many(&prompts, 20, &stop, &mut || false).expect("computed");
                for (prompt, ids) in prompts.iter().zip(&together) {
                    let want = alone.generate(prompt, 20, &stop, &mut || false).expect("computed");
                    assert_eq!(*ids, want, "{model} after {} ids", prompt.len());
                }
            }
            assert!(engine.generate_many(&[], 20, &[], &mut || false).expect("nothing to do").is_empty());
            let error = engine.generate_many(&[vec![1], vec![]], 20, &[], &mut || false);
            assert!(matches!(error, Err(Error::Argument(_))));
        }
    }
}

#[test]
fn clones_and_what_is_restored_go_on_as_if_alone() {
    let both =
        ["silu-odd", "qwen35-hybrid"].into_iter().flat_map(|model| KV_TYPES.map(|(_, kv_type)| (model, kv_type)));
    for (model, kv_type) in both {
        let engine = open(model, Options { kv_type: Some(kv_type), ..Options::default() });
        let (runtime, all) = (engine.runtime(), ids(&engine, 140));
        let go_on = |sequence: &mut Sequence, ids: &[u32]| {
            let last = Extension::new(ids.to_vec(), ids.len() - 1..ids.len(), Output::Logits(Vec::new()));
            let Output::Logits(logits) = runtime.extend(sequence, last, &mut || false).expect("computed") else {
                unreachable!("logits were asked for")
            };
            bits(&logits)
        };
        let fresh = || Sequence::new(runtime.model.new_cache(kv_type));
        let alone = |ids: &[u32]| {
            let mut sequence = fresh();
            go_on(&mut sequence, &all[..70]);
            go_on(&mut sequence, ids)
        };
        let mut first = fresh();
        go_on(&mut first, &all[..70]);
        // Clones in the middle of a page, which they share.
        let (mut second, mut third) = (first.clone(), first.clone());
        let stored = contents(&first);
        let (cache, states, mut pieces) = (runtime.model.new_cache(kv_type), first.state_positions(), stored.iter());
        let mut restored = Sequence::restored(cache, all[..70].to_vec(), &states, |piece| {
            piece.copy_from_slice(pieces.next().expect("as many pieces"));
            Ok(())
        })
        .expect("memory");
        let kept = third.truncate(66);
        assert!(kept == 66 || kept < 66 && !states.is_empty(), "{model}: {kept}");
        assert!(go_on(&mut second, &all[80..140]) == alone(&all[80..140]));
        go_on(&mut third, &all[kept..70]);
        for sequence in [&mut first, &mut third, &mut restored] {
            assert!(go_on(sequence, &all[70..140]) == alone(&all[70..140]));
        }
    }
}

#[test]
fn an_abandoned_step_leaves_the_cache_as_it_was() {
    let engine = open("relu2-i2s", Options { n_threads: Some(1), n_batch: Some(1), ..Options::default() });
    let ids = ids(&engine, 200);
    engine.prefill(&ids[..20], &mut || false).expect("computed");
    let before = engine.generate(&ids[..20], 5, &[], &mut || false).expect("computed");
    engine.prefill(&ids[..20], &mut || false).expect("computed");

    // A watch is called only every 50 ms; a pass that is cancelled from the start takes the same path.
    let runtime = engine.runtime();
    let mut cache = runtime.model.new_cache(KvType::F16);
    let rows = [Row { sequence: 0, id: 1, logits: LogitsFor::All }; 3];
    let cancelled = std::sync::atomic::AtomicBool::new(true);
    let result = runtime.pool.run(|workers| {
        let team = Team::new(workers, runtime.kernels);
        runtime.model.forward(&team, &mut [&mut cache], &rows, &mut Default::default(), None, &cancelled)
    });
    assert!(matches!(result, Err(Error::Cancelled)));
    assert_eq!(cache.len(), 0);

    let wrong = engine.prefill(&[1, 2, 9999], &mut || false);
    assert!(matches!(wrong, Err(Error::TokenId { id: 9999, position: 2, .. })));
    assert_eq!(engine.cached_tokens(), 24);
    assert_eq!(before, engine.generate(&ids[..20], 5, &[], &mut || false).expect("computed"));
}

#[test]
fn the_kernels_count_what_they_computed() {
    for model in models() {
        let engine = open(model, Options { n_batch: Some(7), ..Options::default() });
        let (runtime, layers) = (engine.runtime(), engine.config().n_layers as u64);
        let prompt = ids(&engine, 20);
        let mut sequence = Sequence::new(runtime.model.new_cache(KvType::F16));
        let begin = Extension::new(prompt[..5].to_vec(), 0..0, Output::Nothing);
        runtime.extend(&mut sequence, begin, &mut || false).expect("computed");
        let params = SamplingParams { max_tokens: Some(4), ..SamplingParams::default() };
        let mut answer = Generation::begin(&mut sequence, prompt, engine.n_ctx(), params, 0, Vec::new());
        while runtime.next(&mut sequence, &mut answer, &mut || false).expect("computed").is_some() {}
        // The prompt without the cached positions, and all generated ids but the last.
        let positions = 20 - 5 + 4 - 1;
        assert_eq!((answer.cached_tokens, answer.finish), (5, Some(Finish::Length)));
        let work = sequence.work();
        assert_eq!(work.ternary + work.dense, positions * layers * 7, "{model}");
        assert_eq!((work.attention, work.head), (positions * layers, 4), "{model}");
    }
}
