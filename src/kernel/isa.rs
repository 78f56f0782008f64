//! The instruction sets for which kernels exist.

named! {
    /// An instruction set for which kernels exist, by its name in the Python API and in receipts. Best last within one
    /// architecture.
    pub enum Isa {
        /// Plain Rust, for any processor: the reference that the others must equal.
        Scalar = "scalar",
        /// x86-64 with AVX2, FMA and F16C.
        Avx2 = "avx2",
        /// AVX2 with the VEX-encoded dot products of AVX-VNNI.
        AvxVnni = "avx-vnni",
        /// x86-64 with AVX-512 F, BW, DQ and VL.
        Avx512 = "avx512",
        /// AVX-512 with its dot products (VNNI).
        Avx512Vnni = "avx512-vnni",
        /// AVX-512 with VNNI and VBMI, and tiles of 8-bit integers (AMX) for many tokens.
        Amx = "amx",
        /// AArch64 without the dot product extension.
        Neon = "neon",
        /// AArch64 with the dot product extension (`sdot`).
        NeonDot = "neon-dot",
        /// AArch64 with the dot products, and with the matrix multiplication of 8-bit integers (`smmla`) for several
        /// tokens.
        NeonI8mm = "neon-i8mm",
        /// WebAssembly with vectors of 128 bits.
        Simd128 = "simd128",
    }
}
