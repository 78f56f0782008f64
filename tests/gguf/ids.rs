//! The type that a tensor's type id means: programs that write GGUF files disagree on some ids.

use bitnet::checkpoint::gguf::TensorType;

use crate::builder::*;

#[test]
fn an_uncontested_id_means_one_type() {
    for (kind, id) in TensorType::ALL.into_iter().filter_map(|kind| Some((kind, kind.id()?))) {
        let size = kind.size_of(12, 512).unwrap();
        let file = Builder::new().tensor("t", &[512, 12], id, size).tensor("end", &[8], 0, 32);
        assert_eq!(accepted(&file).tensors()[0].kind(), kind);
    }
    for (id, name) in [(3, "Q4_1"), (10, "Q2_K"), (37, "I8_S"), (9999, "no known meaning")] {
        let message = refusal(&Builder::new().tensor("t", &[256, 3], id, 256).build());
        assert!(message.contains(&format!("tensor 't' has type id {id}, ")) && message.contains(name), "{message}");
    }
}

/// Each case: a type id, the size in bytes of a tensor of 256 rows and 512 columns, and the type that these mean.
#[test]
fn contested_ids_are_decided_by_size() {
    let (rows, cols) = (256, 512);
    let n = rows * cols;
    // bitnet.cpp: (K − 256)·M/3·5/8 + 256·M/2·4/8 bytes, padded, and 32 bytes for the scale.
    let tl2 = (256 * 256 / 3 * 5 / 8 + 256 * 256 / 2 * 4 / 8usize).next_multiple_of(32);
    let cases = [
        (34, n / 256 * 54, Ok(TensorType::TQ1_0)),
        (34, n / 64 * 13, Err("IQ1_BN (ik_llama.cpp of August 2024)")),
        (35, n / 256 * 66, Ok(TensorType::TQ2_0)),
        (35, n / 64 * 16, Err("IQ2_BN (ik_llama.cpp of August 2024)")),
        (36, n / 4 + 32, Ok(TensorType::I2_S)),
        (36, n / 32 * 10, Err("BitNet32-F16")),
        (36, n / 4, Err("I2_S with the scale in another tensor")),
        (38, n / 4 + 32, Err("TL1")),
        (39, n / 32 * 17, Err("MXFP4")),
        (39, tl2 + 32, Err("TL2")),
        (42, n / 64 * 18, Ok(TensorType::Q2_0_G64)),
        (42, n / 128 * 34, Ok(TensorType::Q2_0_G128)),
        (42, n / 256 * 42, Ok(TensorType::STQ1_0)),
        (42, tl2 + 32, Err("TL2")),
        (43, n / 256 * 42, Ok(TensorType::STQ1_0)),
        (134, rows * (2 + cols / 64 * 13), Ok(TensorType::IQ1_BN)),
        (134, n / 64 * 13, Err("IQ1_BN without row scales")),
        (135, rows * (4 + cols / 64 * 16), Ok(TensorType::IQ2_BN)),
        (135, n / 64 * 16, Err("IQ2_BN without row scales")),
        (142, n / 128 * 34, Ok(TensorType::PQ2_0)),
        (142, rows * (4 + cols / 256 * 64), Err("IQ2_TN")),
        (143, n / 128 * 28, Ok(TensorType::PTQ1_0)),
        (143, rows * (2 + cols / 256 * 52), Err("IQ1_TN")),
    ];
    for (id, size, expected) in cases {
        let shape = [cols as u64, rows as u64];
        let cut = Builder::new().info("t", &shape, id, 0);
        assert_refused(&cut, "truncated");
        let mut one = Builder::new().tensor("t", &shape, id, size);
        if (id, size) == (36, n / 4) {
            assert_refused(&one, "truncated");
            one = one.tensor("t_scale", &[1], 0, 4).tensor("u.scale", &[1], 0, 4);
        }
        for file in [&one, &one.clone().tensor("u", &shape, id, size)] {
            match expected {
                Ok(kind) => assert!(accepted(file).tensors().iter().all(|tensor| tensor.kind() == kind)),
                Err(name) => assert_refused(file, &format!("tensor 't' has type id {id}, {name}")),
            }
        }
        // One tensor of another size contradicts every meaning.
        assert_refused(&one.tensor("stray", &shape, id, size + 4096), &format!("type id {id} has"));
    }
}

