//! What the model computes on its way to the logits of a sequence.

use super::{Engine, Watch};
use crate::error::{Error, Result};
use crate::model::Trace;
use crate::token::TokenId;

impl Engine {
    /// Runs a sequence from its beginning and records the values inside these `layers`. The logits are those of
    /// [`Engine::logits`].
    pub fn trace(&self, ids: &[TokenId], layers: &[usize], watch: &mut Watch) -> Result<Trace> {
        self.check_ids(ids, 0)?;
        if ids.is_empty() {
            return Err(Error::Argument("the prompt is empty; a trace needs at least one token".into()));
        }
        let int8 = self.runtime.model.reads_int8();
        let own_inputs = self.runtime.model.norms_inputs();
        let mut trace = Trace::new(self.config(), int8, own_inputs, layers, ids.len())?;
        trace.logits = self.runtime.traced(self.new_sequence(), ids, &mut trace, watch)?;
        Ok(trace)
    }
}
