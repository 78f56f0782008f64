use super::*;
use crate::engine::{Engine, Options};
use std::path::PathBuf;

fn engine(model: &str) -> Engine {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("tests/fixtures/{model}.gguf"));
    Engine::open(&path, Options { n_threads: Some(1), ..Options::default() }, &mut || false).expect("a fixture")
}

fn sequence(engine: &Engine, ids: &[TokenId]) -> Sequence {
    let mut sequence = engine.new_sequence();
    let ids = crate::decode::Extension::new(ids.to_vec(), 0..0, crate::decode::Output::Nothing);
    engine.runtime().extend(&mut sequence, ids, &mut || false).expect("computed");
    sequence
}

fn ids(n: u32, seed: u32) -> Vec<TokenId> {
    (0..n).map(|i| (i * 7 + seed * i * i) % 90).collect()
}

fn found(cache: &PrefixCache, ids: &[TokenId]) -> usize {
    cache.find(ids, 0).map_or(0, |sequence| {
        assert!(ids.starts_with(sequence.ids()));
        sequence.ids().len()
    })
}

#[test]
fn the_longest_prefix_is_found_among_many() {
    let engine = engine("relu2-i2s");
    let cache = PrefixCache::new(usize::MAX);
    let all: Vec<Vec<TokenId>> = [(40, 1), (90, 2), (10, 3)].map(|(n, seed)| ids(n, seed)).into();
    let branches = [all.clone(), all.iter().map(|ids| [&ids[..9], &[1, 2, 3]].concat()).collect()].concat();
    branches.iter().for_each(|ids| cache.keep(sequence(&engine, ids)));
    for query in branches.iter().map(|ids| [&ids[..], &[5]].concat()).chain([ids(8, 2), ids(60, 1), vec![89], vec![]]) {
        let longest = branches.iter().map(|ids| common(ids, &query)).max();
        assert_eq!(found(&cache, &query), longest.expect("some"), "{query:?}");
    }
    // A longer sequence takes the place of those that it begins with.
    let before = cache.positions();
    cache.keep(sequence(&engine, &[&all[0][..], &[5, 6]].concat()));
    assert_eq!(cache.positions(), before + 2);
    cache.keep(sequence(&engine, &all[0][..20]));
    assert_eq!(cache.positions(), before + 2);
    cache.clear();
    assert_eq!((cache.positions(), cache.bytes(), found(&cache, &all[0])), (0, 0, 0));
}

#[test]
fn what_was_not_used_for_longest_leaves_first() {
    let engine = engine("relu2-i2s");
    let page = sequence(&engine, &[1]).bytes();
    let cache = PrefixCache::new(4 * page);
    let all: Vec<Vec<TokenId>> = (1..5).map(|seed| [&[seed][..], &ids(30, seed)].concat()).collect();
    all.iter().for_each(|ids| cache.keep(sequence(&engine, ids)));
    assert_eq!(cache.bytes(), 4 * page);
    assert_eq!(found(&cache, &all[0]), 31);
    cache.keep(sequence(&engine, &ids(50, 7)));
    assert_eq!(all.iter().map(|ids| found(&cache, ids)).collect::<Vec<_>>(), [31, 0, 31, 31]);
    assert_eq!(cache.bytes(), 4 * page);
    // Of a sequence that is too long the beginning stays.
    let long = [&[9][..], &ids(299, 8)].concat();
    cache.keep(sequence(&engine, &long));
    assert_eq!((found(&cache, &long), cache.bytes()), (256, 4 * page));
    let off = PrefixCache::new(0);
    off.keep(sequence(&engine, &long));
    assert_eq!((off.positions(), off.bytes()), (0, 0));
}

#[test]
fn shared_pages_count_once() {
    let engine = engine("relu2-i2s");
    let cache = PrefixCache::new(usize::MAX);
    let start = sequence(&engine, &ids(128, 1));
    for last in 0..5 {
        let mut own = start.clone();
        let more = crate::decode::Extension::new(vec![last], 0..0, crate::decode::Output::Nothing);
        engine.runtime().extend(&mut own, more, &mut || false).expect("computed");
        cache.keep(own);
    }
    assert_eq!(cache.bytes(), (2 + 5) * start.bytes() / 2);
    assert_eq!(cache.positions(), 128 + 5);
}

#[test]
fn recurrent_models_go_on_from_a_kept_state() {
    let engine = engine("qwen35-hybrid");
    let cache = PrefixCache::new(usize::MAX);
    let prompt = ids(90, 1);
    let mut first = engine.new_sequence();
    first.keep_states_for(&prompt, &[20]);
    let all = crate::decode::Extension::new(prompt.clone(), 0..0, crate::decode::Output::Nothing);
    engine.runtime().extend(&mut first, all, &mut || false).expect("computed");
    cache.keep(first);
    for (len, kept) in [(90, 90), (89, 82), (82, 82), (81, 20), (19, 0)] {
        assert_eq!(found(&cache, &prompt[..len]), kept, "{len} positions");
    }
}

#[test]
fn the_counted_bytes_are_those_of_the_held_parts_whatever_comes_and_goes() {
    for model in ["relu2-i2s", "qwen35-hybrid"] {
        let engine = engine(model);
        let limit = 5 * sequence(&engine, &ids(64, 1)).bytes();
        let cache = PrefixCache::new(limit);
        let mut state = 1u32;
        let mut random = |below: u32| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 16) % below
        };
        let mut most = 0;
        for _ in 0..400 {
            let mut prompt = ids(1 + random(110), random(3));
            prompt.extend((0..random(4)).map(|i| i + 1));
            let mut own = cache.find(&prompt, random(40) as usize).unwrap_or_else(|| engine.new_sequence());
            own.keep_states_for(&prompt, &[random(90) as usize]);
            let rest = prompt[own.ids().len()..].to_vec();
            let rest = crate::decode::Extension::new(rest, 0..0, crate::decode::Output::Nothing);
            engine.runtime().extend(&mut own, rest, &mut || false).expect("computed");
            own.truncate(prompt.len() - random(2) as usize * prompt.len() / 2);
            match random(40) {
                0 => cache.clear(),
                _ => cache.keep(own),
            }
            let entries = cache.lock();
            let parts: HashMap<usize, usize> =
                entries.sequences.values().flat_map(|entry| entry.sequence.parts()).collect();
            assert_eq!(entries.bytes, parts.values().sum::<usize>());
            assert_eq!(entries.parts.len(), parts.len());
            assert!(entries.bytes <= limit);
            most = most.max(entries.sequences.len());
        }
        assert!(most > 2, "{model}: at most {most} sequences");
    }
}
