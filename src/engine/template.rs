//! The chat template of a model: inside its file, in the files beside it, or suggested by its name.

use super::Engine;
use crate::checkpoint::gguf::{Gguf, Metadata};
use crate::checkpoint::{check_directory, directory_of};
use crate::error::{Error, Result};
use crate::machine::file;
use crate::template::Template;
use crate::tokenizer::{Tokenizer, bos_eos_texts, is_tokenizer_json};
use serde_json::Value as Json;
use std::collections::BTreeMap;
use std::fmt::Display;
use std::path::Path;
use std::sync::Arc;

/// The names that transformers gives to the template of a model, and to that of conversations with tools.
const DEFAULT: &str = "default";
const TOOL_USE: &str = "tool_use";
/// The folder in which transformers saves further templates.
const OTHERS: &str = "additional_chat_templates";

/// The chat template of a model file or `tokenizer.json`; reads no weights. `variant` names one of several templates,
/// such as `tool_use`.
pub fn template_of_file(path: &Path, variant: Option<&str>) -> Result<Template> {
    let folder = directory_of(path).map(|place| place.folder);
    folder.as_deref().map_or(Ok(()), check_directory)?;
    if folder.is_some() || is_tokenizer_json(path) {
        let folder = folder.as_deref().or(path.parent()).unwrap_or(Path::new(""));
        return template_in(folder, &Tokenizer::open(path, None)?, variant);
    }
    let gguf = Gguf::open_metadata(path)?;
    if has_tokenizer(&gguf.metadata()) {
        return template_of(&gguf, None, variant);
    }
    template_of(&gguf, Tokenizer::from_gguf(&gguf, None).ok().as_ref(), variant)
}

impl Engine {
    /// A template by name: a built-in one, or one of several that the model has.
    pub fn template_named(&self, name: &str) -> Result<Template> {
        let built_in = self.template()?.sibling(name);
        built_in.or_else(|unknown| template_of(self.gguf(), self.tokenizer().ok(), Some(name)).map_err(|_| unknown))
    }
}

/// The template for the `tokenizer.json` in a folder.
fn template_in(folder: &Path, tokenizer: &Tokenizer, variant: Option<&str>) -> Result<Template> {
    let name = folder.file_name().and_then(|name| name.to_str());
    Sources::in_folder(folder)?.template(variant, name, (tokenizer.bos_text(), tokenizer.eos_text()))
}

/// The template that a file holds, or else one that the model's name suggests. BOS and EOS are those of `tokenizer`,
/// which may come from a `tokenizer.json` beside the file, or else those of the file's metadata.
pub(super) fn template_of(gguf: &Gguf, tokenizer: Option<&Tokenizer>, variant: Option<&str>) -> Result<Template> {
    let metadata = gguf.metadata();
    let mut sources = Sources::inside(&metadata)?;
    if sources.0.is_empty() && !has_tokenizer(&metadata) {
        sources = Sources::beside(gguf)?;
    }
    let name = metadata.str("general.name")?;
    if let Some(tokenizer) = tokenizer {
        return sources.template(variant, name, (tokenizer.bos_text(), tokenizer.eos_text()));
    }
    let (bos, eos) = bos_eos_texts(gguf)?;
    sources.template(variant, name, (bos.as_deref(), eos.as_deref()))
}

/// Whether a model file describes its own tokenizer.
fn has_tokenizer(metadata: &Metadata) -> bool {
    ["tokenizer.ggml.tokens", "tokenizer.huggingface.json"].iter().any(|key| metadata.get(key).is_some())
}

/// The Jinja sources of a model's templates, by name.
struct Sources(BTreeMap<String, String>);

impl Sources {
    /// Those in a model file: `tokenizer.chat_template`, and `tokenizer.chat_template.NAME`.
    fn inside(metadata: &Metadata) -> Result<Sources> {
        let mut sources = BTreeMap::new();
        for (key, _) in metadata.iter() {
            let name = match key.strip_prefix("tokenizer.chat_template") {
                Some("") => DEFAULT,
                Some(name) if name.starts_with('.') => &name[1..],
                _ => continue,
            };
            if let Some(source) = metadata.str(key)? {
                sources.insert(name.to_string(), source.to_string());
            }
        }
        Ok(Sources(sources))
    }

    /// Those in a folder, as transformers saves them: `chat_template.jinja` and
    /// `additional_chat_templates/NAME.jinja`, or else the entry `chat_template` of `chat_template.json` or of
    /// `tokenizer_config.json`.
    fn in_folder(folder: &Path) -> Result<Sources> {
        let others = std::fs::read_dir(folder.join(OTHERS)).into_iter().flatten().flatten();
        let names = others.filter_map(|entry| entry.file_name().into_string().ok()).collect();
        Sources::in_files(names, |name| read(&folder.join(name)), |name| folder.join(name).display().to_string())
    }