/// Converters of 2026 write the scale of a TL1 or TL2 tensor into a tensor of its own without dimensions.
#[test]
fn lookup_table_layouts_with_a_scale_of_their_own_are_named() {
    let shape = [512u64, 256];
    let tl2 = (256 * 256 / 3 * 5 / 8 + 256 * 256 / 2 * 4 / 8usize).next_multiple_of(32);
    let tl1 = 512 * 256 / 4;
    for (id, size, name) in [(38, tl1, "TL1"), (39, tl1, "TL1"), (39, tl2, "TL2"), (42, tl1, "TL1"), (42, tl2, "TL2")] {
        let file = Builder::new().tensor("t", &shape, id, size).tensor("t_scale", &[], 0, 4);
        assert_refused(&file, &format!("tensor 't' has type id {id}, {name} (bitnet.cpp"));
    }
    // Rows of 256 columns take the same bytes in both.
    let file = Builder::new().tensor("t", &[256, 256], 42, 256 * 64).tensor("t_scale", &[], 0, 4);
    assert_refused(&file, "which may mean TL2 (bitnet.cpp, for x86");
}

/// Up to 1024 elements padding makes Q2_0 in groups of 64 and of 128 take the same space; another tensor tells.
#[test]
fn all_tensors_of_a_file_decide_between_the_two_layouts_of_q2_0() {
    let small = |size| Builder::new().tensor("small", &[256, 4], 42, size);
    for (kind, size, group) in [(TensorType::Q2_0_G64, 18, 64), (TensorType::Q2_0_G128, 34, 128)] {
        let file = small(1024 / group * size).tensor("large", &[256, 64], 42, 16384 / group * size);
        let file = file.tensor("end", &[8], 0, 32);
        assert!(accepted(&file).tensors()[..2].iter().all(|tensor| tensor.kind() == kind));
        let alone = small(1024 / group * size).tensor("end", &[8], 0, 32);
        assert_refused(&alone, "which may mean Q2_0_g64 or Q2_0_g128");
    }
    let both = Builder::new().tensor("a", &[256, 64], 42, 256 * 18).tensor("b", &[256, 64], 42, 128 * 34);
    assert_refused(&both.tensor("end", &[8], 0, 32), "are of the types Q2_0_g128 and Q2_0_g64");
}

/// A file of a type that does not run opens for its metadata.
#[test]
fn metadata_is_read_whatever_the_types() {
    let file = Builder::new().uint("split.count", 1).tensor("t", &[256, 3], 9999, 256);
    let path = write(folder("types").join("unknown.gguf"), file.build());
    assert!(bitnet::checkpoint::gguf::Gguf::open(&path).is_err());
    let opened = bitnet::checkpoint::gguf::Gguf::open_metadata(&path).unwrap();
    assert_eq!((opened.metadata().uint("split.count").unwrap(), opened.tensors().len()), (Some(1), 0));
}

#[test]
fn an_ambiguous_size_is_refused() {
    // 512 elements take 160 bytes as I2_S and as BitNet32-F16.
    let message = refusal(&Builder::new().tensor("t", &[128, 4], 36, 160).build());
    assert!(message.contains("which may mean I2_S or BitNet32-F16"), "{message}");
}

#[test]
fn a_type_that_runs_wins_if_padding_makes_another_fit_too() {
    // The tensor takes 8448 bytes as TQ2_0 and 8192 as the old IQ2_BN; padding fills both up to 16384.
    let wide = |size| Builder::new().align(16384).tensor("t", &[512, 64], 35, size).tensor("end", &[8], 0, 32);
    assert_eq!(accepted(&wide(8448)).tensors()[0].kind(), TensorType::TQ2_0);
}
