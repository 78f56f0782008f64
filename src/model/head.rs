//! The output head: logits of the whole vocabulary, or of those tokens alone that the sampler can choose.
//!
//! Most samplers need the exact logits of few tokens. A copy of the matrix in 8 bits (`quantized_head.rs`), half the
//! bytes of f16, or its packed trits (`grouped_head.rs`) give an interval for every logit. The caller turns the
//! intervals into a threshold, and only the rows whose upper bound reaches it are computed exactly. Once there is a
//! copy, the pages of the matrix itself leave the memory; few of them are read again.

use super::finite::check_finite;
use super::grouped_head::GroupedHead;
use super::linear::Dense;
use super::pack::{Packer, mapped, mapped_groups};
use super::quantized_head::{QuantizedHead, ScreenInputs};
use super::row::{CandidateThreshold, LogitsFor};
use super::tensors::Tensors;
use crate::checkpoint::PREFIX;
use crate::error::{Error, Result};
use crate::kernel::Team;
use crate::kernel::packing::Packing;
use crate::kernel::quantized_head::HEAD_STEP;
use crate::machine::clock::Instant;
use crate::machine::counters::WorkCounters;
use crate::machine::memory::try_zeroed;
use crate::token::TokenSet;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

named! {
    /// How logits are computed.
    #[derive(Default)]
    pub enum LmHead {
        /// Exactly. A small copy of the output head finds those that the sampler can choose; only they are computed.
        #[default]
        Auto = "auto",
        /// Exactly, and always all of them; there is no copy.
        Exact = "exact",
        /// From an 8-bit copy of the output head alone: other logits, and in memory half of a head in f16.
        Int8 = "int8",
    }
}

/// The way to logits, and the copy of the output head that it needs.
pub struct Head {
    kind: LmHead,
    copy: OnceLock<Option<Copy>>,
    /// How the trits of a copy are packed, if not as suits the kernels.
    packing: Option<Packing>,
    pause: Pause,
}

/// When screens of single tokens pause: where samplers leave many ids, they cost time. The candidates are the same.
#[derive(Default)]
struct Pause {
    /// So many tokens are still not screened.
    rest: AtomicU32,
    /// How long the next pause will be.
    next: AtomicU32,
}

impl Pause {
    /// Whether the next token is one that is not screened.
    fn passes(&self) -> bool {
        self.rest.fetch_update(Relaxed, Relaxed, |rest| rest.checked_sub(1)).is_ok()
    }

    /// Notes whether a screen was of use.
    fn note(&self, was_useful: bool) {
        let pause = if was_useful { 0 } else { (2 * self.next.load(Relaxed)).clamp(1, MAX_PAUSE) };
        self.rest.store(pause, Relaxed);
        self.next.store(pause, Relaxed);
    }
}

/// A copy of the matrix: it gives bounds of the logits, or the logits themselves.
pub enum Copy {
    /// In 8 bits.
    EightBit(QuantizedHead),
    /// Of a ternary matrix with a scale for each group of columns.
    Grouped(GroupedHead),
}

/// Matrices below this size stay in the processor's cache; an 8-bit copy would not make them faster.
const MIN_BYTES: usize = 1 << 20;
/// The most columns that `quantize_row` takes, and with which its sums fit i32.
const MAX_COLS: usize = 1 << 17;
/// If more than 1/16 of the vocabulary are candidates, reading all rows in order is faster than gathering them.
const CANDIDATE_DIVISOR: usize = 16;
/// So many tokens have bounds of all their logits at once; more would take more memory and be no faster.
const MAX_BOUNDED: usize = 64;
/// So many rows are computed exactly without looking at their bounds.
const FEW: usize = 256;
/// If a screen of several tokens leaves more than 1/8 of the vocabulary, bounding all rows in order is faster than gathering
/// them; after one of a single token, 1/16.
const SCREEN_DIVISORS: [usize; 2] = [8, 16];
/// So many ids give a better threshold first, where a screen leaves more.
const BEST: usize = 1024;
/// After screens of single tokens that left too many, up to so many tokens are not screened.
const MAX_PAUSE: u32 = 64;
/// If up to 1/4 of the vocabulary are allowed and all of them count, their rows are gathered.
const ALLOWED_DIVISOR: usize = 4;

