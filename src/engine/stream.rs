//! An answer as text: pulled piece by piece, nothing computed ahead.

use super::stop_strings::Stops;
use super::{Engine, PromptOrigin, Request};
use crate::decode::{Finish, Generation, Sequence, Watch};
use crate::error::Result;
use crate::receipt::Receipt;
use crate::tokenizer::Detokenizer;
use std::sync::Arc;
use std::time::{Duration, Instant};

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
    /// Until the answer has ended and the sequence has gone back to its owner.
    sequence: Option<Sequence>,
    /// Whether its owner is the engine, which keeps it warm for the next prompt.
    warm: bool,
    /// The ids and figures of the answer so far.
    pub answer: Generation,
    detokenizer: Detokenizer,
    stops: Stops,
    /// The text so far.
    pub text: String,
    pub(super) origin: PromptOrigin,
    pub(super) clock: Clock,
    /// When its consumer got hold of it last.
    left: Instant,
    /// The receipt, once the answer has ended; none if it ended before its first id.
    pub receipt: Option<Arc<Receipt>>,
}

/// Time beside what the answer counts and its prompt took.
#[derive(Default)]
pub(super) struct Clock {
    pub(super) first_token: Duration,
    pub(super) detokenize: Duration,
    pub(super) wall: Duration,
    /// Between pulls.
    pub(super) consumer: Duration,
}

impl Engine {
    /// Begins to answer on the warm sequence, if nobody else has it. Nothing is computed yet.
    pub fn stream(&self, request: Request) -> Stream {
        Stream { warm: true, ..self.begin(self.take_warm(), request) }
    }

    /// Begins to answer on a sequence of the caller's, who takes it back by [`Stream::take_decoder`].
    pub fn stream_on(&self, sequence: &mut Option<Sequence>, request: Request) -> Stream {
        self.begin(sequence.take().unwrap_or_else(|| self.new_sequence()), request)
    }

    fn begin(&self, mut sequence: Sequence, request: Request) -> Stream {
        let seed = request.params.seed.unwrap_or_else(random_seed);
        let stops = Stops::new(request.params.stop.clone());
        let wall = request.origin.render + request.origin.tokenize;
        let answer = Generation::begin(&mut sequence, request.prompt, request.params, seed, request.stop_ids);
        Stream {
            sequence: Some(sequence),
            warm: false,
            answer,
            detokenizer: Detokenizer::new(false, true),
            stops,
            text: String::new(),
            origin: request.origin,
            clock: Clock { wall, ..Clock::default() },
            left: Instant::now(),
            receipt: None,
        }
    }
}

impl Stream {
    /// The next piece; nothing once the answer has ended. After an error it can be called again.
    pub fn next(&mut self, engine: &Engine, watch: &mut Watch) -> Result<Option<Piece>> {
        let start = Instant::now();
        self.clock.consumer += start - self.left;
        let piece = self.pull(engine, watch);
        self.left = Instant::now();
        self.clock.wall += self.left - start;
        if self.answer.generated().len() == 1 {
            self.clock.first_token = self.clock.wall;
        }
        if matches!(&piece, Ok(Some(piece)) if piece.finish.is_some()) {
            self.close(engine);
        }
        piece
    }

    fn pull(&mut self, engine: &Engine, watch: &mut Watch) -> Result<Option<Piece>> {
        let Some(sequence) = self.sequence.as_mut() else { return Ok(None) };
        let Some(token) = self.answer.next(&engine.runtime, sequence, watch)? else {
            return Ok(None);
        };
        let start = Instant::now();
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
            self.answer.finish = Some(Finish::Stop); // whatever else the last id did
        } else if token.finish.is_some() {
            shown += &self.stops.flush();
        }
        self.text += &shown;
        self.clock.detokenize += start.elapsed();
        let finish = self.answer.finish;
        Ok(Some(Piece { text: shown, id: (!stopped).then_some(token.id), logprobs: token.logprobs, finish }))
    }

    /// Ends the answer before its time; nothing if it has ended.
    pub fn cancel(&mut self, engine: &Engine) {
        if self.answer.finish.is_none() {
            self.answer.finish = Some(Finish::Cancelled);
            self.clock.consumer += self.left.elapsed();
            self.close(engine);
        }
    }

    /// Writes the receipt and gives the sequence back.
    fn close(&mut self, engine: &Engine) {
        let Some(sequence) = &self.sequence else { return };
        if !self.answer.generated().is_empty() {
            self.receipt = Some(Arc::new(engine.receipt_of(self, sequence)));
        }
        if self.warm
            && let Some(sequence) = self.sequence.take()
        {
            engine.keep_warm(sequence);
        }
    }

    /// The sequence, for a caller who owns it; once the answer has ended.
    pub fn take_decoder(&mut self) -> Option<Sequence> {
        self.answer.finish.and_then(|_| self.sequence.take())
    }
}

/// A seed that nobody chose: from the system's randomness, by way of the standard library's hash keys.
fn random_seed() -> u64 {
    use std::hash::{BuildHasher, Hasher};
    std::collections::hash_map::RandomState::new().build_hasher().finish()
}
