//! The table of kernels: one [`Kernels`] value for each instruction set, and the list of float kernels from which its
//! entries and its methods are made.

use super::attention::Columns;
use super::grouped_dot::{BlockScale, GroupedKernels, GroupedRows, GroupedToken, GroupedTokens};
use super::isa::Isa;
use super::lanes::{Bf16Bytes, F16Bytes, F32Bytes};
use super::look_ups::LookUpKernels;
use super::neuron_dot::{NeuronKernels, NeuronLines, PLANE};
use super::packing::{self, BASE3_WORDS, EXPANDED_WORDS, Packing, Word};
use super::quantized_head::QuantizedToken;
use super::ternary::{MANY_TOKENS, MAX_TILE_TOKENS, Tokens};
use super::ternary_dot::{STRIP, TileSums};
use std::ops::Range;

/// The list of float kernels, each with the file that holds it; `$then!` receives `[extra…]` and the signatures.
macro_rules! with_float_kernels {
    ($then:ident $($extra:tt)*) => {
        $then! {
            [$($extra)*]
            /// RMSNorm (arXiv 1910.07467): `x = x / sqrt(mean(x²) + eps) · gamma`; normalised before the product with
            /// gamma, as in transformers.
            fn elementwise::rms_norm(x: &mut [f32], gamma: &[f32], eps: f32);
            /// Per-token absmax int8 (BitNet b1.58, arXiv 2402.17764): `s = 127 / max(|x|max, 1e-5)`,
            /// `q = round_half_even(x·s)`; pads `q` with zeros; returns `(s, sum of q)`.
            fn elementwise::quantize(x: &[f32], q: &mut [i8]) -> (f32, i32);
            /// Rounds blocks of 128 activations: `s = max|x| / most`, `X = round_half_even(x · (most / max|x|))`, where
            /// `most` is 127, or 32,639 with a `middle` plane, or 2²² − 1 with a `high` plane, too;
            /// `X = (high · 256 + middle) · 256 + low`. Pads the planes with zeros.
            fn grouped_input::quantize_blocks(
                x: &[f32], high: &mut [i8], middle: &mut [i8], low: &mut [i8], scales: &mut [BlockScale],
            );
            /// Dot of a row stored as f16 with each of `xs`.
            fn dot::dot_f16(row: &[F16Bytes], xs: &[&[f32]], out: &mut [f32]);
            /// Dot of a row stored as bf16 with each of `xs`.
            fn dot::dot_bf16(row: &[Bf16Bytes], xs: &[&[f32]], out: &mut [f32]);
            /// Dot of a row stored as f32 with each of `xs`.
            fn dot::dot_f32(row: &[F32Bytes], xs: &[&[f32]], out: &mut [f32]);
            /// Dot of a dequantized row with each of `xs`.
            fn dot::dot_floats(row: &[f32], xs: &[&[f32]], out: &mut [f32]);
            /// `out[v][key] = q[v] · k[key]` for a page of keys stored `[channel][key]`; vectors of `out` are `stride`
            /// apart. `next` is the page after it, which is prefetched.
            fn attention::scores_f16(q: &[f32], keys: &[F16Bytes], next: &[F16Bytes], out: &mut [f32], stride: usize);
            /// As `scores_f16`, for a page stored as f32.
            fn attention::scores_f32(q: &[f32], keys: &[F32Bytes], next: &[F32Bytes], out: &mut [f32], stride: usize);
            /// `acc[v] += Σ p[v][key] · value[key]` over some keys of a page stored `[key][channel]`, in ascending
            /// order; vectors of `p` are `stride` apart; `of` are the channels of a key and those that are summed, both
            /// multiples of 16. `next` is prefetched.
            fn attention::weighted_sum_f16(
                p: &[f32], stride: usize, keys: Range<usize>, values: &[F16Bytes], next: &[F16Bytes], acc: &mut [f32],
                of: Columns,
            );
            /// As `weighted_sum_f16`, for a page stored as f32.
            fn attention::weighted_sum_f32(
                p: &[f32], stride: usize, keys: Range<usize>, values: &[F32Bytes], next: &[F32Bytes], acc: &mut [f32],
                of: Columns,
            );
            /// In place: `s[i] = exp(s[i]·scale − max)` for i < n and 0 after; returns the sum. The caller divides. `s`
            /// holds whole pages.
            fn elementwise::softmax(s: &mut [f32], n: usize, scale: f32) -> f32;
            /// Converts halves to f32, exactly.
            fn elementwise::f16_to_f32(row: &[F16Bytes], out: &mut [f32]);
            /// `gate = silu(gate) · up`, the activation of Llama (SwiGLU).
            fn elementwise::silu_mul(gate: &mut [f32], up: &[f32]);
            /// `gate = max(gate, 0)² · up`, the activation of BitNet b1.58 2B-4T.
            fn elementwise::relu2_mul(gate: &mut [f32], up: &[f32]);
            /// `gate = gelu_tanh(gate) · up`, the activation of Gemma (GeGLU).
            fn elementwise::gelu_tanh_mul(gate: &mut [f32], up: &[f32]);
            /// `x = cap · tanh(x / cap)`: keeps values between −cap and cap (Gemma 2, arXiv 2408.00118).
            fn elementwise::softcap(x: &mut [f32], cap: f32);
            /// `out = silu(Σ weights[j] · taps[j])`, channel by channel: a causal convolution whose taps are the inputs of
            /// as many positions, the oldest first.
            fn delta_net::convolve_silu(taps: &[&[f32]], weights: &[&[f32]], out: &mut [f32]);
            /// `x = x / sqrt(Σ x² + 1e-6) · factor`.
            fn delta_net::unit_length(x: &mut [f32], factor: f32);
            /// `x = x · sigmoid(gate)`.
            fn delta_net::sigmoid_mul(x: &mut [f32], gate: &[f32]);
            /// One position of the gated delta rule (arXiv 2412.06464) for the state S of a head, or of some of its blocks
            /// of value channels: with the two rates a and β, `e = β·(v − a·Sᵀ·k)`, `S = a·S + k·eᵀ`, `out = Sᵀ·q`.
            fn delta_net::delta_rule(
                state: &mut [f32], q: &[f32], k: &[f32], v: &[f32], rates: [f32; 2], out: &mut [f32],
            );
            /// `x = H·(signs ∘ x)` in each block, a power of two: the normalised Walsh-Hadamard transform,
            /// `H[r][c] = (−1)^popcount(r & c) / √block`.
            fn hadamard::hadamard(x: &mut [f32], signs: &[f32], block: usize);
            /// `x += y`.
            fn elementwise::add(x: &mut [f32], y: &[f32]);
            /// Rotary embedding of pairs: `(a, b) = (a·cos − b·sin, b·cos + a·sin)`.
            fn elementwise::rotate(a: &mut [f32], b: &mut [f32], cos: &[f32], sin: &[f32]);
            /// Code sums as floats, for a matrix with one scale: `out = float(sum − q_sum) · factor`.
            fn elementwise::scale_sums(sums: &[i32], q_sum: i32, factor: f32, out: &mut [f32]);
            /// Code sums as floats, for a matrix with a scale per row: `out = float(sum − q_sum) · (scale / s)`.
            fn elementwise::scale_rows(sums: &[i32], q_sum: i32, scales: &[f32], s: f32, out: &mut [f32]);
            /// Rounds a row to `step · q`. Returns `step` and upper bounds of the Euclidean norms of the row and of
            /// `row - step · q`, which are infinite if a value is not finite. Pads `q` with zeros. At most 2^17
            /// columns.
            fn quantized_head::quantize_row(row: &[f32], q: &mut [i8]) -> (f32, f32, f32);
            /// Exact dot of an int8 row with each of `xs`, provided that no sum of magnitudes leaves i32. Rows are
            /// multiples of 32 columns.
            fn quantized_head::dot_i8(row: &[i8], xs: &[&[i16]], out: &mut [i32]);
            /// Dots of `8h + 3` with x for each row of upper bits, exactly, provided that no sum of magnitudes leaves i32.
            /// Rows and x are multiples of 128 columns.
            fn head_upper::dots_upper(upper: &[u8], x: &[i16], out: &mut [i32]);
            /// Lower and upper bounds of a token's logits for some rows, from their `dot_i8` with the token and from
            /// their steps, norms and errors as `quantize_row` returns them.
            fn quantized_head::logit_bounds(
                dots: &[i32], rows: [&[f32]; 3], x: QuantizedToken, low: &mut [f32], high: &mut [f32],
            );
        }
    };
}
pub(super) use with_float_kernels;

