//! Files that are not GGUF, damaged or hostile: each is refused with a reason, in little time and memory.

use std::path::Path;

use bitnet::checkpoint::gguf;
use proptest::prelude::*;

use crate::builder::*;

#[test]
fn errors_say_what_the_file_is_instead() {
    let mut safetensors = 14u64.to_le_bytes().to_vec();
    safetensors.extend(b"{\"__meta__\":{}}");
    let cases: [(&[u8], &str); 15] = [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n", "Git LFS pointer"),
        (b"\n <!DOCTYPE html><html></html>", "HTML page"),
        (b"PK\x03\x04\0\0\0\0", "zip or pickle"),
        (b"\xef\xbb\xbf<!-- 404 -->\n<HTML>", "HTML page"),
        (b"<?xml version=\"1.0\"?><Error><Code>AccessDenied</Code></Error>", "XML document"),
        (b"{\"error\": \"Invalid credentials\"}", "is a JSON file"),
        (b"\x80\x02}q\0", "zip or pickle"),
        (b"\x80\x05\x95\0", "zip or pickle"),
        (&safetensors, "safetensors"),
        (&safetensors[..12], "safetensors"),
        (b"tjgg\x01\0\0\0", "old GGML format"),
        ("Ein Brief über nichts.\n".as_bytes(), "is a text file"),
        (b"\x7fELF\x02\x01", "starts with the bytes 7f 45 4c 46"),
        (b"GGU", "ends inside its first four bytes"),
        (b"GGUF", "truncated"),
    ];
    for (bytes, expected) in cases {
        let message = refusal(bytes);
        assert!(message.contains(expected), "'{message}' does not contain '{expected}'");
    }
}

#[test]
fn errors_say_why_a_path_is_not_a_file() {
    let folder = folder("paths");
    assert!(open_refusal(&folder).contains("is a directory"));
    assert!(open_refusal(&folder.join("absent.gguf")).contains("no such file"));
    assert!(open_refusal(&write(folder.join("empty.gguf"), "")).contains("the file is empty"));
}

#[test]
fn other_versions_are_refused() {
    for (version, expected) in [
        (1, "is GGUF version 1 of August 2023"),
        (3u32.swap_bytes(), "big-endian"),
        (0, "is GGUF version 0"),
        (4, "is GGUF version 4"),
    ] {
        assert_refused(&Builder { version, ..sample() }, expected);
    }
}

#[test]
fn every_truncation_is_refused() {
    let bytes = sample().build();
    // The last tensor's size is a multiple of the alignment, so every byte is needed.
    for end in 0..bytes.len() {
        let message = refusal(&bytes[..end]);
        assert!(end < 4 || message.contains("truncated"), "at {end}: {message}");
    }
}

#[test]
fn flipped_bits_of_the_header_never_panic() {
    let (file, mut bytes) = (sample(), sample().build());
    let mut refused = 0;
    for at in 0..file.header().len() {
        for flip in (0..8).map(|bit| 1 << bit).chain([0xff]) {
            bytes[at] ^= flip;
            refused += usize::from(gguf::parse(&bytes, Path::new("m.gguf")).is_err());
            bytes[at] ^= flip;
        }
    }
    assert!(refused > file.header().len(), "only {refused} of the flips were noticed");
}

#[test]
fn huge_counts_fail_fast() {
    for count in [(1 << 20) + 1, 1 << 32, 1 << 63, u64::MAX] {
        let counted = |at: usize| {
            let mut bytes = Builder::new().build();
            bytes[at..at + 8].copy_from_slice(&count.to_le_bytes());
            bytes
        };
        assert!(refusal(&counted(8)).contains(&format!("claims {count} tensors")));
        assert!(refusal(&counted(16)).contains(&format!("claims {count} metadata entries")));
        let claim = count.to_le_bytes();
        assert_refused(&Builder::new().entry("k", STR, claim), "metadata key 'k': ");
        for kind in (0..9).chain(10..13u32) {
            let value = [&kind.to_le_bytes()[..], &claim].concat();
            assert_refused(&Builder::new().entry("k", ARRAY, value), &format!("claims {count} array elements"));
        }
        let mut key = Builder::new();
        key.entries.push(claim.to_vec());
        key.entries.push(vec![0; 64]);
        refusal(&key.build());
    }
    // Enough bytes for as many of the smallest entries, but what stands there is larger.
    let mut bytes = Builder::new().build();
    bytes[8..16].copy_from_slice(&1000u64.to_le_bytes());
    bytes.resize(24 + 24 * 1000, 0xff);
    refusal(&bytes);
    #[cfg(target_os = "linux")]
    {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let peak = status.lines().find_map(|line| line.strip_prefix("VmPeak:")?.strip_suffix("kB")).unwrap();
        assert!(peak.trim().parse::<u64>().unwrap() < 4 << 20, "peak of {peak} kB");
    }
}