/// The names of the tensors of a packed model that are the copy of its output head.
pub const STORED_HEAD: [&str; 5] = ["head.q8", "head.steps", "head.norms", "head.errors", "head.packed"];

impl Copy {
    /// The copy that a packed model holds of this matrix, if it does.
    pub fn stored(tensors: &Tensors, matrix: &Dense) -> Result<Option<Copy>> {
        let [q, steps, norms, errors, packed] = STORED_HEAD.map(|name| format!("{PREFIX}{name}"));
        let (rows, cols) = (matrix.rows(), matrix.cols());
        let (gguf, stride) = (tensors.gguf, cols.next_multiple_of(HEAD_STEP));
        let misfit = || Error::Model("the copy of the output head does not fit it; pack the model again".into());
        if let Some(tensor) = tensors.optional(&q, stride, rows)? {
            let facts = [tensors.vector(&steps, rows)?, tensors.vector(&norms, rows)?, tensors.vector(&errors, rows)?];
            let integers = mapped(gguf, tensor, tensor.size())?;
            let copy = QuantizedHead::from_stored(cols, integers, facts).ok_or_else(misfit)?;
            return Ok(Some(Copy::EightBit(copy)));
        }
        let Some(tensor) = tensors.optional(&packed, cols, rows)? else { return Ok(None) };
        let grouped = mapped_groups(gguf, tensor)?.ok_or_else(misfit)?;
        let copy = GroupedHead::from_stored(grouped, tensors.vector(&norms, rows)?).ok_or_else(misfit)?;
        Ok(Some(Copy::Grouped(copy)))
    }
}

impl Head {
    /// The head of a model. [`LmHead::Int8`] makes its copy now, [`LmHead::Auto`] when it first needs it. The intervals
    /// of a copy are those of logits before a softcap, so that a model with one (`capped`) computes all logits. A packed
    /// model has a copy already (`stored`).
    pub fn new(
        kind: LmHead,
        capped: bool,
        team: &Team,
        matrix: &Dense,
        (stored, packing): (Option<Copy>, Option<Packing>),
    ) -> Result<Head> {
        let kind = if kind == LmHead::Auto && capped { LmHead::Exact } else { kind };
        let copy = OnceLock::new();
        match (kind, stored) {
            (LmHead::Auto, Some(stored)) | (LmHead::Int8, Some(stored @ Copy::EightBit(_))) => {
                let _ = copy.set(Some(stored));
            }
            _ => {}
        }
        if kind == LmHead::Int8 && copy.get().is_none() {
            let bytes = QuantizedHead::bytes_of(matrix.rows(), matrix.cols());
            if bytes >= matrix.bytes() || matrix.cols() > MAX_COLS {
                return Err(Error::Argument(format!(
                    "lm_head is 'int8', which takes {bytes} bytes for the output head '{}', whose type {} takes {}; \
                     open the model without lm_head",
                    matrix.name(),
                    matrix.type_name(),
                    matrix.bytes()
                )));
            }
            let made = QuantizedHead::new(team, matrix)?.ok_or_else(|| {
                Error::Model(format!("tensor '{}' holds values that are not finite; the file is broken", matrix.name()))
            })?;
            let _ = copy.set(Some(Copy::EightBit(made)));
        }
        Ok(Head { kind, copy, packing, pause: Pause::default() })
    }

    /// How it computes logits.
    pub fn kind(&self) -> LmHead {
        self.kind
    }

    /// Bytes of the copy; 0 while there is none.
    pub fn bytes(&self) -> usize {
        match self.copy.get().and_then(Option::as_ref) {
            None => 0,
            Some(Copy::EightBit(copy)) => copy.bytes(),
            Some(Copy::Grouped(copy)) => copy.bytes(),
        }
    }

    /// Bytes of the upper bits of the copy, which a single token reads in its place; 0 while there are none.
    pub fn upper_bytes(&self) -> usize {
        match self.copy.get().and_then(Option::as_ref) {
            Some(Copy::EightBit(copy)) => copy.upper_bytes(),
            _ => 0,
        }
    }

