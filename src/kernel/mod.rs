//! Computation: one file per instruction set, and the table that hands out the one this processor can run.
//!
//! A [`Kernels`] value exists only for an instruction set that the processor has, which is what makes its safe
//! methods safe. Every entry gives the same bits on every instruction set (`docs/numerics.md`).

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "x86_64")]
mod avx512_vbmi;
#[cfg(target_arch = "x86_64")]
mod avx512_vnni;
#[cfg(target_arch = "x86_64")]
mod avx_vnni;
mod elementwise;
pub mod float;
#[cfg(target_arch = "aarch64")]
mod neon;
#[cfg(target_arch = "aarch64")]
mod neon_dot;
pub mod packing;
pub mod peak;
pub mod quantized_head;
mod scalar;
mod sums;
mod team;
pub mod ternary;

use crate::error::{Error, Result};
use float::{F16Bytes, F32Bytes, with_float_kernels};
use packing::{Packing, Word};
use quantized_head::QuantizedToken;
use std::ops::Range;
pub use team::Team;
use ternary::Sums;

/// An instruction set for which kernels exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isa {
    /// Plain Rust, any processor.
    Scalar,
    /// x86-64 with AVX2, FMA and F16C.
    Avx2,
    /// AVX2 with the VEX-encoded dot products of AVX-VNNI.
    AvxVnni,
    /// x86-64 with AVX-512 F, BW, DQ and VL.
    Avx512,
    /// AVX-512 with its dot products (VNNI).
    Avx512Vnni,
    /// AArch64 without the dot product extension.
    Neon,
    /// AArch64 with the dot product extension (`sdot`).
    NeonDot,
}

impl Isa {
    /// Every instruction set, best last within one architecture.
    pub const ALL: [Isa; 7] =
        [Isa::Scalar, Isa::Avx2, Isa::AvxVnni, Isa::Avx512, Isa::Avx512Vnni, Isa::Neon, Isa::NeonDot];

    /// The public name.
    pub fn name(self) -> &'static str {
        match self {
            Isa::Scalar => "scalar",
            Isa::Avx2 => "avx2",
            Isa::AvxVnni => "avx-vnni",
            Isa::Avx512 => "avx512",
            Isa::Avx512Vnni => "avx512-vnni",
            Isa::Neon => "neon",
            Isa::NeonDot => "neon-dot",
        }
    }

    /// Those that this processor can run, best last.
    pub fn available() -> Vec<Isa> {
        Isa::ALL.into_iter().filter(|isa| isa.table().is_some()).collect()
    }

    fn table(self) -> Option<&'static Kernels> {
        #[cfg(target_arch = "x86_64")]
        {
            let avx2 =
                is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") && is_x86_feature_detected!("f16c");
            let avx512 = avx2
                && is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512dq")
                && is_x86_feature_detected!("avx512vl");
            match self {
                Isa::Avx2 if avx2 => return Some(&avx2::TABLE),
                Isa::AvxVnni if avx2 && is_x86_feature_detected!("avxvnni") => return Some(&avx_vnni::TABLE),
                Isa::Avx512 if avx512 => return Some(&avx512::TABLE),
                Isa::Avx512Vnni if avx512 && is_x86_feature_detected!("avx512vnni") => {
                    let vbmi = is_x86_feature_detected!("avx512vbmi");
                    return Some(if vbmi { &avx512_vnni::WITH_VBMI } else { &avx512_vnni::TABLE });
                }
                _ => {}
            }
        }
        #[cfg(target_arch = "aarch64")]
        match self {
            Isa::Neon => return Some(&neon::TABLE),
            Isa::NeonDot if std::arch::is_aarch64_feature_detected!("dotprod") => {
                return Some(&neon_dot::TABLE);
            }
            _ => {}
        }
        (self == Isa::Scalar).then_some(&scalar::TABLE)
    }
}

