//! The GGUF container, with files built here byte by byte: valid, damaged and hostile ones.

mod builder;
mod hostile;
mod ids;
mod split;

use std::path::Path;

use bitnet::checkpoint::gguf::{self, Gguf, TensorType, Value, ValueType};

use builder::*;

#[test]
fn a_file_is_read_as_it_was_written() {
    for version in [2, 3] {
        let bytes = Builder { version, ..sample() }.build();
        let path = write(folder(&format!("reads_back_{version}")).join("m.gguf"), &bytes);
        let file = Gguf::open(&path).unwrap();
        assert_eq!(
            (file.version(), file.file_size(), file.path()),
            (Some(version), bytes.len() as u64, path.as_path())
        );
        assert_eq!(file.warnings(), [""; 0]);

        let names: Vec<&str> = file.tensors().iter().map(|tensor| tensor.name()).collect();
        assert_eq!(names, ["norm", "embd", "proj"]);
        let proj = file.tensor("proj").unwrap();
        assert_eq!((proj.shape(), proj.rows(), proj.cols(), proj.elements()), (&[192, 4][..], 4, 192, 768));
        assert_eq!((proj.kind(), proj.size()), (TensorType::I2_S, 224));
        assert!(file.tensor("absent").is_none());
        for tensor in file.tensors() {
            let expected: Vec<u8> = (0..tensor.size()).map(|index| (index % 251) as u8).collect();
            assert_eq!(file.bytes(tensor), expected, "{}", tensor.name());
        }
    }
}

#[test]
fn metadata_is_typed() {
    let path = write(folder("metadata").join("m.gguf"), sample().build());
    let file = Gguf::open(&path).unwrap();
    let metadata = file.metadata();
    assert_eq!(metadata.str("general.architecture").unwrap(), Some("bitnet-b1.58"));
    assert_eq!(metadata.uint("bitnet-b1.58.block_count").unwrap(), Some(30));
    assert_eq!(metadata.uints("bitnet-b1.58.block_count").unwrap(), Some(vec![30]));
    assert_eq!(metadata.uints("heads").unwrap(), Some(vec![8, 4]));
    assert_eq!(metadata.float("eps").unwrap(), Some(1e-5));
    assert_eq!(metadata.floats("wide").unwrap(), Some(vec![0.25]));
    assert_eq!(metadata.bool("flag").unwrap(), Some(true));
    assert_eq!(metadata.ints("negative").unwrap(), Some(vec![-7]));
    let tokens: Vec<&[u8]> = metadata.strings("tokens").unwrap().unwrap().collect();
    assert_eq!(tokens, [&b"a"[..], &[0xff, 0xfe], b""]);
    assert_eq!(metadata.uint("absent").unwrap(), None);

    let fault = |result: bitnet::error::Result<Option<usize>>| result.unwrap_err().to_string();
    assert!(
        fault(metadata.uint("eps")).contains("metadata key 'eps' is 1e-5 of type f32, expected a non-negative integer")
    );
    assert!(fault(metadata.uint("negative")).contains("'negative' is -7 of type i32, expected a non-negative integer"));
    let fault = metadata.str("heads").unwrap_err().to_string();
    assert!(fault.contains("'heads' is [8, 4] of type u32[2], expected a string"), "{fault}");
    assert!(metadata.strings("heads").is_err() && metadata.floats("heads").is_err());

    let shown: Vec<String> =
        metadata.iter().map(|(key, value)| format!("{key} {} {value}", value.type_name())).collect();
    assert_eq!(shown[0], "general.architecture str \"bitnet-b1.58\"");
    assert_eq!(shown[7], "tokens str[3] [\"a\", \"\u{fffd}\u{fffd}\", \"\"]");
    assert_eq!(metadata.get("flag").map(|value| value.kind()), Some(ValueType::Bool));
}

#[test]
fn an_array_of_arrays_is_skipped_unless_it_is_needed() {
    let numbers = |of: &[u32]| array(U32, &of.iter().map(|n| n.to_le_bytes().to_vec()).collect::<Vec<_>>());
    let texts = array(STR, &[string("a"), string("bc")]);
    let bytes = Builder::new()
        .entry("nested", ARRAY, array(ARRAY, &[numbers(&[1, 2]), array(ARRAY, &[texts]), numbers(&[])]))
        .uint("after", 7)
        .build();
    let path = folder("nested").join("m.gguf");
    std::fs::write(&path, bytes).unwrap();
    let file = Gguf::open(&path).unwrap();
    let metadata = file.metadata();
    assert_eq!(metadata.uint("after").unwrap(), Some(7));
    let shown = metadata.get("nested").map(|value| format!("{} {value}", value.type_name()));
    assert_eq!(shown.as_deref(), Some("array[3] [[1, 2], [[\"a\", \"bc\"]], []]"));
    let fault = metadata.uints("nested").unwrap_err().to_string();
    assert!(fault.contains("of type array[3], expected non-negative integers"), "{fault}");
    assert!(metadata.strings("nested").is_err() && metadata.floats("nested").is_err());
}