    /// Bytes of the copy that are in memory of its own, not in a mapped file.
    pub fn owned_bytes(&self) -> usize {
        match self.copy.get().and_then(Option::as_ref) {
            None => 0,
            Some(Copy::EightBit(copy)) => copy.owned_bytes(),
            Some(Copy::Grouped(copy)) => copy.owned_bytes(),
        }
    }

    /// The logits of each token of `x`, as `needs` says: `vocab_size` floats a token. Counts itself in `work`, which
    /// has an item for each token; all tokens share the time.
    pub fn logits(
        &self,
        team: &Team,
        matrix: &Dense,
        x: &[f32],
        needs: &[LogitsFor],
        work: &mut [WorkCounters],
    ) -> Result<Vec<f32>> {
        let start = Instant::now();
        let (vocab, cols) = (matrix.rows(), matrix.cols());
        let mut logits = try_zeroed(needs.len().saturating_mul(vocab))?;
        let computed = match (self.kind, self.copy.get()) {
            (LmHead::Int8, Some(Some(Copy::EightBit(copy)))) => {
                let allowed = |needs: &LogitsFor| match needs {
                    LogitsFor::Allowed(allowed, _) => Some(allowed.len()),
                    _ => None,
                };
                let wanted = union(needs.iter().map(|needs| match *needs {
                    LogitsFor::Allowed(allowed, _) => Some(allowed),
                    _ => None,
                }));
                copy.logits(team, &x.chunks(cols).collect::<Vec<_>>(), wanted.as_ref(), &mut logits);
                check_logits(matrix, &logits, |i| i % vocab)?;
                needs.iter().map(allowed).collect()
            }
            _ => self.exact_logits(team, matrix, x, needs, &mut logits)?,
        };
        let head_ns = start.elapsed().as_nanos() as u64 / needs.len().max(1) as u64;
        for (work, computed) in work.iter_mut().zip(computed) {
            *work +=
                WorkCounters { head: 1, logits: computed.unwrap_or(vocab) as u64, head_ns, ..WorkCounters::default() };
        }
        Ok(logits)
    }

    /// Computes exact logits. Returns for each token how many; `None` for all.
    fn exact_logits(
        &self,
        team: &Team,
        matrix: &Dense,
        x: &[f32],
        needs: &[LogitsFor],
        logits: &mut [f32],
    ) -> Result<Vec<Option<usize>>> {
        let (vocab, cols) = (matrix.rows(), matrix.cols());
        let mut computed = vec![None; needs.len()];
        let bounded = needs.iter().enumerate().filter_map(|(i, needs)| {
            let (threshold, allowed) = bounded(needs)?;
            Some(Bounded { token: i, threshold, allowed })
        });
        let bounded: Vec<Bounded> = bounded.collect();
        for tokens in bounded.chunks(MAX_BOUNDED) {
            let Some(copy) = self.copy(team, matrix) else { break };
            self.candidates(team, (matrix, copy), x, tokens, logits, &mut computed)?;
        }
        for (i, needs) in needs.iter().enumerate().filter(|(i, _)| computed[*i].is_none()).collect::<Vec<_>>() {
            if let LogitsFor::Allowed(allowed, _) = needs
                && allowed.len() <= vocab / ALLOWED_DIVISOR
            {
                let ids: Vec<usize> = allowed.iter().map(|id| id as usize).collect();
                gather(team, matrix, &ids, &x[i * cols..][..cols], &mut logits[i * vocab..][..vocab])?;
                computed[i] = Some(ids.len());
            }
        }
        let whole: Vec<usize> = (0..needs.len()).filter(|i| computed[*i].is_none()).collect();
        if whole.len() == needs.len() {
            matrix.matmul(team, x, logits);
            check_logits(matrix, logits, |i| i % vocab)?;
        } else if !whole.is_empty() {
            let xs: Vec<f32> = whole.iter().flat_map(|i| &x[i * cols..][..cols]).copied().collect();
            let mut all = try_zeroed(whole.len() * vocab)?;
            matrix.matmul(team, &xs, &mut all);
            check_logits(matrix, &all, |i| i % vocab)?;
            whole.iter().zip(all.chunks(vocab)).for_each(|(i, all)| logits[i * vocab..][..vocab].copy_from_slice(all));
        }
        Ok(computed)
    }

