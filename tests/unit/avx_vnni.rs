use super::*;

#[test]
fn the_evex_encoding_equals_scalar() {
    if !(is_x86_feature_detected!("avx512vnni") && is_x86_feature_detected!("avx512vl")) {
        return;
    }
    stamp_neurons! { neurons, dot: Vnni<true>, features: "avx2,avx512vnni,avx512vl" }
    stamp_sums! { dot: Vnni<true>, features: "avx2,avx512vnni,avx512vl", tokens: 4, parts: 2 }
    stamp_many! {
        dot: Vnni<true>, to_two_bit: base3_to_two_bit, features: "avx2,avx512vnni,avx512vl", tokens: 6, parts: 2
    }
    stamp_grouped! {
        lanes: Avx2, dot: Vnni<true>, base3: Vnni<true>, features: "avx2,fma,f16c,avx512vnni,avx512vl", tokens: 4,
        parts: 2
    }
    static EVEX: Kernels = Kernels {
        isa: Isa::AvxVnni,
        two_bit_sums,
        two_bit_neurons: neurons::KERNELS,
        base3: None,
        many: Some(ManySums { sums: many_sums, min_tokens: MIN_TOKENS }),
        grouped: GROUPED,
        peak_macs,
        byte_dots: None,
        look_ups: &[],
        floats: FLOATS,
    };
    crate::kernel::ternary::tests::equals_scalar(&EVEX);
    crate::kernel::neurons::tests::equals_matmul(&EVEX);
    assert_eq!(EVEX.peak_macs(1000), 1000 * 128 * 4 * 16);
}