#[test]
fn every_value_type_is_read() {
    let cases: [(u32, Vec<u8>, Value); 12] = [
        (0, vec![200], Value::U8(200)),
        (1, vec![200], Value::I8(-56)),
        (2, vec![0, 200], Value::U16(51200)),
        (3, vec![0, 200], Value::I16(-14336)),
        (4, vec![0, 0, 0, 200], Value::U32(3355443200)),
        (5, vec![0, 0, 0, 200], Value::I32(-939524096)),
        (6, 1.5f32.to_le_bytes().to_vec(), Value::F32(1.5)),
        (7, vec![0], Value::Bool(false)),
        (8, string("é"), Value::Str("é".as_bytes())),
        (10, u64::MAX.to_le_bytes().to_vec(), Value::U64(u64::MAX)),
        (11, i64::MIN.to_le_bytes().to_vec(), Value::I64(i64::MIN)),
        (12, 1e300f64.to_le_bytes().to_vec(), Value::F64(1e300)),
    ];
    let folder = folder("value_types");
    for (kind, bytes, expected) in cases {
        let items = array(kind, &[bytes.clone(), bytes.clone()]);
        let built = Builder::new().entry("scalar", kind, &bytes).entry("array", ARRAY, items).build();
        let file = Gguf::open(write(folder.join(format!("{kind}.gguf")), built)).unwrap();
        let metadata = file.metadata();
        assert_eq!(metadata.get("scalar"), Some(expected));
        let Some(Value::Array(array)) = metadata.get("array") else { panic!("type {kind}") };
        assert_eq!((array.len(), array.kind()), (2, expected.kind()));
        assert_eq!(array.iter().collect::<Vec<_>>(), [expected, expected]);
    }
}

#[test]
fn long_values_are_cut_for_display() {
    let items: Vec<Vec<u8>> = (0..9u8).map(|item| vec![item]).collect();
    let file = Builder::new().entry("long", STR, string("é\n".repeat(100))).entry("many", ARRAY, array(U8, &items));
    let file = Gguf::open(write(folder("shown").join("m.gguf"), file.build())).unwrap();
    let shown = |key: &str| file.metadata().get(key).unwrap().to_string();
    assert_eq!(shown("long"), format!("\"{}…\"", "é\\n".repeat(36)));
    assert_eq!(shown("many"), "[0, 1, 2, 3, 4, 5, …]");
}

#[test]
fn releasing_pages_keeps_the_bytes() {
    let file = Builder::new().tensor("big", &[1 << 18], 0, 1 << 20).tensor("next", &[8], 0, 32);
    let file = Gguf::open(write(folder("release").join("m.gguf"), file.build())).unwrap();
    let before = file.bytes(&file.tensors()[0]).to_vec();
    file.tensors().iter().for_each(|tensor| file.release(tensor, 0..tensor.size()));
    assert_eq!(file.bytes(&file.tensors()[0]), before);
}

#[test]
fn alignment_is_a_power_of_two() {
    for alignment in [1, 8, 64, 4096] {
        let file = Builder::new().align(alignment).tensor("a", &[5], 0, 20).tensor("b", &[5], 0, 20);
        assert_eq!(accepted(&file).tensors().len(), 2);
    }
    for alignment in [0, 3, 33] {
        let file = Builder::new().uint("general.alignment", alignment).tensor("a", &[5], 0, 20);
        assert_refused(&file, &format!("general.alignment is {alignment} (u32), expected a power of two"));
    }
    assert_refused(&Builder::new().entry("general.alignment", STR, string("32")), "expected a power of two");
}

#[test]
fn the_last_tensor_may_lack_its_padding() {
    let bytes = sample().tensor("tail", &[5], 0, 20).build();
    let end = bytes.len() - 12;
    assert!(gguf::parse(&bytes[..end], Path::new("m.gguf")).is_ok());
    let message = refusal(&bytes[..end - 1]);
    let expected = format!("should have at least {end} bytes, but it has {}; it is truncated", end - 1);
    assert!(message.contains("tensor 'tail' needs 20 bytes") && message.contains(&expected), "{message}");
}

#[test]
fn tensors_in_any_order_are_read_and_gaps_give_a_warning() {
    let mut file = Builder::new().info("late", &[8], 0, 128).info("early", &[8], 0, 0);
    file.data = (0..160).collect();
    let path = write(folder("gaps").join("m.gguf"), file.build());
    let file = Gguf::open(&path).unwrap();
    assert_eq!(file.bytes(file.tensor("late").unwrap())[0], 128);
    assert_eq!(file.bytes(file.tensor("early").unwrap())[0], 0);
    assert_eq!(file.warnings(), ["the tensor data has a gap: 96 unused bytes after tensor 'early'"]);
}