    /// Those beside a model file; of a packed one, those that lay beside the model.
    fn beside(gguf: &Gguf) -> Result<Sources> {
        if gguf.packed().is_none() {
            return Sources::in_folder(gguf.folder());
        }
        let names = gguf.packed_names(OTHERS).map(str::to_string).collect();
        let find = |name: &str| gguf.packed_beside(name).map(|bytes| text(bytes.to_vec(), name)).transpose();
        Sources::in_files(names, find, str::to_string)
    }

    /// Those in files: `find` gives the text of one by its name, `others` are the names in [`OTHERS`], and `place` says
    /// where a file is.
    fn in_files(
        others: Vec<String>,
        find: impl Fn(&str) -> Result<Option<String>>,
        place: impl Fn(&str) -> String,
    ) -> Result<Sources> {
        let mut sources = BTreeMap::new();
        if let Some(source) = find("chat_template.jinja")? {
            sources.insert(DEFAULT.to_string(), source);
            for other in others {
                let source = find(&format!("{OTHERS}/{other}"))?;
                if let (Some(name), Some(source)) = (other.strip_suffix(".jinja"), source) {
                    sources.insert(name.to_string(), source);
                }
            }
            return Ok(Sources(sources));
        }
        for name in ["chat_template.json", "tokenizer_config.json"] {
            let Some(text) = find(name)? else { continue };
            sources = Sources::entry(&text).map_err(|error| error.at(place(name)))?;
            if !sources.is_empty() {
                break;
            }
        }
        Ok(Sources(sources))
    }

    /// The entry `chat_template` of the text of a file in JSON.
    fn entry(text: &str) -> Result<BTreeMap<String, String>> {
        let mut sources = BTreeMap::new();
        let config: Json = serde_json::from_str(text.trim_start_matches('\u{feff}'))
            .map_err(|error| Error::Template(format!("is not JSON: {error}")))?;
        match &config["chat_template"] {
            Json::String(source) => sources.extend([(DEFAULT.to_string(), source.clone())]),
            Json::Array(named) => {
                let texts = |entry: &Json| Some((entry["name"].as_str()?.into(), entry["template"].as_str()?.into()));
                sources.extend(named.iter().filter_map(texts));
            }
            Json::Null => {}
            other => {
                let wrong = format!("chat_template is {other}, expected a text, or a list of names with templates");
                return Err(Error::Template(wrong));
            }
        }
        Ok(sources)
    }

    /// The template `variant`; by default the model's main one, together with the one for tools.
    fn template(
        &self,
        variant: Option<&str>,
        model_name: Option<&str>,
        (bos, eos): (Option<&str>, Option<&str>),
    ) -> Result<Template> {
        let source = |name: &str| self.0.get(name).map(String::as_str);
        if let Some(name) = variant {
            let known = self.0.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
            let known = if known.is_empty() { "none".into() } else { known };
            let source = source(name).ok_or_else(|| {
                Error::Argument(format!("the model has no template named {name:?}; it names: {known}"))
            })?;
            return Template::detect(Some(source), None, bos, eos);
        }
        let mut template = Template::detect(source(DEFAULT), model_name, bos, eos)?;
        if source(DEFAULT).is_none() && !self.0.is_empty() {
            let named = self.0.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
            template.warning = Some(format!(
                "the model has chat templates by name ({named}) but no default one, so '{}' is used; choose one of them",
                template.name()
            ));
        }
        // A mistake in the template for tools does not keep the other one from being used.
        match source(TOOL_USE).map(|source| Template::detect(Some(source), None, bos, eos)).transpose() {
            Ok(tool_use) => template.tool_use = tool_use.map(Arc::new),
            Err(error) => template.warning = Some(format!("the template '{TOOL_USE}' cannot be used: {error}")),
        }
        Ok(template)
    }
}

/// The text of a file, which stands at `place`.
fn text(bytes: Vec<u8>, place: impl Display) -> Result<String> {
    String::from_utf8(bytes).map_err(|_| Error::Template("is not UTF-8".into()).at(place))
}

/// The text of a file; None if it does not exist.
fn read(path: &Path) -> Result<Option<String>> {
    match file::read(path) {
        Ok(bytes) => text(bytes, path.display()).map(Some),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(Error::Io { path: path.into(), source }),
    }
}
