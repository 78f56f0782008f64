//! Computation: one file per instruction set, and the table that hands out the one this processor can run.
//!
//! A [`Kernels`] value exists only for an instruction set that the processor has, which is what makes its methods safe.
//! Every kernel gives the same bits on every instruction set (`docs/numerics.md`).
//!
//! The loops are written once, on traits: float kernels in `dot.rs`, `attention.rs`, `delta_net.rs`,
//! `elementwise.rs`, `hadamard.rs` and `quantized_head.rs` on `lanes.rs`; ternary ones in `ternary_dot.rs`,
//! `unpacked_dot.rs`, `neuron_dot.rs` and `look_ups.rs`. An instruction set's file implements the traits, compiles the
//! loops for itself (`stamp_floats!`, `stamp_sums!`) and holds its `TABLE`.

#[cfg(target_arch = "x86_64")]
mod amx;
#[cfg(target_arch = "x86_64")]
mod amx_grouped;
#[cfg(target_arch = "x86_64")]
mod amx_tiles;
pub mod attention;
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
pub mod delta_net;
mod dot;
mod elementwise;
pub mod f16;
#[cfg(all(windows, target_env = "gnu"))]
mod fma;
pub mod grouped;
#[cfg_attr(not(target_arch = "x86_64"), allow(dead_code, reason = "only AMX and I8MM take whole tiles"))]
mod grouped_dot;
mod grouped_input;
mod hadamard;
pub mod head_upper;
mod isa;
pub mod lanes;
mod look_up_choice;
mod look_up_product;
#[cfg_attr(
    not(target_arch = "x86_64"),
    allow(dead_code, unused_macros, unused_imports, reason = "only x86-64 looks sums up")
)]
mod look_ups;
#[cfg(target_arch = "aarch64")]
mod neon;
#[cfg(target_arch = "aarch64")]
mod neon_dot;
#[cfg(target_arch = "aarch64")]
mod neon_i8mm;
mod neuron_dot;
pub mod neurons;
pub mod packing;
pub mod peak;
mod prefetch;
#[cfg_attr(not(target_arch = "x86_64"), allow(dead_code, reason = "only AVX-512-VNNI screens by bytes"))]
pub mod quantized_head;
mod scalar;
#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
mod simd128;
mod table;
mod team;
pub mod ternary;
mod ternary_dot;
#[cfg(target_arch = "x86_64")]
mod unpacked_dot;

use crate::error::{Error, Result};
#[cfg(target_arch = "x86_64")]
use crate::machine::tiles::has_tiles;
pub use isa::Isa;
pub use table::Kernels;
pub use team::Team;

impl Isa {
    /// The instruction sets that this processor can run, best last.
    pub fn available() -> Vec<Isa> {
        Isa::ALL.into_iter().filter(|isa| isa.table().is_some()).collect()
    }

    /// The kernels of this instruction set, if the processor has it.
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
                    return Some(if vbmi { &avx512_vbmi::TABLE } else { &avx512_vnni::TABLE });
                }
                Isa::Amx
                    if avx512
                        && is_x86_feature_detected!("avx512vnni")
                        && is_x86_feature_detected!("avx512vbmi")
                        && has_tiles() =>
                {
                    return Some(&amx::TABLE);
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
            Isa::NeonI8mm
                if std::arch::is_aarch64_feature_detected!("dotprod")
                    && std::arch::is_aarch64_feature_detected!("i8mm") =>
            {
                return Some(&neon_i8mm::TABLE);
            }
            _ => {}
        }
        // A module holds what it was compiled for: an engine without it refuses the module as a whole.
        #[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
        if self == Isa::Simd128 {
            return Some(&simd128::TABLE);
        }
        (self == Isa::Scalar).then_some(&scalar::TABLE)
    }
}

/// The kernels of an instruction set, or of the best one that this processor has.
pub fn kernels(isa: Option<&str>) -> Result<&'static Kernels> {
    let available = Isa::available();
    let names = || available.iter().map(|i| i.name()).collect::<Vec<_>>().join(", ");
    let isa = match isa {
        None => *available.last().expect("scalar is always available"),
        Some(name) => Isa::ALL.into_iter().find(|i| i.name() == name).ok_or_else(|| {
            Error::Argument(format!("unknown instruction set {name:?}; isa is one of: {} (default: the last)", names()))
        })?,
    };
    isa.table().ok_or_else(|| {
        let message = format!("this processor has no {}; isa is one of: {} (default: the last)", isa.name(), names());
        Error::Argument(message)
    })
}
