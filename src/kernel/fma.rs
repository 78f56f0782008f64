//! The C library of mingw-w64 computes `fmaf` in binary64, so it rounds twice. `f32::mul_add` calls it where the
//! processor has no such instruction or the compiler may not use it.

/// Takes the place of the C library's function: rounds once.
// SAFETY: it is C's function of this name, with its arguments and its result.
#[unsafe(no_mangle)]
extern "C" fn fmaf(a: f32, b: f32, c: f32) -> f32 {
    libm::fmaf(a, b, c)
}
