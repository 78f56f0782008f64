//! The type that a tensor's type id means: programs that write GGUF files disagree on some ids.

use bitnet::checkpoint::gguf::TensorType;

use crate::builder::*;

#[test]
fn an_uncontested_id_means_one_type() {
    for kind in TensorType::ALL {
        let size = kind.size_of(3, 256).unwrap();
        let file = Builder::new().tensor("t", &[256, 3], kind.id(), size).tensor("end", &[8], 0, 32);
        assert_eq!(accepted(&file).tensors()[0].kind(), kind);
    }
    for (id, name) in [(3, "Q4_1"), (10, "Q2_K"), (37, "I8_S"), (335, "IQ2_BN_R4"), (9999, "no known meaning")] {
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
    let tl2 = (256 * 256 / 3 * 5 / 8 + 256 * 256 / 2 * 4 / 8usize).next_multiple_of(32) + 32;
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
        (39, tl2, Err("TL2")),
        (42, n / 64 * 18, Err("Q2_0 in groups of 64")),
        (42, n / 128 * 34, Err("Q2_0 in groups of 128")),
        (42, tl2, Err("TL2")),
        (134, rows * (2 + cols / 64 * 13), Ok(TensorType::IQ1_BN)),
        (134, n / 64 * 13, Err("IQ1_BN without row scales")),
        (135, rows * (4 + cols / 64 * 16), Ok(TensorType::IQ2_BN)),
        (135, n / 64 * 16, Err("IQ2_BN without row scales")),
        (142, n / 128 * 34, Err("PQ2_0")),
        (142, rows * (4 + cols / 256 * 64), Err("IQ2_TN")),
        (143, n / 128 * 28, Err("PTQ1_0")),
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
