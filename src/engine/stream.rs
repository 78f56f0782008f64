//! An answer as text: pulled piece by piece, nothing computed ahead.

use super::Engine;
use super::stops::Stops;
use crate::decode::{Answer, Decoder, Finish, Watch};
use crate::error::Result;
use crate::sampler::SamplingParams;
use crate::tokenizer::Detokenizer;

/// A piece of an answer.
pub struct Piece {
    /// The characters that have become certain; the pieces of an answer together are its text.
    pub text: String,
    /// The id; none in the last piece if a stop id ended the answer.
    pub id: Option<u32>,
    /// If asked for: the id's log-probability, and the best ids with theirs.
    pub logprobs: Option<(f64, Vec<(u32, f64)>)>,
    /// Why the answer ends with this piece, if it does.
    pub finish: Option<Finish>,
}

/// An answer under way.
pub struct Stream {
    decoder: Option<Decoder>,
    answer: Answer,
    detokenizer: Detokenizer,
    stops: Stops,
    text: String,
}

impl Engine {
    /// Begins to answer a prompt, on the warm cache if nobody else has it. Nothing is computed yet.
    pub fn stream(&self, prompt: &[i64], params: SamplingParams) -> Result<Stream> {
        let prompt = self.runtime.check_ids(prompt, 0)?;
        let mut stop = params.stop_token_ids.clone();
        if let Ok(tokenizer) = self.tokenizer()
            && !params.ignore_eos
        {
            stop.extend(tokenizer.stop_ids());
        }
        let seed = params.seed.unwrap_or_else(random_seed);
        let stops = Stops::new(params.stop.clone());
        let mut decoder = self.take_warm();
        let answer = match Answer::begin(&mut decoder, prompt, params, seed, stop) {
            Ok(answer) => answer,
            Err(error) => {
                self.keep_warm(decoder);
                return Err(error);
            }
        };
        let detokenizer = Detokenizer::new(false, true);
        Ok(Stream { decoder: Some(decoder), answer, detokenizer, stops, text: String::new() })
    }
}

impl Stream {
    /// The next piece; nothing once the answer has ended. After an error it can be called again.
    pub fn next(&mut self, engine: &Engine, watch: &mut Watch) -> Result<Option<Piece>> {
        let Some(decoder) = self.decoder.as_mut() else { return Ok(None) };
        let Some(token) = self.answer.next(&engine.runtime, decoder, watch)? else {
            return Ok(None);
        };
        let stopped = token.finish == Some(Finish::Stop);
        let mut text = String::new();
        if let (false, Ok(tokenizer)) = (stopped, engine.tokenizer()) {
            text = self.detokenizer.push(tokenizer, token.id);
        }
        if token.finish.is_some() {
            text += &self.detokenizer.flush();
        }
        let (mut shown, ended) = self.stops.push(&text);
        if ended {
            self.answer.end(Finish::Stop);
        } else if token.finish.is_some() {
            shown += &self.stops.flush();
        }
        self.text += &shown;
        let finish = if ended { Some(Finish::Stop) } else { token.finish };
        if finish.is_some() {
            self.release(engine);
        }
        Ok(Some(Piece { text: shown, id: (!stopped).then_some(token.id), logprobs: token.logprobs, finish }))
    }

    /// Ends the answer before its time.
    pub fn cancel(&mut self, engine: &Engine) {
        self.answer.end(Finish::Cancelled);
        self.release(engine);
    }

    /// Gives the sequence back to the engine.
    fn release(&mut self, engine: &Engine) {
        if let Some(decoder) = self.decoder.take() {
            engine.keep_warm(decoder);
        }
    }

    /// The text so far.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The ids and figures of the answer so far.
    pub fn answer(&self) -> &Answer {
        &self.answer
    }
}

/// A seed that nobody chose: from the system's randomness, by way of the standard library's hash keys.
fn random_seed() -> u64 {
    use std::hash::{BuildHasher, Hasher};
    std::collections::hash_map::RandomState::new().build_hasher().finish()
}
