//! How likely the model finds given tokens: log-probabilities, scores of continuations, perplexity.

use super::passes::{groups, pass_by_pass};
use super::{Engine, Watch};
use crate::decode::{Runtime, Sequence};
use crate::error::{Error, Result};
use crate::model::{LogitsFor, Row};
use crate::sampler::LogSoftmax;
use crate::token::TokenId;

/// How likely a token is after those before it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct TokenScore {
    /// Natural logarithm of its probability.
    pub logprob: f32,
    /// Whether it is the most likely token, which greedy sampling would choose.
    pub is_greedy: bool,
}

impl TokenScore {
    fn new(logits: &[f32], softmax: &LogSoftmax, id: TokenId) -> TokenScore {
        TokenScore { logprob: softmax.of(logits[id as usize]) as f32, is_greedy: softmax.best == id }
    }
}

/// How likely a continuation is.
#[derive(Clone, Debug, PartialEq)]
pub struct ContinuationScore {
    /// The score of each of its tokens.
    pub tokens: Vec<TokenScore>,
}

impl ContinuationScore {
    /// The sum of the tokens' log-probabilities, taken in float64 in the order of the tokens.
    pub fn logprob(&self) -> f32 {
        sum_logprobs(0.0, &self.tokens) as f32
    }

    /// Whether greedy sampling would give exactly these tokens.
    pub fn is_greedy(&self) -> bool {
        self.tokens.iter().all(|token| token.is_greedy)
    }
}

/// The result of [`Engine::score`].
pub struct Scores {
    /// One score per continuation.
    pub continuations: Vec<ContinuationScore>,
    /// Positions that were computed: the context once, and all tokens of each continuation but its last.
    pub computed_tokens: usize,
}

fn sum_logprobs(start: f64, scores: &[TokenScore]) -> f64 {
    scores.iter().fold(start, |sum, score| sum + score.logprob as f64)
}

impl Engine {
    /// The log-probability of every id of a sequence but the first.
    pub fn logprobs(&self, ids: &[TokenId], watch: &mut Watch) -> Result<Vec<f32>> {
        self.check_ids(ids, 0)?;
        let scores = self.score_from(ids, 1, watch)?;
        Ok(scores.iter().map(|score| score.logprob).collect())
    }

    /// How likely each continuation is after the context, which is computed once.
    pub fn score(&self, context: &[TokenId], continuations: &[Vec<TokenId>], watch: &mut Watch) -> Result<Scores> {
        self.check_ids(context, 0)?;
        let Some(position) = context.len().checked_sub(1) else {
            return Err(Error::Argument("context is empty; give at least one token id".into()));
        };
        // The last id of a continuation is never computed, so it takes no position: hence one less.
        for (i, ids) in continuations.iter().enumerate() {
            self.check_ids(ids, position).map_err(|error| error.at(format!("continuations[{i}]")))?;
        }
        let runtime = &self.runtime;
        let positions = |sequence: &Sequence| sequence.work().attention as usize / self.config().n_layers;
        let mut base = self.new_sequence();
        let logits = runtime.prefill(&mut base, context, LogitsFor::All, watch)?;
        let softmax = LogSoftmax::new(&logits);
        let shared = positions(&base);
        let mut scores = Scores { continuations: Vec::with_capacity(continuations.len()), computed_tokens: shared };
        for group in groups(runtime, continuations.iter().map(Vec::len)) {
            let group = &continuations[group];
            let mut sequences = vec![base.clone(); group.len()];
            let mut rows = Vec::new();
            for (sequence, ids) in group.iter().enumerate() {
                let before = &ids[..ids.len().saturating_sub(1)];
                rows.extend(before.iter().map(|id| Row { sequence, id: *id, logits: LogitsFor::All }));
            }
            let next: Vec<TokenId> = group.iter().flat_map(|ids| ids.iter().skip(1).copied()).collect();
            let mut later = score_next(runtime, &mut sequences, &rows, &next, watch)?.into_iter();
            scores.computed_tokens += sequences.iter().map(|sequence| positions(sequence) - shared).sum::<usize>();
            for ids in group {
                let first = ids.first().map(|id| TokenScore::new(&logits, &softmax, *id));
                let rest = later.by_ref().take(ids.len().saturating_sub(1));
                scores.continuations.push(ContinuationScore { tokens: first.into_iter().chain(rest).collect() });
            }
        }
        Ok(scores)
    }

