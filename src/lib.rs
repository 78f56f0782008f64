//! Ternary (BitNet b1.58) language models on an ordinary processor.
//!
//! The layers, lowest first; a module may `use` only modules of lower numbers (`tests/layers.rs` asserts it):
//! 0 [`error`]; 1 [`checkpoint`], [`kernel`], [`receipt`], [`sampler`], [`template`]; 2 [`codec`], [`tokenizer`], [`ops`]; 3 [`model`]; 4 [`decode`]; 5 [`engine`]; 6 [`chat`]; 7 `py`, the Python face.

/// An enum whose variants have public names, which follow them.
macro_rules! named {
    ($(#[$about:meta])* pub enum $Enum:ident { $($(#[$what:meta])* $Variant:ident = $name:literal,)* }) => {
        $(#[$about])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $Enum {
            $($(#[$what])* $Variant,)*
        }

        impl $Enum {
            /// All of them.
            pub const ALL: [Self; [$($name),*].len()] = [$(Self::$Variant),*];

            /// The public name.
            pub fn name(self) -> &'static str {
                match self { $(Self::$Variant => $name),* }
            }
        }
    };
}

pub mod chat;
pub mod checkpoint;
pub mod codec;
pub mod decode;
pub mod engine;
pub mod error;
pub mod kernel;
pub mod machine;
pub mod model;
pub mod ops;
#[cfg(feature = "python")]
mod py;
pub mod receipt;
pub mod sampler;
pub mod template;
pub mod token;
pub mod tokenizer;
