//! How a directory stores the weights of its projections, by `quantization_config`.

use super::names;
use super::settings::{Settings, shown};
use crate::error::{Error, Result};
use serde_json::json;

/// Characters of regular expressions that no name of a module has.
const REGEX: [char; 13] = ['\\', '^', '$', '*', '+', '?', '(', ')', '[', ']', '{', '}', '|'];

/// How the seven projections of a block are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stored {
    /// As floats, which are the weights.
    Floats,
    /// As floats of which transformers makes trits when it opens the model, one scale for a tensor.
    Masters,
    /// As packed trits. The weight is the trit times `weight_scale`.
    Multiplied,
    /// As packed trits. The weight is the trit divided by `weight_scale`.
    Divided,
}

/// How the weights are stored.
#[derive(Debug)]
pub(super) struct Quantization {
    pub stored: Stored,
    /// Whether the file states it. Without that, nobody knows what packed bytes mean.
    pub stated: bool,
    /// Whether floats are masters where packed bytes are expected: the file says so, although its linear class does not.
    pub online: bool,
    /// Whether the file says that a norm stands before each projection.
    pub norm_in: Option<bool>,
    /// Modules that keep floats: a name begins or ends with one of these.
    unconverted: Vec<String>,
}

impl Quantization {
    /// Reads the settings, with warnings. `is_bitnet` says whether the architecture is BitNet's, `one_bit_llm` whether
    /// the model's class is 1bitLLM's, `eps` what the norms of the model add.
    pub fn read(
        settings: &Settings,
        is_bitnet: bool,
        one_bit_llm: bool,
        eps: f64,
    ) -> Result<(Quantization, Vec<String>)> {
        let Some(own) = settings.map("quantization_config", "quantization_config.")? else {
            let stored = if is_bitnet { Stored::Masters } else { Stored::Floats };
            let warning = "config.json has no quantization_config; as this is a BitNet model, its weights are taken \
                           for floats of which trits are to be made";
            let warnings = if is_bitnet && !one_bit_llm { vec![warning.into()] } else { Vec::new() };
            return Ok((
                Quantization { stored, stated: false, online: false, norm_in: None, unconverted: Vec::new() },
                warnings,
            ));
        };
        own.expect("quant_method", &[json!("bitnet")])?;
        let class = own.str("linear_class")?.unwrap_or("bitlinear");
        let mode = own.str("quantization_mode")?.unwrap_or("offline");
        let stored = match (class, mode) {
            ("autobitlinear", "online") => Stored::Masters,
            ("autobitlinear", "offline") => Stored::Multiplied,
            // Transformers ignores the mode of this class.
            ("bitlinear", "online" | "offline") => Stored::Divided,
            ("autobitlinear" | "bitlinear", mode) => {
                return Err(own.unsupported("quantization_mode", &shown(&mode.into()), "knows 'online' and 'offline'"));
            }
            (class, _) => {
                let known = "knows 'bitlinear' and 'autobitlinear'";
                return Err(own.unsupported("linear_class", &shown(&class.into()), known));
            }
        };
        let norm_in = own.bool("use_rms_norm")?;
        if norm_in == Some(true) {
            let own_eps = own.number("rms_norm_eps")?.unwrap_or(1e-6);
            if own_eps != eps {
                let known = format!("has one constant for all norms, {eps} here");
                return Err(own.unsupported("rms_norm_eps", &own_eps.to_string(), &known));
            }
        }
        own.get("rms_norm_eps");
        let unconverted = own.strings("modules_to_not_convert")?.unwrap_or_default();
        let unconverted: Vec<String> = unconverted.into_iter().map(String::from).collect();
        // Transformers takes them for regular expressions.
        if let Some(pattern) = unconverted.iter().find(|pattern| pattern.contains(REGEX)) {
            let known = "knows beginnings and ends of names";
            return Err(own.unsupported("modules_to_not_convert", &shown(&pattern.as_str().into()), known));
        }
        own.refuse_others(true)?;
        Ok((Quantization { stored, stated: true, online: mode == "online", norm_in, unconverted }, Vec::new()))
    }

    /// How a module is stored, by its name without `.weight`.
    pub fn of_module(&self, module: &str) -> Result<Stored> {
        // As the file has it, and as the class that generates text calls it.
        let whole = format!("model.{}", names::module(module));
        let own = [module, &whole];
        for pattern in self.unconverted.iter().filter(|pattern| !pattern.is_empty()) {
            if own.iter().any(|name| name.starts_with(pattern.as_str()) || name.ends_with(pattern)) {
                return Ok(Stored::Floats);
            }
            // Older versions of transformers keep such a module, newer ones do not.
            if module.contains(pattern.as_str()) {
                return Err(Error::Unsupported(format!(
                    "config.json: modules_to_not_convert has '{pattern}', which is inside of the name '{module}'; give \
                     the beginning or the end of the names"
                )));
            }
        }
        Ok(self.stored)
    }
}