/// `FLOATS`, the float kernels of one instruction set: each kernel of the list compiled for `lanes` with `features`.
macro_rules! stamp_floats {
    (lanes: $lanes:ident) => {
        $crate::kernel::table::with_float_kernels!(stamp_floats $lanes);
    };
    (lanes: $lanes:ident, features: $features:literal) => {
        $crate::kernel::table::with_float_kernels!(stamp_floats $lanes $features);
    };
    ([$lanes:ident]
        $($(#[$doc:meta])* fn $file:ident::$name:ident($($arg:ident: $ty:ty),* $(,)?) $(-> $ret:ty)?;)*) => {
        pub(super) const FLOATS: $crate::kernel::table::FloatKernels = $crate::kernel::table::FloatKernels {
            $($name: $crate::kernel::$file::$name::<$lanes>,)*
        };
    };
    ([$lanes:ident $features:literal]
        $($(#[$doc:meta])* fn $file:ident::$name:ident($($arg:ident: $ty:ty),* $(,)?) $(-> $ret:ty)?;)*) => {
        mod floats {
            use super::$lanes;
            use std::ops::Range;
            use $crate::kernel::attention::Columns;
            use $crate::kernel::grouped_dot::BlockScale;
            use $crate::kernel::lanes::{Bf16Bytes, F16Bytes, F32Bytes};
            use $crate::kernel::quantized_head::QuantizedToken;
            $(
                #[target_feature(enable = $features)]
                pub fn $name($($arg: $ty),*) $(-> $ret)? {
                    $crate::kernel::$file::$name::<$lanes>($($arg),*)
                }
            )*
        }
        pub(super) const FLOATS: $crate::kernel::table::FloatKernels =
            $crate::kernel::table::FloatKernels { $($name: floats::$name,)* };
    };
}
pub(super) use stamp_floats;

/// Declares [`FloatKernels`] from the list, and for each entry a safe method of [`Kernels`].
macro_rules! declare_float_kernels {
    ([] $($(#[$doc:meta])* fn $file:ident::$name:ident($($arg:ident: $ty:ty),* $(,)?) $(-> $ret:ty)?;)*) => {
        /// The float kernels of one instruction set.
        pub(super) struct FloatKernels {
            $(pub(super) $name: unsafe fn($($ty),*) $(-> $ret)?,)*
        }

        impl Kernels {
            $(
                $(#[$doc])*
                #[allow(clippy::too_many_arguments)]
                pub fn $name(&self, $($arg: $ty),*) $(-> $ret)? {
                    // SAFETY: `kernels` hands out a table only where the processor has its instruction set.
                    unsafe { (self.floats.$name)($($arg),*) }
                }
            )*
        }
    };
}
with_float_kernels!(declare_float_kernels);

/// Computes code sums of the words of a strip for the tokens of a tile; see [`Kernels::ternary_sums`].
pub(super) type SumsKernel = unsafe fn(&[Word], &[&[i8]], &mut TileSums);

/// Kernels for words of base3 codes.
#[derive(Clone, Copy)]
pub(super) struct Base3Kernels {
    pub(super) sums: SumsKernel,
    pub(super) neurons: NeuronKernels,
    /// Converts whole blocks of base3 words to two-bit words.
    pub(super) to_two_bit: unsafe fn(&[Word], &mut [Word]),
}

/// A kernel for many tokens: it unpacks the codes of a strip once for all of them.
#[derive(Clone, Copy)]
pub(super) struct ManySums {
    /// Computes code sums of the words of a strip, in this packing, for any number of tokens.
    pub(super) sums: unsafe fn(Packing, &[Word], Tokens, &mut TileSums),
    /// Fewer tokens are not faster by it.
    pub(super) min_tokens: usize,
}

/// Dots of rows of bytes with tokens; see [`Kernels::byte_dots`].
pub(super) type ByteDotsKernel = unsafe fn(&[i8], &[&[i8]], &mut [i32]);

/// The kernels of one instruction set.
///
/// A value exists only for an instruction set that the processor has ([`super::kernels`]), so its methods are safe.
pub struct Kernels {
    /// The instruction set that the kernels use.
    pub isa: Isa,
    pub(super) two_bit_sums: SumsKernel,
    pub(super) two_bit_neurons: NeuronKernels,
    /// None where unpacking base3 costs more than reading its fewer bytes saves: then [`Kernels::packing`] avoids it.
    pub(super) base3: Option<Base3Kernels>,
    /// None where the kernels for tiles of tokens are as fast for many.
    pub(super) many: Option<ManySums>,
    pub(super) grouped: GroupedKernels,
    pub(super) peak_macs: unsafe fn(usize) -> u64,
    /// None where such dots are not faster than those of int8 and int16 (`dot_i8`).
    pub(super) byte_dots: Option<ByteDotsKernel>,
    /// Ways of looking sums up, one of which may be the fastest for many tokens.
    pub(super) look_ups: &'static [LookUpKernels],
    pub(super) floats: FloatKernels,
}

impl Kernels {
    /// The packing that is fastest for rows of `cols` trits.
    pub fn packing(&self, cols: usize) -> Packing {
        if self.base3.is_some() { Packing::smallest(cols) } else { Packing::TwoBit }
    }

    /// How many of `tokens` one call of [`Kernels::ternary_sums`] computes.
    pub fn tokens_per_call(&self, tokens: usize) -> usize {
        if self.many.is_some_and(|many| tokens >= many.min_tokens) { MANY_TOKENS } else { MAX_TILE_TOKENS }
    }

    /// Code sums of a strip of rows for as many tokens as [`Kernels::tokens_per_call`] says.
    ///
    /// `words` holds the strip's row groups one after the other; each of `tokens` has all their columns.
    pub fn ternary_sums(&self, packing: Packing, words: &[Word], tokens: Tokens, sums: &mut TileSums) {
        let (n, cols) = (tokens.len(), tokens.cols());
        assert!(n > 0 && n <= sums.len());
        let group = packing.words(cols);
        assert!(packing.padded(cols) == cols && (words.len() == group || words.len() == 2 * group));
        if let Some(many) = self.many.filter(|many| n >= many.min_tokens) {
            // SAFETY: the processor has the instruction set, as above; the assertions hold the shapes.
            return unsafe { (many.sums)(packing, words, tokens, sums) };
        }
        let mut slices = [&[][..]; MAX_TILE_TOKENS];
        for (slice, token) in slices.iter_mut().zip(tokens.rows()) {
            *slice = token;
        }
        let tokens = &slices[..n];
        let mut two_bit = Vec::new();
        let (kernel, words) = match (packing, self.base3) {
            (Packing::TwoBit, _) => (self.two_bit_sums, words),
            (Packing::Base3, Some(base3)) => (base3.sums, words),
            (Packing::Base3, None) => {
                two_bit.resize(words.len() / BASE3_WORDS * EXPANDED_WORDS, Word([0; 64]));
                self.base3_to_two_bit(words, &mut two_bit);
                (self.two_bit_sums, &two_bit[..])
            }
        };
        // SAFETY: the processor has the instruction set, as above; the assertions hold the shapes that kernels rely on.
        unsafe { kernel(words, tokens, sums) }
    }

    /// Code sums of rows of `up` for one token: see [`NeuronKernels::up_rows`]. `packing` is one that
    /// [`Kernels::packing`] returns.
    pub(super) fn up_rows(
        &self,
        packing: Packing,
        neurons: NeuronLines,
        starts: &[usize],
        x: &[[i8; PLANE]],
        sums: &mut [i32],
    ) {
        // SAFETY: the processor has the instruction set, as above; the kernels check all lengths.
        unsafe { (self.neurons(packing).up_rows)(neurons, starts, x, sums) }
    }

    /// Sums of columns of `down`, each times its activation: see [`NeuronKernels::down_columns`]. `packing` as above.
    pub(super) fn down_columns(
        &self,
        packing: Packing,
        neurons: NeuronLines,
        (starts, q): (&[usize], &[i8]),
        lines: &[usize],
        sums: &mut [[i32; PLANE]],
    ) {
        // SAFETY: the processor has the instruction set, as above; the kernels check all lengths.
        unsafe { (self.neurons(packing).down_columns)(neurons, starts, q, lines, sums) }
    }

    fn neurons(&self, packing: Packing) -> NeuronKernels {
        match (packing, self.base3) {
            (Packing::TwoBit, _) => self.two_bit_neurons,
            (Packing::Base3, Some(base3)) => base3.neurons,
            (Packing::Base3, None) => {
                unreachable!("`Kernels::packing` returns base3 only where there are kernels for it")
            }
        }
    }

    /// Converts whole blocks of base3 words to two-bit words.
    pub fn base3_to_two_bit(&self, base3: &[Word], two_bit: &mut [Word]) {
        let blocks = base3.len() / BASE3_WORDS;
        assert!(base3.len() == blocks * BASE3_WORDS && two_bit.len() == blocks * EXPANDED_WORDS);
        match self.base3 {
            // SAFETY: the processor has the instruction set, as above.
            Some(kernels) => unsafe { (kernels.to_two_bit)(base3, two_bit) },
            None => packing::base3_to_two_bit(base3, two_bit),
        }
    }

    /// Outputs of 16 rows of a grouped ternary matrix for one token.
    pub(super) fn grouped_one(&self, rows: &GroupedRows, x: GroupedToken, y: &mut [f32; packing::GROUP]) {
        assert!(self.base3.is_some() || rows.base3_blocks == 0);
        // SAFETY: the processor has the instruction set, as above; the kernels check all lengths.
        unsafe { (self.grouped.one)(rows, x, y) }
    }

    /// Outputs of one or two groups of 16 rows, whose words are two-bit, for some tokens, `[token][row]`.
    pub(super) fn grouped_tile(&self, rows: &[GroupedRows], tokens: &[GroupedToken], y: &mut [[f32; STRIP]]) {
        assert!(matches!(rows.len(), 1 | 2) && !tokens.is_empty() && tokens.len() <= y.len());
        assert!(rows.iter().all(|of| of.base3_blocks == 0 && of.words.len() == rows[0].words.len()));
        // SAFETY: the processor has the instruction set, as above; the kernels check all lengths.
        unsafe { (self.grouped.tile)(rows, tokens, y) }
    }

    /// Whether [`Kernels::grouped_many`] is the fastest way for so many tokens.
    pub(super) fn has_grouped_many(&self, tokens: usize) -> bool {
        self.grouped.many.is_some_and(|many| tokens >= many.min_tokens)
    }

    /// Outputs of one or two groups of 16 rows for any number of tokens, `[token][row]`, where there is a kernel for
    /// that.
    pub(super) fn grouped_many(&self, rows: &[GroupedRows], tokens: GroupedTokens, y: &mut [[f32; STRIP]]) {
        let many = self.grouped.many.expect("the caller asks for it first");
        assert!(matches!(rows.len(), 1 | 2) && tokens.len() <= y.len());
        // SAFETY: the processor has the instruction set, as above; the kernel checks all lengths.
        unsafe { (many.outputs)(rows, tokens, y) }
    }

    /// Exact dots of int8 rows, one after the other, with each of `xs`, `[token][row]`. Returns false, and computes
    /// nothing, where they are not faster than `dot_i8`. Rows are multiples of 64 columns, at most 2¹⁷.
    pub fn byte_dots(&self, rows: &[i8], xs: &[&[i8]], out: &mut [i32]) -> bool {
        let Some(byte_dots) = self.byte_dots else { return false };
        if !xs.is_empty() {
            // SAFETY: the processor has the instruction set, as above; the kernel checks all lengths.
            unsafe { byte_dots(rows, xs, out) }
        }
        true
    }

    /// Measures the integer dot product in registers alone: runs it `rounds` times, at most 2²³ lest a lane overflow,
    /// and returns the number of multiply-adds. Every product is 1, and the result is their sum.
    pub fn peak_macs(&self, rounds: usize) -> u64 {
        assert!(rounds <= 1 << 23);
        // SAFETY: the processor has the instruction set, as above.
        unsafe { (self.peak_macs)(rounds) }
    }
}
