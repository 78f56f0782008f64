use super::*;

encode!(evex, "avx2,avx512vnni,avx512vl", _mm256_dpbusd_epi32);

#[test]
fn text_equals_scalar_in_the_other_encoding() {
    if !(is_x86_feature_detected!("avx512vnni") && is_x86_feature_detected!("avx512vl")) {
        return;
    }
    static EVEX: Kernels =
        Kernels { isa: Isa::AvxVnni, ternary_sums: evex::ternary_sums, dots: evex::dots, floats: FLOATS };
    crate::kernel::ternary::tests::equals_scalar(&EVEX);
    assert_eq!(EVEX.dots(1000), 1000 * 12 * 32);
}
