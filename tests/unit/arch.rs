use super::*;

#[test]
fn every_architecture_is_found_by_its_own_name() {
    for arch in &ARCHITECTURES {
        let found = Arch::find(arch.name).expect("in the table");
        assert!(std::ptr::eq(found, arch), "two rows are named {}", arch.name);
    }
    assert!(Arch::find("BitNet").is_none());
}

#[test]
fn only_the_size_tells_models_of_one_architecture_apart() {
    let bitnet = Arch::find("bitnet").expect("in the table");
    assert_eq!(bitnet.activation_for(BITNET_2B_4T), (Activation::Relu2, true));
    let larger = ModelSize { vocab_size: 128_257, ..BITNET_2B_4T };
    assert_eq!(bitnet.activation_for(larger), (Activation::Silu, false));
    for name in ["bitnet-b1.58", "bitnet-25"] {
        let arch = Arch::find(name).expect("in the table");
        assert_eq!(arch.activation_for(BITNET_2B_4T).0, Activation::Relu2);
        assert_eq!(arch.activation_for(larger).0, Activation::Relu2);
        for vocab_size in [32_000, 32_001, 32_003, 32_064] {
            assert_eq!(arch.activation_for(ModelSize { vocab_size, ..BITNET_2B_4T }), (Activation::Relu2, false));
        }
        let one_bit_llm = ModelSize { n_layers: 24, hidden_size: 1536, intermediate_size: 4096, vocab_size: 32_002 };
        assert_eq!(arch.activation_for(one_bit_llm), (Activation::Silu, true));
    }
    let llama = Arch::find("llama").expect("in the table");
    assert_eq!(llama.activation_for(BITNET_2B_4T), (Activation::Silu, false));
}