/// Functions of an instruction set, inlined into kernels that are compiled for it: they may be called only where the
/// processor has it.
macro_rules! promised {
    ($($(#[$doc:meta])* fn $name:ident($($args:tt)*) $(-> $ret:ty)? { $($body:tt)* })*) => {
        $(
            $(#[$doc])*
            #[inline(always)]
            unsafe fn $name($($args)*) $(-> $ret)? {
                // SAFETY: the instructions are there by the caller's promise; of memory the body speaks.
                #[allow(unused_unsafe)]
                unsafe { $($body)* }
            }
        )*
    };
}
use promised;

/// Kernels for words of base3 codes a byte.
#[derive(Clone, Copy)]
struct Base3Kernels {
    sums: unsafe fn(&[Word], &[&[i8]], &mut Sums),
    expand: unsafe fn(&[Word], &mut [Word]),
}

/// Declares the table from the one list of float kernels, with a safe method for each entry.
macro_rules! declare_table {
    ([] $($(#[$doc:meta])* fn $name:ident($($arg:ident: $ty:ty),* $(,)?) $(-> $ret:ty)?;)*) => {
        /// The kernels of one instruction set.
        pub struct Kernels {
            /// Which instruction set this is.
            pub isa: Isa,
            two_bit_sums: unsafe fn(&[Word], &[&[i8]], &mut Sums),
            /// None: the scalar ones, and the packing is avoided.
            base3: Option<Base3Kernels>,
            peak_macs: unsafe fn(usize) -> u64,
            floats: FloatKernels,
        }

        /// The float kernels of one instruction set: [`float`] compiled for it.
        struct FloatKernels {
            $($name: unsafe fn($($ty),*) $(-> $ret)?,)*
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

            /// How rows of `cols` trits are best packed.
            pub fn packing(&self, cols: usize) -> Packing {
                if self.base3.is_some() { Packing::smallest(cols) } else { Packing::TwoBit }
            }

            /// Code sums of a strip of rows against up to [`ternary::TILE`] tokens; see [`packing`].
            ///
            /// `words` holds the strip's row groups one after the other; each of `tokens` has all their columns.
            pub fn ternary_sums(&self, packing: Packing, words: &[Word], tokens: &[&[i8]], sums: &mut Sums) {
                assert!(!tokens.is_empty() && tokens.len() <= sums.len());
                let cols = tokens[0].len();
                let group = packing.words(cols);
                assert!(packing.padded(cols) == cols && (words.len() == group || words.len() == 2 * group));
                assert!(tokens.iter().all(|t| t.len() == cols));
                let sum = match packing {
                    Packing::TwoBit => self.two_bit_sums,
                    Packing::Base3 => self.base3.unwrap_or(scalar::BASE3).sums,
                };
                // SAFETY: the instruction set is there (as above), and the shapes are what the kernels rely on.
                unsafe { sum(words, tokens, sums) }
            }

            /// Words of base3 codes a byte as words of four.
            pub fn expand(&self, base3: &[Word], four: &mut [Word]) {
                assert!(base3.len().is_multiple_of(packing::BASE3_WORDS) && four.len() == base3.len() / 4 * 5);
                // SAFETY: as above.
                unsafe { (self.base3.unwrap_or(scalar::BASE3).expand)(base3, four) }
            }

            /// Runs the integer dot product in registers alone, `rounds` times, and returns how many multiply-adds that
            /// were: every product is 1, and this is their sum. At most 2²³ rounds, lest a lane overflow.
            pub fn peak_macs(&self, rounds: usize) -> u64 {
                assert!(rounds <= 1 << 23);
                // SAFETY: as above.
                unsafe { (self.peak_macs)(rounds) }
            }
        }
    };
}
with_float_kernels!(declare_table);

/// The kernels of an instruction set, or of the best one that this processor has.
pub fn kernels(isa: Option<&str>) -> Result<&'static Kernels> {
    let available = Isa::available();
    let names = || available.iter().map(|i| i.name()).collect::<Vec<_>>().join(", ");
    let isa = match isa {
        None => *available.last().expect("scalar is always there"),
        Some(name) => Isa::ALL.into_iter().find(|i| i.name() == name).ok_or_else(|| {
            Error::Argument(format!("unknown instruction set {name:?}; this processor has: {}", names()))
        })?,
    };
    isa.table().ok_or_else(|| {
        Error::Argument(format!("this processor has no {}; choose one of: {}, or leave isa out", isa.name(), names()))
    })
}
