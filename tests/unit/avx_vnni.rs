use super::*;

#[test]
fn text_equals_scalar_in_the_other_encoding() {
    if !(is_x86_feature_detected!("avx512vnni") && is_x86_feature_detected!("avx512vl")) {
        return;
    }
    stamp_sums!(Vnni<true>, "avx2,avx512vnni,avx512vl", 4, 2);
    static EVEX: Kernels = Kernels { isa: Isa::AvxVnni, two_bit_sums: sums, base3: None, peak_macs, floats: FLOATS };
    crate::kernel::ternary::tests::equals_scalar(&EVEX);
    assert_eq!(EVEX.peak_macs(1000), 1000 * 128 * 4 * 16);
}
