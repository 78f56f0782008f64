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
fn only_the_size_tells_bitnet_2b_4t_from_other_models_of_its_architecture() {
    let bitnet = Arch::find("bitnet").expect("in the table");
    assert_eq!(bitnet.activation_for(BITNET_2B_4T), Activation::Relu2);
    let larger = ModelSize { vocab_size: 128_257, ..BITNET_2B_4T };
    assert_eq!(bitnet.activation_for(larger), Activation::Silu);
    let llama = Arch::find("llama").expect("in the table");
    assert_eq!(llama.activation_for(BITNET_2B_4T), Activation::Silu);
}
