//! Speculation by prompt look-up (A. Saxena, "Prompt Lookup Decoding", 2023): what followed the last ids when they stood
//! in the text before is guessed to follow again. One pass computes the guesses; the sampler then chooses each id as
//! always, and the guesses up to the first wrong one have saved a pass each. So ids are those of plain decoding.

use crate::token::TokenId;

/// The most ids that are guessed for one step.
const MAX_GUESSES: usize = 8;
/// A place counts from so many matching ids on.
const LEAST_MATCH: usize = 2;
/// More matching ids do not make a place better.
const MOST_MATCH: usize = 32;
/// The chance that a guess is right, as long as nothing is known.
const FIRST_CHANCE: f64 = 0.8;
/// The weight of a new guess in the average.
const NEW: f64 = 0.15;
/// What guesses may have cost, in times of a plain step: so much at once, and so much more for each step.
const ALLOWANCE: (f64, f64) = (1.0, 0.015);

/// Decides how many ids are guessed, so that wrong guesses cost little in all.
pub(super) struct Lookup {
    /// The chance that a guess is right if those before it are.
    chance: f64,
    /// What guesses have saved, less what they have cost, in times of a plain step.
    balance: f64,
    steps: u64,
    /// What the guesses of the step under way cost.
    cost: f64,
    /// Ids that were guessed and computed.
    pub proposed: u64,
    /// Ids that came without a step of their own.
    pub accepted: u64,
}

impl Default for Lookup {
    fn default() -> Lookup {
        Lookup { chance: FIRST_CHANCE, balance: 0.0, steps: 0, cost: 0.0, proposed: 0, accepted: 0 }
    }
}

impl Lookup {
    /// Guesses what follows `ids`, at most `most` ids. `row` is the cost of another row in times of a plain step.
    pub fn guess(&mut self, ids: &[TokenId], most: usize, row: f64) -> Vec<TokenId> {
        self.cost = 0.0;
        self.steps += 1;
        let allowed = self.balance + ALLOWANCE.0 + ALLOWANCE.1 * self.steps as f64;
        // Guess i is right with the i-th power of the chance, and is worth a step.
        let worth = |i: usize| self.chance.powi(i as i32) > row && i as f64 * row <= allowed;
        let n = (1..=most.min(MAX_GUESSES)).take_while(|i| worth(*i)).count();
        let guesses = if n == 0 { Vec::new() } else { after_last_match(ids, n) };
        self.proposed += guesses.len() as u64;
        self.cost = guesses.len() as f64 * row;
        guesses
    }

    /// Learns how many of the guesses of the last step were right.
    pub fn learn(&mut self, guesses: usize, right: usize) {
        self.balance += right as f64 - self.cost;
        for i in 0..guesses.min(right + 1) {
            self.chance += NEW * (f64::from(u8::from(i < right)) - self.chance);
        }
        if guesses == 0 {
            // In a while guesses are worth another try.
            self.chance += 0.01 * (FIRST_CHANCE - self.chance);
        }
    }
}

/// The `n` ids behind the earlier place of the last ids: that with the longest match, or else the latest. Where these
/// reach the end of the text, they go on with themselves.
fn after_last_match(ids: &[TokenId], n: usize) -> Vec<TokenId> {
    let Some((last, before)) = ids.split_last() else { return Vec::new() };
    let matching = |at: usize| {
        // Position `at` holds the last id; how many ids before it match, too?
        let pairs = ids[..at].iter().rev().zip(before.iter().rev());
        1 + pairs.take(MOST_MATCH - 1).take_while(|(a, b)| a == b).count()
    };
    let places = (0..before.len()).filter(|at| before[*at] == *last);
    match places.map(|at| (matching(at), at)).max().filter(|(len, _)| *len >= LEAST_MATCH) {
        Some((_, at)) => ids[at + 1..].iter().cycle().take(n).copied().collect(),
        None => Vec::new(),
    }
}

#[cfg(test)]
#[path = "../../tests/unit/lookup.rs"]
mod tests;