    /// Computes the tokens of which the sampler can choose few, and notes in `computed` how many logits each took. Those
    /// with many candidates stay to be computed.
    fn candidates(
        &self,
        team: &Team,
        (matrix, copy): (&Dense, &Copy),
        x: &[f32],
        tokens: &[Bounded],
        logits: &mut [f32],
        computed: &mut [Option<usize>],
    ) -> Result<()> {
        let (vocab, cols) = (matrix.rows(), matrix.cols());
        let row_of = |i: usize| &x[i * cols..][..cols];
        let mut tokens = tokens.to_vec();
        let wanted = union(tokens.iter().map(|token| token.allowed));
        let mut candidates = Candidates::new();
        let is_single = tokens.len() == 1;
        if let (Copy::EightBit(copy), None) = (copy, &wanted)
            && !(is_single && self.pause.passes())
        {
            (candidates, tokens) = screened(team, copy, row_of, tokens)?;
            if is_single {
                self.pause.note(tokens.is_empty());
            }
        }
        let xs: Vec<&[f32]> = tokens.iter().map(|token| row_of(token.token)).collect();
        let mut bounds = try_zeroed(2 * tokens.len() * vocab)?;
        match copy {
            _ if tokens.is_empty() => {}
            Copy::EightBit(copy) => copy.bounds(team, &xs, wanted.as_ref(), &mut bounds),
            Copy::Grouped(copy) => copy.bounds(team, &xs, &mut bounds)?,
        }
        let mut found: Vec<Vec<usize>> = vec![Vec::new(); tokens.len()];
        team.for_each_pair(&mut found, 1, &mut bounds, 2 * vocab, |t, found, bounds| {
            let (low, high) = bounds.split_at_mut(vocab);
            found[0] = tokens[t].reaching(low, high, 0..vocab).unwrap_or_default();
        });
        candidates.extend(tokens.iter().map(|token| token.token).zip(found));
        for (i, candidates) in candidates {
            // None if the threshold cannot rule any out, or if a packed file is damaged.
            if candidates.is_empty() || candidates.len() > vocab / CANDIDATE_DIVISOR {
                continue;
            }
            gather(team, matrix, &candidates, row_of(i), &mut logits[i * vocab..][..vocab])?;
            computed[i] = Some(candidates.len());
        }
        Ok(())
    }

    /// The copy that gives bounds; `None` if it is turned off or would not pay.
    pub fn copy(&self, team: &Team, matrix: &Dense) -> Option<&Copy> {
        let make = || {
            if self.kind != LmHead::Auto || matrix.bytes() < MIN_BYTES || matrix.cols() > MAX_COLS {
                return None;
            }
            if let Some(packed) = matrix.packed_in_groups(&Packer::new(team, self.packing)) {
                let copy = GroupedHead::new(team, matrix, packed).map(Copy::Grouped);
                matrix.release(0..matrix.rows());
                return copy;
            }
            QuantizedHead::new(team, matrix).ok().flatten().map(Copy::EightBit)
        };
        self.copy.get_or_init(make).as_ref()
    }
}

/// Tokens by their index in the pass, and the ids that the sampler can choose for each.
type Candidates = Vec<(usize, Vec<usize>)>;

/// A token whose candidates are found by bounds.
#[derive(Clone, Copy)]
struct Bounded<'a> {
    /// Its index among the tokens of the pass.
    token: usize,
    threshold: &'a CandidateThreshold<'a>,
    /// The set that its candidates are in, if not all tokens are.
    allowed: Option<&'a TokenSet>,
}