    /// Encodes a context and its continuations so that the ids of both, joined, are those of the whole text.
    ///
    /// Spaces at the end of the context go to the continuations, because vocabularies hold words with the space before
    /// them.
    pub fn encode_continuations(
        &self,
        context: &str,
        continuations: &[String],
        watch: &mut Watch,
    ) -> Result<(Vec<TokenId>, Vec<Vec<TokenId>>)> {
        let context_ids = self.ids_of(context.trim_end().into(), watch)?;
        let rest = |(i, text): (usize, &String)| {
            let whole = self.ids_of(format!("{context}{text}").as_str().into(), watch)?;
            match whole.get(context_ids.len()..) {
                Some(rest) if !rest.is_empty() || text.is_empty() => Ok(rest.to_vec()),
                _ => Err(Error::Argument(format!(
                    "continuations[{i}]: {text:?} adds no token of its own to the context; give ids instead of texts"
                ))),
            }
        };
        let rest = continuations.iter().enumerate().map(rest).collect::<Result<_>>()?;
        Ok((context_ids, rest))
    }

    /// The perplexity of a sequence of any length: e to the power of the mean negative log-probability of its ids.
    ///
    /// Windows of `n_ctx` positions advance by `stride` (default: half of `n_ctx`). Each id counts once, in the first
    /// window that reaches it, given all ids before it in that window (the sliding window of Hugging Face's guide
    /// "Perplexity of fixed-length models").
    pub fn perplexity(&self, ids: &[TokenId], stride: Option<usize>, watch: &mut Watch) -> Result<f64> {
        let n_ctx = self.n_ctx();
        self.runtime.check_vocabulary(ids)?;
        let stride = stride.unwrap_or(n_ctx.div_ceil(2));
        if stride == 0 || stride > n_ctx {
            return Err(Error::Argument(format!("stride is {stride}, expected 1 to n_ctx, which is {n_ctx}")));
        }
        let (mut sum, mut count, mut seen) = (0f64, 0usize, 0);
        for begin in (0..ids.len()).step_by(stride) {
            let end = (begin + n_ctx).min(ids.len());
            let scores = self.score_from(&ids[begin..end], seen.max(begin + 1) - begin, watch)?;
            sum = sum_logprobs(sum, &scores);
            (count, seen) = (count + scores.len(), end);
            if end == ids.len() {
                break;
            }
        }
        match count {
            0 => {
                let found = ids.len();
                Err(Error::Argument(format!("perplexity needs at least two tokens; the text has {found}")))
            }
            _ => Ok(libm::exp(-sum / count as f64)),
        }
    }

    /// The scores of a sequence's ids from position `first` on, which is at least 1.
    fn score_from(&self, ids: &[TokenId], first: usize, watch: &mut Watch) -> Result<Vec<TokenScore>> {
        let before = &ids[..ids.len().saturating_sub(1)];
        let logits = |i: usize| if i + 1 >= first { LogitsFor::All } else { LogitsFor::None };
        let row = |(i, id): (usize, &TokenId)| Row { sequence: 0, id: *id, logits: logits(i) };
        let rows: Vec<Row> = before.iter().enumerate().map(row).collect();
        score_next(&self.runtime, &mut [self.new_sequence()], &rows, &ids[first.min(ids.len())..], watch)
    }
}

/// The scores of the ids `next`: the first follows the first of `rows` that asks for logits, and so on.
fn score_next(
    runtime: &Runtime,
    sequences: &mut [Sequence],
    rows: &[Row],
    next: &[TokenId],
    watch: &mut Watch,
) -> Result<Vec<TokenScore>> {
    let vocab = runtime.model.config().vocab_size;
    let mut scores = vec![TokenScore::default(); next.len()];
    let mut done = 0;
    pass_by_pass(runtime, sequences, rows, watch, |_, logits| {
        let count = logits.len() / vocab;
        let (scores, next) = (&mut scores[done..][..count], &next[done..]);
        done += count;
        let each = |i: usize, score: &mut [TokenScore]| {
            let logits = &logits[i * vocab..][..vocab];
            score[0] = TokenScore::new(logits, &LogSoftmax::new(logits), next[i]);
        };
        runtime.pool.run(|team| team.for_each_chunk(scores, 1, each));
    })?;
    Ok(scores)
}
