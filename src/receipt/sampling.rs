//! The sampling parameters in a claim.

use super::Redactable;
use crate::sampler::{PARAMETERS, SamplingParams};
use crate::token::TokenId;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value as Json, json};

/// How the ids of an answer were chosen: the sampling parameters in effect.
#[derive(Clone, Debug, PartialEq)]
pub struct Sampling {
    /// The parameters. `seed` is the one in effect, and `stop_token_ids` holds the model's own stop ids, too. The stop
    /// strings are not here, but in `stop`.
    params: SamplingParams,
    /// Texts that end the answer before they appear in it.
    pub stop: Redactable<Vec<String>>,
    /// Fields that this version doesn't know: a later version wrote the receipt.
    pub unknown: Vec<String>,
}

impl Sampling {
    /// The claim of an answer by these parameters with the seed in effect and all its stop ids.
    pub fn new(mut params: SamplingParams, seed: u64, stop_token_ids: Vec<TokenId>) -> Sampling {
        let stop = Redactable::Whole(std::mem::take(&mut params.stop));
        (params.seed, params.stop_token_ids) = (Some(seed), stop_token_ids);
        Sampling { params, stop, unknown: Vec::new() }
    }

    /// The limit of ids, if there is one.
    pub fn max_tokens(&self) -> Option<u64> {
        self.params.max_tokens.map(|n| n as u64)
    }

    /// All ids that end the answer, the model's own included.
    pub fn stop_token_ids(&self) -> &[TokenId] {
        &self.params.stop_token_ids
    }

    /// The parameters that choose the same ids again. Stop strings that were left out are missing.
    pub fn params(&self) -> SamplingParams {
        let stop = self.stop.whole().cloned().unwrap_or_default();
        SamplingParams { stop, ignore_eos: true, ..self.params.clone() }
    }

    /// The JSON Schema of the claim's field `sampling`.
    pub fn schema() -> Json {
        let (mut properties, mut required) = (Map::new(), Vec::new());
        for (parameter, mut schema) in SamplingParams::claim_schema() {
            match parameter.name {
                // The one in effect is always known.
                "seed" => schema["type"] = "integer".into(),
                "stop" => schema = json!({"oneOf": [schema, {"$ref": "#/$defs/redacted"}]}),
                _ => (),
            }
            schema["description"] = parameter.help().into();
            properties.insert(parameter.name.into(), schema);
            if parameter.rules.since.is_none() {
                required.push(parameter.name);
            }
        }
        json!({
            "description": "How the ids of the answer were chosen: the sampling parameters in effect.",
            "type": "object",
            "additionalProperties": false,
            "required": required,
            "properties": properties,
        })
    }
}

impl Serialize for Sampling {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut fields = self.params.to_claim();
        fields["stop"] = serde_json::to_value(&self.stop).map_err(serde::ser::Error::custom)?;
        fields.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Sampling {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Sampling, D::Error> {
        let mut fields = Map::deserialize(deserializer)?;
        let stop = fields.remove("stop").map_or(Ok(Redactable::Whole(Vec::new())), Redactable::deserialize);
        let stop = stop.map_err(|error| D::Error::custom(format!("stop: {error}")))?;
        let params = SamplingParams::from_claim(&fields).map_err(D::Error::custom)?;
        if params.seed.is_none() {
            return Err(D::Error::custom("seed: it is missing"));
        }
        let known = |name: &String| PARAMETERS.iter().any(|known| known.name == name && known.rules.claimed);
        let unknown = fields.into_iter().map(|(name, _)| name).filter(|name| !known(name)).collect();
        Ok(Sampling { params, stop, unknown })
    }
}
