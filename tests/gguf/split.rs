//! Models split into several files.

use std::path::{Path, PathBuf};

use bitnet::checkpoint::gguf::Gguf;

use crate::builder::*;

const TOTAL: usize = 3;

fn shard(number: usize) -> Builder {
    let file = Builder::new()
        .entry("split.no", 2, (number as u16).to_le_bytes())
        .entry("split.count", 2, (TOTAL as u16).to_le_bytes())
        .entry("split.tensors.count", 5, (TOTAL as i32).to_le_bytes());
    // The headers differ in length and alignment, because offsets count from each file's own data section.
    let file = if number == 1 { file.align(64) } else { file };
    let value = (number as f32).to_le_bytes();
    let mut file = file.uint(&"k".repeat(10 * number + 1), 1).info(format!("t{number}"), &[1], 0, 0);
    file.data.extend(value);
    file
}

fn shard_path(folder: &Path, number: usize) -> PathBuf {
    folder.join(format!("m-{:05}-of-{TOTAL:05}.gguf", number + 1))
}

/// A folder with a complete split model.
fn split_set(test: &str) -> PathBuf {
    let folder = folder(test);
    (0..TOTAL).for_each(|number| drop(write(shard_path(&folder, number), shard(number).build())));
    folder
}

#[test]
fn a_split_model_is_opened_by_its_first_file() {
    let folder = split_set("split");
    let file = Gguf::open(shard_path(&folder, 0)).unwrap();
    for number in 0..TOTAL {
        let tensor = file.tensor(&format!("t{number}")).unwrap();
        assert_eq!(file.bytes(tensor), (number as f32).to_le_bytes());
    }
    let size: usize = (0..TOTAL).map(|number| shard(number).build().len()).sum();
    assert_eq!((file.tensors().len(), file.file_size()), (TOTAL, size as u64));
    assert!(file.metadata().get("k").is_some() && file.metadata().get(&"k".repeat(11)).is_none());
    let message = open_refusal(&shard_path(&folder, 1));
    let first = shard_path(&folder, 0);
    assert!(message.contains(&format!("open '{}' instead", first.display())), "{message}");
}

#[test]
fn incomplete_or_mixed_split_models_are_refused() {
    let folder = split_set("split_missing");
    std::fs::remove_file(shard_path(&folder, 2)).unwrap();
    let message = open_refusal(&shard_path(&folder, 0));
    assert!(message.contains("file 3 of 3 is missing") && message.contains("m-00003-of-00003.gguf"), "{message}");

    let folder = split_set("split_order");
    write(shard_path(&folder, 1), shard(2).build());
    write(shard_path(&folder, 2), shard(1).build());
    let message = open_refusal(&shard_path(&folder, 0));
    assert!(message.contains("should be file 1 (counted from 0) of 3") && message.contains("say 2 and 3"), "{message}");

    let folder = split_set("split_alien");
    write(shard_path(&folder, 1), sample().build());
    assert!(open_refusal(&shard_path(&folder, 0)).contains("say nothing and nothing"));

    let folder = split_set("split_duplicate");
    let mut twin = shard(1);
    twin.infos = shard(0).infos;
    write(shard_path(&folder, 1), twin.build());
    assert!(open_refusal(&shard_path(&folder, 0)).contains("tensor 't0' occurs twice"));

    let folder = split_set("split_total");
    let mut more = shard(1).info("more", &[1], 0, 64);
    more.data.resize(68, 0);
    write(shard_path(&folder, 1), more.build());
    assert!(open_refusal(&shard_path(&folder, 0)).contains("hold 4 tensors, but split.tensors.count says 3"));

    let folder = split_set("split_names");
    let renamed = folder.join("model.gguf");
    std::fs::rename(shard_path(&folder, 0), &renamed).unwrap();
    assert!(open_refusal(&renamed).contains("restore the original names"));
}
