//! The chat template of a model file.

use crate::checkpoint::gguf::Gguf;
use crate::error::Result;
use crate::template::Template;
use crate::tokenizer::{Tokenizer, bos_eos_texts};
use std::path::Path;

/// The chat template of a model file; reads no weights and builds no tokenizer.
pub fn template_of_file(path: &Path) -> Result<Template> {
    template_of(&Gguf::open(path)?, None)
}

/// The template that a file holds, or else one that the model's name suggests. BOS and EOS are those of `tokenizer`,
/// which may come from a `tokenizer.json` beside the file, or else those of the file's metadata.
pub(super) fn template_of(gguf: &Gguf, tokenizer: Option<&Tokenizer>) -> Result<Template> {
    let metadata = gguf.metadata();
    let (jinja, name) = (metadata.str("tokenizer.chat_template")?, metadata.str("general.name")?);
    if let Some(tokenizer) = tokenizer {
        return Template::detect(jinja, name, tokenizer.bos_text(), tokenizer.eos_text());
    }
    let (bos, eos) = bos_eos_texts(gguf)?;
    Template::detect(jinja, name, bos.as_deref(), eos.as_deref())
}