#[test]
fn invalid_metadata_is_refused() {
    let sound = Builder::new().uint("a", 1);
    assert_refused(&sound.clone().uint("b", 2).uint("a", 3), "metadata key 'a' occurs twice");
    assert_refused(&sound.clone().uint("", 2), "has 0 bytes, expected 1 to 65535");
    assert_refused(&sound.clone().uint(&"k".repeat(65536), 2), "has 65536 bytes");
    assert_refused(&sound.clone().entry([0xff], U32, [0; 4]), "is not UTF-8");
    assert_refused(&sound.clone().entry("b", 13, [0; 8]), "metadata key 'b': value type 13 is unknown");
    assert_refused(&sound.clone().entry("b", BOOL, [2]), "metadata key 'b': a bool is stored as 2");
    assert_refused(&sound.clone().entry("b", ARRAY, array(BOOL, &[vec![0], vec![7]])), "a bool is stored as 7");
    assert_refused(&sound.clone().entry("b", ARRAY, array(13, &[])), "value type 13");
    let nested = |depth| (1..depth).fold(array(BOOL, &[]), |inner, _| array(ARRAY, &[inner]));
    accepted(&sound.clone().entry("b", ARRAY, nested(64)));
    for depth in [65, 100_000] {
        assert_refused(&sound.clone().entry("b", ARRAY, nested(depth)), "holds arrays nested more than 64 deep");
    }
    let inner = array(ARRAY, &[array(BOOL, &[vec![1]]), array(BOOL, &[vec![7]])]);
    assert_refused(&sound.clone().entry("b", ARRAY, inner), "a bool is stored as 7");
    let mut many = array(ARRAY, &[]);
    many[4..12].copy_from_slice(&(1u64 << 30).to_le_bytes());
    assert_refused(&sound.entry("b", ARRAY, many), "claims 1073741824 array elements");
    accepted(&Builder::new().uint(&"k".repeat(65535), 2));
}

#[test]
fn invalid_tensors_are_refused() {
    let sound = Builder::new().tensor("a", &[8], 0, 32);
    assert_refused(&sound.clone().tensor("a", &[8], 0, 32), "tensor 'a' occurs twice");
    assert_refused(&sound.clone().tensor("", &[8], 0, 32), "has 0 bytes, expected 1 to 63");
    assert_refused(&sound.clone().tensor(&"n".repeat(64), &[8], 0, 32), "has 64 bytes, expected 1 to 63");
    assert_refused(&sound.clone().info([0xff], &[8], 0, 0), "the tensor name at byte");
    assert_refused(&sound.clone().tensor("b", &[1; 5], 0, 4), "tensor 'b': has 5 dimensions");
    assert_refused(&sound.clone().tensor("b", &[8, 0], 0, 32), "tensor 'b': has a dimension of 0");
    assert_refused(&sound.clone().tensor("b", &[1 << 63], 0, 32), "tensor 'b': has a dimension of");
    assert_refused(&sound.clone().tensor("b", &[1 << 31; 3], 0, 32), "more elements than memory can address");
    assert_refused(&sound.clone().tensor("b", &[1 << 62], 0, 32), "more than memory can address");
    assert_refused(&sound.clone().tensor("b", &[33], 8, 68), "33 columns are not a multiple of 32");
    assert_refused(&sound.clone().info("b", &[8], 0, 8), "its offset 8 is not a multiple");
    assert_refused(&sound.clone().info("b", &[8], 0, 0), "of type F32 needs 32 bytes");
    assert_refused(&sound.clone().info("b", &[8], 0, 32), "truncated");
    assert_refused(&sound.clone().info("b", &[8], 0, u64::MAX - 31), "memory can address");
    let longer = Builder { data: vec![0; 64], ..Builder::new().info("a", &[16], 0, 0).info("b", &[8], 0, 32) };
    assert_refused(&longer, "tensor 'a' of type F32 needs 64 bytes, but the next tensor starts after 32");
    accepted(&sound.tensor(&"n".repeat(63), &[], 0, 4));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    /// A file with overwritten bytes or a missing end never causes a panic, and every tensor of an accepted file lies
    /// inside it.
    #[test]
    fn mutations_never_panic(
        writes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        field in proptest::option::of((any::<prop::sample::Index>(), prop_oneof![any::<u64>(), 0u64..512])),
        cut in proptest::option::of(any::<prop::sample::Index>()),
    ) {
        let mut bytes = sample().build();
        for (at, byte) in writes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if let Some((at, value)) = field {
            let at = at.index(bytes.len() - 8);
            bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        if let Ok(contents) = gguf::parse(&bytes, Path::new("m.gguf")) {
            for tensor in contents.tensors() {
                prop_assert!(tensor.size() <= bytes.len());
                prop_assert_eq!(tensor.kind().size_of(tensor.rows(), tensor.cols()), Ok(tensor.size()));
            }
        }
    }

    #[test]
    fn random_headers_never_panic(
        tail in proptest::collection::vec(any::<u8>(), 0..200),
        counts in (0u64..4, 0u64..4),
    ) {
        let mut bytes = b"GGUF\x03\0\0\0".to_vec();
        bytes.extend(counts.0.to_le_bytes());
        bytes.extend(counts.1.to_le_bytes());
        bytes.extend(tail);
        let _ = gguf::parse(&bytes, Path::new("m.gguf"));
    }
}