impl Bounded<'_> {
    /// Those of `ids` whose upper bound reaches the threshold; `None` if any id can be chosen. Changes the bounds.
    fn reaching(&self, low: &mut [f32], high: &mut [f32], ids: impl Iterator<Item = usize>) -> Option<Vec<usize>> {
        let least = (self.threshold)(low, high).filter(|least| !least.is_nan())?;
        let reaches = |id: &usize| high[*id] >= least && self.allowed.is_none_or(|set| set.contains(*id as u32));
        Some(ids.filter(reaches).collect())
    }
}

/// A token whose candidates are among those that a screen has left.
struct Narrowed<'a, 'b> {
    token: Bounded<'a>,
    /// The ids that are left, ascending, with their adjusted upper bounds.
    left: Vec<(usize, f32)>,
    /// Room for the lower and the upper bounds of all ids.
    bounds: &'b mut [f32],
}

impl Narrowed<'_, '_> {
    /// The ids that are left.
    fn ids(&self) -> Vec<usize> {
        self.left.iter().map(|(id, _)| *id).collect()
    }

    /// Where many ids are left, those with the largest upper bounds, ascending.
    fn best(&self) -> Vec<usize> {
        if self.left.len() <= BEST {
            return Vec::new();
        }
        let mut left = self.left.clone();
        left.select_nth_unstable_by(BEST, |a, b| b.1.total_cmp(&a.1));
        let mut ids: Vec<usize> = left[..BEST].iter().map(|(id, _)| *id).collect();
        ids.sort_unstable();
        ids
    }

    /// Bounds of all ids, lower and upper ones: these of some, and minus infinity for the others.
    fn set_bounds(&mut self, ids: &[usize], [of_low, of_high]: &[Vec<f32>; 2]) -> (&mut [f32], &mut [f32]) {
        self.bounds.fill(f32::NEG_INFINITY);
        let (low, high) = self.bounds.split_at_mut(self.bounds.len() / 2);
        for (id, (of_low, of_high)) in ids.iter().zip(of_low.iter().zip(of_high)) {
            (low[*id], high[*id]) = (*of_low, *of_high);
        }
        (low, high)
    }
}

