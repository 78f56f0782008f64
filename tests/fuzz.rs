//! Replays the corpus of the fuzz targets (`fuzz/corpus`) and changed copies of each input, within the same bounds.

#[path = "../fuzz/src/targets.rs"]
mod targets;

use proptest::prelude::Rng;
use proptest::test_runner::{RngAlgorithm, TestRng};
use std::fs;
use std::path::Path;
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);

/// How many changed copies of each input are run.
const COPIES: usize = 50;

/// Changes an input as fuzzers do: cuts, repeats, overwrites and flips.
fn change(data: &mut Vec<u8>, random: &mut TestRng) {
    let mut below = |n: usize| random.next_u64() as usize % n.max(1);
    for _ in 0..1 + below(4) {
        let (at, to, len) = (below(data.len()), below(data.len()), below(64));
        let range = at..(at + len).min(data.len());
        match below(5) {
            0 => data.truncate(at),
            1 => drop(data.drain(range)),
            2 => drop(data.splice(to..to, data[range].to_vec()).count()),
            3 => data[range].fill(255),
            _ => data[range].iter_mut().take(1).for_each(|byte| *byte ^= 1 << (len % 8)),
        }
    }
}

#[test]
fn the_corpus_and_its_neighbours_stay_within_the_bounds() {
    let mut random = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    for (name, target, times) in targets::TARGETS {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(name);
        let entries = fs::read_dir(folder).expect("a corpus");
        let mut files: Vec<_> = entries.map(|entry| entry.expect("an input").path()).collect();
        files.sort();
        assert!(!files.is_empty(), "the corpus of {name} is empty");
        for path in files {
            println!("{}", path.display()); // seen if it fails
            let original = fs::read(&path).expect("an input");
            targets::bounded(target, &original, times, SECOND);
            for _ in 0..COPIES {
                let mut data = original.clone();
                change(&mut data, &mut random);
                targets::bounded(target, &data, times, SECOND);
            }
        }
    }
}
