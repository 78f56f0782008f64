//! The type of token ids, which every layer shares, and sets of them.

/// The id of a token: its index in the model's vocabulary.
pub type TokenId = u32;

/// A set of token ids: a bit for each.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TokenSet {
    words: Vec<u32>,
    len: usize,
}

impl TokenSet {
    /// The empty set of ids below `n_vocab`.
    pub fn none(n_vocab: usize) -> TokenSet {
        TokenSet { words: vec![0; n_vocab.div_ceil(32)], len: 0 }
    }

    /// The set whose bits are given: bit `i % 32` of word `i / 32` says whether it holds `i`. Ids from `n_vocab` on are
    /// left out.
    pub fn from_words(words: &[u32], n_vocab: usize) -> TokenSet {
        let mut words = words.to_vec();
        words.resize(n_vocab.div_ceil(32), 0);
        if let (Some(last), used @ 1..) = (words.last_mut(), n_vocab % 32) {
            *last &= (1 << used) - 1;
        }
        let len = words.iter().map(|word| word.count_ones() as usize).sum();
        TokenSet { words, len }
    }

    /// Adds an id below the `n_vocab` that the set was made for; others have no effect.
    pub fn insert(&mut self, id: TokenId) {
        let Some(word) = self.words.get_mut(id as usize / 32) else { return };
        self.len += usize::from(*word >> (id % 32) & 1 == 0);
        *word |= 1 << (id % 32);
    }

    /// Whether the set holds the id.
    pub fn contains(&self, id: TokenId) -> bool {
        self.words.get(id as usize / 32).is_some_and(|word| word >> (id % 32) & 1 == 1)
    }

    /// How many ids it holds.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Its ids, ascending.
    pub fn iter(&self) -> impl Iterator<Item = TokenId> {
        self.words.iter().zip(0..).flat_map(|(word, i)| {
            let mut word = *word;
            std::iter::from_fn(move || {
                let bit = (word != 0).then(|| word.trailing_zeros())?;
                word &= word - 1;
                Some(32 * i + bit)
            })
        })
    }

    /// Adds all ids of another set for the same vocabulary.
    pub fn extend(&mut self, other: &TokenSet) {
        self.words.iter_mut().zip(&other.words).for_each(|(word, other)| *word |= other);
        self.len = self.words.iter().map(|word| word.count_ones() as usize).sum();
    }

    /// Makes the logits of all ids that it does not hold minus infinity.
    pub fn mask(&self, logits: &mut [f32]) {
        for (logits, i) in logits.chunks_mut(32).zip(0..) {
            let word = self.words.get(i).copied().unwrap_or(0);
            if word != u32::MAX {
                let forbidden = |bit: usize| word >> bit & 1 == 0;
                logits
                    .iter_mut()
                    .enumerate()
                    .filter(|(bit, _)| forbidden(*bit))
                    .for_each(|(_, x)| *x = f32::NEG_INFINITY);
            }
        }
    }
}