/// Finds the candidates from the wide bounds of a screen first, and from the usual bounds of those ids that it leaves.
/// Returns them, and the tokens that have to take the usual way.
///
/// The candidates are those of the usual way, whose threshold is T. The first intervals contain the usual ones, so their
/// threshold is at most T, and so is a threshold from the usual bounds of some ids and minus infinity for the others. An
/// upper bound below either is below T, and so is the usual one of its id, which is not larger. The last threshold is T
/// itself: the lower bounds that are replaced by minus infinity are below T, which depends on the larger ones alone
/// ([`CandidateThreshold`]).
fn screened<'a, 'x>(
    team: &Team,
    copy: &QuantizedHead,
    row_of: impl Fn(usize) -> &'x [f32],
    tokens: Vec<Bounded<'a>>,
) -> Result<(Candidates, Vec<Bounded<'a>>)> {
    let xs: Vec<&[f32]> = tokens.iter().map(|token| row_of(token.token)).collect();
    let Some((inputs, served)) = copy.screen_inputs(team, &xs) else {
        return Ok((Candidates::new(), tokens));
    };
    let vocab = copy.rows();
    let (screened, usual): (Vec<_>, Vec<_>) = tokens.into_iter().zip(served).partition(|(_, served)| *served);
    let mut usual: Vec<Bounded> = usual.into_iter().map(|(token, _)| token).collect();
    let tokens: Vec<Bounded> = screened.into_iter().map(|(token, _)| token).collect();

    // Wide bounds, and what the sampler's threshold for them leaves.
    let mut bounds = try_zeroed(2 * tokens.len() * vocab)?;
    copy.screen(team, &inputs, &mut bounds);
    let mut left: Vec<Option<Vec<(usize, f32)>>> = vec![None; tokens.len()];
    team.for_each_pair(&mut left, 1, &mut bounds, 2 * vocab, |t, left, bounds| {
        let (low, high) = bounds.split_at_mut(vocab);
        let ids = tokens[t].reaching(low, high, 0..vocab);
        left[0] = ids.map(|ids| ids.into_iter().map(|id| (id, high[id])).collect());
    });
    let mut narrowed: Vec<Narrowed> = Vec::new();
    for ((token, left), bounds) in tokens.into_iter().zip(left).zip(bounds.chunks_mut(2 * vocab)) {
        match left {
            Some(left) => narrowed.push(Narrowed { token, left, bounds }),
            None => usual.push(token),
        }
    }

    // Usual bounds of the best ids give a better threshold, which rules out most of many others.
    let xs: Vec<&[f32]> = narrowed.iter().map(|of| row_of(of.token.token)).collect();
    let best: Vec<Vec<usize>> = narrowed.iter().map(Narrowed::best).collect();
    let exact = copy.bounds_of(team, &xs, &best.iter().map(|ids| &ids[..]).collect::<Vec<_>>());
    team.for_each_chunk(&mut narrowed, 1, |t, narrowed| {
        let of = &mut narrowed[0];
        if best[t].is_empty() {
            return;
        }
        let threshold = of.token.threshold;
        let (low, high) = of.set_bounds(&best[t], &exact[t]);
        if let Some(least) = threshold(low, high).filter(|least| !least.is_nan()) {
            of.left.retain(|(_, high)| *high >= least);
        }
    });

    // Usual bounds of all ids that are left, if these are few.
    let most = vocab / SCREEN_DIVISORS[usize::from(matches!(inputs, ScreenInputs::Upper(_)))];
    let (mut narrowed, many): (Vec<_>, Vec<_>) = narrowed.into_iter().partition(|of| of.left.len() <= most);
    usual.extend(many.iter().map(|of| of.token));
    let xs: Vec<&[f32]> = narrowed.iter().map(|of| row_of(of.token.token)).collect();
    let ids: Vec<Vec<usize>> = narrowed.iter().map(Narrowed::ids).collect();
    let exact = copy.bounds_of(team, &xs, &ids.iter().map(|ids| &ids[..]).collect::<Vec<_>>());
    let mut found = vec![Vec::new(); narrowed.len()];
    team.for_each_pair(&mut found, 1, &mut narrowed, 1, |t, found, narrowed| {
        let token = narrowed[0].token;
        let (low, high) = narrowed[0].set_bounds(&ids[t], &exact[t]);
        found[0] = token.reaching(low, high, ids[t].iter().copied()).unwrap_or_default();
    });
    Ok((narrowed.iter().map(|of| of.token.token).zip(found).collect(), usual))
}

/// The threshold of a row whose candidates are found by bounds, and the set that they are in. Few tokens are computed
/// without bounds.
fn bounded<'a>(needs: &LogitsFor<'a>) -> Option<(&'a CandidateThreshold<'a>, Option<&'a TokenSet>)> {
    match *needs {
        LogitsFor::Candidates(threshold) => Some((threshold, None)),
        LogitsFor::Allowed(allowed, Some(threshold)) if allowed.len() > FEW => Some((threshold, Some(allowed))),
        _ => None,
    }
}

/// The tokens that are in any of the sets; `None` if one of these is of all tokens.
fn union<'a>(mut sets: impl Iterator<Item = Option<&'a TokenSet>>) -> Option<TokenSet> {
    let mut all = sets.next()??.clone();
    sets.try_for_each(|set| set.map(|set| all.extend(set)))?;
    Some(all)
}

/// Computes the logits of these ids, ascending; the others are minus infinity.
fn gather(team: &Team, matrix: &Dense, ids: &[usize], x: &[f32], logits: &mut [f32]) -> Result<()> {
    let values = matrix.dots(team, ids, x);
    check_logits(matrix, &values, |i| ids[i])?;
    logits.fill(f32::NEG_INFINITY);
    ids.iter().zip(values).for_each(|(id, value)| logits[*id] = value);
    Ok(())
}

/// Refuses logits that are not finite; `id(i)` is the token of logit i.
fn check_logits(matrix: &Dense, logits: &[f32], id: impl Fn(usize) -> usize) -> Result<()> {
    check_finite(logits, 1, |i, value| {
        format!("tensor '{}': row {} gives the logit {value}; the file is broken", matrix.name(), id(i))
    })
}
