//! An answer as text, pulled piece by piece. Nothing is computed before it is asked for.

use super::stop_strings::StopStrings;
use super::thoughts::ThoughtSplitter;
use super::{Engine, Finish, PromptOrigin, Request, Watch};
use crate::decode::{Generation, Sequence};
use crate::error::Result;
use crate::receipt::Receipt;
use crate::token::TokenId;
use crate::tokenizer::{Detokenizer, Tokenizer};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A piece of an answer.
pub struct Piece {
    /// Characters of the answer that are now certain. May be empty; all pieces joined are the answer's text.
    pub text: String,
    /// Characters of the thoughts before the answer.
    pub reasoning: String,
    /// The token id. None in the last piece if a stop id ended the answer.
    pub id: Option<TokenId>,
    /// If asked for: the token's log-probability, and the most likely ids with theirs.
    pub logprobs: Option<(f64, Vec<(TokenId, f64)>)>,
    /// Why the answer ends with this piece, if it does.
    pub finish: Option<Finish>,
}

/// An answer under way.
pub struct Stream {
    /// Absent once the answer has ended and the sequence has gone back to its owner.
    sequence: Option<Sequence>,
    /// Whether the sequence belongs to the engine, which keeps it warm for the next prompt.
    warm: bool,
    /// The ids and times of the answer so far.
    pub generation: Generation,
    detokenizer: Detokenizer,
    stop_strings: StopStrings,
    thoughts: ThoughtSplitter,
    /// The text so far, without thoughts.
    pub text: String,
    /// The thoughts so far.
    pub reasoning: String,
    pub(super) origin: PromptOrigin,
    pub(super) clock: Clock,
    /// When the last pull returned.
    left: Instant,
    /// The receipt, once the answer has ended. None if it ended before its first id.
    pub receipt: Option<Arc<Receipt>>,
}

/// Times of a stream that neither its generation nor its prompt measures.
#[derive(Default)]
pub(super) struct Clock {
    /// From the start of the prompt to the first id.
    pub(super) first_token: Duration,
    /// Turning ids into text, and looking for stop strings.
    pub(super) detokenize: Duration,
    /// Everything inside the engine.
    pub(super) wall: Duration,
    /// What the consumer spent between pulls.
    pub(super) consumer: Duration,
}

impl Engine {
    /// Starts to answer on the warm sequence, or on an empty one while another caller uses it. Computes nothing yet.
    pub fn stream(&self, request: Request) -> Stream {
        Stream { warm: true, ..self.begin_stream(self.take_warm(), request) }
    }

    /// Starts to answer on the caller's sequence, or on a new one. [`Stream::take_sequence`] gives it back.
    pub fn stream_on(&self, sequence: &mut Option<Sequence>, request: Request) -> Stream {
        self.begin_stream(sequence.take().unwrap_or_else(|| self.new_sequence()), request)
    }

    fn begin_stream(&self, mut sequence: Sequence, request: Request) -> Stream {
        let seed = request.params.seed.unwrap_or_else(random_seed);
        let controls = self.tokenizer().ok().into_iter().flat_map(Tokenizer::control_texts);
        let stop_strings = StopStrings::new(request.params.stop.clone(), controls);
        let thoughts = ThoughtSplitter::new(request.origin.thoughts);
        let wall = request.origin.render + request.origin.tokenize;
        let generation = Generation::begin(&mut sequence, request.prompt, request.params, seed, request.stop_ids);
        sequence.keep_states_for(generation.prompt(), &self.message_starts(generation.prompt()));
        Stream {
            sequence: Some(sequence),
            warm: false,
            generation,
            detokenizer: Detokenizer::new(false, true),
            stop_strings,
            thoughts,
            text: String::new(),
            reasoning: String::new(),
            origin: request.origin,
            clock: Clock { wall, ..Clock::default() },
            left: Instant::now(),
            receipt: None,
        }
    }
}

impl Stream {
    /// The next piece; None once the answer has ended. After an error it can be called again.
    pub fn next(&mut self, engine: &Engine, watch: &mut Watch) -> Result<Option<Piece>> {
        let start = Instant::now();
        self.clock.consumer += start - self.left;
        let piece = self.pull(engine, watch);
        self.left = Instant::now();
        self.clock.wall += self.left - start;
        if self.generation.generated().len() == 1 {
            self.clock.first_token = self.clock.wall;
        }
        if matches!(&piece, Ok(Some(piece)) if piece.finish.is_some()) {
            self.close(engine);
        }
        piece
    }

    fn pull(&mut self, engine: &Engine, watch: &mut Watch) -> Result<Option<Piece>> {
        let Some(sequence) = self.sequence.as_mut() else { return Ok(None) };
        let Some(token) = self.generation.next(&engine.runtime, sequence, watch)? else {
            return Ok(None);
        };
        let start = Instant::now();
        let stopped = token.finish == Some(Finish::Stop);
        let mut text = String::new();
        let mut control = None;
        if let (false, Ok(tokenizer)) = (stopped, engine.tokenizer()) {
            text = self.detokenizer.push(tokenizer, token.id);
            control = tokenizer.text_of(token.id).filter(|_| tokenizer.is_control(token.id));
        }
        if token.finish.is_some() {
            text += &self.detokenizer.flush();
        }
        let (mut shown, ended) = match control {
            Some(control) if text.is_empty() => self.stop_strings.push_control(control),
            _ => self.stop_strings.push(&text),
        };
        if ended {
            // Also where the same id reached max_tokens or the context's end.
            self.generation.finish = Some(Finish::Stop);
        } else if token.finish.is_some() {
            shown += &self.stop_strings.flush();
        }
        // A mark of thoughts counts, though as a control token it has no text. Stop strings do not see it: a replay,
        // which knows nothing of thoughts, must end where this answer does.
        shown += control.filter(|control| self.thoughts.reads(control)).unwrap_or_default();
        let split = self.thoughts.push(&shown, self.generation.finish.is_some());
        split.add_to(&mut self.reasoning, &mut self.text);
        self.clock.detokenize += start.elapsed();
        let (finish, id) = (self.generation.finish, (!stopped).then_some(token.id));
        Ok(Some(Piece { text: split.text, reasoning: split.reasoning, id, logprobs: token.logprobs, finish }))
    }

    /// Ends the answer now. Does nothing if it has ended.
    pub fn cancel(&mut self, engine: &Engine) {
        if self.generation.finish.is_none() {
            self.generation.finish = Some(Finish::Cancelled);
            self.clock.consumer += self.left.elapsed();
            self.close(engine);
        }
    }

    /// Writes the receipt and gives a warm sequence back to the engine.
    fn close(&mut self, engine: &Engine) {
        let Some(sequence) = &self.sequence else { return };
        if !self.generation.generated().is_empty() {
            self.receipt = Some(Arc::new(engine.receipt_of(self, sequence)));
        }
        if self.warm
            && let Some(sequence) = self.sequence.take()
        {
            engine.keep_warm(sequence);
        }
    }

    /// The sequence, for a caller who owns it; None before the answer has ended.
    pub fn take_sequence(&mut self) -> Option<Sequence> {
        self.generation.finish.and_then(|_| self.sequence.take())
    }
}

/// A random seed. The standard library's only public randomness is in the keys of its hash maps.
fn random_seed() -> u64 {
    use std::hash::{BuildHasher, Hasher};
    std::collections::hash_map::RandomState::new().build_hasher().finish()
}
