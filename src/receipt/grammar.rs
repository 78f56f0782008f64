//! The form of an answer in a claim.

use super::claim::Part;
use super::{Redactable, check_gate, gate_error};
use crate::error::Result;
use crate::sampler::{GrammarKind, GrammarSource};
use serde::{Deserialize, Serialize};

/// Which grammar decided what ids could be chosen.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GrammarClaim {
    /// The sampling parameter that asked for it: "json_schema", "regex", "choice" or "grammar".
    pub kind: String,
    /// The schema, expression, JSON list of texts, or grammar.
    pub text: Redactable<String>,
    /// BLAKE3 of the text as JSON, in hexadecimal.
    pub blake3: String,
    /// The text after which it began, such as the end of thoughts; none if it began with the answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
    /// What read it, with its version.
    pub engine: String,
}

impl GrammarClaim {
    /// The claim of an answer of this form.
    pub fn new(source: &GrammarSource, after: Option<&str>, engine: &str) -> GrammarClaim {
        GrammarClaim {
            kind: source.kind.name().into(),
            text: Redactable::Whole(source.text.clone()),
            blake3: source.text.blake3(),
            after: after.map(str::to_string),
            engine: engine.into(),
        }
    }

    /// The grammar. An error if this version knows no such kind, or if the text was left out.
    pub fn source(&self) -> Result<GrammarSource> {
        let kind = GrammarKind::ALL.into_iter().find(|kind| kind.name() == self.kind);
        let unknown = || {
            let known = GrammarKind::ALL.map(GrammarKind::name).join(", ");
            gate_error("claim.grammar.kind", format!("it is '{}', expected one of {known}", self.kind))
        };
        let redacted =
            || gate_error("claim.grammar.text", "the receipt is redacted, and nothing else holds its grammar");
        let text = self.text.whole().ok_or_else(redacted)?.clone();
        Ok(GrammarSource { kind: kind.ok_or_else(unknown)?, text })
    }

    /// Checks that hash and text agree.
    pub(super) fn validate(&self) -> Result<()> {
        let hash = match &self.text {
            Redactable::Whole(text) => text.blake3(),
            Redactable::Hashed { blake3, .. } => blake3.clone(),
        };
        check_gate("claim.grammar.blake3", self.blake3 == hash, || {
            format!("it is {}, but the text has {hash}", self.blake3)
        })
    }
}
