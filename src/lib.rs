//! Ternary (BitNet b1.58) language models on an ordinary processor.
//!
//! Start with [`engine::Engine`] for one model and [`chat::ChatSession`] for a conversation. The modules are layers,
//! which `docs/architecture.md` describes; a module uses only modules of lower layers (`tests/layers.rs` asserts it).

/// An enum whose variants have public names, which follow them.
macro_rules! named {
    ($(#[$about:meta])* pub enum $Enum:ident { $($(#[$what:meta])* $Variant:ident = $name:literal,)* }) => {
        $(#[$about])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $Enum {
            $($(#[$what])* $Variant,)*
        }

        impl $Enum {
            /// Every variant, in the order of declaration.
            pub const ALL: [Self; [$($name),*].len()] = [$(Self::$Variant),*];

            /// The name in the Python API and in files.
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
pub mod grammar;
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
#[cfg(all(target_family = "wasm", target_os = "unknown"))]
pub mod wasm;
