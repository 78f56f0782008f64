//! Finds the template of a model, and the texts that end its turns.

use super::Template;
use crate::error::Result;

/// A text in the wrong template that the converter of Microsoft's first GGUF files wrote.
const KNOWN_BAD: &str = "BITNETAssistant";

/// Texts that end a turn in some family of models, if its template holds them.
const END_OF_TURN: [&str; 14] = [
    "<|eot_id|>",
    "<|eom_id|>",
    "<|im_end|>",
    "<|end|>",
    "<end_of_turn>",
    "<|end_of_turn|>",
    "<|eot|>",
    "<|return|>",
    "<|END_OF_TURN_TOKEN|>",
    "<|end_of_text|>",
    "<|endoftext|>",
    "<|end_of_role|>",
    "<｜end▁of▁sentence｜>",
    "</s>",
];

named! {
    /// Where a template came from.
    pub enum TemplateOrigin {
        /// The caller chose it by an argument.
        Argument = "argument",
        /// The model file holds it.
        Gguf = "gguf",
        /// The name of the tokenizer or model suggests it.
        Tokenizer = "tokenizer",
        /// Neither the file nor a name says which template to use.
        Fallback = "fallback",
    }
}

impl Template {
    /// The template of a model: `jinja`, the file's `tokenizer.chat_template`; else the built-in template that the name
    /// of the tokenizer or model suggests; else `raw` with a warning.
    pub fn detect(
        jinja: Option<&str>,
        tokenizer_name: Option<&str>,
        bos_token: Option<&str>,
        eos_token: Option<&str>,
    ) -> Result<Template> {
        let named = |name: &str| Template::named(name, bos_token, eos_token);
        if let Some(source) = jinja.filter(|source| !source.trim().is_empty()) {
            if source.contains(KNOWN_BAD) {
                let warning = format!(
                    "the file's chat template is wrong, a known mistake of its converter (it writes '{KNOWN_BAD}'); \
                     the built-in template 'bitnet' is used instead"
                );
                return Ok(Template { origin: TemplateOrigin::Gguf, warning: Some(warning), ..named("bitnet")? });
            }
            let template = Template::from_jinja(source, bos_token, eos_token)?;
            return Ok(Template { origin: TemplateOrigin::Gguf, ..template });
        }
        if let Some(name) = tokenizer_name.and_then(hint) {
            return Ok(Template { origin: TemplateOrigin::Tokenizer, ..named(name)? });
        }
        let warning = "neither the model file nor its name says which chat template to use, so 'raw' is used, which \
                       only joins the messages; choose a template";
        Ok(Template { origin: TemplateOrigin::Fallback, warning: Some(warning.into()), ..named("raw")? })
    }

    /// Stop strings: the texts that end the assistant's turn.
    pub fn stop_sequences(&self) -> Vec<String> {
        if self.name == "raw" {
            return Vec::new();
        }
        let heading = (self.name == "instruct").then_some("### Instruction:");
        let markers = END_OF_TURN.into_iter().filter(|marker| self.source.contains(marker));
        let mut stops: Vec<String> = heading.into_iter().chain(markers).map(str::to_string).collect();
        if let Some(eos) = self.eos_token.as_ref().filter(|eos| !eos.is_empty() && !stops.contains(eos)) {
            stops.push(eos.clone());
        }
        stops
    }

    /// Whether BOS must be put in front of a rendered text: the tokenizer adds BOS, and the text does not begin with
    /// it.
    pub fn add_bos(&self, tokenizer_wants: bool, text: &str) -> bool {
        tokenizer_wants && self.bos_token.as_ref().is_none_or(|bos| bos.is_empty() || !text.starts_with(bos))
    }
}

/// The built-in template that the name of a model or tokenizer suggests. Only the last part of a path counts, so that
/// the name of a folder never decides.
fn hint(name: &str) -> Option<&'static str> {
    let name = name.rsplit(['/', '\\']).next()?.to_lowercase().replace(['_', ' '], "-");
    let words = |word: &str, before: fn(char) -> bool| {
        name.match_indices(word).any(|(at, _)| {
            name[..at].chars().next_back().is_none_or(before)
                && name[at + word.len()..].chars().next().is_none_or(|c| !c.is_alphanumeric())
        })
    };
    let llama3 = ["llama-3", "llama3"].iter().any(|word| words(word, |c| !c.is_alphanumeric()));
    let bitnet_2b = name.contains("bitnet") && words("2b", |c| !c.is_numeric() && c != '.');
    llama3.then_some("llama3-chat").or(bitnet_2b.then_some("bitnet"))
}
